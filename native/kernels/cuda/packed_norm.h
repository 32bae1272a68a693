// Norms of rows whose packs of 16 bytes a block holds in registers; norm.cu chooses.
#pragma once

#include "kernels/cuda/launch.h"

namespace troupe::kernels::cuda {

// Whether rows of bf16 numbers, whose addresses and strides are those of packs, are wide enough for a block each, and no
// wider than it holds.
bool packed_norm_fits(Type type, int64_t size);
// Blocks of the backward pass whose weight trains that a multiprocessor holds at a time, by the registers that they need.
constexpr int packed_norm_resident(int64_t size) {
  return size <= 1024 ? 8 : size <= 2048 ? 5 : size <= 3072 ? 4 : size <= 4096 ? 3 : 1;
}
int packed_rms_norm(const Norm& norm, Stream stream);
int packed_rms_norm_backward(const NormBackward& norm, Stream stream);

}  // namespace troupe::kernels::cuda
