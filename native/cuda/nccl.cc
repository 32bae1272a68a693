#include "cuda/nccl.h"

#include <cstddef>
#include <cstdlib>
#include <new>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

namespace troupe::cuda {
namespace {

std::string version_text(int code) {
  return std::to_string(code / 10000) + "." + std::to_string(code / 100 % 100) + "." +
         std::to_string(code % 100);
}

}  // namespace

// The options hold ncclConfig_t, which grows with NCCL's versions, in their middle. libtorch's constructor fills them as
// the nccl.h that it was compiled with has them, and notes its version; their destructor is compiled here, and its copy
// takes the place of libtorch's: with another nccl.h it releases what is no pointer, and the process ends by SIGSEGV. So
// what is looked at here has room enough, and is never destroyed.
std::string nccl_problem() {
  using Options = c10d::ProcessGroupNCCL::Options;
  alignas(std::max_align_t) static std::byte room[2 * sizeof(Options)];
  const ncclConfig_t& config = (new (room) Options(false))->config;
  if (config.version == NCCL_VERSION_CODE && config.size == sizeof(ncclConfig_t)) return "";
  return "Troupe was built with the nccl.h of NCCL " + version_text(NCCL_VERSION_CODE) +
         ", this libtorch with that of " + version_text(static_cast<int>(config.version)) +
         ": NCCL is not used. Set NCCL_HOME to the latter, and run 'npm run build:native' in Troupe's "
         "folder.";
}

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            std::chrono::milliseconds timeout) {
  // Read by the constructor. Left alone, the watchdog and its monitor end the process: without a sentence, and before
  // anything is saved.
  for (const auto& [name, value] : {std::pair{"TORCH_NCCL_ASYNC_ERROR_HANDLING", "0"},
                                    {"TORCH_NCCL_BLOCKING_WAIT", "0"},
                                    {"TORCH_NCCL_DESYNC_DEBUG", "0"},
                                    {"TORCH_NCCL_ENABLE_MONITORING", "0"},
                                    {"TORCH_NCCL_RETHROW_CUDA_ERRORS", "0"},
                                    {"TORCH_NCCL_DUMP_ON_TIMEOUT", "0"},
                                    {"TORCH_NCCL_PROPAGATE_ERROR", "0"}}) {
    ::setenv(name, value, /*overwrite=*/1);
  }
  auto options = c10d::ProcessGroupNCCL::Options::create();
  // Later than whoever waits gives up.
  options->timeout = 2 * timeout + std::chrono::minutes(1);
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
}

}  // namespace troupe::cuda
