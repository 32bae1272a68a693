// The CPU's backend: hands tensors as plain pointers to the kernels of native/kernels/cpu, compiled for each
// instruction set, and to oneDNN. The little that those do not take is the reference's.
#pragma once

#include "kernels/cpu/table.h"
#include "kernels/reference/reference.h"

namespace troupe::kernels {

// The table is the one of the machine's instruction set; ATEN_CPU_CAPABILITY lowers it, as it does in ATen.
class CpuKernels : public ReferenceKernels {
 public:
  explicit CpuKernels(const cpu::Table& table) : table_(table) {}
  const char* name() const override { return "cpu"; }
  int64_t logit_rows() const override { return 64; }
  int64_t packed_bytes(at::ScalarType dtype, int64_t outputs, int64_t inputs, bool head) const override;

 protected:
  void do_embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, Offsets groups,
                             Tensors grad_weight) const override;
  RmsNorm do_rms_norm(at::Tensor x, const at::Tensor& residual, const at::Tensor& weight,
                      double eps) const override;
  at::Tensor do_rms_norm_backward(const RmsNormGradient& gradient) const override;
  at::Tensor do_swiglu(const at::Tensor& gate_up) const override;
  at::Tensor do_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) const override;
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
  at::Tensor do_pack_linear(const at::Tensor& weight) const override;
  at::Tensor do_linear(const at::Tensor& x, const PackedLinear& weight) const override;
  at::Tensor do_pack_head(const at::Tensor& weight) const override;
  at::Tensor do_logits(const at::Tensor& hidden, const PackedLinear& head) const override;
  void do_pack_lora(LoraLinear& linear) const override;
  void do_add_lora(at::Tensor& y, const Adapters& adapters) const override;

  KvStore do_make_kv_store(const KvShape& shape, int64_t pages) const override;
  int64_t do_kv_page_elements(const KvShape& shape) const override;
  void do_copy_kv_pages(KvStore& store, PageCopies copies) const override;
  void do_discard_kv_pages(KvStore& store, std::span<const int32_t> pages) const override;
  at::Tensor do_rotate_and_store(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                                 const RotaryTables& tables, KvStore& store, int64_t layer,
                                 const RowPlan& plan) const override;
  at::Tensor do_paged_attention(const at::Tensor& q, const KvStore& store, int64_t layer, const RowPlan& plan,
                                double scale) const override;
  void do_sample(const at::Tensor& logits, int64_t first_output, const RowPlan& plan, int64_t begin,
                 int64_t end, at::Tensor samples) const override;

  std::vector<double> do_gram(Tensors vectors, std::span<const FlatRange> ranges) const override;
  std::vector<double> do_optimizer_products(Tensors vectors, std::span<const double> coefficients,
                                            std::span<const FlatRange> ranges,
                                            const AdamWStep& step) const override;
  double do_squared_norm(Tensors vectors) const override;

 private:
  // How a weight lies for products of few rows: as it is, or again in blocks of 64 outputs with bf16 in pairs, in
  // panels of float32, or as oneDNN wants it.
  enum class Layout { kPlain, kPairs, kPanels, kOneDnn };
  Layout layout_of(at::ScalarType dtype, int64_t outputs, int64_t inputs, bool head) const;
  at::Tensor pack(const at::Tensor& weight, bool head) const;
  at::Tensor panel_linear(const at::Tensor& x, const PackedLinear& weight) const;
  at::Tensor pair_linear(const at::Tensor& x, const PackedLinear& weight) const;
  void rotate(at::Tensor x, const at::Tensor& positions, const RotaryTables& tables, bool inverse) const;

  const cpu::Table& table_;
};

// A [T, size] or [T, heads, size] tensor as the kernels take it; its last dimension must be contiguous.
cpu::View view_of(const at::Tensor& x);

}  // namespace troupe::kernels
