// A lane's accesses to memory, each checked: its alignment, that it lies in what there is, and in what order it comes with those
// of other threads.
#pragma once

#include "machine.h"

namespace troupe::kernels::cuda::ptx {

// Global memory lies at the same addresses of the host.
void read_global(Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes, void* to);
void read_shared(Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes, void* to);
void read_parameter(Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes, void* to);
// Where an atomic, or a write of `value`, takes place.
uint8_t* global_memory(Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes, Use use,
                       const void* value = nullptr);
uint8_t* shared_memory(Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes, Use use,
                       const void* value = nullptr);

}  // namespace troupe::kernels::cuda::ptx
