#include "training/layer.h"

#include <cmath>
#include <utility>

namespace troupe::training {
namespace {

double attention_scale(const ModelConfig& config) {
  return 1.0 / std::sqrt(static_cast<double>(config.head_dim));
}

// The raw fused product → attention's output before its projection.
kernels::Attention attention_forward(const PassInputs& pass, int64_t i, const at::Tensor& qkv) {
  const Policy& policy = pass.policy;
  const kernels::Heads heads =
      pass.backend.rotate_heads(qkv, policy.heads(), policy.head_norm(i), pass.tables, pass.plan);
  return pass.backend.tree_attention(heads, pass.plan, attention_scale(policy.config()));
}

// grad [T, Hq D] → the gradient of the raw fused product [T, (Hq + 2 Hkv) D].
at::Tensor attention_backward(const PassInputs& pass, int64_t i, LayerActivations& activations,
                              const at::Tensor& grad, const GradientSink& sink) {
  const Policy& policy = pass.policy;
  const LayerWeights& weights = policy.layer(i);
  const kernels::HeadNorm norm = policy.head_norm(i);
  const kernels::Heads heads =
      pass.backend.rotate_heads(activations.qkv, policy.heads(), norm, pass.tables, pass.plan);
  kernels::HeadsGradient gradient = pass.backend.tree_attention_backward(
      grad.view_as(activations.attention.out), heads, activations.attention, pass.plan,
      attention_scale(policy.config()));
  activations.attention = {};
  std::vector<at::Tensor> q_norm, k_norm;
  if (norm.defined()) {
    q_norm = sink.base_vector(weights.q_norm_index);
    k_norm = sink.base_vector(weights.k_norm_index);
  }
  return pass.backend.rotate_heads_backward(std::move(gradient), activations.qkv, heads, policy.heads(), norm,
                                            pass.tables, pass.plan, sink.groups(), q_norm, k_norm);
}

// Whether anything trains in a layer's linears before each one, or below the layer.
struct Trains {
  bool below_qkv, below_o, below_gate_up, below_down;
};
Trains trains(const LayerWeights& weights, int64_t layer, bool base) {
  Trains result{};
  // Every layer has the same adapters, so below a layer there is always something that trains.
  result.below_qkv = base || layer > 0;
  result.below_o = result.below_qkv || weights.qkv.adapted();
  result.below_gate_up = result.below_o || weights.o.adapted();
  result.below_down = result.below_gate_up || weights.gate_up.adapted();
  return result;
}

// grad of the layer's output → grad of the residual stream before the MLP; undefined where nothing below
// trains.
at::Tensor mlp_backward(const PassInputs& pass, const LayerWeights& weights, LayerActivations& activations,
                        const at::Tensor& grad, const GradientSink& sink, const Trains& trains) {
  at::Tensor gated = pass.backend.swiglu(activations.gate_up);
  at::Tensor inner = linear_backward(pass.backend, weights.down, grad, gated, activations.down_projected,
                                     sink, trains.below_down);
  if (!inner.defined()) return {};
  gated.reset();
  inner = pass.backend.swiglu_backward(inner, activations.gate_up);
  activations.gate_up.reset();
  const at::Tensor normed =
      pass.backend
          .rms_norm(activations.middle, weights.post_attention_norm, pass.policy.config().rms_norm_eps)
          .y;
  inner = linear_backward(pass.backend, weights.gate_up, inner, normed, activations.gate_up_projected, sink,
                          trains.below_gate_up);
  if (!inner.defined()) return {};
  const std::vector<at::Tensor> norm = sink.base_vector(weights.post_attention_norm_index);
  return pass.backend.rms_norm_backward({inner,
                                         activations.middle,
                                         weights.post_attention_norm,
                                         activations.middle_rstd,
                                         sink.groups(),
                                         norm,
                                         grad,
                                         {}});
}

}  // namespace

void LayerActivations::keep_input_only() {
  LayerActivations kept;
  kept.input = std::move(input);
  *this = std::move(kept);
}

at::Tensor layer_forward(const PassInputs& pass, int64_t i, const Stream& stream,
                         LayerActivations& activations) {
  const ModelConfig& config = pass.policy.config();
  const LayerWeights& weights = pass.policy.layer(i);
  const auto project = [&](const LinearWeights& linear_weights, const at::Tensor& x, at::Tensor& projected) {
    kernels::AdaptedLinear result = linear(pass.backend, linear_weights, x);
    projected = std::move(result.projected);
    return std::move(result.y);
  };
  activations.input = stream.x;
  activations.input_rstd = stream.normed.rstd;
  activations.qkv = project(weights.qkv, stream.normed.y, activations.qkv_projected);
  activations.attention = attention_forward(pass, i, activations.qkv);
  activations.middle = project(weights.o, activations.attention.out.flatten(1), activations.o_projected);
  kernels::RmsNorm normed = pass.backend.add_rms_norm(activations.middle, stream.x,
                                                      weights.post_attention_norm, config.rms_norm_eps);
  activations.middle_rstd = std::move(normed.rstd);
  activations.gate_up = project(weights.gate_up, normed.y, activations.gate_up_projected);
  return project(weights.down, pass.backend.swiglu(activations.gate_up), activations.down_projected);
}

at::Tensor layer_backward(const PassInputs& pass, int64_t i, LayerActivations& activations, at::Tensor grad,
                          const GradientSink& sink) {
  const LayerWeights& weights = pass.policy.layer(i);
  const Trains flags = trains(weights, i, sink.trains_base());
  grad = mlp_backward(pass, weights, activations, grad, sink, flags);
  if (!grad.defined()) return {};
  activations.middle.reset();
  at::Tensor inner = linear_backward(pass.backend, weights.o, grad, activations.attention.out.flatten(1),
                                     activations.o_projected, sink, flags.below_o);
  if (!inner.defined()) return {};
  inner = attention_backward(pass, i, activations, inner, sink);
  activations.qkv.reset();
  const at::Tensor normed =
      pass.backend.rms_norm(activations.input, weights.input_norm, pass.policy.config().rms_norm_eps).y;
  inner = linear_backward(pass.backend, weights.qkv, inner, normed, activations.qkv_projected, sink,
                          flags.below_qkv);
  if (!inner.defined()) return {};
  const std::vector<at::Tensor> norm = sink.base_vector(weights.input_norm_index);
  return pass.backend.rms_norm_backward(
      {inner, activations.input, weights.input_norm, activations.input_rstd, sink.groups(), norm, grad, {}});
}

int64_t layer_bytes(const Policy& policy, int64_t rows) {
  const ModelConfig& config = policy.config();
  const int64_t query = config.heads * config.head_dim, key = config.kv_heads * config.head_dim;
  int64_t elements = 2 * config.hidden_size + 2 * query + 2 * key + 2 * config.intermediate_size;
  const LayerWeights& layer = policy.layer(0);
  for (const LinearWeights* linear : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
    for (const kernels::LoraTerm& term : linear->lora.terms) elements += term.a.size(0);
  }
  return rows * elements * static_cast<int64_t>(at::elementSize(policy.compute_dtype()));
}

}  // namespace troupe::training
