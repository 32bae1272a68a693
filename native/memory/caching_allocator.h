// The CPU allocator of every tensor: keeps freed blocks for the next tensor of their size, and asks for large
// ones in huge pages.
//
// A training step allocates and frees the same activations again and again. Left to glibc, each of them is
// mapped, faulted in page by page, zeroed by the kernel and unmapped: a third of a step's processor time on
// virtual machines. What is small or seldom stays with libtorch's own allocator.
#pragma once

#include <cstdint>

namespace troupe {

struct MemoryStatistics {
  int64_t used = 0;    // bytes in live blocks
  int64_t cached = 0;  // bytes in blocks kept for reuse
  int64_t peak = 0;    // the most `used` has been
};

// Makes libtorch take CPU memory from here; later calls do nothing. Tensors made before keep their memory.
// Freed blocks are kept as long as all blocks take at most what the live ones once did at their peak and,
// beyond that, 1 GiB, or a thirty-second of the machine's memory if that is less.
void install_caching_allocator();

MemoryStatistics memory_statistics();
void reset_peak_statistics();

// Gives the kept blocks back to the system.
void release_cached_memory();

}  // namespace troupe
