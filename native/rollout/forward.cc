#include "rollout/forward.h"

#include <algorithm>
#include <cmath>

#include "rollout/fixed_rows.h"

namespace troupe::rollout {

namespace {

constexpr LinearWeights LayerWeights::*kLinears[] = {&LayerWeights::qkv, &LayerWeights::o,
                                                     &LayerWeights::gate_up, &LayerWeights::down};

// The part of a packed layer that was made of a policy's.
template <typename Layer>
const auto& linear_of(const Layer& layer, LinearWeights LayerWeights::*which) {
  if (which == &LayerWeights::qkv) return layer.qkv;
  if (which == &LayerWeights::o) return layer.o;
  if (which == &LayerWeights::gate_up) return layer.gate_up;
  return layer.down;
}

}  // namespace

PackedAdapter::PackedAdapter(const Policy& policy)
    : base_(policy.base()),
      adapter_(policy.adapter()),
      scale_(policy.adapter_scale()),
      version_(policy.adapter()->version()) {
  const auto packed = [&](const LinearWeights& weights) {
    kernels::LoraLinear linear = weights.lora;
    policy.backend().pack_lora(linear);
    return linear;
  };
  for (int64_t i = 0; i < policy.config().layers; ++i) {
    const LayerWeights& layer = policy.layer(i);
    layers_.push_back({packed(layer.qkv), packed(layer.o), packed(layer.gate_up), packed(layer.down)});
  }
  stack(policy);
}

// Behind a group of `count` matrices an adapter has count · its ranks' rows, in the order of its terms.
void PackedAdapter::stack(const Policy& policy) {
  const at::NoGradGuard no_grad;
  const int64_t rank = policy.adapter_rank(), padded = AdapterRows::padded(rank);
  if (!policy.backend().stacks_adapters()) return;
  const int64_t place = policy.base()->adapter_rows().place(policy.adapter(), rank);
  if (place < 0) return;
  std::vector<at::Tensor> to, from;
  for (int64_t i = 0; i < policy.config().layers; ++i) {
    Layer& layer = layers_[i];
    kernels::LoraLinear* const own[] = {&layer.qkv, &layer.o, &layer.gate_up, &layer.down};
    for (size_t which = 0; which < std::size(own); ++which) {
      const LinearWeights& weights = policy.layer(i).*kLinears[which];
      int64_t row = weights.weight_count * place;
      for (kernels::LoraTerm& term : own[which]->terms) {
        term.projected = row;
        to.push_back(weights.with_adapters.narrow(0, weights.weight.size(0) + row, rank));
        from.push_back(term.a);
        row += padded;
      }
    }
  }
  at::_foreach_copy_(to, from);
}

bool PackedAdapter::holds(const Policy& policy) const {
  return policy.adapter() && adapter_.lock() == policy.adapter() && base_.lock() == policy.base() &&
         scale_ == policy.adapter_scale() && version_ == policy.adapter()->version();
}

bool PackedAdapter::stale() const {
  const auto adapter = adapter_.lock();
  return !adapter || base_.expired() || adapter->version() != version_;
}

const kernels::LoraLinear& PackedAdapter::linear(int64_t layer, LinearWeights LayerWeights::*which) const {
  return linear_of(layers_.at(layer), which);
}

PackedBase::Linear PackedBase::make_linear(const LinearWeights& weights, bool repack) {
  Linear linear{{weights.weight, weights.bias, {}}, weights.with_adapters, weights.bias_with_adapters};
  if (!repack) return linear;
  linear.own = kernels_.pack_linear(weights.weight, weights.bias);
  packed_bytes_ += linear.own.packed_bytes();
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

// x Wᵀ + b; `alike` where the step recurs.
at::Tensor PackedBase::multiply(const kernels::PackedLinear& weight, const at::Tensor& x,
                                const kernels::AlikeWeights& alike) const {
  if (alike) return kernels_.recurring_linear(x, weight, alike);
  const auto rows = [&](const at::Tensor& some) { return kernels_.linear(some, weight); };
  return fixed() ? in_fixed_rows(x, rows) : rows(x);
}

// Each segment's adapters on its rows; of those whose A lie behind the weights, the product has x Aᵀ.
PackedBase::Product PackedBase::product(const at::Tensor& x, const Pass& pass, int64_t layer,
                                        LinearWeights LayerWeights::*which) const {
  const Linear& base = linear_of(layers_[layer], which);
  std::vector<kernels::LoraRows> parts;
  int64_t ranks = 0;
  for (const Segment& segment : pass.segments) {
    if (!segment.adapter) continue;
    parts.push_back({&segment.adapter->linear(layer, which), segment.begin, segment.end, fixed()});
    for (const kernels::LoraTerm& term : parts.back().linear->terms)
      ranks =
          std::max(ranks, AdapterRows::padded(term.projected + (term.projected < 0 ? 0 : term.a.size(0))));
  }
  const int64_t out = base.own.weight.size(0);
  if (ranks > 0 && fixed()) ranks = base.with_adapters.size(0) - out;  // whoever else decodes
  const auto with_ranks = [&](const Linear& linear) -> kernels::PackedLinear {
    const auto rows = [&](const at::Tensor& all) {
      return all.defined() ? all.narrow(0, 0, out + ranks) : all;
    };
    if (ranks == 0) return linear.own;
    return {rows(linear.with_adapters), rows(linear.bias_with_adapters), {}};
  };
  kernels::AlikeWeights alike;
  if (products_ == Products::kMeasured && pass.rows.repeatable) {
    alike = [&] {
      std::vector<at::Tensor> weights;
      for (const Layer& some : layers_) weights.push_back(with_ranks(linear_of(some, which)).weight);
      return weights;
    };
  }
  const at::Tensor all = multiply(with_ranks(base), x, alike);
  if (ranks == 0) return {all, std::move(parts), x, {}};
  return {all.narrow(1, 0, out), std::move(parts), x, all.narrow(1, out, ranks)};
}

PackedBase::Product PackedBase::attention(const at::Tensor& h, const Pass& pass, kernels::KvStore& store,
                                          int64_t layer, const kernels::RotaryTables& tables) const {
  const Policy& policy = *pass.segments.front().policy;
  Product qkv = product(h, pass, layer, &LayerWeights::qkv);
  const at::Tensor q = kernels_.rotate_and_store(qkv.y, qkv.adapters(), policy.heads(),
                                                 policy.head_norm(layer), tables, store, layer, pass.rows);
  const double scale = 1.0 / std::sqrt(static_cast<double>(policy.config().head_dim));
  const at::Tensor mixed = kernels_.paged_attention(q, store, layer, pass.rows, scale);
  return product(mixed, pass, layer, &LayerWeights::o);
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
    Product attended = attention(h, pass, store, i, tables);
    h = kernels_.add_rms_norm(x, attended.y, attended.adapters(), weights.post_attention_norm, eps);
    Product gate_up = product(h, pass, i, &LayerWeights::gate_up);
    const auto gated = kernels_.swiglu(gate_up.y, gate_up.adapters());
    Product fed = product(gated, pass, i, &LayerWeights::down);
    const at::Tensor& norm = i + 1 < config.layers ? policy.layer(i + 1).input_norm : policy.final_norm();
    h = kernels_.add_rms_norm(x, fed.y, fed.adapters(), norm, eps);
  }
  const auto outputs = static_cast<int64_t>(pass.rows.outputs.size());
  if (outputs == 0) return {};
  // They ascend: as many as rows are one of each row.
  return outputs == h.size(0) ? h : h.index_select(0, pass.rows.device.outputs);
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
