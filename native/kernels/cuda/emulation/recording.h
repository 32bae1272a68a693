// Recorded launches where there is no GPU to record them: a replay makes the same calls once more. What a CUDA graph would
// do wrong still shows. The graph keeps the addresses and numbers that its launches had, so each of Troupe's kernels and
// each of ATen's operators must get what it got at the first replay, byte for byte; std::runtime_error where one does not.
// The n-th allocation is the same block at every replay, as in a graph's memory, and before a replay the blocks of all of
// the thread's recordings are filled with NaN (integers: −1): they share their memory, and each may write where another's
// results lie.
#pragma once

#include <functional>
#include <memory>

#include "kernels/kernels.h"

namespace troupe::kernels::cuda::emulation {

// Replayed at once, by the thread that it belongs to.
std::unique_ptr<Recording> record(std::function<void()> work);
// Whether this thread replays one.
bool replaying();

}  // namespace troupe::kernels::cuda::emulation
