#include "distributed/nccl.h"

#ifdef USE_C10D_NCCL
#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace troupe::distributed {

#ifdef USE_C10D_NCCL

bool uses_nccl() {
  const char* wanted = std::getenv("TROUPE_NCCL");
  return wanted != nullptr && std::string(wanted) == "1";
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

#else

bool uses_nccl() { return false; }

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>&, int, int,
                                            std::chrono::milliseconds) {
  TORCH_CHECK(false, "this build has no NCCL");
}

#endif

// "NCCL error in: …, invalid usage …\nncclInvalidUsage: …\nLast error:\nDuplicate GPU detected …"
std::string nccl_reason(const std::string& what) {
  const std::string mark = "Last error:\n";
  const size_t found = what.find(mark);
  const size_t begin = found == std::string::npos ? 0 : found + mark.size();
  const std::string line = what.substr(begin, what.find('\n', begin) - begin);
  return line.empty() ? what.substr(0, what.find('\n')) : line;
}

}  // namespace troupe::distributed
