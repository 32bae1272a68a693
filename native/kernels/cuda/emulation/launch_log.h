// Who is told of what a thread of the host launches over the emulation: recording.cc, which holds replays against what was
// recorded. And which launch is to fail.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace troupe::kernels::cuda::emulation {

class LaunchLog {
 public:
  virtual ~LaunchLog() = default;
  // arguments: the kernel's, as bytes.
  virtual void add(const void* kernel, std::array<unsigned, 3> blocks, int threads, size_t shared,
                   const std::string& arguments) = 0;
  // Which launcher the last one was of.
  virtual void name_last(const char* launcher) = 0;
};
extern thread_local LaunchLog* launch_log;  // null: nobody is told
// The same for .cu files, whose own reads are counted as their kernels' (accesses.h).
LaunchLog* current_launch_log();

// The launch that is so many ahead fails, the next one being 1, and its kernel does not run; 0: none does.
void fail_launch(int64_t ahead);

template <typename T>
void append_bytes(std::string& to, T value) {
  __builtin_clear_padding(&value);  // which holds anything
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace troupe::kernels::cuda::emulation
