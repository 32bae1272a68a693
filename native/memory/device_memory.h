// How much memory a device has left, as far as it says so: what recomputation, accumulators, sketches and the
// KV cache are decided by.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace troupe {

struct DeviceMemory {
  // Bytes that can be allocated now: for the CPU without swapping, the least of what the kernel calls
  // available and what the control group still allows, and what the allocator keeps for reuse. Where the
  // system says neither, 4 GiB.
  int64_t free = 0;
  // Bytes that the process may ever use: the device's memory or, if less, what the control group allows. The
  // same in every run on one machine.
  int64_t limit = 0;
  int64_t used = 0;     // in live tensors (CPU: those of 64 KiB and more)
  int64_t cached = 0;   // kept by the allocator for reuse
  int64_t peak = 0;     // the most that `used` has been since the start or reset_peak_memory
  bool shared = false;  // everything else on the machine lives in it too
  // What a KV cache that nobody sized may take, where `reserved` bytes are needed for what comes and stays.
  int64_t cacheable(int64_t reserved) const {
    return free > reserved ? (free - reserved) / (shared ? 4 : 2) : 0;
  }
};

DeviceMemory device_memory(const c10::Device& device);
void reset_peak_memory(const c10::Device& device);
// Gives what the device's allocator keeps for reuse back to the system.
void release_cached_memory(const c10::Device& device);
// After the largest block of a device was freed. A GPU's allocator cuts free blocks up for what comes next, and a block of
// which any part is in use stays with it: given back now, it goes back whole. The CPU's allocator cuts none.
void release_uncut_memory(const c10::Device& device);

// What the functions above ask: each kind of device has one.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  virtual DeviceMemory now() = 0;
  virtual void reset_peak() = 0;
  virtual void release_cached() = 0;
  // Whether free blocks are cut up for smaller tensors.
  virtual bool cuts_blocks() const { return true; }
};
// Takes the place of the CPU's: tests have its memory handed out as a GPU's is
// (native/kernels/cuda/emulation/device_memory.h). Null: no longer.
void replace_host_memory(MemorySource* source);

}  // namespace troupe
