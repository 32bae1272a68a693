#include "kernels/cuda/emulation/emulation.h"

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
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
namespace {

constexpr size_t kStack = 128 << 10;

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

struct Fiber {
  Context context;
  unsigned char* stack = nullptr;
  State state = State::kNew;
  int line = 0;
  alignas(8) unsigned char values[2][kWidest];
  int turn = 0;                // which of the two was put last
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// The block that this OS thread runs.
struct Block {
  std::vector<Fiber> fibers;
  size_t current = 0;
  Position position;
  const std::function<void()>* body = nullptr;
  unsigned char* shared = nullptr;
  Context main;
  const void* main_stack = nullptr;
  size_t main_stack_size = 0;
  void* main_fake_stack = nullptr;
  std::vector<std::unique_ptr<unsigned char[]>> stacks;  // all of them
  std::vector<unsigned char*> free_stacks;
};

thread_local std::unique_ptr<Block> block;
thread_local bool reversed = false;

[[maybe_unused]] void start_switch(void** save, const void* bottom, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(save, bottom, size);
#endif
}
[[maybe_unused]] void finish_switch(void* saved, const void** bottom, size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(saved, bottom, size);
#endif
}

void to_main(bool last) {
  Fiber& fiber = block->fibers[block->current];
  start_switch(last ? nullptr : &fiber.fake_stack, block->main_stack, block->main_stack_size);
  Context::change(fiber.context, block->main);
  finish_switch(fiber.fake_stack, &block->main_stack, &block->main_stack_size);
}

void enter() {
  finish_switch(nullptr, &block->main_stack, &block->main_stack_size);
  (*block->body)();
  block->fibers[block->current].state = State::kDone;
  to_main(/*last=*/true);
}

unsigned char* take_stack() {
  if (block->free_stacks.empty()) {
    block->stacks.push_back(std::make_unique<unsigned char[]>(kStack));
    block->free_stacks.push_back(block->stacks.back().get());
  }
  unsigned char* const stack = block->free_stacks.back();
  block->free_stacks.pop_back();
  return stack;
}

void resume(size_t index) {
  block->current = index;
  block->position.thread = dim3(static_cast<unsigned>(index));
  Fiber& fiber = block->fibers[index];
  if (fiber.state == State::kNew) {
    fiber.stack = take_stack();
    fiber.context.prepare(fiber.stack, enter);
  }
  fiber.state = State::kReady;
  start_switch(&block->main_fake_stack, fiber.stack, kStack);
  Context::change(block->main, fiber.context);
  finish_switch(block->main_fake_stack, nullptr, nullptr);
  if (fiber.state == State::kDone) {
    block->free_stacks.push_back(fiber.stack);
    fiber.stack = nullptr;
  }
}

// If all of the fibers [begin, end) wait in `state` at one line, lets them go.
bool release(size_t begin, size_t end, State state) {
  for (size_t i = begin; i < end; ++i) {
    const Fiber& fiber = block->fibers[i];
    if (fiber.state != state || fiber.line != block->fibers[begin].line) return false;
  }
  for (size_t i = begin; i < end; ++i) block->fibers[i].state = State::kReady;
  return true;
}

std::string describe() {
  std::string text = "emulation: threads wait for each other for ever:";
  int shown = 0;
  for (size_t i = 0; i < block->fibers.size() && shown < 8; ++i) {
    const Fiber& fiber = block->fibers[i];
    if (i > 0 && fiber.state == block->fibers[i - 1].state && fiber.line == block->fibers[i - 1].line)
      continue;
    const char* what = fiber.state == State::kDone     ? "has ended"
                       : fiber.state == State::kAtWarp ? "waits for its warp at line "
                                                       : "waits for its block at line ";
    text += " thread " + std::to_string(i) + " " + what +
            (fiber.state == State::kDone ? "" : std::to_string(fiber.line)) + ";";
    ++shown;
  }
  return text;
}

void run_block() {
  const size_t count = block->fibers.size();
  for (;;) {
    bool ran = false, alive = false;
    for (size_t step = 0; step < count; ++step) {
      const size_t i = reversed ? count - 1 - step : step;
      const State state = block->fibers[i].state;
      if (state == State::kNew || state == State::kReady) {
        resume(i);
        ran = true;
      }
      // The last lane of a warp to come lets it go on at once.
      if (block->fibers[i].state == State::kAtWarp && i % 32 == (reversed ? 0 : 31))
        release(i / 32 * 32, i / 32 * 32 + 32, State::kAtWarp);
      alive = alive || block->fibers[i].state != State::kDone;
    }
    if (!alive) return;
    if (release(0, count, State::kAtBlock)) continue;
    bool released = false;
    for (size_t warp = 0; warp < count; warp += 32)
      released = release(warp, warp + 32, State::kAtWarp) || released;
    if (ran || released) continue;
    const std::string text = describe();
    block.reset();
    throw std::runtime_error(text);
  }
}

struct SharedDelete {
  void operator()(unsigned char* memory) const { ::operator delete[](memory, std::align_val_t(128)); }
};

void wait(State state, int line) {
  Fiber& fiber = block->fibers[block->current];
  fiber.state = state;
  fiber.line = line;
  to_main(/*last=*/false);
}

}  // namespace

const Position& position() { return block->position; }
unsigned char* shared_memory() { return block->shared; }
void reverse(bool on) { reversed = on; }
void meet_block(int line) { wait(State::kAtBlock, line); }
void meet_warp(int line) { wait(State::kAtWarp, line); }
void put(const void* value, size_t size) {
  Fiber& fiber = block->fibers[block->current];
  fiber.turn ^= 1;
  memcpy(fiber.values[fiber.turn], value, size);
}
const void* see(int lane) {
  const Fiber& fiber = block->fibers[block->current / 32 * 32 + static_cast<size_t>(lane)];
  return fiber.values[block->fibers[block->current].turn];
}

int run(dim3 grid, int threads, size_t shared, const std::function<void()>& body) {
  if (threads <= 0 || threads > 1024 || threads % 32 != 0 || grid.y > 65535 || grid.z > 65535 ||
      shared > (227u << 10))
    return 9;  // cudaErrorInvalidConfiguration
  if (!block) block = std::make_unique<Block>();
  block->position.grid = grid;
  block->position.threads = dim3(static_cast<unsigned>(threads));
  block->body = &body;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        block->position.block = dim3(x, y, z);
        block->fibers.assign(static_cast<size_t>(threads), {});
        // Of its exact size, and full of NaN: what a kernel reads it has written.
        const std::unique_ptr<unsigned char[], SharedDelete> memory(
            new (std::align_val_t(128)) unsigned char[shared]);
        std::fill_n(memory.get(), shared, static_cast<unsigned char>(0xff));
        block->shared = memory.get();
        run_block();
      }
    }
  }
  return 0;
}

}  // namespace troupe::kernels::cuda::emulation
