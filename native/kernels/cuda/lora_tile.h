// An adapter's B times a few rows of x Aᵀ on tensor cores, whose operands come from memory to registers as they lie there.
#pragma once

#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {

constexpr int kStep = 16;  // ranks of a tensor-core product

using Two = Pack<uint32_t, 2>;   // four bf16
using Four = Pack<uint32_t, 4>;  // eight

// A sum over ranks may take them in any order. A lane's four of every 16 are neighbours, 4 (lane % 4) and on: the first two
// stand where the instruction has 2 (lane % 4) and the next, the others eight behind.
__device__ __forceinline__ int lane_rank() { return static_cast<int>(threadIdx.x) % 4 * 4; }

// Four of the ranks from `k` on, of a row of x Aᵀ or of B; zeros from the term's rank on.
__device__ __forceinline__ Two load_ranks(const Bf16* row, int k, int rank) {
  return k + lane_rank() < rank ? *reinterpret_cast<const Two*>(row + k + lane_rank()) : Two{};
}

// y + scale · sum, of two neighbours, as bf16 rounds it.
__device__ __forceinline__ uint32_t add_scaled(uint32_t y, float scale, float first, float second) {
  return narrow_pair(fmaf(scale, first, first_of(y)), fmaf(scale, second, second_of(y)));
}

// A lane's two rows of a tile, lane / 4 and that + 8. One behind the last stands for that: reading goes on without branches,
// and what is computed there is not written.
struct TileRows {
  int64_t row[2];
  bool inside[2];
  __device__ __forceinline__ TileRows(int64_t begin, int64_t end) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t own = begin + threadIdx.x % 32 / 4 + r * 8;
      inside[r] = own < end;
      row[r] = min(own, end - 1);
    }
  }
};

// The eight of a group of 32 columns that a lane has.
__device__ __forceinline__ int lane_columns() { return static_cast<int>(threadIdx.x) % 4 * 8; }

// Four of eight bf16, widened.
__device__ __forceinline__ void widen_half(const Four& from, int half, float (&to)[4]) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    to[2 * n] = first_of(from.at[half * 2 + n]);
    to[2 * n + 1] = second_of(from.at[half * 2 + n]);
  }
}

}  // namespace troupe::kernels::cuda
