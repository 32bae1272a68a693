// Counts launches: the tests hold them against what a layer or a step may take. And says what went wrong with
// one.
#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {

std::atomic<int64_t>& internal::launches() {
  static std::atomic<int64_t> count = 0;
  return count;
}

int64_t launch_count() { return internal::launches(); }

const char* error_text(int error) {
#ifdef __CUDACC__
  return cudaGetErrorString(static_cast<cudaError_t>(error));
#else
  return error == kInvalidValue ? "invalid argument" : "invalid configuration";
#endif
}

}  // namespace troupe::kernels::cuda
