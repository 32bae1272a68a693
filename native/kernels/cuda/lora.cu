// Adapters' part of a product for all segments of a batch: first scale · x Aᵀ into `projected`, then that
// times Bᵀ onto y. A row's sums do not depend on the other rows.
#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kRows = 16, kWarps = 4, kThreads = kWarps * 32;
constexpr int kShrinkWarps = 8, kRanks = 16;
// A warp reads this much of the inputs, kept in flight at once: what a row's inputs are cut into does not depend on
// the other rows.
constexpr int kShrinkInputs = 160;
constexpr int kExpandColumns = 64;  // of a warp

using Four = Pack<uint32_t, 4>;  // eight bf16

// grid (row tiles, terms, (splits, rank tiles)): 16 rows by 16 ranks over a split of the inputs. The order in which
// a product's terms are added is free, so a lane takes eight neighbours of a row, two tensor-core steps' worth.
__global__ void __launch_bounds__(kShrinkWarps * 32, 1) shrink_kernel(Lora lora, int splits) {
  const AdapterTerm& term = lora.terms[blockIdx.y];
  const int64_t row_begin = term.row_begin + static_cast<int64_t>(blockIdx.x) * kRows;
  const int split = static_cast<int>(blockIdx.z) % splits;
  const int rank_begin = static_cast<int>(blockIdx.z) / splits * kRanks;
  if (row_begin >= term.row_end || rank_begin >= term.rank) return;
  __shared__ float parts[kShrinkWarps][kRows][kRanks + 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const auto* const x = static_cast<const Bf16*>(lora.x);
  const auto* const matrix = static_cast<const Bf16*>(term.a);
  const Bf16 *rows[2], *ranks[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    rows[i] = x + min(row_begin + lane / 4 + i * 8, term.row_end - 1) * lora.in;
    ranks[i] = matrix + static_cast<int64_t>(min(rank_begin + lane / 4 + i * 8, term.rank - 1)) * lora.in;
  }
  const int64_t begin = (static_cast<int64_t>(split) * kShrinkWarps + warp) * kShrinkInputs + lane % 4 * 8;
  float sums[2][4] = {};
#pragma unroll
  for (int k = 0; k < kShrinkInputs; k += 32) {
    Four left[2] = {}, right[2] = {};
    if (begin + k < lora.in) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        left[i] = *reinterpret_cast<const Four*>(rows[i] + begin + k);
        right[i] = *reinterpret_cast<const Four*>(ranks[i] + begin + k);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t a[4] = {left[0].at[2 * half], left[1].at[2 * half], left[0].at[2 * half + 1],
                             left[1].at[2 * half + 1]};
#pragma unroll
      for (int n = 0; n < 2; ++n) multiply_add(sums[n], a, right[n].at[2 * half], right[n].at[2 * half + 1]);
    }
  }
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) parts[warp][lane / 4 + i / 2 * 8][n * 8 + lane % 4 * 2 + i % 2] = sums[n][i];
  }
  __syncthreads();
  const int row = threadIdx.x / kRanks, rank = threadIdx.x % kRanks;
  if (row_begin + row >= term.row_end || rank_begin + rank >= term.rank) return;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kShrinkWarps; ++w) sum += parts[w][row][rank];
  const int64_t to = (split * lora.rows + row_begin + row) * lora.projected_width;
  static_cast<float*>(lora.projected)[to + term.projected + rank_begin + rank] =
      sum * static_cast<float>(term.scale);
}

// grid (column tiles, terms, row tiles): 16 rows by 64 columns a warp. What was projected is rounded to bf16, as it
// is in training. A lane has eight neighbouring columns of a row at a time, and four neighbouring ranks: which
// column or rank a tensor-core step calls which is free.
__global__ void __launch_bounds__(kThreads, 1) tensor_expand_kernel(Lora lora, int splits) {
  const AdapterTerm& term = lora.terms[blockIdx.y];
  const int64_t row_begin = term.row_begin + static_cast<int64_t>(blockIdx.z) * kRows;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int column_begin = (static_cast<int>(blockIdx.x) * kWarps + warp) * kExpandColumns;
  if (row_begin >= term.row_end || column_begin >= term.columns) return;
  constexpr int kGroups = kExpandColumns / 32;
  Four y[kGroups][2] = {};
  Bf16* to[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t row = row_begin + lane / 4 + r * 8;
    to[r] = row < term.row_end
                ? static_cast<Bf16*>(lora.y) + row * lora.out + term.column + column_begin + lane % 4 * 8
                : nullptr;
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
      if (to[r] && column_begin + g * 32 + lane % 4 * 8 < term.columns)
        y[g][r] = *reinterpret_cast<const Four*>(to[r] + g * 32);
  }
  float sums[kGroups][4][4] = {};
  for (int k = 0; k < term.rank; k += 16) {
    const int rank = k + lane % 4 * 4;
    uint32_t left[4] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = row_begin + lane / 4 + r * 8;
      if (row >= term.row_end || rank >= term.rank) continue;
      float total[4] = {};
      for (int split = 0; split < splits; ++split) {
        const auto part = *reinterpret_cast<const Pack<float, 4>*>(
            static_cast<const float*>(lora.projected) + (split * lora.rows + row) * lora.projected_width +
            term.projected + rank);
#pragma unroll
        for (int i = 0; i < 4; ++i) total[i] += part.at[i];
      }
      left[r] = narrow_pair(total[0], total[1]);
      left[2 + r] = narrow_pair(total[2], total[3]);
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        // Column lane / 4 of step n; results 2 (lane % 4) and the next are then neighbours of step n + 1's.
        const int c = lane / 4, column = column_begin + g * 32 + c / 2 * 8 + n * 2 + c % 2;
        Pack<uint32_t, 2> b = {};
        if (column < term.columns && rank < term.rank)
          b = *reinterpret_cast<const Pack<uint32_t, 2>*>(static_cast<const Bf16*>(term.b) +
                                                          static_cast<int64_t>(column) * term.rank + rank);
        multiply_add(sums[g][n], left, b.at[0], b.at[1]);
      }
    }
  }
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!to[r] || column_begin + g * 32 + lane % 4 * 8 >= term.columns) continue;
      Four out;
#pragma unroll
      for (int n = 0; n < 4; ++n)
        out.at[n] = narrow_pair(float_of(y[g][r].at[n] << 16) + sums[g][n][2 * r],
                                float_of(y[g][r].at[n] & 0xffff0000u) + sums[g][n][2 * r + 1]);
      *reinterpret_cast<Four*>(to[r] + g * 32) = out;
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

bool aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

// Whether eight inputs and columns and four ranks are read at a time.
bool vectors(const Lora& lora) {
  bool all = lora.type == Type::kBf16 && lora.in % 8 == 0 && lora.out % 8 == 0 &&
             lora.projected_width % 4 == 0 && aligned(lora.x) && aligned(lora.y);
  for (int32_t i = 0; i < lora.count; ++i) {
    const AdapterTerm& term = lora.terms[i];
    all = all && term.rank % 4 == 0 && term.projected % 4 == 0 && term.column % 8 == 0 &&
          term.columns % 8 == 0 && aligned(term.a) && aligned(term.b);
  }
  return all;
}

}  // namespace

int32_t lora_splits(const Lora& lora) {
  return vectors(lora) ? static_cast<int32_t>(blocks_for(lora.in, kShrinkWarps * kShrinkInputs)) : 1;
}

int lora_shrink(const Lora& lora, Stream stream) {
  const Extent most = extent_of(lora);
  if (vectors(lora)) {
    const int splits = lora_splits(lora);
    return launch(shrink_kernel,
                  dim3(blocks_for(most.rows, kRows), lora.count, splits * blocks_for(most.rank, kRanks)),
                  kShrinkWarps * 32, 0, stream, lora, splits);
  }
  return with_type(lora.type, [&](auto element) {
    return launch(plain_shrink_kernel<decltype(element)>,
                  dim3(blocks_for(most.rows * most.rank, kWarps), lora.count), kThreads, 0, stream, lora);
  });
}

int lora_expand(const Lora& lora, Stream stream) {
  const Extent most = extent_of(lora);
  const unsigned row_tiles = blocks_for(most.rows, kRows);
  if (vectors(lora)) {
    return launch(tensor_expand_kernel,
                  dim3(blocks_for(most.columns, kWarps * kExpandColumns), lora.count, row_tiles), kThreads, 0,
                  stream, lora, lora_splits(lora));
  }
  return with_type(lora.type, [&](auto element) {
    return launch(expand_kernel<decltype(element)>,
                  dim3(blocks_for(most.columns, kThreads), lora.count, row_tiles), kThreads, 0, stream, lora);
  });
}

}  // namespace troupe::kernels::cuda
