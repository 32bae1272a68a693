// NCCL between GPUs, through libtorch's ProcessGroupNCCL, in one translation unit: its headers are CUDA's.
#pragma once

#include <ATen/ATen.h>

#include <chrono>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace troupe::distributed {

// Whether GPUs exchange by it: the build was made for a libtorch with NCCL, with CUDA's and NCCL's headers, and
// TROUPE_NCCL=1 asks for it. Its one try on a GPU ended the process (docs/distributed.md).
bool uses_nccl();

// All ranks call it. ProcessGroupNCCL's watchdog neither ends the process nor aborts collectives: whoever waits for one
// polls it (isCompleted), has a timeout of its own, and aborts.
c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            std::chrono::milliseconds timeout);

// What NCCL says went wrong, in a line.
std::string nccl_reason(const std::string& what);

}  // namespace troupe::distributed
