// Recorded launches: a CUDA graph. The emulation makes the same calls again, and compares (emulation/recording.h).
#include "kernels/cuda/cuda_kernels.h"
#ifdef TROUPE_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>

#include <map>
#else
#include "kernels/cuda/emulation/recording.h"
#endif

namespace troupe::kernels::cuda {
namespace {

#ifdef TROUPE_CUDA

// Memory of a thread's recordings on one device: they run one after another, and what a replay computes is copied before
// the next. It goes with the last of them, and a pool that nobody uses takes no new graph.
struct Pool {
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    try {
      c10::cuda::CUDACachingAllocator::emptyCache(id);  // of this pool alone
    } catch (const c10::Error&) {
      // The memory comes back when some is short.
    }
  }
  const at::cuda::MempoolId_t id = at::cuda::graph_pool_handle();
};

std::shared_ptr<Pool> pool_of(c10::DeviceIndex device) {
  thread_local std::map<c10::DeviceIndex, std::weak_ptr<Pool>> pools;
  std::weak_ptr<Pool>& kept = pools[device];
  std::shared_ptr<Pool> pool = kept.lock();
  if (!pool) kept = pool = std::make_shared<Pool>();
  return pool;
}

// The one that a thread records on: graphs that share memory must share it, and cuBLAS keeps a workspace for each.
c10::cuda::CUDAStream stream_of(c10::DeviceIndex device) {
  thread_local std::map<c10::DeviceIndex, c10::cuda::CUDAStream> streams;
  auto found = streams.find(device);
  if (found == streams.end()) {
    found = streams.emplace(device, c10::cuda::getStreamFromPool(false, device)).first;
    const c10::cuda::CUDAStreamGuard on(found->second);
    // Makes cuBLAS's workspace for the stream, outside of the recordings' memory, which goes.
    const auto options = at::TensorOptions().device(at::kCUDA, device).dtype(at::kBFloat16);
    const at::Tensor some = at::ones({16, 16}, options);
    at::mm(some, some);
  }
  return found->second;
}

class Graph : public Recording {
 public:
  Graph(const at::Device& device, const std::function<void()>& work) : pool_(pool_of(device.index())) {
    const c10::cuda::CUDAStreamGuard on(stream_of(device.index()));
    // Other threads may allocate or wait meanwhile.
    graph_.capture_begin(pool_->id, cudaStreamCaptureModeThreadLocal);
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
  std::shared_ptr<Pool> pool_;
  at::cuda::CUDAGraph graph_;  // goes first
};

#endif

}  // namespace

bool recording_now() {
#ifdef TROUPE_CUDA
  return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
#else
  return emulation::replaying();
#endif
}

std::unique_ptr<Recording> CudaKernels::record(const at::Device& device, std::function<void()> work) const {
#ifdef TROUPE_CUDA
  return std::make_unique<Graph>(device, work);
#else
  return emulation::record(std::move(work));
#endif
}

}  // namespace troupe::kernels::cuda
