// The emulation itself: barriers, warps, and that it fails where a GPU would hang or touch what is not its own.
#include <sys/wait.h>
#include <unistd.h>

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

__global__ void write_kernel(float* out, int64_t at) {
  if (threadIdx.x == 5) out[at] = 1;
}
__global__ void read_kernel(const float* in, int64_t at, float* out) {
  if (threadIdx.x == 5) *out = in[at];
}

// Whether `kernel` is found to touch what it must not: by the sanitizer, which ends the process, or by `whole`.
template <typename F>
bool is_caught(Buffer<float>& buffer, const F& kernel) {
  const pid_t child = fork();
  check(child >= 0, "no process to fail in");
  if (child == 0) {
    check(std::freopen("/dev/null", "w", stderr) != nullptr, "no place for what the sanitizer says");
    const bool runs = kernel() == 0;
    _exit(runs && buffer.whole() ? 0 : 1);
  }
  int status = 0;
  check(waitpid(child, &status, 0) == child, "the process is gone");
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

const Register canaries("emulation: an access outside a buffer fails", [] {
  for (const int64_t size : {1, 7, 64}) {
    for (const int64_t shift : {0, 2, 5}) {
      const std::string what = label("outside", "float32", {size, shift});
      Buffer<float> buffer = Buffer<float>::zeros(size).shifted(shift), result(1);
      const auto write = [&](int64_t at) {
        return is_caught(buffer,
                         [&] { return launch(write_kernel, dim3(1), 32, 0, nullptr, buffer.data(), at); });
      };
      check(!write(0) && !write(size - 1), what + ": what lies inside");
      check(write(-1) && write(-shift - 1) && write(-40), what + ": a write before it");
      check(write(size) && write(size + 1) && write(size + 40), what + ": a write behind it");
#if defined(__SANITIZE_ADDRESS__)
      const auto read = [&](int64_t at) {
        return is_caught(buffer, [&] {
          return launch(read_kernel, dim3(1), 32, 0, nullptr, buffer.data(), at, result.data());
        });
      };
      check(!read(0) && read(-2) && read(size), what + ": a read");
#endif
    }
  }
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
