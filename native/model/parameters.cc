// Layouts of the flat buffers, their views, and the step from master to compute copy. Where the numbers come
// from (files, initialization) and how they change (optimizers) is for others.
#include "model/parameters.h"

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

// Every fused group starts at a multiple of 64 bytes in bf16, and so in every wider type.
constexpr int64_t kAlignment = 32;  // elements

int64_t align(int64_t elements) { return (elements + kAlignment - 1) / kAlignment * kAlignment; }

struct LayoutEntry {
  std::string name;
  std::vector<int64_t> shape;
  ModuleKind kind;
  int64_t layer = -1;
};

class LayoutBuilder {
 public:
  explicit LayoutBuilder(bool adapter = false) { layout_.adapter = adapter; }
  // Adjacent parameters, without padding between them. `ranks`: rows that stay free behind them, for each.
  void add(const std::vector<LayoutEntry>& entries, bool decay, int64_t ranks = 0) {
    for (const LayoutEntry& entry : entries) {
      const int64_t size = elements(entry);
      layout_.parameters.push_back({entry.name, entry.shape, end_, size, entry.kind, entry.layer, decay});
      end_ += size;
      check(end_ <= kMost, entry);
    }
    for (const LayoutEntry& entry : entries) {
      end_ += ranks * (elements(entry) / entry.shape[0]);
      check(end_ <= kMost, entry);
    }
    end_ = align(end_);
    if (decay) layout_.decay_size = end_;
  }
  ParameterLayout finish() && {
    layout_.size = end_;
    return std::move(layout_);
  }

 private:
  static constexpr int64_t kMost = int64_t{1} << 60;  // elements; their bytes are for the allocator to refuse

  static void check(bool fits, const LayoutEntry& entry) {
    TORCH_CHECK(fits, "a model that has ", entry.name, " of ", at::IntArrayRef(entry.shape), " is too large");
  }
  static int64_t elements(const LayoutEntry& entry) {
    int64_t size = 1;
    for (const int64_t dimension : entry.shape) {
      check(!__builtin_mul_overflow(size, dimension, &size) && size <= kMost, entry);
    }
    return size;
  }

  ParameterLayout layout_;
  int64_t end_ = 0;
};

struct Linear {
  ModuleKind kind;
  const char* name;  // inside its layer
  int64_t out, in;
  bool bias;
};

// The linear layers of one transformer layer, in groups whose products are computed as one.
std::vector<std::vector<Linear>> linear_groups(const ModelConfig& c) {
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  return {{{ModuleKind::kQuery, "self_attn.q_proj", q, c.hidden_size, c.qkv_bias},
           {ModuleKind::kKey, "self_attn.k_proj", kv, c.hidden_size, c.qkv_bias},
           {ModuleKind::kValue, "self_attn.v_proj", kv, c.hidden_size, c.qkv_bias}},
          {{ModuleKind::kOutput, "self_attn.o_proj", c.hidden_size, q, c.output_bias}},
          {{ModuleKind::kGate, "mlp.gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias},
           {ModuleKind::kUp, "mlp.up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias}},
          {{ModuleKind::kDown, "mlp.down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias}}};
}

std::string layer_prefix(int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }

void add_layer_matrices(LayoutBuilder& builder, const ModelConfig& config, int64_t layer,
                        int64_t adapter_ranks) {
  for (const std::vector<Linear>& group : linear_groups(config)) {
    std::vector<LayoutEntry> entries;
    for (const Linear& linear : group) {
      entries.push_back(
          {layer_prefix(layer) + linear.name + ".weight", {linear.out, linear.in}, linear.kind, layer});
    }
    builder.add(entries, /*decay=*/true, adapter_ranks);
  }
}

void add_layer_vectors(LayoutBuilder& builder, const ModelConfig& config, int64_t layer,
                       int64_t adapter_ranks) {
  const auto norm = [&](const char* name, int64_t size) {
    builder.add({{layer_prefix(layer) + name + ".weight", {size}, ModuleKind::kNorm, layer}},
                /*decay=*/false);
  };
  norm("input_layernorm", config.hidden_size);
  if (config.qk_norm) {
    norm("self_attn.q_norm", config.head_dim);
    norm("self_attn.k_norm", config.head_dim);
  }
  norm("post_attention_layernorm", config.hidden_size);
  for (const std::vector<Linear>& group : linear_groups(config)) {
    std::vector<LayoutEntry> entries;
    for (const Linear& linear : group) {
      if (linear.bias)
        entries.push_back({layer_prefix(layer) + linear.name + ".bias", {linear.out}, linear.kind, layer});
    }
    if (!entries.empty()) builder.add(entries, /*decay=*/false, adapter_ranks);
  }
}

at::ScalarType master_type(at::ScalarType compute) {
  return compute == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace

const char* module_kind_name(ModuleKind kind) {
  switch (kind) {
    case ModuleKind::kEmbedding:
      return "embedding";
    case ModuleKind::kQuery:
      return "q";
    case ModuleKind::kKey:
      return "k";
    case ModuleKind::kValue:
      return "v";
    case ModuleKind::kOutput:
      return "o";
    case ModuleKind::kGate:
      return "gate";
    case ModuleKind::kUp:
      return "up";
    case ModuleKind::kDown:
      return "down";
    case ModuleKind::kNorm:
      return "norm";
    case ModuleKind::kHead:
      return "head";
  }
  TORCH_INTERNAL_ASSERT(false, "no kind of module");
}

int64_t ParameterLayout::find(const std::string& name) const {
  const auto found = std::find_if(parameters.begin(), parameters.end(),
                                  [&](const ParameterSpec& spec) { return spec.name == name; });
  return found == parameters.end() ? -1 : found - parameters.begin();
}

ParameterLayout base_layout(const ModelConfig& config, int64_t adapter_ranks) {
  TORCH_CHECK(adapter_ranks >= 0 && adapter_ranks <= kMostAdapterRanks, "a base has room for 0 to ",
              kMostAdapterRanks, " ranks of adapters, not ", adapter_ranks);
  LayoutBuilder builder;
  const std::vector<int64_t> vocabulary_shape{config.vocabulary_size, config.hidden_size};
  builder.add({{"model.embed_tokens.weight", vocabulary_shape, ModuleKind::kEmbedding}}, /*decay=*/true);
  for (int64_t i = 0; i < config.layers; ++i) add_layer_matrices(builder, config, i, adapter_ranks);
  if (!config.tied_embeddings)
    builder.add({{"lm_head.weight", vocabulary_shape, ModuleKind::kHead}}, /*decay=*/true);
  for (int64_t i = 0; i < config.layers; ++i) add_layer_vectors(builder, config, i, adapter_ranks);
  builder.add({{"model.norm.weight", {config.hidden_size}, ModuleKind::kNorm}}, /*decay=*/false);
  ParameterLayout layout = std::move(builder).finish();
  layout.adapter_ranks = adapter_ranks;
  return layout;
}

ParameterLayout adapter_layout(const ModelConfig& config, const AdapterOptions& options) {
  TORCH_CHECK(options.rank > 0, "LoRA rank must be at least 1, got ", options.rank);
  TORCH_CHECK(!options.targets.empty(), "LoRA needs at least one target layer (q, k, v, o, gate, up, down)");
  const auto targeted = [&](const Linear& linear) {
    return std::find(options.targets.begin(), options.targets.end(), linear.kind) != options.targets.end();
  };
  LayoutBuilder builder(/*adapter=*/true);
  for (int64_t i = 0; i < config.layers; ++i) {
    for (const std::vector<Linear>& group : linear_groups(config)) {
      std::vector<LayoutEntry> a, b;
      for (const Linear& linear : group) {
        if (!targeted(linear)) continue;
        const std::string prefix = "base_model.model." + layer_prefix(i) + linear.name;
        a.push_back({prefix + ".lora_A.weight", {options.rank, linear.in}, linear.kind, i});
        b.push_back({prefix + ".lora_B.weight", {linear.out, options.rank}, linear.kind, i});
      }
      if (a.empty()) continue;
      builder.add(a, /*decay=*/true);
      builder.add(b, /*decay=*/true);
    }
  }
  return std::move(builder).finish();
}

ParameterSet::ParameterSet(ParameterLayout layout, at::ScalarType compute, at::Device device, bool trainable,
                           Shard shard)
    : layout_(std::move(layout)), adapter_rows_(layout_.adapter_ranks), shard_(trainable ? shard : Shard{}) {
  TORCH_CHECK(!trainable || layout_.adapter_ranks == 0, "adapters are of a base that does not train");
  TORCH_CHECK(compute == at::kDouble || compute == at::kFloat || compute == at::kBFloat16,
              "parameters are float64, float32 or bfloat16, got ", compute);
  TORCH_CHECK(shard_.count >= 1 && shard_.index >= 0 && shard_.index < shard_.count, "there is no shard ",
              shard_.index, " of ", shard_.count);
  const auto options = at::TensorOptions().device(device);
  // Every shard is aligned like the parameters.
  const int64_t per_shard = align((layout_.size + shard_.count - 1) / shard_.count);
  buffer_ = at::zeros({per_shard * shard_.count}, options.dtype(compute));
  compute_ = buffer_.narrow(0, 0, layout_.size);
  if (!trainable) return;
  master_ = buffer_.narrow(0, shard_begin(), shard_size());
  if (compute != master_type(compute)) master_ = at::zeros_like(master_, master_type(compute));
}

namespace {

at::Tensor view_of(const at::Tensor& flat, const ParameterSpec& spec) {
  return flat.narrow(0, spec.offset, spec.size).view(spec.shape);
}

// [Σ rows + more_rows, columns] over `count` adjacent parameters from i on; vectors concatenate.
at::Tensor fused_view_of(const at::Tensor& flat, const ParameterLayout& layout, int64_t i, int64_t count,
                         int64_t more_rows = 0) {
  const ParameterSpec& first = layout.parameters.at(i);
  std::vector<int64_t> shape = first.shape;
  int64_t size = first.size;
  for (int64_t j = i + 1; j < i + count; ++j) {
    const ParameterSpec& spec = layout.parameters.at(j);
    TORCH_INTERNAL_ASSERT(spec.offset == first.offset + size, spec.name, " does not follow ", first.name);
    shape[0] += spec.shape[0];
    size += spec.size;
  }
  size += more_rows * (first.size / first.shape[0]);
  shape[0] += more_rows;
  return flat.narrow(0, first.offset, size).view(shape);
}

}  // namespace

at::Tensor ParameterSet::exact_view(int64_t i) const {
  const bool whole = trainable() && shard_.count == 1;
  return view_of(whole ? master_ : compute_, layout_.parameters.at(i));
}

void ParameterSet::write(int64_t i, const at::Tensor& values) {
  const at::NoGradGuard no_grad;
  const ParameterSpec& spec = layout_.parameters.at(i);
  TORCH_CHECK(values.sizes() == at::IntArrayRef(spec.shape), spec.name, " is ", at::IntArrayRef(spec.shape),
              ", and cannot be given values ", values.sizes());
  compute_view(i).copy_(values);
  if (!trainable() || master_.scalar_type() == buffer_.scalar_type()) return;
  const int64_t begin = std::max(spec.offset, shard_begin());
  const int64_t end = std::min(spec.offset + spec.size, shard_begin() + shard_size());
  if (begin >= end) return;
  master_.narrow(0, begin - shard_begin(), end - begin)
      .copy_(values.reshape({-1}).narrow(0, begin - spec.offset, end - begin));
}

at::Tensor ParameterSet::compute_view(int64_t i) const { return view_of(compute_, layout_.parameters.at(i)); }

at::Tensor ParameterSet::fused_view(int64_t i, int64_t count) const {
  return fused_view_of(compute_, layout_, i, count);
}

at::Tensor ParameterSet::fused_view_with_adapters(int64_t i, int64_t count) const {
  return fused_view_of(compute_, layout_, i, count, count * layout_.adapter_ranks);
}

void ParameterSet::commit() {
  const at::NoGradGuard no_grad;
  if (const at::Tensor rounded = rounded_shard(); rounded.defined()) rounded.copy_(master_);
  count_version();
}

at::Tensor ParameterSet::rounded_shard() const {
  if (!trainable() || master_.scalar_type() == buffer_.scalar_type()) return {};
  return buffer_.narrow(0, shard_begin(), shard_size());
}

void ParameterSet::begin_gradients(int64_t groups) {
  TORCH_CHECK(trainable(), "a frozen parameter set has no gradients");
  TORCH_CHECK(groups > 0, "gradients need at least one group, got ", groups);
  sketching_ = false;
  gradients_.resize(groups);
  const std::vector<ParameterSpec>& parameters = layout_.parameters;
  fresh_.assign(groups, std::vector<bool>(parameters.size()));
  for (int64_t k = 0; k < groups; ++k) {
    at::Tensor& gradient = gradients_[k];
    if (!gradient.defined()) gradient = at::empty({buffer_.numel()}, master_.options());
    int64_t end = 0;  // of what is fresh or cleared
    const auto clear_to = [&](int64_t begin) {
      if (end < begin) gradient.narrow(0, end, begin - end).zero_();
    };
    for (size_t i = 0; i < parameters.size() && !layout_.adapter; ++i) {
      if (!parameters[i].decay) continue;
      clear_to(parameters[i].offset);
      end = parameters[i].offset + parameters[i].size;
      fresh_[k][i] = true;
    }
    clear_to(gradient.numel());
  }
}

bool ParameterSet::is_fresh(int64_t group, int64_t i, int64_t count) const {
  const auto first = fresh_.at(group).begin() + i;
  return std::all_of(first, first + count, [](bool fresh) { return fresh; });
}

void ParameterSet::set_written(int64_t group, int64_t i, int64_t count) {
  std::fill_n(fresh_.at(group).begin() + i, count, false);
}

void ParameterSet::clear_fresh(int64_t group, int64_t i, int64_t count) const {
  for (int64_t j = i; j < i + count; ++j) {
    if (!fresh_.at(group)[j]) continue;
    view_of(gradients_.at(group), layout_.parameters.at(j)).zero_();
    fresh_[group][j] = false;
  }
}

const at::Tensor& ParameterSet::gradient(int64_t group) const {
  clear_fresh(group, 0, static_cast<int64_t>(layout_.parameters.size()));
  return gradients_.at(group);
}

void ParameterSet::begin_sketch(int64_t groups, const SketchOptions& options) {
  begin_gradients(1);
  const bool fits = sketch_ && sketch_->options().replicates == options.replicates &&
                    sketch_->options().size == options.size && sketch_->options().seed == options.seed;
  if (!fits)
    sketch_ = std::make_unique<GradientSketch>(layout_, options, compute_.scalar_type(), master_.options());
  sketch_->begin(groups);
  sketching_ = true;
}

void ParameterSet::end_gradients() {
  if (sketch_) sketch_->end();
  sketching_ = false;
  gradients_.clear();
}

void ParameterSet::keep_first_gradient() { gradients_.resize(1); }

at::Tensor ParameterSet::gradient_shard(int64_t group) const {
  return gradient(group).narrow(0, shard_begin(), shard_size());
}

at::Tensor ParameterSet::gradient_view(int64_t group, int64_t i) const {
  clear_fresh(group, i, 1);
  return view_of(gradients_.at(group), layout_.parameters.at(i));
}

at::Tensor ParameterSet::fused_gradient_view(int64_t group, int64_t i, int64_t count) const {
  clear_fresh(group, i, count);
  return uncleared_gradient_view(group, i, count);
}

at::Tensor ParameterSet::uncleared_gradient_view(int64_t group, int64_t i, int64_t count) const {
  return fused_view_of(gradients_.at(group), layout_, i, count);
}

}  // namespace troupe
