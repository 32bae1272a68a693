// What the files of the CUDA backend share: arguments for launchers, their errors, and products of bf16 summed in fp32.
#include <c10/core/impl/VirtualGuardImpl.h>

#include <string_view>

#include "kernels/cuda/cuda_kernels.h"
#ifndef TROUPE_CUDA
#include "kernels/cuda/emulation/accesses.h"
#include "kernels/cuda/emulation/launch_log.h"
#endif

namespace troupe::kernels::cuda {

On::On(const at::Tensor& x) : guard_(x.device()), stream_(nullptr) {
  if (x.is_cpu()) return;
  const c10::impl::VirtualGuardImpl implementation(x.device().type());
  stream_ = implementation.getStream(x.device()).native_handle();
}

void check(int error, const char* what) {
#ifndef TROUPE_CUDA
  if (emulation::watcher) emulation::watcher->end(what, launch_count());
  if (emulation::launch_log) emulation::launch_log->name_last(what);
#endif
  TORCH_CHECK(error == 0, "the CUDA kernel ", what, " could not be launched: ", error_text(error));
}

Type type_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16:
      return Type::kBf16;
    case at::kFloat:
      return Type::kFloat;
    case at::kDouble:
      return Type::kDouble;
    default:
      TORCH_CHECK(false, "the CUDA kernels compute in bfloat16, float32 and float64, not in ", dtype);
  }
}

Rows rows_of(const at::Tensor& x) {
  if (!x.defined()) return {};
  return {x.data_ptr(), x.stride(0), x.dim() == 3 ? x.stride(1) : 0};
}

SplitHeads split_heads_of(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                          const RotaryTables& tables, const at::Tensor& positions) {
  TORCH_CHECK(!norm.defined() || (norm.q.is_contiguous() && norm.k.is_contiguous()),
              "the heads' norms must be contiguous");
  SplitHeads heads{};
  heads.type = type_of(qkv);
  heads.rows = qkv.size(0);
  heads.heads = static_cast<int32_t>(layout.query_heads);
  heads.kv_heads = static_cast<int32_t>(layout.key_heads);
  heads.size = static_cast<int32_t>(layout.dim);
  heads.qkv = qkv.data_ptr();
  heads.q_norm = norm.defined() ? norm.q.data_ptr() : nullptr;
  heads.k_norm = norm.defined() ? norm.k.data_ptr() : nullptr;
  heads.eps = norm.eps;
  heads.cos = tables.cos.data_ptr();
  heads.sin = tables.sin.data_ptr();
  heads.positions = positions.data_ptr<int32_t>();
  return heads;
}

namespace {

// cuBLASLt multiplies bf16 into fp32; on the CPU, where the emulation runs, and for other types ATen has no
// such product, and the factors are widened.
bool mixed(const at::Tensor& a) { return a.is_cuda() && a.scalar_type() == at::kBFloat16; }

// Of what addmm throws: libtorch's own refusal, and not a fault of the device or a lack of its memory.
bool is_refusal(const c10::Error& error) {
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) == nullptr &&
         dynamic_cast<const c10::AcceleratorError*>(&error) == nullptr &&
         !std::string_view(error.what_without_backtrace()).starts_with("CUDA error");
}

}  // namespace

bool accumulates_in_place(const at::Device& device) {
  if (!device.is_cuda()) return true;  // the emulation's products are not mixed
  static const bool works = [&] {
    wait_for(device);  // what an earlier kernel did wrong comes out here
    const auto options = at::TensorOptions().device(device);
    const at::Tensor a = at::ones({16, 16}, options.dtype(at::kBFloat16));
    at::Tensor sum = at::ones({2, 16, 16}, options.dtype(at::kFloat)).select(0, 1);
    try {
      at::mm_out(sum, a, a, at::kFloat);
      at::addmm_out(sum, sum, a, a, at::kFloat);
      return *to_host(sum.eq(32).all()).const_data_ptr<bool>();
    } catch (const c10::Error& error) {
      if (!is_refusal(error)) throw;
      return false;
    }
  }();
  return works;
}

at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b) {
  if (mixed(a)) return at::mm(a, b, at::kFloat);
  const at::ScalarType wide = wide_type(a);
  return one_operator("troupe::product", {a, b},
                      [&] { return std::vector{at::mm(a.to(wide), b.to(wide))}; })[0];
}

void add_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, bool overwrite) {
  if (!mixed(a)) {
    const auto wide = [&](const at::Tensor& x) { return x.to(sum.scalar_type()); };
    std::vector<c10::IValue> operands{a, b};
    if (!overwrite) operands.emplace_back(sum);
    one_operator("troupe::product", operands, [&] {
      return std::vector{overwrite ? at::mm_out(sum, wide(a), wide(b)) : sum.addmm_(wide(a), wide(b))};
    });
  } else if (!accumulates_in_place(a.device())) {
    const at::Tensor product = at::mm(a, b, at::kFloat);
    overwrite ? sum.copy_(product) : sum.add_(product);
  } else if (overwrite) {
    at::mm_out(sum, a, b, at::kFloat);
  } else {
    at::addmm_out(sum, sum, a, b, at::kFloat);
  }
}

}  // namespace troupe::kernels::cuda
