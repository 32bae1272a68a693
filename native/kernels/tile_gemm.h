// Products of small blocks that lie in the cache, one thread: oneDNN's micro-kernels (AMX or AVX-512), as
// ATen exposes them. Kept apart from native/kernels/cpu, which must not include ATen's larger headers.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace troupe::kernels {

// Whether the machine has them for bf16 too: AMX, or AVX-512 with bf16 products.
bool has_tile_gemm();

// Whether products of bf16 pairs are summed in fp32 by the processor (AVX512_BF16, or AMX on top of it).
bool has_bf16_products();

// C [m, n] (+)= A [m, k] · B [k, n], row-major with the given leading dimensions. bfloat16: k even, n at most
// 64 and a multiple of 16, ldb = n, and B holds pairs of rows interleaved: element (i, j) at [i / 2][j][i %
// 2].
void tile_gemm(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, bool add,
               const float* a, const float* b, float* c);
void tile_gemm(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, bool add,
               const c10::BFloat16* a, const c10::BFloat16* b, float* c);

// Gives the thread's matrix registers back; call it on the thread that multiplied, at the end of its work.
void tile_gemm_release();

}  // namespace troupe::kernels
