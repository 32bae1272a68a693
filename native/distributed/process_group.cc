#include "distributed/process_group.h"

#include <c10/core/DeviceGuard.h>
#include <c10/util/Logging.h>

#include <cstdlib>
#include <future>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "cuda/library.h"
#include "distributed/nccl.h"
#include "kernels/waits.h"

namespace troupe::distributed {
namespace {

constexpr int64_t kMostSeconds = 1'000'000;  // far from where a clock's nanoseconds overflow

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

using Backend = c10::intrusive_ptr<c10d::Backend>;
using Tensors = std::vector<at::Tensor>;

// How long to look for the rank at fault after an error of NCCL's: it has waited itself, or none is.
constexpr std::chrono::seconds kNcclPatience{3};

// On a thread of its own: what hangs in the middle is not waited for for ever.
std::future<Backend> started(std::function<Backend()> connect) {
  std::packaged_task<Backend()> task(std::move(connect));
  std::future<Backend> result = task.get_future();
  std::thread(std::move(task)).detach();
  return result;
}

const char* const kNoConnection = "the ranks could not connect to each other";

// With a connection of its own: the watch's is never waited for.
Backend connect_gloo(const GroupOptions& options, const std::shared_ptr<::gloo::transport::Device>& device,
                     Watch& watch) {
  const std::string name = "start of the group";
  auto gloo = c10d::ProcessGroupGloo::Options::create(timeout_of(options));
  gloo->devices.push_back(device);
  std::future<Backend> result = started([options, gloo]() -> Backend {
    return c10::make_intrusive<c10d::ProcessGroupGloo>(connect(options, /*serve=*/false), options.rank,
                                                       options.size, gloo);
  });
  if (result.wait_for(2 * timeout_of(options)) != std::future_status::ready) watch.fail(name, kNoConnection);
  try {
    return result.get();
  } catch (const std::exception& error) {
    watch.fail(name, error.what());
  }
}

// NCCL connects with the first collective, which is therefore made here. Throws what broke.
Backend connect_nccl(const GroupOptions& options, at::Device device, const Watch& watch) {
  std::future<Backend> result = started([options, device] {
    const c10::DeviceGuard guard(device);
    const auto store = c10::make_intrusive<c10d::PrefixStore>("nccl", connect(options, /*serve=*/false));
    Backend nccl = cuda::library()->make_nccl(store, options.rank, options.size, timeout_of(options));
    Tensors one{at::ones({1}, at::TensorOptions().device(device))};
    const auto work = nccl->allreduce(one);
    while (!work->isCompleted()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (work->exception()) std::rethrow_exception(work->exception());
    return nccl;
  });
  const auto end = Clock::now() + timeout_of(options);
  while (result.wait_for(std::chrono::milliseconds(20)) != std::future_status::ready) {
    if (watch.lost() || Clock::now() > end) throw std::runtime_error(kNoConnection);
  }
  return result.get();
}

}  // namespace

// What exchanges tensors, by where they are.
class ProcessGroup::Backends {
 public:
  Backends(const GroupOptions& options, Watch& watch,
           const std::shared_ptr<::gloo::transport::Device>& device)
      : options_(options), watch_(watch), gloo_(connect_gloo(options, device, watch)) {}
  ~Backends() { disconnect(); }

  // By NCCL.
  void connect(const at::Device& device) {
    const c10::DeviceGuard guard(device);
    name_in_last_words(options_.rank, "NCCL");
    nccl_ = connect_nccl(options_, device, watch_);
  }
  void disconnect() {
    if (!nccl_) return;
    // Waits for nobody that may be gone.
    auto ended = std::make_shared<std::promise<void>>();
    std::thread([nccl = std::move(nccl_), ended, failed = failed_]() mutable {
      try {
        failed ? nccl->abort() : nccl->shutdown();
      } catch (const std::exception&) {
        // What broke was said where it broke.
      }
      nccl.reset();
      ended->set_value();
    }).detach();
    ended->get_future().wait_for(std::chrono::seconds(5));
  }

  // `body` makes works of a backend and tensors on its device: the given ones, or copies of them which go back.
  template <typename Body>
  void run(const std::string& name, const Tensors& tensors, const Body& body) {
    if (tensors.empty()) return;
    const at::Device device = tensors[0].device();
    if (takes(device)) {
      const c10::DeviceGuard guard(device);
      name_in_last_words(options_.rank, name);
      if (!nccl_) nccl_ = connect_nccl(options_, device, watch_);
      failed_ = true;
      finish(body(*nccl_, tensors));
      failed_ = false;
    } else if (device.is_cpu()) {
      for (const auto& work : body(*gloo_, tensors)) work->wait();
    } else {
      for (at::Tensor tensor : tensors) {
        const Tensors host{kernels::to_host(tensor)};
        for (const auto& work : body(*gloo_, host)) work->wait();
        tensor.copy_(host[0]);
      }
    }
  }
  // Whether NCCL does.
  bool takes(at::Device device) const { return device.is_cuda() && options_.nccl; }

 private:
  // GPUs wait for each other without end: a rank that is lost, or the timeout, ends it here.
  void finish(const std::vector<c10::intrusive_ptr<c10d::Work>>& works) {
    const auto end = Clock::now() + timeout_of(options_);
    for (const auto& work : works) {
      for (auto pause = std::chrono::microseconds(5); !work->isCompleted();
           pause = std::min(2 * pause, std::chrono::microseconds(200))) {
        if (watch_.lost()) throw std::runtime_error("a rank is gone");
        if (Clock::now() > end)
          throw std::runtime_error("not done after " + in_seconds(timeout_of(options_)));
        std::this_thread::sleep_for(pause);
      }
      if (work->exception()) std::rethrow_exception(work->exception());
      work->wait();
    }
  }

  const GroupOptions& options_;
  Watch& watch_;
  Backend gloo_, nccl_;
  bool failed_ = false;  // NCCL's communicator cannot be ended in good order
};

ProcessGroup::ProcessGroup(GroupOptions options) : options_(std::move(options)) {
  // What c10d has to say is in the errors; its own log has pages of addresses.
  ::setenv("TORCH_CPP_LOG_LEVEL", "FATAL", /*overwrite=*/0);
  c10::initLogging();
  TORCH_CHECK_VALUE(options_.size > 0 && options_.rank >= 0 && options_.rank < options_.size, "rank ",
                    options_.rank, " of ", options_.size, " does not exist");
  TORCH_CHECK_VALUE(options_.timeout_seconds > 0 && options_.timeout_seconds <= kMostSeconds,
                    "timeoutSeconds must be more than 0 and at most ", kMostSeconds, ", not ",
                    options_.timeout_seconds);
  // Before anybody waits for this rank.
  const std::shared_ptr<::gloo::transport::Device> device = device_of(options_);
  watch_ = std::make_unique<Watch>(
      WatchOptions{options_.rank, options_.size, timeout_of(options_), options_.nccl, store_name(options_),
                   options_.shared},
      [&] {
        // The holder keeps the intrusive pointer alive.
        auto store = std::make_shared<c10::intrusive_ptr<c10d::Store>>(connect(options_, options_.serve));
        return std::shared_ptr<c10d::Store>(store, store->get());
      });
  // The others know that they wait for nothing: this rank has ended.
  if (options_.nccl) check_nccl();
  backends_ = std::make_unique<Backends>(options_, *watch_, device);
  // Nobody goes on, or ends, while another one still connects.
  watch_->meet("start of the group");
}

ProcessGroup::~ProcessGroup() {
  // The others learn that this rank leaves before their connections to it end.
  watch_.reset();
}

namespace {

int64_t bytes_of(const Tensors& tensors) {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

void check(const Tensors& tensors) {
  for (const at::Tensor& tensor : tensors) {
    TORCH_CHECK_VALUE(tensor.is_contiguous() && tensor.device() == tensors[0].device(),
                      "the tensors of a collective are contiguous and on one device");
  }
}

// A part for each rank.
void check_parts(const Tensors& tensors, int size) {
  for (const at::Tensor& tensor : tensors) {
    TORCH_CHECK_VALUE(tensor.dim() == 1 && tensor.numel() % size == 0, tensor.sizes(),
                      " elements have no equal parts for ", size, " ranks");
  }
}

bool is_gloo(const c10d::Backend& backend) { return backend.getBackendName() == "gloo"; }

}  // namespace

std::string ProcessGroup::take_nccl(const at::Device& device) {
  if (const std::string problem = nccl_problem(); !problem.empty()) return problem;
  try {
    backends_->connect(device);
  } catch (const std::exception& error) {
    return nccl_reason(error.what());
  }
  options_.nccl = true;
  return "";
}

void ProcessGroup::drop_nccl() {
  options_.nccl = false;
  backends_->disconnect();
}

template <typename Body>
void ProcessGroup::exchange(const std::string& name, const Tensors& tensors, Body&& body) {
  check(tensors);
  const at::NoGradGuard no_grad;
  // What a GPU still computes is neither waiting nor communication.
  if (!tensors.empty()) kernels::wait_for(tensors[0].device());
  Clock::time_point start = Clock::now();
  watch_->meet(name);
  traffic_.waiting_seconds += seconds_since(start);
  start = Clock::now();
  Tensors present;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.numel() > 0) present.push_back(tensor);
  }
  try {
    backends_->run(name, present, body);
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::exception& error) {
    if (present.empty() || !backends_->takes(present[0].device())) watch_->fail(name, error.what());
    watch_->fail(name, nccl_reason(error.what()), kNcclPatience);
  }
  traffic_.seconds += seconds_since(start);
  traffic_.bytes += bytes_of(tensors);
  if (!present.empty() && backends_->takes(present[0].device())) traffic_.nccl_bytes += bytes_of(tensors);
}

at::Tensor ProcessGroup::part_of(const at::Tensor& tensor, int rank) const {
  const int64_t length = tensor.numel() / size();
  return tensor.narrow(0, rank * length, length);
}

namespace {

using Works = std::vector<c10::intrusive_ptr<c10d::Work>>;

void add_reduction(Works& works, c10d::Backend& backend, const at::Tensor& tensor,
                   c10d::ReduceOp::RedOpType operation) {
  c10d::AllreduceOptions how;
  how.reduceOp = operation;
  Tensors list{tensor};
  works.push_back(backend.allreduce(list, how));
}

void add_broadcast(Works& works, c10d::Backend& backend, const at::Tensor& tensor, int root) {
  c10d::BroadcastOptions how;
  how.rootRank = root;
  Tensors list{tensor};
  works.push_back(backend.broadcast(list, how));
}

}  // namespace

void ProcessGroup::all_reduce(const std::string& name, const Tensors& tensors, Reduction reduction) {
  exchange(name, tensors, [&](c10d::Backend& backend, const Tensors& present) {
    Works works;
    const auto operation = reduction == Reduction::kSum ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
    for (const at::Tensor& tensor : present) add_reduction(works, backend, tensor, operation);
    return works;
  });
}

// gloo's own reduce-scatter and all-gather take 2 to 9 times as long as its all-reduce and broadcasts.
void ProcessGroup::reduce_scatter(const std::string& name, const Tensors& tensors) {
  check_parts(tensors, size());
  exchange(name, tensors, [&](c10d::Backend& backend, const Tensors& present) {
    Works works;
    for (const at::Tensor& tensor : present) {
      at::Tensor input = tensor, output = part_of(tensor, rank());
      if (is_gloo(backend))
        add_reduction(works, backend, tensor, c10d::ReduceOp::SUM);
      else
        works.push_back(backend._reduce_scatter_base(output, input));
    }
    return works;
  });
}

void ProcessGroup::all_gather(const std::string& name, const Tensors& tensors) {
  check_parts(tensors, size());
  exchange(name, tensors, [&](c10d::Backend& backend, const Tensors& present) {
    Works works;
    for (const at::Tensor& tensor : present) {
      at::Tensor output = tensor, input = part_of(tensor, rank());
      if (is_gloo(backend))
        for (int root = 0; root < size(); ++root) add_broadcast(works, backend, part_of(tensor, root), root);
      else
        works.push_back(backend._allgather_base(output, input));
    }
    return works;
  });
}

void ProcessGroup::broadcast(const std::string& name, const Tensors& tensors, int root) {
  TORCH_CHECK_VALUE(root >= 0 && root < size(), "there is no rank ", root, " among ", size());
  exchange(name, tensors, [&](c10d::Backend& backend, const Tensors& present) {
    Works works;
    for (const at::Tensor& tensor : present) add_broadcast(works, backend, tensor, root);
    return works;
  });
}

void ProcessGroup::barrier(const std::string& name) {
  exchange(name, {}, [](c10d::Backend&, const Tensors&) { return Works(); });
}

std::vector<std::vector<uint8_t>> ProcessGroup::gather(const std::string& name,
                                                       std::span<const uint8_t> bytes) {
  std::vector<std::vector<uint8_t>> all(size());
  const at::Tensor lengths = at::zeros({size()}, at::kLong);
  lengths[rank()].fill_(static_cast<int64_t>(bytes.size()));
  exchange(name, {lengths}, [&](c10d::Backend& backend, const Tensors&) {
    Works first, works;
    add_reduction(first, backend, lengths, c10d::ReduceOp::SUM);
    first[0]->wait();
    for (int root = 0; root < size(); ++root) {
      const int64_t length = lengths.const_data_ptr<int64_t>()[root];
      all[root].resize(length);
      if (root == rank()) std::copy(bytes.begin(), bytes.end(), all[root].begin());
      if (length > 0)
        add_broadcast(works, backend, at::from_blob(all[root].data(), {length}, at::kByte), root);
    }
    return works;
  });
  traffic_.bytes += static_cast<int64_t>(bytes.size());
  return all;
}

}  // namespace troupe::distributed
