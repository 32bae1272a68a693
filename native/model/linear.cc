// Weight gradients and packed weights of kernels.h.
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>

#include "model/dispatch.h"
#include "model/kernels.h"
#include "model/kernels_reference.h"
#include "model/tile_gemm.h"

namespace troupe::kernels {
namespace {

// Whether oneDNN has a layout of its own for the weight. Its operators are called through the dispatcher:
// their C++ declarations are not among libtorch's headers.
bool packs(const at::Tensor& weight) {
  if (!weight.is_cpu() || weight.dim() != 2 || weight.numel() == 0 || !at::globalContext().hasMKLDNN())
    return false;
  return weight.scalar_type() == at::kFloat || (weight.scalar_type() == at::kBFloat16 && has_tile_gemm());
}

}  // namespace

void accumulate_weight_gradient(std::span<const at::Tensor> accumulators, const at::Tensor& delta,
                                const at::Tensor& x, std::span<const int64_t> groups) {
  TORCH_CHECK(!accumulators.empty() && groups.size() == accumulators.size() + 1, "weight gradients of ",
              accumulators.size(), " groups, but ", groups.size(), " row offsets");
  const at::Tensor& first = accumulators[0];
  TORCH_CHECK(delta.dim() == 2 && x.dim() == 2 && delta.size(0) == x.size(0) && first.dim() == 2 &&
                  first.size(0) == delta.size(1) && first.size(1) == x.size(1),
              "weight gradient ", first.sizes(), " of delta ", delta.sizes(), " and x ", x.sizes());
  TORCH_CHECK(groups.front() >= 0 && groups.back() <= delta.size(0) && std::ranges::is_sorted(groups),
              "groups of a weight gradient must be ranges of its ", delta.size(0), " rows");
  if (first.scalar_type() == delta.scalar_type()) {
    for (size_t k = 0; k < accumulators.size(); ++k) {
      if (groups[k] == groups[k + 1]) continue;
      at::Tensor accumulator = accumulators[k];
      accumulator.addmm_(delta.slice(0, groups[k], groups[k + 1]).t(), x.slice(0, groups[k], groups[k + 1]));
    }
    return;
  }
  const cpu::Table* table = cpu_kernels(delta);
  const bool contiguous = std::ranges::all_of(accumulators, [](const at::Tensor& one) {
    return one.scalar_type() == at::kFloat && one.is_contiguous();
  });
  const bool tiles = table && delta.scalar_type() == at::kBFloat16 && x.scalar_type() == at::kBFloat16 &&
                     contiguous && has_tile_gemm();
  if (!tiles) return reference::accumulate_weight_gradient(accumulators, delta, x, groups);
  const at::Tensor plain_delta = rows_contiguous(delta), plain_x = rows_contiguous(x);
  std::vector<cpu::WeightGradientGroup> parts;
  for (size_t k = 0; k < accumulators.size(); ++k) {
    if (groups[k] < groups[k + 1])
      parts.push_back({groups[k], groups[k + 1], accumulators[k].data_ptr<float>()});
  }
  table->weight_gradient(delta.size(1), x.size(1), view_of(plain_delta), view_of(plain_x), parts);
}

PackedLinear::PackedLinear(at::Tensor weight, at::Tensor bias)
    : weight_(std::move(weight)), bias_(std::move(bias)) {
  if (!packs(weight_)) return;
  static const auto reorder = c10::Dispatcher::singleton().findSchema({"mkldnn::_reorder_linear_weight", ""});
  if (!reorder) return;
  c10::Stack stack{weight_.contiguous(), c10::IValue()};
  reorder->callBoxed(stack);
  packed_ = stack.front().toTensor();
}

at::Tensor PackedLinear::operator()(const at::Tensor& x) const {
  // A single row in float32 is a matrix-vector product, at which the plain layout is the faster one.
  const bool plain = !packed_.defined() || (x.size(0) == 1 && x.scalar_type() == at::kFloat);
  if (plain) return at::linear(x, weight_, bias_);
  static const auto linear = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "");
  c10::Stack stack{x.contiguous(),
                   packed_,
                   bias_.defined() ? c10::IValue(bias_) : c10::IValue(),
                   std::string("none"),
                   c10::List<std::optional<at::Scalar>>(),
                   c10::IValue()};
  linear.callBoxed(stack);
  return stack.front().toTensor();
}

}  // namespace troupe::kernels
