// Heads that packs of 16 bytes divide, whose passes are bound by memory; heads.cu chooses.
#pragma once

#include "kernels/cuda/launch.h"

namespace troupe::kernels::cuda {

// Blocks of the backward pass whose norms train that a multiprocessor holds at a time, by the registers that they need.
constexpr int kPackedHeadsResident = 3;

bool packed_heads_fit(const SplitHeads& heads);
int split_packed_heads(const SplitHeads& heads, Stream stream);
// The sums of each group's args.partials blocks are left in args.partial.
int split_packed_heads_backward(const HeadsBackward& args, Stream stream);

}  // namespace troupe::kernels::cuda
