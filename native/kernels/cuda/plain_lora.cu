// What lora.cu computes in one launch, for any type and any sizes: one launch for x Aᵀ and one for that times Bᵀ.
#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kRows = 16;
constexpr int kWarps = 4, kThreads = kWarps * 32;

// A warp for each (row, rank).
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) shrink_kernel(Lora lora) {
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

int plain_lora(const Lora& lora, Stream stream) {
  const Extent most = extent_of(lora);
  return with_type(lora.type, [&](auto element) {
    using T = decltype(element);
    const int error = launch(shrink_kernel<T>, dim3(blocks_for(most.rows * most.rank, kWarps), lora.count),
                             kThreads, 0, stream, lora);
    if (error != 0) return error;
    return launch(expand_kernel<T>,
                  dim3(blocks_for(most.columns, kThreads), lora.count, blocks_for(most.rows, kRows)),
                  kThreads, 0, stream, lora);
  });
}

}  // namespace troupe::kernels::cuda
