// The gate's activation.
#pragma once

#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {

template <typename A>
__device__ __forceinline__ A sigmoid(A x) {
  return A(1) / (A(1) + exp(-x));
}

}  // namespace troupe::kernels::cuda
