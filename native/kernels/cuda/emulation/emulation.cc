#include "kernels/cuda/emulation/emulation.h"

#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/emulation/accesses.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
// Saves the caller's registers on its stack, that stack's top in *from, and goes on with the stack `to`.
// swapcontext would do, but for two system calls each time.
extern "C" void troupe_emulation_switch(void** from, void* to);
asm(R"(
.text
.type troupe_emulation_switch, @function
troupe_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size troupe_emulation_switch, .-troupe_emulation_switch
)");
#endif

namespace troupe::kernels::cuda::emulation {

std::function<void()> at_wait;
Position here;
unsigned char* shared_memory = nullptr;
Watcher* watcher = nullptr;
thread_local LaunchLog* launch_log = nullptr;
LaunchLog* current_launch_log() { return launch_log; }
Runner* runner = nullptr;
Runner* current_runner() { return runner; }
Shown shown[kMostThreads];

namespace {

constexpr size_t kStack = 128 << 10;
// Stacks begin at different lines of the caches, which they would otherwise all meet in the same few.
constexpr size_t kColours = 64, kColourStep = 17, kLine = 64;

class Context {
 public:
#if defined(__x86_64__)
  void prepare(unsigned char* stack, void (*entry)()) {
    // As if `entry` had been called by nobody: six registers and the address to go to, below an aligned top.
    auto** top = reinterpret_cast<void**>(stack + kStack) - 1;
    *top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    top -= 6;
    std::fill_n(top, 6, nullptr);
    stack_ = top;
  }
  static void change(Context& from, Context& to) { troupe_emulation_switch(&from.stack_, to.stack_); }

 private:
  void* stack_ = nullptr;
#else
  void prepare(unsigned char* stack, void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = kStack;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }
  static void change(Context& from, Context& to) { swapcontext(&from.context_, &to.context_); }

 private:
  ucontext_t context_;
#endif
};

enum class State { kNew, kReady, kAtWarp, kAtBlock, kDone };

struct Thread {
  State state;
  int line;  // that it waits at
  unsigned char* stack;
  Context context;
};

// What AddressSanitizer is told of a change of stacks.
struct Stacks {
  void* fakes[kMostThreads + 1];  // of the threads, and of whom called
  const void* caller = nullptr;   // its stack
  size_t caller_size = 0;
  bool called = false;  // the change is the caller's
};

// The block that runs: one at a time in a process.
struct Block {
  int count = 0;  // of its threads
  int step = 0;   // of this round over them, in the order that they run in
  int done = 0;
  bool moved = false;  // in this round somebody ran or was let go
  const std::function<void()>* body = nullptr;
  Context caller;
  Stacks stacks;
  Thread threads[kMostThreads];
};

std::mutex mutex;
Block block;
bool reversed = false;
int64_t launches_until_failure = 0;  // 0: none fails

// As many as ever waited at a time.
class StackPool {
 public:
  unsigned char* take() {
    if (free_.empty()) {
      all_.push_back(std::make_unique_for_overwrite<unsigned char[]>(kStack + kColours * kLine));
      free_.push_back(all_.back().get() + all_.size() * kColourStep % kColours * kLine);
      if (watcher) watcher->add_stack(all_.back().get(), kStack + kColours * kLine);
    }
    unsigned char* const stack = free_.back();
    free_.pop_back();
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack, kStack);  // what frames that nobody returned from have left
#endif
    return stack;
  }
  void give(unsigned char* stack) { free_.push_back(stack); }

 private:
  std::vector<std::unique_ptr<unsigned char[]>> all_;
  std::vector<unsigned char*> free_;
};
StackPool pool;

constexpr int kCaller = kMostThreads;

[[maybe_unused]] void start_change([[maybe_unused]] int from, [[maybe_unused]] int to,
                                   [[maybe_unused]] bool last) {
#if defined(__SANITIZE_ADDRESS__)
  block.stacks.called = from == kCaller;
  __sanitizer_start_switch_fiber(last ? nullptr : &block.stacks.fakes[from],
                                 to == kCaller ? block.stacks.caller : block.threads[to].stack,
                                 to == kCaller ? block.stacks.caller_size : kStack);
#endif
}
[[maybe_unused]] void finish_change([[maybe_unused]] void* fake) {
#if defined(__SANITIZE_ADDRESS__)
  const void* from = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(fake, &from, &size);
  if (!block.stacks.called) return;
  block.stacks.caller = from;
  block.stacks.caller_size = size;
#endif
}

// If all of the threads [begin, end) wait in `state` at one line, lets them go.
bool release(int begin, int end, State state) {
  for (int i = begin; i < end; ++i) {
    const Thread& thread = block.threads[i];
    if (thread.state != state || thread.line != block.threads[begin].line) return false;
  }
  for (int i = begin; i < end; ++i) block.threads[i].state = State::kReady;
  block.moved = true;
  return true;
}

// The thread that runs at a step of a round.
int thread_of(int step) { return reversed ? block.count - 1 - step : step; }

// The thread that goes on; kCaller where all have ended, or wait for each other.
int next() {
  const int count = block.count;
  for (;;) {
    for (;;) {
      // A warp whose last lane has come goes on at once.
      if (block.step % 32 == 0 && block.step > 0) {
        const int last = thread_of(block.step - 1), warp = last / 32 * 32;
        if (block.threads[last].state == State::kAtWarp && release(warp, warp + 32, State::kAtWarp))
          block.step -= 32;
      }
      if (block.step == count) break;
      const int i = thread_of(block.step++);
      if (block.threads[i].state == State::kNew || block.threads[i].state == State::kReady) {
        block.moved = true;
        return i;
      }
    }
    if (block.done == count || !block.moved) return kCaller;
    block.moved = false;
    block.step = 0;
    release(0, count, State::kAtBlock);
  }
}

void enter();

// From the stack of `from` to where `to` goes on; comes back when `from` does, if it is not its last time.
void change(int from, int to, bool last) {
  Context& mine = from == kCaller ? block.caller : block.threads[from].context;
  if (to != kCaller) {
    Thread& thread = block.threads[to];
    here.thread.x = static_cast<unsigned>(to);
    if (thread.state == State::kNew) {
      thread.stack = pool.take();
      thread.context.prepare(thread.stack, enter);
    }
    thread.state = State::kReady;
  }
  start_change(from, to, last);
  Context::change(mine, to == kCaller ? block.caller : block.threads[to].context);
  finish_change(block.stacks.fakes[from]);
}

// A stack's life: a thread's body, and those of new threads for as long as it is their turn.
void enter() {
  finish_change(nullptr);
  for (;;) {
    (*block.body)();
    const auto self = static_cast<int>(here.thread.x);
    Thread& thread = block.threads[self];
    thread.state = State::kDone;
    ++block.done;
    const int to = next();
    if (to == kCaller || block.threads[to].state != State::kNew) {
      pool.give(thread.stack);
      change(self, to, /*last=*/true);
    }
    block.threads[to].state = State::kReady;
    block.threads[to].stack = thread.stack;
    here.thread.x = static_cast<unsigned>(to);
  }
}

std::string describe() {
  std::string text = "emulation: threads wait for each other for ever:";
  int told = 0;
  for (int i = 0; i < block.count && told < 8; ++i) {
    const Thread& thread = block.threads[i];
    if (i > 0 && thread.state == block.threads[i - 1].state && thread.line == block.threads[i - 1].line)
      continue;
    const char* what = thread.state == State::kDone     ? "has ended"
                       : thread.state == State::kAtWarp ? "waits for its warp at line "
                                                        : "waits for its block at line ";
    text += " thread " + std::to_string(i) + " " + what +
            (thread.state == State::kDone ? "" : std::to_string(thread.line)) + ";";
    ++told;
  }
  return text;
}

void run_block() {
  for (int i = 0; i < block.count; ++i) {
    block.threads[i].state = State::kNew;
    block.threads[i].line = 0;
    shown[i].turn = 0;
  }
  block.step = block.done = 0;
  block.moved = false;
  change(kCaller, next(), /*last=*/false);
  if (block.done == block.count) return;
  const std::string text = describe();
  pool = {};  // nobody comes back to them
  throw std::runtime_error(text);
}

struct SharedDelete {
  void operator()(unsigned char* memory) const { ::operator delete[](memory, std::align_val_t(128)); }
};

void wait(State state, int line) {
  const auto self = static_cast<int>(here.thread.x);
  block.threads[self].state = state;
  block.threads[self].line = line;
  // In the order of the threads its own turn comes last.
  const int to = next();
  if (to == self)
    block.threads[self].state = State::kReady;
  else
    change(self, to, /*last=*/false);
}

}  // namespace

void reverse(bool on) { reversed = on; }
void fail_launch(int64_t ahead) {
  const std::lock_guard lock(mutex);
  launches_until_failure = ahead;
}
void meet_block(int line) { wait(State::kAtBlock, line); }
void meet_warp(int line) { wait(State::kAtWarp, line); }

int run(dim3 grid, int threads, size_t shared, const std::function<void()>& body) {
  if (threads <= 0 || threads > kMostThreads || threads % 32 != 0 || grid.y > 65535 || grid.z > 65535 ||
      shared > (227u << 10))
    return 9;  // cudaErrorInvalidConfiguration
  const std::lock_guard lock(mutex);
  if (launches_until_failure > 0 && --launches_until_failure == 0) return 9;
  here.grid = grid;
  here.threads = dim3(static_cast<unsigned>(threads));
  block.count = threads;
  block.body = &body;
  // Of its exact size.
  const std::unique_ptr<unsigned char[], SharedDelete> memory(
      new (std::align_val_t(128)) unsigned char[shared]);
  shared_memory = memory.get();
  if (watcher) watcher->set_shared(memory.get(), shared);
  const auto at = [](unsigned step, unsigned count) { return reversed ? count - 1 - step : step; };
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        here.block = dim3(at(x, grid.x), at(y, grid.y), at(z, grid.z));
        // Full of NaN: what a kernel reads it has written.
        std::fill_n(memory.get(), shared, static_cast<unsigned char>(0xff));
        run_block();
      }
    }
  }
  return 0;
}

}  // namespace troupe::kernels::cuda::emulation
