#include "training/linear.h"

namespace troupe::training {
namespace {

at::Tensor columns(const at::Tensor& x, int64_t begin, int64_t count) { return x.narrow(1, begin, count); }

// Adds the adapters' gradients; returns the gradient of x Aᵀ, [T, Σ rank].
at::Tensor lora_backward(const LinearWeights& weights, const at::Tensor& delta, const at::Tensor& x,
                         const at::Tensor& projected, const GradientSink& sink) {
  const std::vector<kernels::LoraTerm>& terms = weights.lora.terms;
  at::Tensor grad = at::empty_like(projected);
  int64_t column = 0;
  for (size_t j = 0; j < terms.size(); ++j) {
    const int64_t rank = terms[j].a.size(0);
    const at::Tensor part = columns(delta, terms[j].begin, terms[j].b.size(0));
    sink.add_products(weights.lora_index[j].b, 1, part, columns(projected, column, rank));
    // beta 0: what the empty tensor holds is not read.
    columns(grad, column, rank).addmm_(part, terms[j].b, 0, weights.lora.scale);
    column += rank;
  }
  sink.add_products(weights.lora_index[0].a, static_cast<int64_t>(terms.size()), grad, x);
  return grad;
}

}  // namespace

std::vector<at::Tensor> GradientSink::base_vector(int64_t index) const {
  if (!sketch()) return base_matrix(index);
  std::vector<at::Tensor> accumulators;
  if (!trains_base()) return accumulators;
  for (int64_t k = 0; k < sketch()->groups(); ++k) accumulators.push_back(sketch()->vector(k, index, 1));
  return accumulators;
}

std::vector<at::Tensor> GradientSink::base_matrix(int64_t index) const {
  std::vector<at::Tensor> accumulators;
  if (!trains_base()) return accumulators;
  const ParameterSet& parameters = *policy_.base();
  for (size_t k = 0; k + 1 < accumulated().size(); ++k) {
    const auto group = static_cast<int64_t>(k);
    accumulators.push_back(has_rows(k) ? parameters.gradient_view(group, index)
                                       : parameters.uncleared_gradient_view(group, index, 1));
  }
  return accumulators;
}

Accumulators GradientSink::products(int64_t index, int64_t count) const {
  const ParameterSet& parameters = policy_.trained();
  Accumulators result;
  for (size_t k = 0; k + 1 < accumulated().size(); ++k) {
    const auto group = static_cast<int64_t>(k);
    const bool fresh = parameters.is_fresh(group, index, count);
    // Some of them were asked for alone, the others are cleared now; without rows nothing is added.
    result.sums.push_back(fresh || !has_rows(k) ? parameters.uncleared_gradient_view(group, index, count)
                                                : parameters.fused_gradient_view(group, index, count));
    result.fresh.push_back(fresh && has_rows(k));
  }
  return result;
}

void GradientSink::written(int64_t index, int64_t count) const {
  for (size_t k = 0; k + 1 < accumulated().size(); ++k) {
    if (has_rows(k)) policy_.trained().set_written(static_cast<int64_t>(k), index, count);
  }
}

void GradientSink::add_products(int64_t index, int64_t count, const at::Tensor& delta,
                                const at::Tensor& x) const {
  const Accumulators into = products(index, count);
  policy_.backend().accumulate_weight_gradient(into.sums, delta, x, accumulated(), into.fresh, counters_);
  written(index, count);
  if (sketch()) sketch()->add_products(index, count, delta, x, groups_);
}

void GradientSink::add_sums(int64_t index, int64_t count, const at::Tensor& delta) const {
  for (size_t k = 0; k + 1 < groups_.size(); ++k) {
    const int64_t begin = groups_[k], end = groups_[k + 1], group = static_cast<int64_t>(k);
    if (begin == end) continue;
    at::Tensor accumulator = sketch() ? sketch()->vector(group, index, count)
                                      : policy_.trained().fused_gradient_view(group, index, count);
    accumulator.add_(at::sum(delta.slice(0, begin, end), {0}, /*keepdim=*/false, accumulator.scalar_type()));
  }
}

kernels::AdaptedLinear linear(const kernels::Kernels& backend, const LinearWeights& weights,
                              const at::Tensor& x) {
  if (!weights.adapted()) return {at::linear(x, weights.weight, weights.bias), {}};
  return backend.adapted_linear(x, weights.weight, weights.bias, weights.lora);
}

at::Tensor linear_backward(const kernels::Kernels& backend, const LinearWeights& weights,
                           const at::Tensor& delta, const at::Tensor& x, const at::Tensor& projected,
                           const GradientSink& sink, bool needs_input) {
  if (sink.trains_base()) {
    sink.add_products(weights.weight_index, weights.weight_count, delta, x);
    if (weights.bias.defined()) sink.add_sums(weights.bias_index, weights.weight_count, delta);
  }
  at::Tensor projected_grad;
  if (weights.adapted()) projected_grad = lora_backward(weights, delta, x, projected, sink);
  if (!needs_input) return {};
  if (!weights.adapted()) return at::mm(delta, weights.weight);
  return backend.adapted_linear_backward(delta, projected_grad, weights.weight, weights.lora);
}

}  // namespace troupe::training
