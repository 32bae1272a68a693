#include "kernels/scratch.h"

#include <c10/core/CPUAllocator.h>

namespace troupe::kernels {

ScratchBlock allocate_scratch(size_t bytes) {
  c10::Allocator* const allocator = c10::GetCPUAllocator();
  return {allocator->raw_allocate(bytes), allocator->raw_deleter()};
}

}  // namespace troupe::kernels
