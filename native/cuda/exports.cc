// What troupe_cuda.so gives to the addon.
#include <torch/headeronly/version.h>

#include "cuda/library.h"

#ifdef TROUPE_CUDA
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/upload.h"
#include "kernels/waits.h"
#endif
#ifdef USE_C10D_NCCL
#include "cuda/nccl.h"
#endif

namespace troupe::cuda {
namespace {

Library make() {
  Library library;
  library.build = TORCH_VERSION " " TROUPE_BUILT_FROM;
#ifdef TROUPE_CUDA
  static const kernels::cuda::CudaKernels cuda_kernels;
  library.kernels = &cuda_kernels;
  library.waits = &kernels::waits;
  library.uploads = &kernels::uploads;
#endif
#ifdef USE_C10D_NCCL
  library.nccl_problem = nccl_problem();
  if (library.nccl_problem.empty()) library.make_nccl = &make_nccl;
#else
  library.nccl_problem =
      "Troupe was built without NCCL, which takes the nccl.h that libtorch was built with (NCCL_HOME) and "
      "the headers of a CUDA toolkit (CUDA_HOME): install them, then run 'npm run build:native' in Troupe's "
      "folder.";
#endif
  return library;
}

}  // namespace
}  // namespace troupe::cuda

extern "C" __attribute__((visibility("default"))) const troupe::cuda::Library* troupe_cuda() {
  static const troupe::cuda::Library library = troupe::cuda::make();
  return &library;
}
