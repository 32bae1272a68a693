#include "rollout/forward.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "rollout/fixed_rows.h"

namespace troupe::rollout {

namespace {

// From here on ATen's products are faster than the fused ones for an adapter's rows.
constexpr int64_t kFewRows = 64;

}  // namespace

at::Tensor PackedBase::Linear::operator()(const at::Tensor& x) const {
  return packed ? (*packed)(x) : at::linear(x, weight, bias);
}

PackedBase::Linear PackedBase::make_linear(const LinearWeights& weights, bool repack) {
  Linear linear{weights.weight, weights.bias, std::nullopt};
  if (repack) {
    linear.packed.emplace(weights.weight, weights.bias);
    packed_bytes_ += static_cast<int64_t>(weights.weight.nbytes());
  }
  return linear;
}

PackedBase::PackedBase(const Policy& policy, bool repack, Products products)
    : base_(policy.base()), version_(policy.base()->version()), products_(products) {
  for (int64_t i = 0; i < policy.config().layers; ++i) {
    const LayerWeights& layer = policy.layer(i);
    layers_.push_back({make_linear(layer.qkv, repack), make_linear(layer.o, repack),
                       make_linear(layer.gate_up, repack), make_linear(layer.down, repack)});
  }
  head_ = Head(policy.head(), repack, products == Products::kFixed);
  packed_bytes_ += head_.packed_bytes();
}

bool PackedBase::holds(const Policy& policy) const {
  return base_.lock() == policy.base() && version_ == policy.base()->version();
}

bool PackedBase::stale() const {
  const auto base = base_.lock();
  return !base || base->version() != version_;
}

bool PackedBase::trainable() const {
  const auto base = base_.lock();
  return base && base->trainable();
}

int64_t PackedBase::weight_bytes(const Policy& policy) {
  return static_cast<int64_t>(policy.base()->compute().nbytes());
}

// y = x Wᵀ + b, and each segment's adapters on its rows.
at::Tensor PackedBase::linear(const Linear& base, const at::Tensor& x, const Pass& pass, int64_t layer,
                              LinearWeights LayerWeights::*which) const {
  const bool fixed = products_ == Products::kFixed;
  auto y = fixed ? in_fixed_rows(x, base) : base(x);
  std::vector<LoraRows> few;
  for (const Segment& segment : pass.segments) {
    if (!segment.adapter) continue;
    const LoraRows part{&segment.adapter->linear(layer, which), segment.begin, segment.end};
    if (fixed || part.end - part.begin <= kFewRows) {
      few.push_back(part);
    } else {
      add_lora_plain(y, x, part);
    }
  }
  if (!few.empty()) add_lora(y, x, few);
  return y;
}

at::Tensor PackedBase::attention(const at::Tensor& h, const Pass& pass, const KvShape& shape, int64_t layer,
                                 const at::Tensor& positions, const at::Tensor& cos,
                                 const at::Tensor& sin) const {
  const Policy& policy = *pass.segments.front().policy;
  const ModelConfig& config = policy.config();
  const LayerWeights& weights = policy.layer(layer);
  const int64_t dim = config.head_dim, query_width = config.heads * dim, key_width = config.kv_heads * dim;
  const auto qkv = linear(layers_[layer].qkv, h, pass, layer, &LayerWeights::qkv);
  auto q = qkv.narrow(1, 0, query_width).unflatten(1, {config.heads, dim});
  auto k = qkv.narrow(1, query_width, key_width).unflatten(1, {config.kv_heads, dim});
  const auto v = qkv.narrow(1, query_width + key_width, key_width).unflatten(1, {config.kv_heads, dim});
  if (config.qk_norm) {
    q = kernels::rms_norm(q, weights.q_norm, config.rms_norm_eps).y;
    k = kernels::rms_norm(k, weights.k_norm, config.rms_norm_eps).y;
  }
  kernels::rope_(q, positions, cos, sin);
  kernels::rope_(k, positions, cos, sin);
  write_keys_values(k, v, pass.rows, shape, layer);
  const auto mixed = paged_attention(q, pass.rows, shape, layer, 1.0 / std::sqrt(static_cast<double>(dim)));
  return linear(layers_[layer].o, mixed, pass, layer, &LayerWeights::o);
}

at::Tensor PackedBase::run(const Pass& pass, const KvShape& shape) const {
  const Policy& policy = *pass.segments.front().policy;
  const ModelConfig& config = policy.config();
  const auto device = policy.device();
  std::vector<int64_t> row_positions;
  row_positions.reserve(pass.rows.size());
  for (const AttentionRow& row : pass.rows) row_positions.push_back(row.position);
  const auto positions = at::tensor(row_positions, at::kLong).to(device);
  const auto tokens = at::tensor(pass.tokens, at::kLong).to(device);
  at::Tensor cos, sin;
  policy.rope_tables(*std::max_element(row_positions.begin(), row_positions.end()) + 1, cos, sin);

  auto x = kernels::embedding(tokens, policy.embedding());  // [T, H], the residual stream
  auto h = kernels::rms_norm(x, policy.layer(0).input_norm, config.rms_norm_eps).y;
  for (int64_t i = 0; i < config.layers; ++i) {
    const LayerWeights& weights = policy.layer(i);
    const auto attended = attention(h, pass, shape, i, positions, cos, sin);
    h = kernels::add_rms_norm(x, attended, weights.post_attention_norm, config.rms_norm_eps).y;
    const auto gated = kernels::swiglu(linear(layers_[i].gate_up, h, pass, i, &LayerWeights::gate_up));
    const auto fed = linear(layers_[i].down, gated, pass, i, &LayerWeights::down);
    if (i + 1 < config.layers) {
      h = kernels::add_rms_norm(x, fed, policy.layer(i + 1).input_norm, config.rms_norm_eps).y;
    } else {
      x.add_(fed);
    }
  }
  if (pass.outputs.empty()) return {};
  const auto outputs = at::tensor(pass.outputs, at::kLong).to(device);
  return kernels::rms_norm(x.index_select(0, outputs), policy.final_norm(), config.rms_norm_eps).y;
}

}  // namespace troupe::rollout
