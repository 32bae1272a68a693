// NCCL between GPUs, through libtorch's ProcessGroupNCCL, in one translation unit: its headers are CUDA's.
#pragma once

#include <ATen/ATen.h>

#include <chrono>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace troupe::distributed {

// Whether this build has it: it was made for a libtorch with NCCL, and found CUDA's and NCCL's headers.
bool has_nccl();

// All ranks call it. ProcessGroupNCCL's watchdog neither ends the process nor aborts collectives: whoever waits for one
// polls it (isCompleted), has a timeout of its own, and aborts.
c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            std::chrono::milliseconds timeout);

// What NCCL says went wrong, in a line.
std::string nccl_reason(const std::string& what);

}  // namespace troupe::distributed
