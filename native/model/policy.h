// A policy: a model's architecture and the parameters that it runs with, either a base of its own or a LoRA
// adapter on a base that it shares. Forward passes (training and rollout) read weights through `layer()`.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "kernels/kernels.h"
#include "model/config.h"
#include "model/parameters.h"

namespace troupe {

struct LinearWeights {
  at::Tensor weight;  // [out, in], compute dtype; q,k,v and gate,up are fused along out
  at::Tensor bias;    // [out] or undefined
  // The same with the base's rows for adapters behind them, [out + weight_count · ranks, in]; without such rows as above.
  at::Tensor with_adapters, bias_with_adapters;
  int64_t weight_index = -1;  // first parameter's index in the base layout
  int64_t weight_count = 1;   // 3 for q,k,v; 2 for gate,up
  int64_t bias_index = -1;    // first bias' index in the base layout
  kernels::LoraLinear lora;   // the adapter's part; no terms without one
  // Parameter indices of each term's A and B in the adapter's layout.
  struct TermIndex {
    int64_t a = -1, b = -1;
  };
  std::vector<TermIndex> lora_index;
  bool adapted() const { return !lora.terms.empty(); }
};

struct LayerWeights {
  at::Tensor input_norm, post_attention_norm;  // [hidden]
  at::Tensor q_norm, k_norm;                   // [head_dim] or undefined
  int64_t input_norm_index = -1, post_attention_norm_index = -1, q_norm_index = -1, k_norm_index = -1;
  LinearWeights qkv, o, gate_up, down;
};

class Policy {
 public:
  // A policy with parameters of its own (adapter == nullptr, base trainable) or an adapter on a shared base.
  Policy(ModelConfig config, std::shared_ptr<ParameterSet> base, std::shared_ptr<ParameterSet> adapter,
         AdapterOptions adapter_options);

  const ModelConfig& config() const { return config_; }
  const std::shared_ptr<ParameterSet>& base() const { return base_; }
  const std::shared_ptr<ParameterSet>& adapter() const { return adapter_; }  // null: full parameters
  // The parameters that training updates.
  ParameterSet& trained() const { return adapter_ ? *adapter_ : *base_; }
  int64_t adapter_rank() const { return adapter_ ? adapter_options_.rank : 0; }
  double adapter_scale() const { return adapter_ ? adapter_options_.scale() : 0.0; }
  int64_t version() const { return trained().version(); }
  at::ScalarType compute_dtype() const { return base_->compute().scalar_type(); }
  at::Device device() const { return base_->compute().device(); }

  const LayerWeights& layer(int64_t i) const { return layers_.at(i); }
  const at::Tensor& embedding() const { return embedding_; }    // [vocabulary, hidden]
  const at::Tensor& final_norm() const { return final_norm_; }  // [hidden]
  const at::Tensor& head() const { return head_; }              // [vocabulary, hidden]; the embedding if tied
  int64_t embedding_index() const { return embedding_index_; }
  int64_t final_norm_index() const { return final_norm_index_; }
  int64_t head_index() const { return head_index_; }  // the embedding's if tied

  // cos and sin of every position, [max_positions used so far, head_dim / 2] in fp32 (fp64 in fp64 models),
  // grown on demand up to `positions` rows.
  kernels::RotaryTables rotary_tables(int64_t positions) const;
  kernels::HeadLayout heads() const { return {config_.heads, config_.kv_heads, config_.head_dim}; }
  kernels::HeadNorm head_norm(int64_t layer) const {
    return {layers_.at(layer).q_norm, layers_.at(layer).k_norm, config_.rms_norm_eps};
  }
  const kernels::Kernels& backend() const { return kernels::kernels_for(device()); }

 private:
  ModelConfig config_;
  std::shared_ptr<ParameterSet> base_, adapter_;
  AdapterOptions adapter_options_;
  std::vector<LayerWeights> layers_;
  at::Tensor embedding_, final_norm_, head_;
  int64_t embedding_index_ = -1, final_norm_index_ = -1, head_index_ = -1;
  mutable kernels::RotaryTables tables_;
};

}  // namespace troupe
