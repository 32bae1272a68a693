// A GPU's memory on the CPU, for tests: CPU tensors of 256 KiB and more lie in so many bytes and no more, handed out as
// c10's CUDACachingAllocator does. A request takes the smallest free block that it fits into and cuts off what it does not
// need; where none fits, the device gives a new segment; where it has no room, segments of which no part is in use go back
// first. A segment of which any part is in use stays: that is how memory is free and yet cannot be had in one piece.
//
// A recording (recording.h) takes its memory from here as well, and gives none back before it goes. Left out: the
// pool of small blocks, which lie apart there too, streams, the rounding of segments, and that recordings share their
// memory: here each keeps its own, of which it uses no block twice, so that recorded steps need more than on a GPU.
#pragma once

#include <c10/core/Allocator.h>

#include <cstdint>

namespace troupe::kernels::cuda::emulation {

// 0: tensors that are made from here on lie in the CPU's own memory again, and what the device cached is gone.
void emulate_device_memory(int64_t bytes);

// Where tensors' memory comes from, of the device or the CPU. It stands in the CPU's place from its first use on.
c10::Allocator& tensor_memory();

}  // namespace troupe::kernels::cuda::emulation
