// NCCL between GPUs, through libtorch's ProcessGroupNCCL, in one translation unit: its headers are CUDA's.
#pragma once

#include "cuda/library.h"

namespace troupe::cuda {

// Why ProcessGroupNCCL cannot be used by this build, or "".
std::string nccl_problem();

// All ranks call it. ProcessGroupNCCL's watchdog neither ends the process nor aborts collectives: whoever waits for one
// polls it (isCompleted), has a timeout of its own, and aborts.
c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            std::chrono::milliseconds timeout);

}  // namespace troupe::cuda
