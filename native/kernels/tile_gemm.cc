#include "kernels/tile_gemm.h"

#include <ATen/native/CPUBlas.h>

#include <exception>
#include <vector>

namespace troupe::kernels {

namespace {

bool processor_has_bf16_products() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

// Whether oneDNN multiplies pairs without matrix registers. ATen has no question for that, and where oneDNN may not
// (ONEDNN_MAX_CPU_ISA) it reads B as if it were not in pairs: whole numbers, whose product is exact, tell.
bool multiplies_pairs() {
  constexpr int64_t kSize = 32;
  std::vector<c10::BFloat16> a(kSize * kSize), b(kSize * kSize);
  std::vector<float> sums(kSize * kSize);
  const auto left = [](int64_t i, int64_t k) { return static_cast<float>((i + 3 * k) % 7); };
  const auto right = [](int64_t k, int64_t j) { return static_cast<float>((5 * k + j) % 11); };
  for (int64_t i = 0; i < kSize; ++i) {
    for (int64_t j = 0; j < kSize; ++j) {
      a[i * kSize + j] = left(i, j);
      b[i / 2 * 2 * kSize + 2 * j + i % 2] = right(i, j);
    }
  }
  try {
    tile_gemm(kSize, kSize, kSize, kSize, kSize, kSize, false, a.data(), b.data(), sums.data());
    tile_gemm_release();
  } catch (const std::exception&) {
    return false;
  }
  for (int64_t i = 0; i < kSize; ++i) {
    for (int64_t j = 0; j < kSize; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < kSize; ++k) sum += left(i, k) * right(k, j);
      if (sums[i * kSize + j] != sum) return false;
    }
  }
  return true;
}

}  // namespace

bool has_tile_gemm() {
  static const bool has =
      at::native::cpublas::could_pack(at::kBFloat16) || (processor_has_bf16_products() && multiplies_pairs());
  return has;
}

bool has_bf16_products() { return has_tile_gemm() && processor_has_bf16_products(); }

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
