#include "kernels/tile_gemm.h"

#include <ATen/native/CPUBlas.h>

namespace troupe::kernels {

bool has_tile_gemm() { return at::native::cpublas::could_pack(at::kBFloat16); }

bool has_bf16_products() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return has_tile_gemm() && __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

void tile_gemm(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, bool add,
               const float* a, const float* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add, a, b, c);
}

void tile_gemm(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, bool add,
               const c10::BFloat16* a, const c10::BFloat16* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add, a, b, c);
}

void tile_gemm_release() { at::native::cpublas::brgemm_release(); }

}  // namespace troupe::kernels
