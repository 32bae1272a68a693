// ProcessGroup: the collectives of a group of processes that train together, over libtorch's c10d: a TCPStore to meet
// at, gloo for what is on CPUs, NCCL for what is on GPUs. Blocking; for one thread. Every call is a collective: all
// ranks make the same ones in the same order, and each waits for the others for as long as they are alive (watch.h).
// Once all are there, the exchange itself has the group's timeout. Errors are GroupErrors, after which the group
// cannot be used.
//
// Without NCCL tensors of a GPU go by way of the CPU's memory.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "distributed/watch.h"

namespace troupe::distributed {

struct GroupOptions {
  int rank = 0, size = 1;
  std::string host;  // of the store
  uint16_t port = 0;
  bool serve = false;     // this process keeps the store
  std::string prefix;     // of the group's keys in it: two groups in one store do not see each other
  std::string address;    // this machine's, as the other ranks reach it
  std::string interface;  // network interface instead of the address; empty: the address
  double timeout_seconds = 60;
  bool nccl = false;  // GPUs exchange by NCCL from the start; where it cannot be used, there is no group
  Shared* shared = nullptr;  // or null (watch.h)
};

// Since the start.
struct Traffic {
  double seconds = 0;          // in exchanges, all ranks being there
  double waiting_seconds = 0;  // for other ranks
  int64_t bytes = 0;           // of the tensors and bytes that went through collectives here
  int64_t nccl_bytes = 0;      // of them by NCCL
};

class ProcessGroup {
 public:
  explicit ProcessGroup(GroupOptions options);
  ~ProcessGroup();

  int rank() const { return options_.rank; }
  int size() const { return options_.size; }
  const Traffic& traffic() const { return traffic_; }

  // `name` is what messages call the collective. Tensors are contiguous, changed in place, and all on one device.
  enum class Reduction { kSum, kMax };
  void all_reduce(const std::string& name, const std::vector<at::Tensor>& tensors, Reduction reduction);
  // Tensors [size · n] have a part [n] for each rank. This rank's part becomes its sum over the ranks; what the other
  // parts hold then is undefined.
  void reduce_scatter(const std::string& name, const std::vector<at::Tensor>& tensors);
  // Every part becomes that of the rank that it belongs to.
  void all_gather(const std::string& name, const std::vector<at::Tensor>& tensors);
  void broadcast(const std::string& name, const std::vector<at::Tensor>& tensors, int root);
  void barrier(const std::string& name);
  // Connects the ranks' GPUs by NCCL, by which their tensors go from here on: all ranks do it at the same place, each with its
  // own device. Returns why it could not be, or "".
  std::string take_nccl(const at::Device& device);
  // GPUs exchange by way of the CPUs' memory again.
  void drop_nccl();
  // No collective: adds `amount` to the group's count `name`, which begins at 0, and returns what it comes to.
  int64_t count(const std::string& name, int64_t amount) { return watch_->count(name, amount); }
  // What every rank gave, in the order of ranks.
  std::vector<std::vector<uint8_t>> gather(const std::string& name, std::span<const uint8_t> bytes);

 private:
  class Backends;  // gloo's headers stay in one file
  using Tensors = std::vector<at::Tensor>;
  template <typename Body>
  void exchange(const std::string& name, const Tensors& tensors, Body&& body);
  at::Tensor part_of(const at::Tensor& tensor, int rank) const;

  GroupOptions options_;
  std::unique_ptr<Watch> watch_;
  std::unique_ptr<Backends> backends_;
  Traffic traffic_;
};

}  // namespace troupe::distributed
