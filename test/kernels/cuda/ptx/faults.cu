#include "faults.h"
#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda::test {
namespace {

__global__ void reversed_kernel(const int* in, int* out) {
  __shared__ int shared[64];
  shared[threadIdx.x] = in[threadIdx.x];
  // Right if the lower warp has come first.
  out[threadIdx.x] = threadIdx.x < 32 ? shared[threadIdx.x] : shared[63 - threadIdx.x];
}

__global__ void copied_kernel(const int* in, int* out) {
  alignas(16) __shared__ int shared[128];
  copy16_or_zero(shared + threadIdx.x * 4, in + threadIdx.x * 4, true);
  commit_copies();
  __syncthreads();
  for (unsigned j = 0; j < 4; ++j) out[threadIdx.x * 4 + j] = shared[threadIdx.x * 4 + j];
}

__global__ void misaligned_kernel(const float* in, float* out) {
  alignas(16) __shared__ float shared[132];
  for (unsigned i = threadIdx.x; i < 129; i += 32) shared[i] = in[i];
  __syncthreads();
  float four[4];
  load(shared + 1 + threadIdx.x * 4, four);
  for (unsigned j = 0; j < 4; ++j) out[threadIdx.x * 4 + j] = four[j];
}

__global__ void half_a_mask_kernel(const int* in, int* out) {
  out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, in[threadIdx.x], 1);
}

__global__ void summed_kernel(const int* in, uint32_t* ticket, int* parts, int* out) {
  const unsigned at = blockIdx.x * 32 + threadIdx.x;
  parts[at] = in[at];
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(ticket, 1) == 1;
  __syncthreads();
  if (last) out[threadIdx.x] = parts[threadIdx.x] + parts[32 + threadIdx.x];
}

__global__ void write_beyond_kernel(int* out) { out[threadIdx.x + 1] = 1; }

__global__ void read_beyond_shared_kernel(int* out) {
  auto* const shared = reinterpret_cast<int*>(dynamic_shared());
  shared[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x + 1];
}

__global__ void divided_kernel(const int* in, int* out) { out[threadIdx.x] = 100 / in[threadIdx.x]; }

template <bool fault>
__global__ void multiplied_kernel(const uint32_t* a, const uint32_t* b, float* d) {
  const unsigned lane = threadIdx.x;
  float c[4] = {};
  const uint32_t mine[4] = {a[lane * 4], a[lane * 4 + 1], a[lane * 4 + 2], a[lane * 4 + 3]};
  if constexpr (fault) {
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%6,%5,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(mine[0]), "r"(mine[1]), "r"(mine[2]), "r"(mine[3]), "r"(b[lane * 2]), "r"(b[lane * 2 + 1]));
#else
    multiply_add(c, mine, b[lane * 2], b[lane * 2 + 1]);
#endif
  } else {
    multiply_add(c, mine, b[lane * 2], b[lane * 2 + 1]);
  }
  for (int j = 0; j < 4; ++j) d[lane * 4 + j] = c[j];
}

template <bool transposed, bool fault>
__global__ void loaded_kernel(const uint16_t* matrices, uint32_t* registers) {
  alignas(16) __shared__ uint16_t shared[256];
  for (unsigned i = threadIdx.x; i < 256; i += 32) shared[i] = matrices[i];
  __syncthreads();
  uint32_t r[4];
  const void* const row = shared + threadIdx.x * 8;
#ifdef __CUDACC__
  constexpr bool kTransposes = transposed && !fault;
#else
  constexpr bool kTransposes = transposed;
#endif
  if constexpr (kTransposes)
    load_matrices_transposed(r, row);
  else
    load_matrices(r, row);
  for (int j = 0; j < 4; ++j) registers[threadIdx.x * 4 + j] = r[j];
}

}  // namespace

int reversed_without_barrier(const int* in, int* out) {
  return launch(reversed_kernel, dim3(1), 64, 0, nullptr, in, out);
}
int copied_without_wait(const int* in, int* out) {
  return launch(copied_kernel, dim3(1), 32, 0, nullptr, in, out);
}
int misaligned(const float* in, float* out) {
  return launch(misaligned_kernel, dim3(1), 32, 0, nullptr, in, out);
}
int half_a_mask(const int* in, int* out) {
  return launch(half_a_mask_kernel, dim3(1), 32, 0, nullptr, in, out);
}
int summed_without_fence(const int* in, uint32_t* ticket, int* parts, int* out) {
  return launch(summed_kernel, dim3(2), 32, 0, nullptr, in, ticket, parts, out);
}
int write_beyond(int* out) { return launch(write_beyond_kernel, dim3(1), 32, 0, nullptr, out); }
int read_beyond_shared(int* out) {
  return launch(read_beyond_shared_kernel, dim3(1), 32, 32 * sizeof(int), nullptr, out);
}
int divided(const int* in, int* out) { return launch(divided_kernel, dim3(1), 32, 0, nullptr, in, out); }
int multiplied(bool fault, const uint32_t* a, const uint32_t* b, float* d) {
  return launch(fault ? multiplied_kernel<true> : multiplied_kernel<false>, dim3(1), 32, 0, nullptr, a, b, d);
}
int loaded(bool transposed, bool fault, const uint16_t* matrices, uint32_t* registers) {
  return launch(!transposed ? loaded_kernel<false, false>
                : fault     ? loaded_kernel<true, true>
                            : loaded_kernel<true, false>,
                dim3(1), 32, 0, nullptr, matrices, registers);
}

}  // namespace troupe::kernels::cuda::test
