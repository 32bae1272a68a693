#include "distributed/process_group.h"

#include <future>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

namespace troupe::distributed {
namespace {

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::chrono::milliseconds timeout_of(const GroupOptions& options) {
  return std::chrono::milliseconds(static_cast<int64_t>(options.timeout_seconds * 1000));
}

std::string place_of(const GroupOptions& options) {
  return options.host + ":" + std::to_string(options.port);
}

std::string store_name(const GroupOptions& options) { return "the store at " + place_of(options); }

c10::intrusive_ptr<c10d::Store> connect(const GroupOptions& options, bool serve) {
  c10d::TCPStoreOptions store;
  store.port = options.port;
  store.isServer = serve;
  store.waitWorkers = false;
  store.timeout = timeout_of(options);
  store.useLibUV = false;
  try {
    return c10::make_intrusive<c10d::PrefixStore>(options.prefix,
                                                  c10::make_intrusive<c10d::TCPStore>(options.host, store));
  } catch (const std::exception& error) {
    const std::string what = error.what();
    if (what.find("ddress already in use") != std::string::npos) {
      throw GroupError("port " + std::to_string(options.port) +
                       " is in use by another program; set MASTER_PORT to another one.");
    }
    throw GroupError("rank " + std::to_string(options.rank) + " could not reach " + store_name(options) +
                     ", which rank 0 keeps (MASTER_ADDR, MASTER_PORT), within " +
                     in_seconds(timeout_of(options)) + " (" + what.substr(0, what.find('\n')) + ").");
  }
}

std::shared_ptr<::gloo::transport::Device> device_of(const GroupOptions& options) {
  const bool by_name = !options.interface.empty();
  try {
    return by_name ? c10d::ProcessGroupGloo::createDeviceForInterface(options.interface)
                   : c10d::ProcessGroupGloo::createDeviceForHostname(options.address);
  } catch (const std::exception& error) {
    const std::string what = error.what();
    throw GroupError((by_name ? "there is no network interface " + options.interface
                              : "no network interface has the address " + options.address) +
                     " (" + what.substr(0, what.find('\n')) + "); GLOO_SOCKET_IFNAME names one.");
  }
}

using Gloo = c10::intrusive_ptr<c10d::ProcessGroupGloo>;

// On a thread of its own, with a connection of its own: the watch's is never waited for, and a store that hangs in the
// middle of it would be waited for for ever.
Gloo make_gloo(const GroupOptions& options, const std::shared_ptr<::gloo::transport::Device>& device,
               Watch& watch) {
  auto gloo = c10d::ProcessGroupGloo::Options::create(timeout_of(options));
  gloo->devices.push_back(device);
  std::packaged_task<Gloo()> connecting([options, gloo] {
    return c10::make_intrusive<c10d::ProcessGroupGloo>(connect(options, /*serve=*/false), options.rank,
                                                       options.size, gloo);
  });
  std::future<Gloo> connected = connecting.get_future();
  std::thread(std::move(connecting)).detach();
  const std::string name = "start of the group";
  if (connected.wait_for(2 * timeout_of(options)) != std::future_status::ready) {
    watch.fail(name, "the ranks could not connect to each other");
  }
  try {
    return connected.get();
  } catch (const std::exception& error) {
    watch.fail(name, error.what());
  }
}

}  // namespace

class ProcessGroup::Backend {
 public:
  explicit Backend(c10::intrusive_ptr<c10d::ProcessGroupGloo> group) : group_(std::move(group)) {}
  c10d::ProcessGroupGloo& operator*() { return *group_; }

 private:
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
};

ProcessGroup::ProcessGroup(GroupOptions options) : options_(std::move(options)) {
  TORCH_CHECK_VALUE(options_.size > 0 && options_.rank >= 0 && options_.rank < options_.size, "rank ",
                    options_.rank, " of ", options_.size, " does not exist");
  TORCH_CHECK_VALUE(options_.timeout_seconds > 0, "timeoutSeconds must be more than 0");
  // Before anybody waits for this rank.
  const std::shared_ptr<::gloo::transport::Device> device = device_of(options_);
  watch_ = std::make_unique<Watch>(
      WatchOptions{options_.rank, options_.size, timeout_of(options_), store_name(options_), options_.shared},
      [&] {
        // The holder keeps the intrusive pointer alive.
        auto store = std::make_shared<c10::intrusive_ptr<c10d::Store>>(connect(options_, options_.serve));
        return std::shared_ptr<c10d::Store>(store, store->get());
      });
  backend_ = std::make_unique<Backend>(make_gloo(options_, device, *watch_));
  // Nobody goes on, or ends, while another one still connects.
  watch_->meet("start of the group");
}

ProcessGroup::~ProcessGroup() {
  // The others learn that this rank leaves before their connections to it end.
  watch_.reset();
}

template <typename Body>
void ProcessGroup::exchange(const std::string& name, int64_t bytes, Body&& body) {
  const at::NoGradGuard no_grad;
  Clock::time_point start = Clock::now();
  watch_->meet(name);
  traffic_.waiting_seconds += seconds_since(start);
  start = Clock::now();
  try {
    body();
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::exception& error) {
    watch_->fail(name, error.what());
  }
  traffic_.seconds += seconds_since(start);
  traffic_.bytes += bytes;
}

namespace {

// gloo sees contiguous CPU tensors; others take part by a copy.
template <typename Body>
void on_cpu(at::Tensor tensor, bool back, Body&& body) {
  if (tensor.numel() == 0) return;
  const at::Tensor host = tensor.to(at::kCPU).contiguous();
  std::vector<at::Tensor> list{host};
  body(list);
  if (back && !host.is_same(tensor)) tensor.copy_(host);
}

int64_t bytes_of(const std::vector<at::Tensor>& tensors) {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

// A slice of the flat tensor for each rank.
void check_parts(const at::Tensor& whole, const at::Tensor& part, int size) {
  TORCH_CHECK_VALUE(whole.dim() == 1 && part.dim() == 1 && whole.numel() == size * part.numel() &&
                        whole.scalar_type() == part.scalar_type(),
                    "parts of ", part.numel(), " ", part.scalar_type(), " of ", size, " ranks do not make ",
                    whole.numel(), " ", whole.scalar_type());
}

}  // namespace

void ProcessGroup::reduce(at::Tensor tensor, Reduction reduction) {
  on_cpu(tensor, /*back=*/true, [&](std::vector<at::Tensor>& list) {
    c10d::AllreduceOptions how;
    how.reduceOp = reduction == Reduction::kSum ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
    (**backend_).allreduce(list, how)->wait();
  });
}

void ProcessGroup::send(at::Tensor tensor, int root) {
  on_cpu(tensor, /*back=*/root != rank(), [&](std::vector<at::Tensor>& list) {
    c10d::BroadcastOptions how;
    how.rootRank = root;
    (**backend_).broadcast(list, how)->wait();
  });
}

void ProcessGroup::all_reduce(const std::string& name, const std::vector<at::Tensor>& tensors,
                              Reduction reduction) {
  exchange(name, bytes_of(tensors), [&] {
    for (const at::Tensor& tensor : tensors) reduce(tensor, reduction);
  });
}

// gloo's own reduce-scatter and all-gather take 2 to 9 times as long as its all-reduce and broadcasts.
void ProcessGroup::reduce_scatter(const std::string& name, at::Tensor output, const at::Tensor& input) {
  check_parts(input, output, size());
  exchange(name, static_cast<int64_t>(input.nbytes()), [&] {
    const at::Tensor sum = input.clone();
    reduce(sum, Reduction::kSum);
    output.copy_(sum.narrow(0, rank() * output.numel(), output.numel()));
  });
}

void ProcessGroup::all_gather(const std::string& name, at::Tensor output, const at::Tensor& input) {
  check_parts(output, input, size());
  exchange(name, static_cast<int64_t>(output.nbytes()), [&] {
    output.narrow(0, rank() * input.numel(), input.numel()).copy_(input);
    for (int root = 0; root < size(); ++root)
      send(output.narrow(0, root * input.numel(), input.numel()), root);
  });
}

void ProcessGroup::broadcast(const std::string& name, const std::vector<at::Tensor>& tensors, int root) {
  TORCH_CHECK_VALUE(root >= 0 && root < size(), "there is no rank ", root, " among ", size());
  exchange(name, bytes_of(tensors), [&] {
    for (const at::Tensor& tensor : tensors) send(tensor, root);
  });
}

void ProcessGroup::barrier(const std::string& name) {
  exchange(name, 0, [] {});
}

std::vector<std::vector<uint8_t>> ProcessGroup::gather(const std::string& name,
                                                       std::span<const uint8_t> bytes) {
  std::vector<std::vector<uint8_t>> all(size());
  exchange(name, static_cast<int64_t>(bytes.size()), [&] {
    const at::Tensor lengths = at::zeros({size()}, at::kLong);
    lengths[rank()].fill_(static_cast<int64_t>(bytes.size()));
    reduce(lengths, Reduction::kSum);
    for (int root = 0; root < size(); ++root) {
      all[root].resize(lengths.data_ptr<int64_t>()[root]);
      if (root == rank()) std::copy(bytes.begin(), bytes.end(), all[root].begin());
      send(at::from_blob(all[root].data(), {static_cast<int64_t>(all[root].size())}, at::kByte), root);
    }
  });
  return all;
}

}  // namespace troupe::distributed
