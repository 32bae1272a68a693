// Resolves a model's parameters into each layer's weights: fused views of the compute buffers, with the
// adapter's matrices beside the linear that they add to.
#include "model/policy.h"

#include <algorithm>

#include "kernels/waits.h"

namespace troupe {
namespace {

struct Part {
  const char* name;  // inside its layer
  int64_t rows;
};

class Resolver {
 public:
  Resolver(const ModelConfig& config, const ParameterSet& base, const ParameterSet* adapter, double scale)
      : config_(config), base_(base), adapter_(adapter), scale_(scale) {}

  int64_t index(const std::string& name) const {
    const int64_t found = base_.layout().find(name);
    TORCH_CHECK(found >= 0, "the base has no parameter ", name, ": it was made for another configuration");
    return found;
  }

  LayerWeights layer(int64_t i) {
    prefix_ = "model.layers." + std::to_string(i) + ".";
    const int64_t q = config_.heads * config_.head_dim, kv = config_.kv_heads * config_.head_dim;
    LayerWeights weights;
    norm("input_layernorm", weights.input_norm, weights.input_norm_index);
    norm("post_attention_layernorm", weights.post_attention_norm, weights.post_attention_norm_index);
    if (config_.qk_norm) {
      norm("self_attn.q_norm", weights.q_norm, weights.q_norm_index);
      norm("self_attn.k_norm", weights.k_norm, weights.k_norm_index);
    }
    weights.qkv = linear({{"self_attn.q_proj", q}, {"self_attn.k_proj", kv}, {"self_attn.v_proj", kv}},
                         config_.qkv_bias);
    weights.o = linear({{"self_attn.o_proj", config_.hidden_size}}, config_.output_bias);
    weights.gate_up =
        linear({{"mlp.gate_proj", config_.intermediate_size}, {"mlp.up_proj", config_.intermediate_size}},
               config_.mlp_bias);
    weights.down = linear({{"mlp.down_proj", config_.hidden_size}}, config_.mlp_bias);
    return weights;
  }

 private:
  void norm(const char* name, at::Tensor& weight, int64_t& parameter) const {
    parameter = index(prefix_ + name + ".weight");
    weight = base_.compute_view(parameter);
  }

  LinearWeights linear(const std::vector<Part>& parts, bool bias) const {
    const auto count = static_cast<int64_t>(parts.size());
    LinearWeights result;
    result.weight_index = index(prefix_ + parts[0].name + ".weight");
    result.weight_count = count;
    result.weight = base_.fused_view(result.weight_index, count);
    result.with_adapters = base_.fused_view_with_adapters(result.weight_index, count);
    if (bias) {
      result.bias_index = index(prefix_ + parts[0].name + ".bias");
      result.bias = base_.fused_view(result.bias_index, count);
      result.bias_with_adapters = base_.fused_view_with_adapters(result.bias_index, count);
    }
    int64_t begin = 0;
    for (const Part& part : parts) {
      add_adapter(result, part, begin);
      begin += part.rows;
    }
    return result;
  }

  void add_adapter(LinearWeights& linear, const Part& part, int64_t begin) const {
    if (!adapter_) return;
    const std::string name = "base_model.model." + prefix_ + part.name;
    const int64_t a = adapter_->layout().find(name + ".lora_A.weight");
    const int64_t b = adapter_->layout().find(name + ".lora_B.weight");
    if (a < 0) return;
    linear.lora.scale = scale_;
    linear.lora.terms.push_back({begin, adapter_->compute_view(a), adapter_->compute_view(b)});
    linear.lora_index.push_back({a, b});
  }

  const ModelConfig& config_;
  const ParameterSet& base_;
  const ParameterSet* adapter_;
  double scale_;
  std::string prefix_;
};

}  // namespace

Policy::Policy(ModelConfig config, std::shared_ptr<ParameterSet> base, std::shared_ptr<ParameterSet> adapter,
               AdapterOptions adapter_options)
    : config_(std::move(config)),
      base_(std::move(base)),
      adapter_(std::move(adapter)),
      adapter_options_(std::move(adapter_options)) {
  TORCH_CHECK(base_->layout().size == base_layout(config_, base_->layout().adapter_ranks).size,
              "the base's parameters were made for another configuration");
  if (adapter_) {
    TORCH_CHECK(adapter_->compute().scalar_type() == base_->compute().scalar_type(),
                "adapter and base must compute in one dtype, got ", adapter_->compute().scalar_type(),
                " and ", base_->compute().scalar_type());
    TORCH_CHECK(adapter_->layout().size == adapter_layout(config_, adapter_options_).size,
                "the adapter's parameters were made for another configuration, rank or set of targets");
  }
  Resolver resolver(config_, *base_, adapter_.get(), adapter_scale());
  layers_.reserve(config_.layers);
  for (int64_t i = 0; i < config_.layers; ++i) layers_.push_back(resolver.layer(i));
  embedding_index_ = resolver.index("model.embed_tokens.weight");
  final_norm_index_ = resolver.index("model.norm.weight");
  head_index_ = config_.tied_embeddings ? embedding_index_ : resolver.index("lm_head.weight");
  embedding_ = base_->compute_view(embedding_index_);
  final_norm_ = base_->compute_view(final_norm_index_);
  head_ = base_->compute_view(head_index_);
}

kernels::RotaryTables Policy::rotary_tables(int64_t positions) const {
  const int64_t present = tables_.cos.defined() ? tables_.cos.size(0) : 0;
  if (present < positions) {
    const at::NoGradGuard no_grad;
    // Doubled, so that growing lengths rebuild the tables rarely.
    const int64_t rows = std::max<int64_t>({positions, 2 * present, 512});
    const at::Tensor frequencies = at::tensor(at::ArrayRef<double>(config_.inverse_frequencies), at::kDouble);
    const at::Tensor angles = at::arange(rows, at::kDouble).unsqueeze(1).mul(frequencies.unsqueeze(0));
    const auto table = [&](const at::Tensor& values) {
      return kernels::to_device(values.mul(config_.rope_scaling), device(),
                                kernels::wide_type(compute_dtype()));
    };
    tables_ = {table(angles.cos()), table(angles.sin())};
  }
  return tables_;
}

}  // namespace troupe
