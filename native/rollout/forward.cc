#include "rollout/forward.h"

#include <algorithm>
#include <cmath>

#include "rollout/fixed_rows.h"

namespace troupe::rollout {

PackedAdapter::PackedAdapter(const Policy& policy)
    : adapter_(policy.adapter()), scale_(policy.adapter_scale()), version_(policy.adapter()->version()) {
  const auto packed = [&](const LinearWeights& weights) {
    kernels::LoraLinear linear = weights.lora;
    policy.backend().pack_lora(linear);
    return linear;
  };
  for (int64_t i = 0; i < policy.config().layers; ++i) {
    const LayerWeights& layer = policy.layer(i);
    layers_.push_back({packed(layer.qkv), packed(layer.o), packed(layer.gate_up), packed(layer.down)});
  }
}

bool PackedAdapter::holds(const Policy& policy) const {
  return policy.adapter() && adapter_.lock() == policy.adapter() && scale_ == policy.adapter_scale() &&
         version_ == policy.adapter()->version();
}

bool PackedAdapter::stale() const {
  const auto adapter = adapter_.lock();
  return !adapter || adapter->version() != version_;
}

const kernels::LoraLinear& PackedAdapter::linear(int64_t layer, LinearWeights LayerWeights::*which) const {
  const Layer& found = layers_.at(layer);
  if (which == &LayerWeights::qkv) return found.qkv;
  if (which == &LayerWeights::o) return found.o;
  if (which == &LayerWeights::gate_up) return found.gate_up;
  return found.down;
}

kernels::PackedLinear PackedBase::make_linear(const LinearWeights& weights, bool repack) {
  if (!repack) return {weights.weight, weights.bias, {}};
  kernels::PackedLinear linear = kernels_.pack_linear(weights.weight, weights.bias);
  packed_bytes_ += linear.packed_bytes();
  return linear;
}

PackedBase::PackedBase(const Policy& policy, bool repack, Products products)
    : base_(policy.base()),
      kernels_(policy.backend()),
      version_(policy.base()->version()),
      products_(products) {
  for (int64_t i = 0; i < policy.config().layers; ++i) {
    const LayerWeights& layer = policy.layer(i);
    layers_.push_back({make_linear(layer.qkv, repack), make_linear(layer.o, repack),
                       make_linear(layer.gate_up, repack), make_linear(layer.down, repack)});
  }
  head_ = kernels_.pack_head(policy.head(), repack);
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

// x Wᵀ + b.
at::Tensor PackedBase::product(const kernels::PackedLinear& base, const at::Tensor& x) const {
  const auto multiply = [&](const at::Tensor& rows) { return kernels_.linear(rows, base); };
  return fixed() ? in_fixed_rows(x, multiply) : multiply(x);
}

// Each segment's adapters on its rows.
std::vector<kernels::LoraRows> PackedBase::adapters(const Pass& pass, int64_t layer,
                                                    LinearWeights LayerWeights::*which) const {
  std::vector<kernels::LoraRows> parts;
  for (const Segment& segment : pass.segments) {
    if (segment.adapter)
      parts.push_back({&segment.adapter->linear(layer, which), segment.begin, segment.end, fixed()});
  }
  return parts;
}

at::Tensor PackedBase::linear(const kernels::PackedLinear& base, const at::Tensor& x, const Pass& pass,
                              int64_t layer, LinearWeights LayerWeights::*which) const {
  at::Tensor y = product(base, x);
  const auto parts = adapters(pass, layer, which);
  if (!parts.empty()) kernels_.add_lora(y, {x, parts}, pass.rows);
  return y;
}

at::Tensor PackedBase::attention(const at::Tensor& h, const Pass& pass, kernels::KvStore& store,
                                 int64_t layer, const kernels::RotaryTables& tables) const {
  const Policy& policy = *pass.segments.front().policy;
  at::Tensor qkv = product(layers_[layer].qkv, h);
  const auto parts = adapters(pass, layer, &LayerWeights::qkv);
  const at::Tensor q = kernels_.rotate_and_store(qkv, {h, parts}, policy.heads(), policy.head_norm(layer),
                                                 tables, store, layer, pass.rows);
  const double scale = 1.0 / std::sqrt(static_cast<double>(policy.config().head_dim));
  const at::Tensor mixed = kernels_.paged_attention(q, store, layer, pass.rows, scale);
  return linear(layers_[layer].o, mixed, pass, layer, &LayerWeights::o);
}

// → the outputs' rows after the final norm, [O, H]; undefined where the pass wants no output.
at::Tensor PackedBase::run_layers(const Pass& pass, kernels::KvStore& store) const {
  const Policy& policy = *pass.segments.front().policy;
  const ModelConfig& config = policy.config();
  const double eps = config.rms_norm_eps;
  const std::vector<int32_t>& positions = pass.rows.positions;
  const auto tables = policy.rotary_tables(*std::max_element(positions.begin(), positions.end()) + 1);

  auto x = kernels_.embedding(pass.rows.device.tokens, policy.embedding());  // [T, H], the residual stream
  auto h = kernels_.rms_norm(x, policy.layer(0).input_norm, eps).y;
  for (int64_t i = 0; i < config.layers; ++i) {
    const LayerWeights& weights = policy.layer(i);
    const auto attended = attention(h, pass, store, i, tables);
    h = kernels_.add_rms_norm(x, attended, weights.post_attention_norm, eps).y;
    at::Tensor gate_up = product(layers_[i].gate_up, h);
    const auto gated = kernels_.swiglu(gate_up, {h, adapters(pass, i, &LayerWeights::gate_up)}, pass.rows);
    const auto fed = linear(layers_[i].down, gated, pass, i, &LayerWeights::down);
    if (i + 1 < config.layers) {
      h = kernels_.add_rms_norm(x, fed, policy.layer(i + 1).input_norm, eps).y;
    } else {
      x.add_(fed);
    }
  }
  if (pass.rows.outputs.empty()) return {};
  return kernels_.rms_norm(x.index_select(0, pass.rows.device.outputs), policy.final_norm(), eps).y;
}

at::Tensor PackedBase::draw(const at::Tensor& hidden, const Pass& pass) const {
  const auto project = [&](const at::Tensor& rows) { return kernels_.logits(rows, head_); };
  at::Tensor samples = at::empty({2, pass.rows.draw_count()}, hidden.options().dtype(at::kInt));
  const int64_t step = kernels_.logit_rows();
  for (int64_t begin = 0; begin < hidden.size(0); begin += step) {
    const at::Tensor rows = hidden.narrow(0, begin, std::min(step, hidden.size(0) - begin));
    kernels_.sample(products_ == Products::kFixed ? in_fixed_rows(rows, project) : project(rows), begin,
                    pass.rows, samples);
  }
  return samples;
}

void PackedBase::plan(Pass& pass) const {
  const ModelConfig& config = pass.segments.front().policy->config();
  pass.rows.query_group = config.heads / config.kv_heads;
  kernels_.plan_work(pass.rows);
}

void PackedBase::send(Pass& pass, const at::Device& device, const at::Tensor& drawn,
                      const at::Tensor& buffer) const {
  pass.rows.send(device, buffer);
  if (std::ranges::any_of(pass.rows.tokens, [](int32_t token) { return token < 0; }))
    kernels_.take_drawn(drawn, pass.rows.device.tokens);
}

at::Tensor PackedBase::compute(const Pass& pass, kernels::KvStore& store) const {
  const at::Tensor hidden = run_layers(pass, store);
  return hidden.defined() ? draw(hidden, pass) : at::Tensor();
}

}  // namespace troupe::rollout
