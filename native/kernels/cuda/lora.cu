// Adapters' part of a product for all segments of a batch: first scale · x Aᵀ into `projected`, then that
// times Bᵀ onto y. A row's sums do not depend on the other rows.
#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kRows = 16, kWarps = 4, kThreads = kWarps * 32;
constexpr int kShrinkWarps = 16, kRanks = 16;  // each warp of a block takes a sixteenth of the inputs
constexpr int kExpandColumns = 64;             // of a warp

// Two neighbours of a row of `size`; zeros behind its end.
__device__ __forceinline__ uint32_t pair_at(const Bf16* row, int64_t i, int64_t size) {
  if (i + 1 < size) return *reinterpret_cast<const uint32_t*>(row + i);
  return i < size ? row[i].bits : 0u;
}

// grid (row tiles, terms, rank tiles): 16 rows by 16 ranks.
__global__ void __launch_bounds__(kShrinkWarps * 32, 1) shrink_kernel(Lora lora) {
  const AdapterTerm& term = lora.terms[blockIdx.y];
  const int64_t row_begin = term.row_begin + static_cast<int64_t>(blockIdx.x) * kRows;
  const int rank_begin = static_cast<int>(blockIdx.z) * kRanks;
  if (row_begin >= term.row_end || rank_begin >= term.rank) return;
  __shared__ float parts[kShrinkWarps][kRows][kRanks + 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t low = min(row_begin + lane / 4, term.row_end - 1),
                high = min(row_begin + lane / 4 + 8, term.row_end - 1);
  const Bf16* const x_low = static_cast<const Bf16*>(lora.x) + low * lora.in;
  const Bf16* const x_high = static_cast<const Bf16*>(lora.x) + high * lora.in;
  const Bf16* a[2];
#pragma unroll
  for (int n = 0; n < 2; ++n)
    a[n] = static_cast<const Bf16*>(term.a) + min(rank_begin + n * 8 + lane / 4, term.rank - 1) * lora.in;
  float sums[2][4] = {};
#pragma unroll 4
  for (int64_t k = warp * 16; k < lora.in; k += kShrinkWarps * 16) {
    const int64_t at = k + lane % 4 * 2;
    const uint32_t left[4] = {pair_at(x_low, at, lora.in), pair_at(x_high, at, lora.in),
                              pair_at(x_low, at + 8, lora.in), pair_at(x_high, at + 8, lora.in)};
#pragma unroll
    for (int n = 0; n < 2; ++n)
      multiply_add(sums[n], left, pair_at(a[n], at, lora.in), pair_at(a[n], at + 8, lora.in));
  }
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) parts[warp][lane / 4 + i / 2 * 8][n * 8 + lane % 4 * 2 + i % 2] = sums[n][i];
  }
  __syncthreads();
  if (threadIdx.x >= kRows * kRanks) return;
  const int row = threadIdx.x / kRanks, rank = threadIdx.x % kRanks;
  if (row_begin + row >= term.row_end || rank_begin + rank >= term.rank) return;
  float sum = 0;
  for (int w = 0; w < kShrinkWarps; ++w) sum += parts[w][row][rank];
  static_cast<float*>(
      lora.projected)[(row_begin + row) * lora.projected_width + term.projected + rank_begin + rank] =
      sum * static_cast<float>(term.scale);
}

// grid (column tiles, terms, row tiles): 16 rows by 64 columns a warp. What was projected is rounded to bf16,
// as it is in training.
__global__ void __launch_bounds__(kThreads, 1) tensor_expand_kernel(Lora lora) {
  const AdapterTerm& term = lora.terms[blockIdx.y];
  const int64_t row_begin = term.row_begin + static_cast<int64_t>(blockIdx.z) * kRows;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int column_begin = (static_cast<int>(blockIdx.x) * kWarps + warp) * kExpandColumns;
  if (row_begin >= term.row_end || column_begin >= term.columns) return;
  const int64_t rows[2] = {row_begin + lane / 4, row_begin + lane / 4 + 8};
  const auto projected = [&](int64_t row, int rank) -> uint32_t {
    if (row >= term.row_end) return 0;
    const float* const from =
        static_cast<const float*>(lora.projected) + row * lora.projected_width + term.projected + rank;
    return narrow_pair(rank < term.rank ? from[0] : 0.f, rank + 1 < term.rank ? from[1] : 0.f);
  };
  float sums[kExpandColumns / 8][4] = {};
  for (int k = 0; k < term.rank; k += 16) {
    const int at = k + lane % 4 * 2;
    const uint32_t left[4] = {projected(rows[0], at), projected(rows[1], at), projected(rows[0], at + 8),
                              projected(rows[1], at + 8)};
#pragma unroll
    for (int n = 0; n < kExpandColumns / 8; ++n) {
      const int column = min(column_begin + n * 8 + lane / 4, term.columns - 1);
      const Bf16* const b = static_cast<const Bf16*>(term.b) + static_cast<int64_t>(column) * term.rank;
      multiply_add(sums[n], left, pair_at(b, at, term.rank), pair_at(b, at + 8, term.rank));
    }
  }
#pragma unroll
  for (int n = 0; n < kExpandColumns / 8; ++n) {
    const int column = column_begin + n * 8 + lane % 4 * 2;
    if (column >= term.columns) continue;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (rows[r] >= term.row_end) continue;
      Bf16* const to = static_cast<Bf16*>(lora.y) + rows[r] * lora.out + term.column + column;
      uint32_t& pair = *reinterpret_cast<uint32_t*>(to);
      pair = narrow_pair(float_of(pair << 16) + sums[n][2 * r],
                         float_of(pair & 0xffff0000u) + sums[n][2 * r + 1]);
    }
  }
}

// The same for any type: a warp for each (row, rank).
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) plain_shrink_kernel(Lora lora) {
  using A = Accumulate<T>;
  const AdapterTerm& term = lora.terms[blockIdx.y];
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int64_t row = term.row_begin + unit / term.rank, rank = unit % term.rank;
  if (row >= term.row_end) return;
  const T* const x = static_cast<const T*>(lora.x) + row * lora.in;
  const T* const a = static_cast<const T*>(term.a) + rank * lora.in;
  A sum = 0;
  for (int64_t i = threadIdx.x % 32; i < lora.in; i += 32) sum += widen(x[i]) * widen(a[i]);
  sum = lane_sum(sum);
  if (threadIdx.x % 32 == 0)
    static_cast<A*>(lora.projected)[row * lora.projected_width + term.projected + rank] =
        sum * static_cast<A>(term.scale);
}

// grid (column tiles, terms, row tiles): a thread has one column of y for 16 rows.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) expand_kernel(Lora lora) {
  using A = Accumulate<T>;
  constexpr int kStep = 16;  // ranks at a time
  const AdapterTerm& term = lora.terms[blockIdx.y];
  const int64_t row_begin = term.row_begin + static_cast<int64_t>(blockIdx.z) * kRows;
  const int column = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (row_begin >= term.row_end || static_cast<int>(blockIdx.x) * kThreads >= term.columns) return;
  __shared__ A projected[kRows][kStep];
  A sums[kRows] = {};
  for (int begin = 0; begin < term.rank; begin += kStep) {
    __syncthreads();
    for (int i = threadIdx.x; i < kRows * kStep; i += kThreads) {
      const int row = i / kStep, rank = begin + i % kStep;
      const bool inside = row_begin + row < term.row_end && rank < term.rank;
      projected[row][i % kStep] =
          inside ? static_cast<const A*>(
                       lora.projected)[(row_begin + row) * lora.projected_width + term.projected + rank]
                 : A(0);
    }
    __syncthreads();
    if (column >= term.columns) continue;
    const T* const b = static_cast<const T*>(term.b) + static_cast<int64_t>(column) * term.rank + begin;
#pragma unroll
    for (int j = 0; j < kStep; ++j) {
      const A weight = begin + j < term.rank ? widen(b[j]) : A(0);
#pragma unroll
      for (int row = 0; row < kRows; ++row) sums[row] += projected[row][j] * weight;
    }
  }
  if (column >= term.columns) return;
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    if (row_begin + row >= term.row_end) break;
    T* const to = static_cast<T*>(lora.y) + (row_begin + row) * lora.out + term.column + column;
    *to = narrow<T>(widen(*to) + sums[row]);
  }
}

struct Extent {
  int64_t rows = 0;
  int32_t rank = 0, columns = 0;
};
Extent extent_of(const Lora& lora) {
  Extent most;
  for (int32_t i = 0; i < lora.count; ++i) {
    const AdapterTerm& term = lora.terms[i];
    most.rows = term.row_end - term.row_begin > most.rows ? term.row_end - term.row_begin : most.rows;
    most.rank = term.rank > most.rank ? term.rank : most.rank;
    most.columns = term.columns > most.columns ? term.columns : most.columns;
  }
  return most;
}

}  // namespace

int lora_shrink(const Lora& lora, Stream stream) {
  const Extent most = extent_of(lora);
  bool pairs = lora.type == Type::kBf16 && lora.in % 2 == 0 && reinterpret_cast<uintptr_t>(lora.x) % 4 == 0;
  for (int32_t i = 0; i < lora.count; ++i)
    pairs = pairs && reinterpret_cast<uintptr_t>(lora.terms[i].a) % 4 == 0;
  if (pairs) {
    return launch(shrink_kernel,
                  dim3(blocks_for(most.rows, kRows), lora.count, blocks_for(most.rank, kRanks)),
                  kShrinkWarps * 32, 0, stream, lora);
  }
  return with_type(lora.type, [&](auto element) {
    return launch(plain_shrink_kernel<decltype(element)>,
                  dim3(blocks_for(most.rows * most.rank, kWarps), lora.count), kThreads, 0, stream, lora);
  });
}

int lora_expand(const Lora& lora, Stream stream) {
  const Extent most = extent_of(lora);
  bool pairs = lora.type == Type::kBf16 && lora.out % 2 == 0 && reinterpret_cast<uintptr_t>(lora.y) % 4 == 0;
  for (int32_t i = 0; i < lora.count; ++i) {
    const AdapterTerm& term = lora.terms[i];
    pairs = pairs && term.rank % 2 == 0 && term.columns % 2 == 0 && term.column % 2 == 0 &&
            reinterpret_cast<uintptr_t>(term.b) % 4 == 0;
  }
  const unsigned row_tiles = blocks_for(most.rows, kRows);
  if (pairs) {
    return launch(tensor_expand_kernel,
                  dim3(blocks_for(most.columns, kWarps * kExpandColumns), lora.count, row_tiles), kThreads, 0,
                  stream, lora);
  }
  return with_type(lora.type, [&](auto element) {
    return launch(expand_kernel<decltype(element)>,
                  dim3(blocks_for(most.columns, kThreads), lora.count, row_tiles), kThreads, 0, stream, lora);
  });
}

}  // namespace troupe::kernels::cuda
