// Blocks of one launch that hand work to each other, through counters that are zero before the launch and that it
// leaves at zero. A block waits for blocks that took lower tickets only, and those run already: nothing is assumed about
// how many blocks run at a time, or in which order they begin. One thread of a block calls these.
#pragma once

#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {

// 0, 1, … blocks − 1, in the order in which blocks come.
__device__ __forceinline__ int take_ticket(uint32_t* counter, unsigned blocks) {
  return static_cast<int>(atomicInc(counter, blocks - 1));
}

// One of `all` arrivals, the last of which makes the counter zero again. What the block wrote before its last barrier is
// seen by every block that awaits this arrival.
__device__ __forceinline__ void arrive(uint32_t* counter, unsigned all) {
  __threadfence();
  atomicInc(counter, all - 1);
}

// An arrival that nobody awaits, of a block that has waited: for the counter alone.
__device__ __forceinline__ void leave(uint32_t* counter, unsigned all) { atomicInc(counter, all - 1); }

// Returns once `arrivals` blocks have arrived, fewer than all. A barrier must follow, behind which the block's other
// threads see what those wrote.
__device__ __forceinline__ void await(const uint32_t* counter, unsigned arrivals) {
#ifdef __CUDACC__
  // An acquiring load would throw away the multiprocessor's L1 at every try, which blocks that still work there read from.
  for (;;) {
    unsigned seen;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];\n" : "=r"(seen) : "l"(counter) : "memory");
    if (seen >= arrivals) break;
    __nanosleep(40);
  }
  asm volatile("fence.acq_rel.gpu;\n" ::: "memory");
#else
  if (*counter < arrivals) emulation::wait_for_blocks();  // which have all run, or never will
#endif
}

}  // namespace troupe::kernels::cuda
