// A GPU's memory on the CPU, for tests: CPU tensors of 256 KiB and more lie in so many bytes and no more, handed out as
// c10's CUDACachingAllocator does. A request takes the smallest free block that it fits into and cuts off what it does not
// need; where none fits, the device gives a new segment; where it has no room, segments of which no part is in use go back
// first. A segment of which any part is in use stays: that is how memory is free and yet cannot be had in one piece.
//
// Left out: the pool of small blocks, which lie apart there too, streams, the rounding of segments. Recorded steps, whose emulation
// (recording.h) puts an allocator in the CPU's place as well, go without it.
#pragma once

#include <cstdint>

namespace troupe::kernels::cuda::emulation {

// 0: tensors that are made from here on lie in the CPU's own memory again, and what the device cached is gone.
void emulate_device_memory(int64_t bytes);

}  // namespace troupe::kernels::cuda::emulation
