// A set of parameters in flat, aligned buffers with a view per parameter: a base model, or one LoRA adapter.
//
// master   fp32 (fp64 in tests): what the optimizer updates. Absent for a frozen base.
// compute  what forward and backward read: bf16, or the master itself where the compute dtype is the
// master's. gradient one flat accumulator per gradient group, in the master's dtype; their sum is the
// gradient.
//
// Where several processes train together, each has the masters of one shard of the flat buffer (ZeRO-1, Rajbhandari
// et al. 2020); compute copy and accumulators are whole, and padded so that shards are equal. Who adds up accumulators
// and exchanges compute copies is in src/engine.
//
// Parameters with weight decay (matrices) come first, those without (norms, biases) after: two ranges for the
// optimizer. Weights whose products are computed as one (q, k, v; gate, up) are adjacent, without padding
// between them, so that the fused weight is a view. Behind those of a frozen base there may be rows for adapters' A
// (model/adapter_rows.h), so that one product computes x Wᵀ and every adapter's x Aᵀ.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "model/adapter_rows.h"
#include "model/config.h"
#include "model/gradient_sketch.h"

namespace troupe {

enum class ModuleKind { kEmbedding, kQuery, kKey, kValue, kOutput, kGate, kUp, kDown, kNorm, kHead };

// As the gradient streams spell it: "embedding", "q", "k", "v", "o", "gate", "up", "down", "norm", "head".
const char* module_kind_name(ModuleKind kind);

struct ParameterSpec {
  std::string name;  // Hugging Face's, e.g. model.layers.0.self_attn.q_proj.weight; PEFT's for an adapter
  std::vector<int64_t> shape;
  int64_t offset = 0;  // elements from the start of the flat buffer
  int64_t size = 0;    // elements
  ModuleKind kind = ModuleKind::kEmbedding;
  int64_t layer = -1;  // -1: no layer (embedding, final norm, head)
  bool decay = true;   // false for norms and biases
};

struct ParameterLayout {
  std::vector<ParameterSpec> parameters;
  int64_t size = 0;        // elements of the flat buffer, padding and adapters' rows included
  int64_t decay_size = 0;  // parameters that decay lie in [0, decay_size)
  bool adapter = false;    // small: its gradients are cleared in one go
  // Rows behind each group of matrices whose products are computed as one, for each of them: of adapters' A.
  int64_t adapter_ranks = 0;
  int64_t find(const std::string& name) const;  // index, or -1
};

// Which of `count` equal parts of a flat buffer. One process has the whole.
struct Shard {
  int64_t index = 0, count = 1;
};

struct AdapterOptions {
  int64_t rank = 0;
  double alpha = 0;
  std::vector<ModuleKind> targets;  // kQuery … kDown
  double scale() const { return alpha / static_cast<double>(rank); }
};

ParameterLayout base_layout(const ModelConfig& config, int64_t adapter_ranks = 0);
// lora_A is [rank, in], lora_B is [out, rank], names as PEFT writes them (base_model.model.… .lora_A.weight).
ParameterLayout adapter_layout(const ModelConfig& config, const AdapterOptions& options);

// Writes the set's weights and commits. A base: Normal(0, std) for matrices, 1 for norms, 0 for biases. An
// adapter: A as PEFT draws it, uniform in ±1/√in, and B = 0, so that it starts as the base. Each number is a
// function of (seed, parameter, element) alone.
class ParameterSet;
void initialize(ParameterSet& parameters, uint64_t seed, double std);

class ParameterSet {
 public:
  // trainable: with a master, of `shard`; otherwise only the compute copy exists.
  ParameterSet(ParameterLayout layout, at::ScalarType compute, at::Device device, bool trainable,
               Shard shard = {});

  const ParameterLayout& layout() const { return layout_; }
  bool trainable() const { return master_.defined(); }
  const at::Tensor& compute() const { return compute_; }  // flat
  const at::Tensor& buffer() const { return buffer_; }    // the same with its padding, [shards · shard_size]
  // Elements [shard_begin, shard_begin + shard_size) of the buffers; with one process, all.
  int64_t shard_begin() const { return shard_.index * shard_size(); }
  int64_t shard_size() const { return buffer_.numel() / shard_.count; }
  const at::Tensor& master() const { return master_; }  // of the shard; undefined for a frozen set
  // Parameter i ← values, of its shape. To be followed by commit().
  void write(int64_t i, const at::Tensor& values);
  // Of parameter i: the master where this process has all of it, else the compute copy.
  at::Tensor exact_view(int64_t i) const;
  at::Tensor compute_view(int64_t i) const;
  // One view [rows, columns] over `count` adjacent matrices with equal columns, from parameter i on.
  at::Tensor fused_view(int64_t i, int64_t count) const;
  // The same, and behind them count · adapter_ranks rows for adapters; of biases zeros.
  at::Tensor fused_view_with_adapters(int64_t i, int64_t count) const;
  // Who has which of these rows.
  AdapterRows& adapter_rows() { return adapter_rows_; }

  // The shard's master → compute, and a new version. A frozen set only takes the new version (its weights were
  // written).
  void commit();
  // What commit() writes, for who writes it with the master and counts the version; undefined where it is the master
  // itself.
  at::Tensor rounded_shard() const;
  void count_version() { ++version_; }
  int64_t version() const { return version_; }

  // Gradient accumulators, allocated on first use: as large as the buffer for each group. They are zero, but a base's
  // matrices are fresh: not cleared before somebody asks for what they hold, and not at all where a product that covers
  // them comes first and overwrites them.
  void begin_gradients(int64_t groups);
  // One accumulator for all groups, and a sketch of each. Sign matrices are kept from call to call.
  void begin_sketch(int64_t groups, const SketchOptions& options);
  GradientSketch* sketch() const { return sketching_ ? sketch_.get() : nullptr; }  // null: not begun
  void end_gradients();                                                            // frees them
  // Ends the groups after the first.
  void keep_first_gradient();
  int64_t gradient_groups() const { return static_cast<int64_t>(gradients_.size()); }
  const at::Tensor& gradient(int64_t group) const;  // flat, like the buffer
  at::Tensor gradient_shard(int64_t group) const;   // this process's part of it
  at::Tensor gradient_view(int64_t group, int64_t i) const;
  at::Tensor fused_gradient_view(int64_t group, int64_t i, int64_t count) const;
  // The same for who overwrites it where it is fresh, and then says so.
  at::Tensor uncleared_gradient_view(int64_t group, int64_t i, int64_t count) const;
  bool is_fresh(int64_t group, int64_t i, int64_t count) const;
  void set_written(int64_t group, int64_t i, int64_t count);

 private:
  void clear_fresh(int64_t group, int64_t i, int64_t count) const;

  ParameterLayout layout_;
  AdapterRows adapter_rows_;
  Shard shard_;
  at::Tensor buffer_, compute_, master_;
  std::vector<at::Tensor> gradients_;
  mutable std::vector<std::vector<bool>> fresh_;  // [groups][parameters]
  std::unique_ptr<GradientSketch> sketch_;
  bool sketching_ = false;
  int64_t version_ = 0;
};

}  // namespace troupe
