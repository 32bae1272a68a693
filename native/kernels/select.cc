// The one place that chooses among the implementations.
#include <ATen/Version.h>

#include <atomic>
#include <string>

#include "cuda/library.h"
#include "kernels/cpu_kernels.h"
#ifdef TROUPE_EMULATED
#include "kernels/cuda/cuda_kernels.h"
#endif

namespace troupe::kernels {
namespace cpu {

// CMakeLists.txt builds native/kernels/cpu once for each of these and defines the macro.
#ifdef TROUPE_CPU_AVX512
namespace AVX512 {
const Table& table();
}
#endif
#ifdef TROUPE_CPU_AVX2
namespace AVX2 {
const Table& table();
}
#endif
#ifdef TROUPE_CPU_DEFAULT
namespace DEFAULT {
const Table& table();
}
#endif

}  // namespace cpu

namespace {

const cpu::Table* machine_table() {
  const std::string capability = at::get_cpu_capability();
#ifdef TROUPE_CPU_AVX512
  if (capability == "AVX512") return &cpu::AVX512::table();
#endif
#ifdef TROUPE_CPU_AVX2
  if (capability == "AVX512" || capability == "AVX2") return &cpu::AVX2::table();
#endif
#ifdef TROUPE_CPU_DEFAULT
  return &cpu::DEFAULT::table();
#endif
  return nullptr;
}

const ReferenceKernels& reference() {
  static const ReferenceKernels kernels;
  return kernels;
}

const Kernels& cpu_kernels() {
  static const cpu::Table* const table = machine_table();
  if (!table) return reference();
  static const CpuKernels kernels(*table);
  return kernels;
}

// Null where they are not built, or cannot be used here.
const Kernels* cuda_kernels() {
  const troupe::cuda::Library* const library = troupe::cuda::library();
  return library ? library->kernels : nullptr;
}

const Kernels* emulated_kernels() {
#ifdef TROUPE_EMULATED
  static const cuda::CudaKernels kernels;
  return &kernels;
#else
  return nullptr;
#endif
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels_for(const at::Device& device) {
  if (const Kernels* const forced = chosen.load(std::memory_order_relaxed)) return *forced;
  if (device.is_cuda() && cuda_kernels()) return *cuda_kernels();
  return device.is_cpu() ? cpu_kernels() : reference();
}

const Kernels& kernels_named(std::string_view name) {
  if (name == "cpu") return cpu_kernels();
  std::string present = "cpu";
  for (const Kernels* const kernels :
       {static_cast<const Kernels*>(&reference()), cuda_kernels(), emulated_kernels()}) {
    if (!kernels) continue;
    if (name == kernels->name()) return *kernels;
    present += std::string(", ") + kernels->name();
  }
  TORCH_CHECK_VALUE(false, "this build has no kernels named ", std::string(name), "; it has ", present);
}

void use_kernels(std::string_view name) { chosen = name.empty() ? nullptr : &kernels_named(name); }

}  // namespace troupe::kernels
