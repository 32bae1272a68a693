#include "kernels/cuda/emulation/accesses.h"

#include <pthread.h>

#include <bit>
#include <unordered_map>
#include <utility>

// The linker's: where the library that this is in begins and ends.
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start, _end;

namespace troupe::kernels::cuda::emulation {
namespace {

uintptr_t address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

struct Range {
  uintptr_t begin = 0, end = 0;
  bool has(uintptr_t at) const { return begin <= at && at < end; }
};
Range range(const void* begin, size_t size) { return {address(begin), address(begin) + size}; }

// Of the thread that launches: what it passes by value.
Range thread_stack() {
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  void* begin = nullptr;
  size_t size = 0;
  pthread_attr_getstack(&attributes, &begin, &size);
  pthread_attr_destroy(&attributes);
  return range(begin, size);
}

// A bit for each byte of 64.
struct Line {
  uint64_t read = 0, written = 0;
};

// Launches come one after another (emulation.cc), and so does everything here.
class Counter final : public Watcher {
 public:
  void add_stack(const void* begin, size_t size) override { stacks_[address(begin)] = address(begin) + size; }
  void set_shared(const void* begin, size_t size) override { shared_ = range(begin, size); }

  void touch(const void* begin, size_t size, uint64_t Line::*how) {
    uintptr_t at = address(begin);
    if (!of_the_device(at)) return;
    for (const uintptr_t end = at + size; at < end;) {
      const uintptr_t offset = at % 64, count = std::min<uintptr_t>(end - at, 64 - offset);
      const uint64_t ones = count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
      lines_[at / 64].*how |= ones << offset;
      at += count;
    }
  }

  void end(const char* launcher, int64_t launches_so_far) override {
    Accesses& accesses = by_launcher_[launcher];
    accesses.launches += launches_so_far - std::exchange(launches_before_, launches_so_far);
    for (const auto& [at, line] : lines_)
      accesses.bytes += std::popcount(line.read) + std::popcount(line.written);
    lines_.clear();
  }

  std::map<std::string, Accesses> take() override { return std::exchange(by_launcher_, {}); }

 private:
  bool of_the_device(uintptr_t at) const {
    static thread_local const Range stack = thread_stack();
    // The emulation's own variables, and shared memory of a size known when compiled.
    static const Range library{address(&__ehdr_start), address(&_end)};
    if (library.has(at) || stack.has(at) || shared_.has(at)) return false;
    const auto next = stacks_.upper_bound(at);
    return next == stacks_.begin() || at >= std::prev(next)->second;
  }

  std::unordered_map<uintptr_t, Line> lines_;
  std::map<uintptr_t, uintptr_t> stacks_;  // begin → end
  Range shared_;
  std::map<std::string, Accesses> by_launcher_;
  int64_t launches_before_ = 0;
};

Counter counter;
[[maybe_unused]] const auto counts = watcher = &counter;

}  // namespace
}  // namespace troupe::kernels::cuda::emulation

using troupe::kernels::cuda::emulation::counter;
using troupe::kernels::cuda::emulation::Line;

// What -fsanitize=thread has called. That of addresses will not do: of a read and a write of one place it checks one.
extern "C" {
#define TROUPE_ACCESSES_OF(size)                                                             \
  void __tsan_read##size(const void* at) { counter.touch(at, size, &Line::read); }           \
  void __tsan_write##size(const void* at) { counter.touch(at, size, &Line::written); }       \
  void __tsan_unaligned_read##size(const void* at) { counter.touch(at, size, &Line::read); } \
  void __tsan_unaligned_write##size(const void* at) { counter.touch(at, size, &Line::written); }
TROUPE_ACCESSES_OF(1)
TROUPE_ACCESSES_OF(2)
TROUPE_ACCESSES_OF(4)
TROUPE_ACCESSES_OF(8)
TROUPE_ACCESSES_OF(16)
void __tsan_read_range(const void* at, size_t size) { counter.touch(at, size, &Line::read); }
void __tsan_write_range(const void* at, size_t size) { counter.touch(at, size, &Line::written); }
void __tsan_init() {}
void __tsan_func_entry(const void*) {}
void __tsan_func_exit() {}
// The count of launches alone.
uint64_t __tsan_atomic64_fetch_add(uint64_t* at, uint64_t value, int order) {
  return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}
uint64_t __tsan_atomic64_load(const uint64_t* at, int order) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
}
