// Linear layers of the reference: weight gradients, adapters, the output projection.
#include "kernels/reference/reference.h"

namespace troupe::kernels {

void ReferenceKernels::do_accumulate_weight_gradient(Tensors accumulators, const at::Tensor& delta,
                                                     const at::Tensor& x, Offsets groups,
                                                     const std::vector<bool>&, at::Tensor&) const {
  for (size_t k = 0; k < accumulators.size(); ++k) {
    if (groups[k] == groups[k + 1]) continue;
    at::Tensor accumulator = accumulators[k];
    const at::ScalarType type = accumulator.scalar_type();
    const at::Tensor rows = delta.slice(0, groups[k], groups[k + 1]).to(type);
    accumulator.addmm_(rows.t(), x.slice(0, groups[k], groups[k + 1]).to(type));
  }
}

void add_terms(at::Tensor& y, const at::Tensor& projected, const LoraLinear& linear, double beta) {
  int64_t column = 0;
  for (const LoraTerm& term : linear.terms) {
    const int64_t rank = term.a.size(0);
    y.narrow(1, term.begin, term.b.size(0)).addmm_(projected.narrow(1, column, rank), term.b.t(), beta);
    column += rank;
  }
}

at::Tensor ReferenceKernels::project(const at::Tensor& x, const LoraLinear& linear) const {
  return at::mm(x, linear.fused_a().t()).mul_(linear.scale);
}

AdaptedLinear ReferenceKernels::do_adapted_linear(const at::Tensor& x, const at::Tensor& weight,
                                                  const at::Tensor& bias, const LoraLinear& linear) const {
  AdaptedLinear result{at::linear(x, weight, bias), project(x, linear)};
  add_terms(result.y, result.projected, linear, 1);
  return result;
}

at::Tensor ReferenceKernels::do_adapted_linear_backward(const at::Tensor& delta,
                                                        const at::Tensor& projected_grad,
                                                        const at::Tensor& weight,
                                                        const LoraLinear& linear) const {
  return at::mm(delta, weight).addmm_(projected_grad, linear.fused_a());
}

at::Tensor ReferenceKernels::do_pack_linear(const at::Tensor&) const { return {}; }

at::Tensor ReferenceKernels::do_linear(const at::Tensor& x, const PackedLinear& weight) const {
  return at::linear(x, weight.weight, weight.bias);
}

at::Tensor ReferenceKernels::do_pack_head(const at::Tensor&) const { return {}; }

at::Tensor ReferenceKernels::do_logits(const at::Tensor& hidden, const PackedLinear& head) const {
  const at::ScalarType wide = wide_type(hidden);
  if (wide == hidden.scalar_type()) return at::linear(hidden, head.weight);
  // A part of the vocabulary at a time: the weight is widened for the product.
  constexpr int64_t kPart = 16'384;
  const int64_t vocabulary = head.weight.size(0);
  const at::Tensor rows = hidden.to(wide);
  at::Tensor logits = at::empty({hidden.size(0), vocabulary}, rows.options());
  for (int64_t begin = 0; begin < vocabulary; begin += kPart) {
    const int64_t end = std::min(begin + kPart, vocabulary);
    logits.slice(1, begin, end).copy_(at::mm(rows, head.weight.slice(0, begin, end).to(wide).t()));
  }
  return logits;
}

void ReferenceKernels::do_pack_lora(LoraLinear&) const {}

void ReferenceKernels::do_add_lora(at::Tensor& y, const Adapters& adapters) const {
  for (const LoraRows& part : adapters.parts) {
    if (part.begin == part.end || part.linear->terms.empty()) continue;
    at::Tensor rows = y.slice(0, part.begin, part.end);
    if (!is_projected(part, adapters)) {
      add_terms(rows, project(adapters.x.slice(0, part.begin, part.end), *part.linear), *part.linear, 1);
      continue;
    }
    for (const LoraTerm& term : part.linear->terms) {
      const at::Tensor projected =
          adapters.projected.slice(0, part.begin, part.end).narrow(1, term.projected, term.a.size(0));
      rows.narrow(1, term.begin, term.b.size(0)).addmm_(projected, term.b.t(), 1, part.linear->scale);
    }
  }
}

at::Tensor ReferenceKernels::do_adapted_rms_norm(at::Tensor& x, at::Tensor& y, const Adapters& adapters,
                                                 const at::Tensor& weight, double eps) const {
  do_add_lora(y, adapters);
  return do_rms_norm(x, y, weight, eps).y;
}

at::Tensor ReferenceKernels::do_adapted_swiglu(at::Tensor& gate_up, const Adapters& adapters) const {
  do_add_lora(gate_up, adapters);
  return do_swiglu(gate_up.contiguous());
}

at::Tensor ReferenceKernels::do_adapted_rotate_and_store(at::Tensor& qkv, const Adapters& adapters,
                                                         const HeadLayout& layout, const HeadNorm& norm,
                                                         const RotaryTables& tables, KvStore& store,
                                                         int64_t layer, const RowPlan& plan) const {
  do_add_lora(qkv, adapters);
  return do_rotate_and_store(qkv.contiguous(), layout, norm, tables, store, layer, plan);
}

}  // namespace troupe::kernels
