// Gradients of norms' weights: blocks leave their sums side by side, and one launch more adds them.
#pragma once

#include <algorithm>

#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {

// Blocks of each group, of which `longest` is the largest: those of all groups are about as many as 132 multiprocessors
// hold at a time, since what is left over would take as long once more. A block has at least `fewest` rows.
inline int32_t blocks_of_group(int64_t longest, int64_t rows, int64_t fewest, int resident) {
  const int64_t most = (longest + fewest - 1) / fewest,
                wanted = rows > 0 ? 132 * resident * longest / rows : 1;
  return static_cast<int32_t>(std::clamp<int64_t>(wanted, 1, most > 1 ? most : 1));
}

constexpr int kSumColumns = 32, kSumSlices = 8;

// target_k[i] += Σ_b partial[k][b][i], partial [groups, partials, size]: of the columns before `split` into first's targets,
// of the others into second's. Every kSumSlices-th partial is one thread's, so that many loads are under way.
// grid (blocks of kSumColumns columns, groups)
template <typename A>
__global__ void __launch_bounds__(kSumColumns* kSumSlices, 1)
    add_partials_kernel(Groups first, Groups second, int64_t split, const A* partial, int partials,
                        int64_t size) {
  if (first.offset[blockIdx.y] == first.offset[blockIdx.y + 1]) return;
  const int column = static_cast<int>(threadIdx.x) % kSumColumns,
            slice = static_cast<int>(threadIdx.x) / kSumColumns;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kSumColumns + column;
  const A* const from = partial + static_cast<int64_t>(blockIdx.y) * partials * size + i;
  A total = 0;
  if (i < size) {
#pragma unroll 8
    for (int b = slice; b < partials; b += kSumSlices) total += from[b * size];
  }
  __shared__ A sums[kSumSlices][kSumColumns];
  sums[slice][column] = total;
  __syncthreads();
  if (slice > 0 || i >= size) return;
  total = 0;
#pragma unroll
  for (int s = 0; s < kSumSlices; ++s) total += sums[s][column];
  if (i < split)
    static_cast<A*>(first.target[blockIdx.y])[i] += total;
  else
    static_cast<A*>(second.target[blockIdx.y])[i - split] += total;
}

template <typename A>
int add_partials(const Groups& first, const Groups& second, int64_t split, const void* partial,
                 int32_t partials, int64_t size, Stream stream) {
  return launch(add_partials_kernel<A>, dim3(blocks_for(size, kSumColumns), first.count),
                kSumColumns * kSumSlices, 0, stream, first, second, split, static_cast<const A*>(partial),
                static_cast<int>(partials), size);
}

}  // namespace troupe::kernels::cuda
