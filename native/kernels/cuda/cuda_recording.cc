// Recorded launches: a CUDA graph. The emulation makes the same calls again, and compares (emulation/recording.h).
#include "kernels/cuda/cuda_kernels.h"
#ifdef TROUPE_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#else
#include "kernels/cuda/emulation/recording.h"
#endif

namespace troupe::kernels::cuda {
namespace {

#ifdef TROUPE_CUDA

class Graph : public Recording {
 public:
  Graph(const at::Device& device, const std::function<void()>& work) {
    // One pool for all graphs: they never run side by side, and what a step leaves to be read stays allocated.
    static const at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
    const c10::cuda::CUDAStreamGuard on(c10::cuda::getStreamFromPool(false, device.index()));
    // Other threads may allocate or wait meanwhile.
    graph_.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      try {
        graph_.capture_end();
      } catch (const c10::Error&) {  // the first error is the one to tell
      }
      throw;
    }
    graph_.capture_end();
  }
  void replay() override { graph_.replay(); }

 private:
  at::cuda::CUDAGraph graph_;
};

#endif

}  // namespace

std::unique_ptr<Recording> CudaKernels::record(const at::Device& device, std::function<void()> work) const {
#ifdef TROUPE_CUDA
  return std::make_unique<Graph>(device, work);
#else
  return emulation::record(std::move(work));
#endif
}

}  // namespace troupe::kernels::cuda
