#include "cuda/library.h"

#include <ATen/Version.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <torch/headeronly/version.h>

#include <filesystem>

namespace troupe::cuda {
namespace {

namespace fs = std::filesystem;

struct Opened {
  const Library* library = nullptr;
  Problems problems;
};

// The folder of the shared library that the function is in.
template <typename Function>
fs::path folder_of(Function* function) {
  Dl_info info;
  TORCH_CHECK(dladdr(reinterpret_cast<const void*>(function), &info) != 0,
              "the folder of a library that is loaded cannot be found");
  return fs::path(info.dli_fname).parent_path();
}

// For good; null and dlerror() where it cannot be.
void* open(const fs::path& file) { return dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE); }

const char* const kBuildAgain = "Run 'npm run build:native' in Troupe's folder.";
const char* const kInstallNvcc =
    "Install the CUDA toolkit (nvcc) of libtorch's major version, then run 'npm run build:native' in "
    "Troupe's folder.";

std::string no_kernels(const std::string& why, const std::string& remedy) {
  return why + ": on GPUs plain ATen operators are used, which are many times slower. " + remedy;
}

// Loads libtorch's CUDA. Without a driver it would take a second and half a gigabyte for nothing.
std::string open_torch(const fs::path& folder) {
  const fs::path file = folder / "libtorch_cuda.so";
  if (!fs::exists(file))
    return "this libtorch has no CUDA (there is no libtorch_cuda.so in " +
           fs::weakly_canonical(folder).string() + ").";
  if (!open("libcuda.so.1")) return std::string("there is no NVIDIA driver (") + dlerror() + ").";
  if (!open(file)) return std::string("libtorch's CUDA cannot be opened (") + dlerror() + ").";
  return "";
}

Opened open_all() {
  if (std::string why = open_torch(folder_of(&at::show_config)); !why.empty())
    return {nullptr, {.device = why}};
  const fs::path file = folder_of(&problems) / "troupe_cuda.so";
  const auto without = [](const std::string& why, const std::string& remedy) {
    return Opened{nullptr, {.kernels = no_kernels(why, remedy)}};
  };
  if (!fs::exists(file)) return without("there is no " + file.string(), kInstallNvcc);
  void* const opened = open(file);
  if (!opened) return without(file.string() + " cannot be opened (" + dlerror() + ")", kBuildAgain);
  const auto get = reinterpret_cast<const Library* (*)()>(dlsym(opened, "troupe_cuda"));
  if (!get || get()->build != TORCH_VERSION " " TROUPE_BUILT_FROM)
    return without(file.string() + " is of another build than the addon, and not used", kBuildAgain);
  const Library* const library = get();
  Problems problems;
  if (!library->kernels) problems.kernels = no_kernels("Troupe was built without nvcc", kInstallNvcc);
  if (!library->make_nccl) problems.nccl = library->nccl_problem;
  return {library, problems};
}

const Opened& opened() {
  static const Opened result = open_all();
  return result;
}

}  // namespace

const Library* library() { return opened().library; }

const Problems& problems() { return opened().problems; }

}  // namespace troupe::cuda
