#include "training/layer.h"

#include <cmath>
#include <utility>

namespace troupe::training {
namespace {

double attention_scale(const ModelConfig& config) {
  return 1.0 / std::sqrt(static_cast<double>(config.head_dim));
}

struct Heads {
  at::Tensor q, k, v;  // [T, heads, D]
};

// Views of a fused [T, (Hq + 2 Hkv) D].
Heads split_heads(const ModelConfig& config, const at::Tensor& qkv) {
  const int64_t rows = qkv.size(0), dim = config.head_dim, q = config.heads * dim, kv = config.kv_heads * dim;
  return {qkv.narrow(1, 0, q).view({rows, config.heads, dim}),
          qkv.narrow(1, q, kv).view({rows, config.kv_heads, dim}),
          qkv.narrow(1, q + kv, kv).view({rows, config.kv_heads, dim})};
}

// The norm of the heads of q and k, and what its backward needs.
struct NormedHeads {
  kernels::RmsNorm q, k;
};
NormedHeads norm_heads(const ModelConfig& config, const LayerWeights& weights, const Heads& raw) {
  return {kernels::rms_norm(raw.q, weights.q_norm, config.rms_norm_eps),
          kernels::rms_norm(raw.k, weights.k_norm, config.rms_norm_eps)};
}

void rotate(const PassInputs& pass, at::Tensor& q, at::Tensor& k, bool inverse) {
  kernels::rope_(q, pass.positions, pass.cos, pass.sin, inverse);
  kernels::rope_(k, pass.positions, pass.cos, pass.sin, inverse);
}

// [T, H] → attention's output before its projection [T, Hq D].
void attention_forward(const PassInputs& pass, const LayerWeights& weights, LayerActivations& activations) {
  const ModelConfig& config = pass.policy.config();
  Heads heads = split_heads(config, activations.qkv);
  if (config.qk_norm) {
    NormedHeads normed = norm_heads(config, weights, heads);
    heads.q = std::move(normed.q.y);
    heads.k = std::move(normed.k.y);
  }
  rotate(pass, heads.q, heads.k, /*inverse=*/false);
  activations.attention =
      kernels::tree_attention(heads.q, heads.k, heads.v, pass.batch.nodes, attention_scale(config));
}

// grad [T, Hq D] → the gradient of the raw fused product [T, (Hq + 2 Hkv) D].
at::Tensor attention_backward(const PassInputs& pass, const LayerWeights& weights,
                              LayerActivations& activations, const at::Tensor& grad,
                              const GradientSink& sink) {
  const ModelConfig& config = pass.policy.config();
  const Heads raw = split_heads(config, activations.qkv);
  Heads heads = raw;
  NormedHeads normed;
  if (config.qk_norm) {
    normed = norm_heads(config, weights, raw);
    heads.q = normed.q.y;
    heads.k = normed.k.y;
    rotate(pass, heads.q, heads.k, /*inverse=*/false);
  }
  kernels::AttentionGradient gradient =
      kernels::tree_attention_backward(grad.view_as(heads.q), heads.q, heads.k, heads.v,
                                       activations.attention, pass.batch.nodes, attention_scale(config));
  activations.attention = {};
  rotate(pass, gradient.q, gradient.k, /*inverse=*/true);
  if (config.qk_norm) {
    gradient.q = kernels::rms_norm_backward(gradient.q, raw.q, weights.q_norm, normed.q.rstd, sink.groups(),
                                            sink.base_vector(weights.q_norm_index));
    gradient.k = kernels::rms_norm_backward(gradient.k, raw.k, weights.k_norm, normed.k.rstd, sink.groups(),
                                            sink.base_vector(weights.k_norm_index));
  }
  return at::cat({gradient.q.flatten(1), gradient.k.flatten(1), gradient.v.flatten(1)}, 1);
}

// Whether anything trains in a layer's linears before each one, or below the layer.
struct Trains {
  bool below_qkv, below_o, below_gate_up, below_down;
};
Trains trains(const LayerWeights& weights, int64_t layer, bool base) {
  Trains result{};
  // Every layer has the same adapters, so below a layer there is always something that trains.
  result.below_qkv = base || layer > 0;
  result.below_o = result.below_qkv || !weights.qkv.adapters.empty();
  result.below_gate_up = result.below_o || !weights.o.adapters.empty();
  result.below_down = result.below_gate_up || !weights.gate_up.adapters.empty();
  return result;
}

// grad of the layer's output → grad of the residual stream before the MLP; undefined where nothing below
// trains.
at::Tensor mlp_backward(const PassInputs& pass, const LayerWeights& weights, LayerActivations& activations,
                        const at::Tensor& grad, const GradientSink& sink, const Trains& trains) {
  at::Tensor gated = kernels::swiglu(activations.gate_up);
  at::Tensor inner =
      linear_backward(weights.down, grad, gated, activations.down_projected, sink, trains.below_down);
  if (!inner.defined()) return {};
  gated.reset();
  inner = kernels::swiglu_backward(inner, activations.gate_up);
  activations.gate_up.reset();
  const at::Tensor normed =
      kernels::rms_norm(activations.middle, weights.post_attention_norm, pass.policy.config().rms_norm_eps).y;
  inner = linear_backward(weights.gate_up, inner, normed, activations.gate_up_projected, sink,
                          trains.below_gate_up);
  if (!inner.defined()) return {};
  return kernels::rms_norm_backward(inner, activations.middle, weights.post_attention_norm,
                                    activations.middle_rstd, sink.groups(),
                                    sink.base_vector(weights.post_attention_norm_index), grad);
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
  const double scale = pass.policy.adapter_scale();
  const auto project = [&](const LinearWeights& linear_weights, const at::Tensor& x, at::Tensor& projected) {
    LinearForward result = linear(linear_weights, x, scale);
    projected = std::move(result.projected);
    return std::move(result.y);
  };
  activations.input = stream.x;
  activations.input_rstd = stream.normed.rstd;
  activations.qkv = project(weights.qkv, stream.normed.y, activations.qkv_projected);
  attention_forward(pass, weights, activations);
  activations.middle = project(weights.o, activations.attention.out.flatten(1), activations.o_projected);
  kernels::RmsNorm normed =
      kernels::add_rms_norm(activations.middle, stream.x, weights.post_attention_norm, config.rms_norm_eps);
  activations.middle_rstd = std::move(normed.rstd);
  activations.gate_up = project(weights.gate_up, normed.y, activations.gate_up_projected);
  return project(weights.down, kernels::swiglu(activations.gate_up), activations.down_projected);
}

at::Tensor layer_backward(const PassInputs& pass, int64_t i, LayerActivations& activations, at::Tensor grad,
                          const GradientSink& sink) {
  const LayerWeights& weights = pass.policy.layer(i);
  const Trains flags = trains(weights, i, sink.trains_base());
  grad = mlp_backward(pass, weights, activations, grad, sink, flags);
  if (!grad.defined()) return {};
  activations.middle.reset();
  at::Tensor inner = linear_backward(weights.o, grad, activations.attention.out.flatten(1),
                                     activations.o_projected, sink, flags.below_o);
  if (!inner.defined()) return {};
  inner = attention_backward(pass, weights, activations, inner, sink);
  activations.qkv.reset();
  const at::Tensor normed =
      kernels::rms_norm(activations.input, weights.input_norm, pass.policy.config().rms_norm_eps).y;
  inner = linear_backward(weights.qkv, inner, normed, activations.qkv_projected, sink, flags.below_qkv);
  if (!inner.defined()) return {};
  return kernels::rms_norm_backward(inner, activations.input, weights.input_norm, activations.input_rstd,
                                    sink.groups(), sink.base_vector(weights.input_norm_index), grad);
}

int64_t layer_bytes(const Policy& policy, int64_t rows) {
  const ModelConfig& config = policy.config();
  const int64_t query = config.heads * config.head_dim, key = config.kv_heads * config.head_dim;
  int64_t elements = 2 * config.hidden_size + 2 * query + 2 * key + 2 * config.intermediate_size;
  const LayerWeights& layer = policy.layer(0);
  for (const LinearWeights* linear : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
    for (const AdapterWeights& adapter : linear->adapters) elements += adapter.a.size(0);
  }
  return rows * elements * static_cast<int64_t>(at::elementSize(policy.compute_dtype()));
}

}  // namespace troupe::training
