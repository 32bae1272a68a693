// Products of blocks that lie in the cache, by vectors alone: in float64, and in float32 where oneDNN's micro-kernels
// are missing (without AVX-512).
#pragma once

#include <ATen/cpu/vec/vec.h>

#include <cstdint>
#include <type_traits>

namespace troupe::kernels::cpu::CPU_CAPABILITY {

// c [kRows, kVectors vectors] (+)= a [kRows, k] · b [k, n]. The sums stay in registers, and each runs over k in order:
// six rows of two vectors are twelve of AVX2's sixteen, and two loads of b and six of a feed twelve products.
template <int kRows, int kVectors, typename A>
void register_gemm(int64_t n, int64_t k, int64_t lda, int64_t ldc, bool add, const A* a, const A* b, A* c) {
  using Vector = at::vec::Vectorized<A>;
  constexpr int64_t kWidth = Vector::size();
  Vector sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = add ? Vector::loadu(c + r * ldc + v * kWidth) : Vector(A(0));
  }
  for (int64_t l = 0; l < k; ++l) {
    Vector right[kVectors];
    for (int v = 0; v < kVectors; ++v) right[v] = Vector::loadu(b + l * n + v * kWidth);
    for (int r = 0; r < kRows; ++r) {
      const Vector left(a[r * lda + l]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = at::vec::fmadd(left, right[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sums[r][v].store(c + r * ldc + v * kWidth);
  }
}

// The columns of kVectors vectors, all rows: in groups of up to six that differ by one row at most, since a group of one
// or two waits for its sums. before(group, groups) is called before each.
template <int kVectors, typename A, typename Before>
void strip_gemm(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldc, bool add, const A* a, const A* b,
                A* c, const Before& before) {
  const int64_t all = (m + 5) / 6;
  const auto rows = [&](auto count, int64_t i) {
    register_gemm<count(), kVectors>(n, k, lda, ldc, add, a + i * lda, b, c + i * ldc);
    return count();
  };
  for (int64_t i = 0, groups = all; i < m; --groups) {
    before(all - groups, all);
    switch ((m - i + groups - 1) / groups) {
      case 6:
        i += rows(std::integral_constant<int, 6>(), i);
        break;
      case 5:
        i += rows(std::integral_constant<int, 5>(), i);
        break;
      case 4:
        i += rows(std::integral_constant<int, 4>(), i);
        break;
      case 3:
        i += rows(std::integral_constant<int, 3>(), i);
        break;
      case 2:
        i += rows(std::integral_constant<int, 2>(), i);
        break;
      default:
        i += rows(std::integral_constant<int, 1>(), i);
    }
  }
}

// c [m, n] (+)= a [m, k] · b [k, n], row-major, b without gaps; n a multiple of 16.
template <typename A>
void vector_gemm(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldc, bool add, const A* a, const A* b,
                 A* c) {
  constexpr int64_t kWidth = at::vec::Vectorized<A>::size();
  const auto nothing = [](int64_t, int64_t) {};
  int64_t j = 0;
  for (; j + 2 * kWidth <= n; j += 2 * kWidth)
    strip_gemm<2>(m, n, k, lda, ldc, add, a, b + j, c + j, nothing);
  if (j < n) strip_gemm<1>(m, n, k, lda, ldc, add, a, b + j, c + j, nothing);
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
