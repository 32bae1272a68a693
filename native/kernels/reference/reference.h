// The fused operations in plain ATen operators: slow, short, right on any device. Two uses: the other half of
// every test, and what a backend without a kernel of its own falls back on.
#pragma once

#include "kernels/kernels.h"
#include "kernels/waits.h"

namespace troupe::kernels {

class ReferenceKernels : public Kernels {
 public:
  const char* name() const override { return "reference"; }
  int64_t logit_rows() const override { return 256; }

 protected:
  at::Tensor do_embedding(const at::Tensor& tokens, const at::Tensor& weight) const override;
  void do_embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, Offsets groups,
                             Tensors grad_weight) const override;
  RmsNorm do_rms_norm(at::Tensor x, const at::Tensor& residual, const at::Tensor& weight,
                      double eps) const override;
  at::Tensor do_rms_norm_backward(const RmsNormGradient& gradient) const override;
  at::Tensor do_swiglu(const at::Tensor& gate_up) const override;
  at::Tensor do_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) const override;

  // Rows stay in the batch's order.
  Heads do_rotate_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                        const RotaryTables& tables, const TreePlan& plan) const override;
  at::Tensor do_rotate_heads_backward(HeadsGradient& gradient, const at::Tensor& qkv, const Heads& forward,
                                      const HeadLayout& layout, const HeadNorm& norm,
                                      const RotaryTables& tables, const TreePlan& plan, Offsets groups,
                                      Tensors grad_q_norm, Tensors grad_k_norm) const override;
  Attention do_tree_attention(const Heads& heads, const TreePlan& plan, double scale) const override;
  HeadsGradient do_tree_attention_backward(const at::Tensor& grad, const Heads& heads,
                                           const Attention& forward, const TreePlan& plan,
                                           double scale) const override;

  TokenLogprobs do_token_logprobs(const at::Tensor& hidden, const at::Tensor& weight,
                                  const LossEntries& entries) const override;
  void do_token_logprobs_backward(const TokenLogprobsGradient& gradient, const TokenLogprobs& forward,
                                  const at::Tensor& hidden, const at::Tensor& weight,
                                  const LossEntries& entries) const override;

  void do_accumulate_weight_gradient(Tensors accumulators, const at::Tensor& delta, const at::Tensor& x,
                                     Offsets groups, const std::vector<bool>& fresh,
                                     at::Tensor& counters) const override;
  AdaptedLinear do_adapted_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                  const LoraLinear& linear) const override;
  at::Tensor do_adapted_linear_backward(const at::Tensor& delta, const at::Tensor& projected_grad,
                                        const at::Tensor& weight, const LoraLinear& linear) const override;
  // scale · x Aᵀ of all terms side by side, [T, Σ rank].
  virtual at::Tensor project(const at::Tensor& x, const LoraLinear& linear) const;

  at::Tensor do_pack_linear(const at::Tensor& weight) const override;
  at::Tensor do_linear(const at::Tensor& x, const PackedLinear& weight) const override;
  at::Tensor do_pack_head(const at::Tensor& weight) const override;
  at::Tensor do_logits(const at::Tensor& hidden, const PackedLinear& head) const override;
  void do_pack_lora(LoraLinear& linear) const override;
  void do_add_lora(at::Tensor& y, const Adapters& adapters) const override;
  at::Tensor do_adapted_rms_norm(at::Tensor& x, at::Tensor& y, const Adapters& adapters,
                                 const at::Tensor& weight, double eps) const override;
  at::Tensor do_adapted_swiglu(at::Tensor& gate_up, const Adapters& adapters) const override;

  KvStore do_make_kv_store(const KvShape& shape, int64_t pages) const override;
  int64_t do_kv_page_elements(const KvShape& shape) const override;
  void do_copy_kv_pages(KvStore& store, PageCopies copies) const override;
  void do_discard_kv_pages(KvStore& store, std::span<const int32_t> pages) const override;
  void plan_rows(RowPlan& plan) const override;
  at::Tensor do_rotate_and_store(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                                 const RotaryTables& tables, KvStore& store, int64_t layer,
                                 const RowPlan& plan) const override;
  at::Tensor do_adapted_rotate_and_store(at::Tensor& qkv, const Adapters& adapters, const HeadLayout& layout,
                                         const HeadNorm& norm, const RotaryTables& tables, KvStore& store,
                                         int64_t layer, const RowPlan& plan) const override;
  at::Tensor do_paged_attention(const at::Tensor& q, const KvStore& store, int64_t layer, const RowPlan& plan,
                                double scale) const override;
  void do_sample(const at::Tensor& logits, int64_t first_output, const RowPlan& plan, int64_t begin,
                 int64_t end, at::Tensor samples) const override;

  void do_take_drawn(const at::Tensor& ids, at::Tensor tokens) const override;
  std::vector<double> do_gram(Tensors vectors, std::span<const FlatRange> ranges) const override;
  AdamWChange do_adamw_step(Tensors vectors, std::span<const double> coefficients,
                            std::span<const FlatRange> ranges, const AdamWStep& step) const override;
  // The products of an AdamWChange, before the step.
  virtual std::vector<double> do_optimizer_products(Tensors vectors, std::span<const double> coefficients,
                                                    std::span<const FlatRange> ranges,
                                                    const AdamWStep& step) const;
  double do_squared_norm(Tensors vectors) const override;
  void do_adamw(const AdamWTensors& tensors, double learning_rate, double beta1, double beta2, double eps,
                double weight_decay) const override;
};

// The terms' columns of y become p Bᵀ + beta times what they hold, of p = projected [T, Σ rank]. With beta 0 that is not
// read.
void add_terms(at::Tensor& y, const at::Tensor& projected, const LoraLinear& linear, double beta);

// The tensor itself where its last dimension is contiguous, as kernels want their rows, else a contiguous copy.
inline at::Tensor rows_contiguous(const at::Tensor& x) {
  return x.stride(-1) == 1 || x.size(-1) <= 1 ? x : x.contiguous();
}

}  // namespace troupe::kernels
