// Norms of rows whose packs of 16 bytes a block holds in registers; norm.cu chooses.
#pragma once

#include "kernels/cuda/launch.h"

namespace troupe::kernels::cuda {

// Whether rows of bf16 numbers, whose addresses and strides are those of packs, are wide enough for a block each, and no
// wider than it holds.
bool packed_norm_fits(Type type, int64_t size);
int packed_rms_norm(const Norm& norm, Stream stream);
// `partials` of each group's blocks are left in norm.partial.
int packed_rms_norm_backward(const NormBackward& norm, int32_t partials, Stream stream);

}  // namespace troupe::kernels::cuda
