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

}  // namespace troupe::kernels::cuda
