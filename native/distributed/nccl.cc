#include "distributed/nccl.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>

#include "cuda/library.h"
#include "distributed/watch.h"

namespace troupe::distributed {
namespace {

std::mutex last_words_mutex;
std::string last_words;  // guarded by the mutex
std::terminate_handler terminate_without_words = nullptr;

// The first line of what is being thrown.
std::string thrown() {
  try {
    if (const std::exception_ptr current = std::current_exception()) std::rethrow_exception(current);
  } catch (const std::exception& error) {
    return nccl_reason(error.what());
  } catch (...) {
  }
  return "no reason was given";
}

[[noreturn]] void terminate_with_words() {
  {
    const std::lock_guard lock(last_words_mutex);
    std::fprintf(stderr, "%s: %s\n", last_words.c_str(), thrown().c_str());
    std::fflush(stderr);
  }
  terminate_without_words();
  std::abort();
}

}  // namespace

std::string nccl_problem() {
  const cuda::Library* const library = cuda::library();
  if (library && library->make_nccl) return "";
  const auto& [device, kernels, nccl] = cuda::problems();
  if (!device.empty()) return device;
  return !nccl.empty() ? nccl : kernels;
}

void check_nccl() {
  const std::string problem = nccl_problem();
  if (problem.empty()) return;
  throw GroupError("TROUPE_NCCL=1 asks for NCCL between GPUs, which cannot be used here: " + problem +
                   " Unset TROUPE_NCCL, and what the ranks exchange goes by way of the CPUs' memory.");
}

// "NCCL error in: …, invalid usage …\nncclInvalidUsage: …\nLast error:\nDuplicate GPU detected …"
std::string nccl_reason(const std::string& what) {
  const std::string mark = "Last error:\n";
  const size_t found = what.find(mark);
  const size_t begin = found == std::string::npos ? 0 : found + mark.size();
  const std::string line = what.substr(begin, what.find('\n', begin) - begin);
  return line.empty() ? what.substr(0, what.find('\n')) : line;
}

void name_in_last_words(int rank, const std::string& collective) {
  const std::lock_guard lock(last_words_mutex);
  last_words =
      "rank " + std::to_string(rank) + " ended in \"" + collective + "\", by a thread of libtorch or NCCL";
  if (!terminate_without_words) terminate_without_words = std::set_terminate(&terminate_with_words);
}

}  // namespace troupe::distributed
