// Which bytes of the tensors' memory emulated kernels touch. In one build, troupe_counting.node (bench/stages.mjs), the
// compiler has every read and write of a .cu file call a function, those of -fsanitize=thread, and counting/accesses.cc
// defines them; in others nobody watches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace troupe::kernels::cuda::emulation {

// A byte counts once, however often one call of a launcher reads (or writes) it: what memory behind a cache without
// bounds would see.
struct Accesses {
  int64_t launches = 0, bytes = 0;
};

class Watcher {
 public:
  virtual ~Watcher() = default;
  // Memory that is not the device's: a fiber's stack, for good, and the shared memory of the block that runs.
  virtual void add_stack(const void* begin, size_t size) = 0;
  virtual void set_shared(const void* begin, size_t size) = 0;
  // What was touched since the last call, and launched until now, was of this launcher.
  virtual void end(const char* launcher, int64_t launches_so_far) = 0;
  // By launcher, since the last call.
  virtual std::map<std::string, Accesses> take() = 0;
};
extern Watcher* watcher;  // null: nobody watches

}  // namespace troupe::kernels::cuda::emulation
