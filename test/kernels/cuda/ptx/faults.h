// Kernels with a fault that the emulation does not see, and instructions alone: for ptx_test.cc.
#pragma once

#include <cstdint>

namespace troupe::kernels::cuda::test {

// One warp or two; each returns launch's error. `out` has an element for each thread, `in` as many.
int reversed_without_barrier(const int* in, int* out);  // 64
int copied_without_wait(const int* in, int* out);       // 32 × 4
int misaligned(const float* in, float* out);            // 32 × 4, of `in` 32 × 4 and one more
int half_a_mask(const int* in, int* out);               // 32
int summed_without_fence(const int* in, uint32_t* ticket, int* parts,
                         int* out);    // two blocks of 32: the sum; parts [64]
int write_beyond(int* out);            // element 32 of 32
int read_beyond_shared(int* out);      // 32
int divided(const int* in, int* out);  // 32

// d [32, 4] of the registers a [32, 4], b [32, 2] and c = 0 of each lane; with a fault: the middle registers of a exchanged in
// the assembly.
int multiplied(bool fault, const uint32_t* a, const uint32_t* b, float* d);
// Registers [32, 4] of four 8×8 matrices of 16 bits, one behind the other; with a fault: the assembly does not transpose.
int loaded(bool transposed, bool fault, const uint16_t* matrices, uint32_t* registers);

}  // namespace troupe::kernels::cuda::test
