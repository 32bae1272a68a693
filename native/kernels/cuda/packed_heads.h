// Heads that packs of 16 bytes divide, whose passes are bound by memory; heads.cu chooses.
#pragma once

#include "kernels/cuda/launch.h"

namespace troupe::kernels::cuda {

bool packed_heads_fit(const SplitHeads& heads);
int split_packed_heads(const SplitHeads& heads, Stream stream);
// `partials` of each group's blocks are left in args.partial.
int split_packed_heads_backward(const HeadsBackward& args, int32_t partials, Stream stream);

}  // namespace troupe::kernels::cuda
