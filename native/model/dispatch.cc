#include "model/dispatch.h"

#include <ATen/Version.h>

namespace troupe::kernels {
namespace cpu {

// CMakeLists.txt builds native/model/cpu once for each of these and defines the macro.
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

}  // namespace

const cpu::Table* cpu_kernels(const at::Tensor& x) {
  static const cpu::Table* const table = machine_table();
  const at::ScalarType dtype = x.scalar_type();
  const bool known = dtype == at::kDouble || dtype == at::kFloat || dtype == at::kBFloat16;
  return x.is_cpu() && known ? table : nullptr;
}

cpu::View view_of(const at::Tensor& x) {
  TORCH_INTERNAL_ASSERT(x.size(-1) <= 1 || x.stride(-1) == 1);
  return {x.data_ptr(), x.stride(0), x.dim() == 3 ? x.stride(1) : 0};
}

at::Tensor rows_contiguous(const at::Tensor& x) {
  return x.stride(-1) == 1 || x.size(-1) <= 1 ? x : x.contiguous();
}

}  // namespace troupe::kernels
