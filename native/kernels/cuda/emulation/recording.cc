#include "kernels/cuda/emulation/recording.h"

#include <ATen/record_function.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/cuda/emulation/device_memory.h"
#include "kernels/cuda/emulation/launch_log.h"

namespace troupe::kernels::cuda::emulation {
namespace {

// What a launch or an operator got.
struct Call {
  std::string what;
  std::string arguments;  // a kernel's, as bytes
};

using Block = std::shared_ptr<c10::DataPtr>;

class Replays;
thread_local Replays* running = nullptr;  // the recording that this thread replays

class Replays final : public Recording, LaunchLog {
 public:
  explicit Replays(std::function<void()> work);
  ~Replays() override { std::erase(*pool_, this); }
  Replays(const Replays&) = delete;
  Replays& operator=(const Replays&) = delete;

  void replay() override;
  Block allocate(size_t bytes, c10::Allocator& system);
  void add(Call call);

 private:
  void add(const void* kernel, std::array<unsigned, 3> blocks, int threads, size_t shared,
           const std::string& arguments) override;
  void name_last(const char* launcher) override;
  void differs(const std::string& how);
  void overwrite();

  std::function<void()> work_;
  bool recorded_ = false;  // the first replay has ended
  std::vector<Call> calls_;
  std::vector<Block> blocks_;
  std::vector<size_t> sizes_;
  // Of the replay that runs.
  size_t next_call_ = 0, next_block_ = 0;
  std::string difference_;  // the first
  bool unnamed_ = false;    // it is of a launch whose name is still to come
  // The thread's recordings.
  std::shared_ptr<std::vector<Replays*>> pool_;
};

// Who holds blocks of recordings, which may go before them: by address, since libtorch's users of raw memory know it by
// nothing else.
std::mutex held_mutex;
std::unordered_multimap<void*, Block> held;

// The thread's allocations go to the recording that it replays; all others, and other threads', where they went before.
class PoolAllocator final : public c10::Allocator {
 public:
  explicit PoolAllocator(c10::Allocator& system) { system_ = &system; }
  c10::DataPtr allocate(size_t bytes) override {
    if (!running || bytes == 0) return system_->allocate(bytes);
    const Block block = running->allocate(bytes, *system_);
    const std::lock_guard lock(held_mutex);
    held.emplace(block->get(), block);
    return {block->get(), block->get(), &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static void release(void* data) {
    const std::lock_guard lock(held_mutex);
    const auto found = held.find(data);
    if (found == held.end()) return system_->raw_deleter()(data);
    held.erase(found);
  }
  static inline c10::Allocator* system_ = nullptr;
};

// Over the emulated device's memory, and never taken back: tensors may outlive every static object.
void install_allocator() {
  static std::once_flag once;
  std::call_once(once, [] {
    c10::SetCPUAllocator(std::make_unique<PoolAllocator>(tensor_memory()).release(), /*priority=*/1);
  });
}

void describe(std::ostream& out, const at::Tensor& x) {
  if (!x.defined()) {
    out << "none";
  } else if (x.unsafeGetTensorImpl()->is_wrapped_number()) {  // a number of the call
    x.scalar_type() == at::kDouble ? out << *x.const_data_ptr<double>()
                                   : out << x.dtype() << " of " << x.nbytes() << " bytes";
  } else {
    out << x.dtype() << x.sizes() << " by " << x.strides() << " at "
        << (x.has_storage() ? x.const_data_ptr() : nullptr);
  }
}

void describe(std::ostream& out, const c10::IValue& value) {
  if (value.isTensor()) {
    describe(out, value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& x : value.toTensorVector()) describe(out << "; ", x);
  } else if (value.isList()) {
    for (const c10::IValue& one : value.toListRef()) describe(out << "; ", one);
  } else {
    out << value;
  }
}

std::unique_ptr<at::ObserverContext> add_operator(const at::RecordFunction& function) {
  if (!running) return nullptr;
  std::ostringstream what;
  what << function.name() << "(";
  for (const c10::IValue& value : function.inputs()) describe(what << " | ", value);
  what << ")";
  running->add({what.str(), {}});
  return nullptr;
}

std::string word_of(const std::string& bytes, size_t word) {
  std::ostringstream text;
  text << std::hex << "0x";
  for (size_t i = std::min(bytes.size(), word * 4 + 4); i-- > word * 4;)
    text << (static_cast<unsigned char>(bytes[i]) >> 4) << (static_cast<unsigned char>(bytes[i]) & 15);
  return text.str();
}

Replays::Replays(std::function<void()> work) : work_(std::move(work)) {
  thread_local const auto mine = std::make_shared<std::vector<Replays*>>();
  pool_ = mine;
  pool_->push_back(this);
  install_allocator();
}

Block Replays::allocate(size_t bytes, c10::Allocator& system) {
  const size_t n = next_block_++;
  if (!recorded_) {
    blocks_.push_back(std::make_shared<c10::DataPtr>(system.allocate(bytes)));
    sizes_.push_back(bytes);
    std::memset(blocks_[n]->get(), 0xff, bytes);
  } else if (n >= sizes_.size() || sizes_[n] != bytes) {
    differs("allocation " + std::to_string(n) + " is of " + std::to_string(bytes) + " bytes, where " +
            (n < sizes_.size() ? std::to_string(sizes_[n]) : "none") + " were recorded");
    return std::make_shared<c10::DataPtr>(system.allocate(bytes));
  }
  return blocks_[n];
}

void Replays::differs(const std::string& how) {
  if (difference_.empty()) difference_ = how;
}

void Replays::add(Call call) {
  const size_t n = next_call_++;
  unnamed_ = false;
  if (!recorded_) return calls_.push_back(std::move(call));
  if (!difference_.empty()) return;
  const std::string place = "call " + std::to_string(n) + ", " + call.what;
  if (n >= calls_.size()) return differs(place + ", was not recorded");
  const Call& before = calls_[n];
  if (before.what != call.what) return differs(place + ", was recorded as " + before.what);
  if (before.arguments == call.arguments) return;
  size_t word = 0;
  while (word_of(before.arguments, word) == word_of(call.arguments, word)) ++word;
  differs(place + ": the arguments' 4 bytes at " + std::to_string(word * 4) + " are " +
          word_of(call.arguments, word) + ", recorded were " + word_of(before.arguments, word));
  unnamed_ = true;
}

void Replays::add(const void* kernel, std::array<unsigned, 3> blocks, int threads, size_t shared,
                  const std::string& arguments) {
  std::ostringstream what;
  what << "kernel " << kernel << " of " << blocks[0] << " x " << blocks[1] << " x " << blocks[2]
       << " blocks of " << threads << " threads with " << shared << " bytes";
  add({what.str(), arguments});
}

void Replays::name_last(const char* launcher) {
  if (unnamed_) difference_ += std::string(" (") + launcher + ")";
  unnamed_ = false;
}

void Replays::overwrite() {
  for (const Replays* one : *pool_) {
    for (size_t i = 0; i < one->blocks_.size(); ++i)
      std::memset(one->blocks_[i]->get(), 0xff, one->sizes_[i]);
  }
}

// While it lives the thread's calls and allocations are the recording's.
class Watch {
 public:
  Watch(Replays& replays, LaunchLog& log)
      : handle_(at::addThreadLocalCallback(at::RecordFunctionCallback(&add_operator)
                                               .needsInputs(true)
                                               .scopes({at::RecordScope::FUNCTION}))) {
    running = &replays;
    launch_log = &log;
  }
  ~Watch() {
    running = nullptr;
    launch_log = nullptr;
    at::removeCallback(handle_);
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  at::CallbackHandle handle_;
};

void Replays::replay() {
  overwrite();
  next_call_ = next_block_ = 0;
  difference_.clear();
  {
    const Watch watch(*this, *this);
    work_();
  }
  if (recorded_ && (next_call_ < calls_.size() || next_block_ < sizes_.size()))
    differs("it makes " + std::to_string(next_call_) + " calls and " + std::to_string(next_block_) +
            " allocations, recorded were " + std::to_string(calls_.size()) + " and " +
            std::to_string(sizes_.size()));
  recorded_ = true;
  if (!difference_.empty())
    throw std::runtime_error("emulation: a replay is not what was recorded: " + difference_);
}

}  // namespace

bool replaying() { return running; }

std::unique_ptr<Recording> record(std::function<void()> work) {
  return std::make_unique<Replays>(std::move(work));
}

}  // namespace troupe::kernels::cuda::emulation
