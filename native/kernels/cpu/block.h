// Blocks of matrices in the cache: packing and products. Block sizes are multiples of 16 (of 32 along a
// contracted dimension), filled up with zeros, so that no product has a remainder.
//
// B is the type in which blocks are stored: bfloat16 (oneDNN's micro-kernels only), float or double. The
// right-hand operand of a product is kept as the micro-kernels want it, panel after panel of 64 columns, each
//   bfloat16  [k / 2][columns][2], pairs of rows interleaved
//   others    [k][columns]
#pragma once

#include <c10/util/BFloat16.h>

#include <atomic>

#include "kernels/cpu/vector.h"
#include "kernels/cpu/vector_gemm.h"
#include "kernels/scratch.h"
#include "kernels/tile_gemm.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

constexpr int64_t kPanel = 64;  // columns

inline int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// out [rows, columns] = x, widened or narrowed, then zeros up to [padded_rows, padded_columns]: a left
// operand.
template <typename T, typename B>
void copy_block(const T* x, int64_t stride, int64_t rows, int64_t columns, int64_t padded_rows,
                int64_t padded_columns, B* out) {
  for (int64_t i = 0; i < padded_rows; ++i) {
    B* row = out + i * padded_columns;
    const int64_t filled = i < rows ? columns : 0;
    for (int64_t j = 0; j < filled; ++j) row[j] = static_cast<B>(x[i * stride + j]);
    for (int64_t j = filled; j < padded_columns; ++j) row[j] = B(0);
  }
}

// out [columns, rows] = xᵀ; rows and columns are multiples of 32.
template <typename B>
void transpose(const B* x, int64_t rows, int64_t columns, int64_t x_stride, B* out, int64_t out_stride) {
#ifdef CPU_CAPABILITY_AVX512
  if constexpr (!std::is_same_v<B, double>) {
    constexpr int kSide = std::is_same_v<B, float> ? 16 : 32;
    for (int64_t i = 0; i < rows; i += kSide) {
      for (int64_t j = 0; j < columns; j += kSide) {
        at::vec::transpose_mxn<B>(x + i * x_stride + j, x_stride, out + j * out_stride + i, out_stride, kSide,
                                  kSide);
      }
    }
    return;
  }
#endif
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) out[j * out_stride + i] = x[i * x_stride + j];
  }
}

// Right operand with k = columns, n = rows (at most 64) from a row-major block [rows, columns] without
// padding.
template <typename B>
void pack_transposed(const B* x, int64_t rows, int64_t columns, B* out) {
  if constexpr (std::is_same_v<B, c10::BFloat16>) {
    // Pairs of columns are 32-bit words; moving them as floats leaves every bit as it is.
    const int64_t words = columns / 2;
    transpose(reinterpret_cast<const float*>(x), rows, words, words, reinterpret_cast<float*>(out), rows);
  } else {
    transpose(x, rows, columns, columns, out, rows);
  }
}

// Right operand with k = rows, n = columns from a row-major block [rows, columns] without padding.
inline void pack_rows(const c10::BFloat16* x, int64_t rows, int64_t columns, c10::BFloat16* out) {
  const auto* bits = reinterpret_cast<const uint16_t*>(x);
  auto* words = reinterpret_cast<uint32_t*>(out);
  for (int64_t first = 0; first < columns; first += kPanel) {
    const int64_t width = std::min(kPanel, columns - first);
    for (int64_t i = 0; i < rows; i += 2) {
      const uint16_t *even = bits + i * columns + first, *odd = even + columns;
      for (int64_t j = 0; j < width; ++j) {
        words[j] = static_cast<uint32_t>(even[j]) | static_cast<uint32_t>(odd[j]) << 16;
      }
      words += width;
    }
  }
}
template <typename B>
void pack_rows(const B* x, int64_t rows, int64_t columns, B* out) {
  for (int64_t first = 0; first < columns; first += kPanel) {
    const int64_t width = std::min(kPanel, columns - first);
    for (int64_t i = 0; i < rows; ++i) out = std::copy_n(x + i * columns + first, width, out);
  }
}

// Rows i and i + 1 (i even) of a right operand of `columns` columns (one panel), whose row i begins at `out`:
// the vectors' worth of columns from `column` on.
template <typename B, typename A>
void store_pair(B* out, int64_t columns, int64_t column, const Lanes<A>& even, const Lanes<A>& odd) {
  if constexpr (std::is_same_v<B, c10::BFloat16>) {
    using Words = at::vec::Vectorized<int32_t>;
    // Round to nearest, ties to even; the weights are finite.
    const auto rounded = [](const at::vec::Vectorized<float>& x) {
      const Words bits = at::vec::cast<int32_t>(x);
      return bits + Words(0x7fff) + ((bits >> Words(16)) & Words(1));
    };
    const auto pair = [&](const at::vec::Vectorized<float>& a, const at::vec::Vectorized<float>& b) {
      return ((rounded(a) >> Words(16)) & Words(0xffff)) |
             (rounded(b) & Words(static_cast<int32_t>(0xffff0000)));
    };
    auto* words = reinterpret_cast<int32_t*>(out) + column;
    pair(even.low, odd.low).store(words);
    pair(even.high, odd.high).store(words + Words::size());
  } else {
    store(out + column, even, Lanes<A>::kSize);
    store(out + columns + column, odd, Lanes<A>::kSize);
  }
}

inline void multiply_panel(int64_t m, int64_t n, int64_t k, const c10::BFloat16* a, int64_t lda,
                           const c10::BFloat16* b, float* c, int64_t ldc, bool add) {
  tile_gemm(m, n, k, lda, n, ldc, add, a, b, c);
}
inline void multiply_panel(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                           float* c, int64_t ldc, bool add) {
  static const bool tiles = has_tile_gemm();
  tiles ? tile_gemm(m, n, k, lda, n, ldc, add, a, b, c) : vector_gemm(m, n, k, lda, ldc, add, a, b, c);
}
inline void multiply_panel(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b,
                           double* c, int64_t ldc, bool add) {
  vector_gemm(m, n, k, lda, ldc, add, a, b, c);
}

// c [m, n] (+)= a [m, k] · b, b packed as above.
template <typename B, typename A>
void multiply(int64_t m, int64_t n, int64_t k, const B* a, int64_t lda, const B* b, A* c, int64_t ldc,
              bool add) {
  for (int64_t j = 0; j < n; j += kPanel) {
    multiply_panel(m, std::min(kPanel, n - j), k, a, lda, b + j * k, c + j, ldc, add);
  }
}

// Calls f with values of the element type and of the type of its blocks.
template <typename F>
void with_block_type(c10::ScalarType dtype, const F& f) {
  if (dtype == c10::ScalarType::Double) {
    f(double{}, double{});
  } else if (dtype == c10::ScalarType::Float) {
    f(float{}, float{});
  } else if (has_tile_gemm()) {
    f(at::BFloat16{}, at::BFloat16{});
  } else {
    f(at::BFloat16{}, float{});
  }
}

// Runs f(task, workspace) for every task below `count`, each on the next free thread; a workspace per thread,
// made by `make`. Which thread runs a task must not change its result.
template <typename Make, typename F>
void for_tasks(int64_t count, const Make& make, const F& f) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(count, at::get_num_threads());
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    auto workspace = make();
    for (int64_t task = next++; task < count; task = next++) f(task, workspace);
    if (has_tile_gemm()) tile_gemm_release();
  });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
