// What needs CUDA lies in a library of its own, troupe_cuda.so beside the addon: kernels, CUDA graphs, NCCL (exports.cc,
// nccl.cc, kernels/cuda). The addon itself needs libtorch_cpu and c10 alone, so that one binary runs with every libtorch of
// its version, with CUDA or without. Here libtorch_cuda and that library are opened, by name, where they are.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <string>

namespace c10d {
class Backend;
class Store;
}  // namespace c10d
namespace troupe::kernels {
class Kernels;
}

namespace troupe::cuda {

using MakeNccl = c10::intrusive_ptr<c10d::Backend> (*)(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                                       int size, std::chrono::milliseconds timeout);

// What troupe_cuda.so gives, by its one exported function, `troupe_cuda`.
struct Library {
  std::string build;                          // libtorch's version and the hash of the sources
  const kernels::Kernels* kernels = nullptr;  // null: built without nvcc
  MakeNccl make_nccl = nullptr;               // null: nccl_problem says why
  std::string nccl_problem;
  int64_t (*waits)() = nullptr;    // its own part of kernels::waits
  int64_t (*uploads)() = nullptr;  // and of kernels::uploads
};

// Opens libtorch_cuda and troupe_cuda.so, once for the process, and returns the latter's or null. The first call comes
// before libtorch is asked for CUDA: it looks once.
const Library* library();

// What is missing for GPUs to be used, or used in full: a sentence each, or "".
struct Problems {
  std::string device = {};   // no GPU can be used
  std::string kernels = {};  // GPUs are used by plain ATen operators
  std::string nccl = {};     // GPUs exchange by way of the CPUs' memory
};
const Problems& problems();

}  // namespace troupe::cuda
