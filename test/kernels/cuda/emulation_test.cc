// The emulation itself: barriers, warps, and that it fails where a GPU would hang.
#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

__global__ void reverse_kernel(const int* in, int* out) {
  __shared__ int shared[64];
  shared[threadIdx.x] = in[blockIdx.x * 64 + threadIdx.x];
  __syncthreads();
  out[blockIdx.x * 64 + threadIdx.x] = shared[63 - threadIdx.x];
}
__global__ void missing_barrier_kernel(int* out) {
  __shared__ int shared[64];
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = shared[63 - threadIdx.x];
  __syncthreads();
  shared[threadIdx.x] = -1;
}
__global__ void divergent_kernel() {
  if (threadIdx.x < 40) __syncthreads();
}
__global__ void divergent_warp_kernel(int* out) {
  if (threadIdx.x % 2 == 0) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 2);
}
__global__ void two_barriers_kernel() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void sum_kernel(int* out) {
  const int total = block_sum<2>(static_cast<int>(threadIdx.x));
  out[threadIdx.x] = total + lane_max(static_cast<int>(threadIdx.x));
}

template <typename F>
std::string failure(const F& f) {
  try {
    f();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

const Register barriers("emulation: blocks, barriers and warps", [] {
  Buffer<int> in(192), out(192);
  for (int i = 0; i < 192; ++i) in[i] = i;
  both_ways(
      "reverse", [&] { return launch(reverse_kernel, dim3(3), 64, 0, nullptr, in.data(), out.data()); }, out);
  for (int i = 0; i < 192; ++i) check(out[i] == i / 64 * 64 + 63 - i % 64, "reversed");
  Buffer<int> sums(64);
  both_ways(
      "sum", [&] { return launch(sum_kernel, dim3(1), 64, 0, nullptr, sums.data()); }, sums);
  for (int i = 0; i < 64; ++i) check(sums[i] == 63 * 32 + (i < 32 ? 31 : 63), "summed");
});

const Register divergence("emulation: a divergent barrier fails", [] {
  Buffer<int> out(64);
  const std::string block = failure([] { launch(divergent_kernel, dim3(1), 64, 0, nullptr); });
  check(block.find("thread 0 waits for its block") != std::string::npos &&
            block.find("thread 40 has ended") != std::string::npos,
        "a barrier that 40 of 64 threads meet: " + block);
  check(!failure([&] { launch(divergent_warp_kernel, dim3(1), 64, 0, nullptr, out.data()); }).empty(),
        "a shuffle of half a warp must fail");
  check(!failure([] { launch(two_barriers_kernel, dim3(1), 64, 0, nullptr); }).empty(),
        "threads at two different barriers must fail");
  // And the next launch works.
  both_ways(
      "sum", [&] { return launch(sum_kernel, dim3(1), 64, 0, nullptr, out.data()); }, out);
});

const Register order("emulation: a missing barrier shows in the other order", [] {
  Buffer<int> out = Buffer<int>::zeros(64);
  const std::string text = failure([&] {
    both_ways(
        "missing", [&] { return launch(missing_barrier_kernel, dim3(1), 64, 0, nullptr, out.data()); }, out);
  });
  check(text.find("depends on the order of its threads") != std::string::npos, "it went unnoticed: " + text);
  reverse_threads(false);
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
