// The gate's activation.
#pragma once

#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {

// Of elements T. bf16 keeps 8 bits of it, for which the 22 of the units' own exponential and reciprocal are enough: four
// instructions instead of some thirty. Below -87.3, where it is less than 2^-126, it is 0.
template <typename T, typename A>
__device__ __forceinline__ A sigmoid(A x) {
#ifdef __CUDACC__
  if constexpr (std::is_same_v<T, Bf16>) {
    constexpr float kLog2E = 1.4426950408889634f;
    float e, result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(-kLog2E * x));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.f + e));
    return result;
  }
#endif
  return A(1) / (A(1) + exp(-x));
}

}  // namespace troupe::kernels::cuda
