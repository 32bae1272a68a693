// The fused operations of training and rollout, one virtual function each, and the one place that chooses
// among their implementations:
//   reference  plain ATen operators: any device, slow; the other half of every test;
//   cpu        at::vec kernels for AVX-512 and AVX2;
//   cuda       CUDA kernels, flash attention, cuBLASLt.
// Tensors and plans in, tensors out. Public functions check their arguments and call the backend's do_…,
// which may rely on them: shapes and dtypes fit, tensors lie on one device. Every backend derives from
// ReferenceKernels and overrides what it does better. Low-precision inputs are widened first, sums are fp32
// (fp64 for fp64) and results rounded once. Nothing here uploads, downloads or waits, unless it says so.
//
// Letters of shapes, and what `groups` are: operands.h.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/operands.h"
#include "kernels/plans.h"

namespace troupe::kernels {

// Launches that can be made again: they compute what they did, from what the tensors that they read hold now.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void replay() = 0;
};

class Kernels {
 public:
  virtual ~Kernels() = default;
  virtual const char* name() const = 0;
  // Kernels of its own that this process has launched, ATen's not among them.
  virtual int64_t launches() const { return 0; }
  // What a model whose keys have this shape computes more slowly here than others do, a sentence each. It may wait.
  virtual std::vector<std::string> slow_paths(const KvShape& shape) const { return {}; }

  // --- Elementwise and norms -------------------------------------------------------------------------------
  // tokens [T] int64 or int32, weight [V, H] → [T, H].
  at::Tensor embedding(const at::Tensor& tokens, const at::Tensor& weight) const;
  // grad_weight[k] ([V, H]) += rows of grad [T, H] of group k, at their tokens.
  void embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, Offsets groups,
                          Tensors grad_weight) const;
  // y = x · rsqrt(mean(x²) + eps) · weight over the last dimension (RMSNorm, arXiv 1910.07467). x [T, H].
  RmsNorm rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) const;
  // x += residual first, in place, then the norm of the sum: the residual stream in one pass.
  RmsNorm add_rms_norm(at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps) const;
  // The gradient of x.
  at::Tensor rms_norm_backward(const RmsNormGradient& gradient) const;
  // silu(gate) · up: gate_up [T, 2 I] (gate first) → [T, I].
  at::Tensor swiglu(const at::Tensor& gate_up) const;
  at::Tensor swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) const;  // → [T, 2 I]

  // Whether tree attention's rows are in the plan's breadth-first order, or in the batch's.
  virtual bool breadth_first() const { return false; }

  // --- Attention over a prefix tree ------------------------------------------------------------------------
  // Splits qkv [T, (Hq + 2 Hkv) D], norms and rotates; q, k and v may be views of qkv, which stays as it was.
  Heads rotate_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                     const RotaryTables& tables, const TreePlan& plan) const;
  // Gradient of qkv, contiguous; grad_q_norm[k] and grad_k_norm[k] ([D]; or empty) are added to.
  at::Tensor rotate_heads_backward(HeadsGradient gradient, const at::Tensor& qkv, const Heads& forward,
                                   const HeadLayout& layout, const HeadNorm& norm, const RotaryTables& tables,
                                   const TreePlan& plan, Offsets groups, Tensors grad_q_norm,
                                   Tensors grad_k_norm) const;
  // Levels that a batch's trees should have at most, for each costs calls of attention (batch/tree_levels.h); 0: any
  // number. More are computed all the same.
  virtual int64_t tree_levels() const { return 0; }
  // A row attends causally to its node and fully to every ancestor; Hq is a multiple of Hkv.
  Attention tree_attention(const Heads& heads, const TreePlan& plan, double scale) const;
  // grad [T, Hq, D], rows in the batch's order.
  HeadsGradient tree_attention_backward(const at::Tensor& grad, const Heads& heads, const Attention& forward,
                                        const TreePlan& plan, double scale) const;

  // --- Output projection and loss --------------------------------------------------------------------------
  // Log-probabilities of target tokens and entropies, never holding [E, V]: chunks of entries through the
  // output projection. hidden [T, H] after the final norm; weight [V, H]. log p is of softmax(logits /
  // temperature).
  TokenLogprobs token_logprobs(const at::Tensor& hidden, const at::Tensor& weight,
                               const LossEntries& entries) const;
  void token_logprobs_backward(const TokenLogprobsGradient& gradient, const TokenLogprobs& forward,
                               const at::Tensor& hidden, const at::Tensor& weight,
                               const LossEntries& entries) const;

  // --- Linear layers ---------------------------------------------------------------------------------------
  // accumulators[k] ([out, in]) += δ_kᵀ x_k over group k's rows of delta [T, out] and x [T, in]: products of
  // the compute dtype summed wide, not rounded between. One that is fresh is overwritten, whatever it holds; `fresh`
  // is empty: none is. `counters`, undefined at first, is what a backend keeps from one call of a stream to the next.
  void accumulate_weight_gradient(Tensors accumulators, const at::Tensor& delta, const at::Tensor& x,
                                  Offsets groups, const std::vector<bool>& fresh, at::Tensor& counters) const;
  // y = x Wᵀ + b + scale · (x Aᵀ) Bᵀ, of x [T, in], weight [out, in], bias [out] or undefined, and at least one term.
  AdaptedLinear adapted_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                               const LoraLinear& linear) const;
  // The gradient of x, [T, in]: δ W + q A, of delta [T, out] and projected_grad q [T, Σ rank], the gradient of x Aᵀ.
  at::Tensor adapted_linear_backward(const at::Tensor& delta, const at::Tensor& projected_grad,
                                     const at::Tensor& weight, const LoraLinear& linear) const;

  // --- Rollout ---------------------------------------------------------------------------------------------
  PackedLinear pack_linear(at::Tensor weight, at::Tensor bias) const;
  at::Tensor linear(const at::Tensor& x, const PackedLinear& weight) const;  // [T, in] → [T, out]
  // The same in a step that comes again with as many rows: a backend may measure which of several ways is the fastest when
  // it first meets these sizes, and takes that from then on. Their sums may differ in order, and so in the last bits.
  at::Tensor recurring_linear(const at::Tensor& x, const PackedLinear& weight,
                              const AlikeWeights& alike) const;
  // What recurring_linear has measured in this thread; for tests and benchmarks.
  virtual std::vector<MeasuredProduct> measured_products() const { return {}; }
  // The output projection: bf16 in, fp32 out, never rounded to bf16 between. repack: a copy is allowed.
  PackedLinear pack_head(at::Tensor weight, bool repack) const;
  // Bytes of the copy that pack_linear, or pack_head, would make of a weight [outputs, inputs]; 0: none.
  virtual int64_t packed_bytes(at::ScalarType dtype, int64_t outputs, int64_t inputs, bool head) const;
  at::Tensor logits(const at::Tensor& hidden, const PackedLinear& head) const;  // [O, H] → [O, V] wide
  void pack_lora(LoraLinear& linear) const;
  // Whether an adapter's A should lie behind the weights of its base, whose products then compute x Aᵀ as well
  // (Adapters::projected).
  virtual bool stacks_adapters() const { return false; }
  // Adapters' parts for all segments of a batch at once; a row's result does not depend on the other rows.
  void add_lora(at::Tensor& y, const Adapters& adapters) const;
  // add_lora to y, then add_rms_norm of the sum to the residual stream x: [T, H] both → [T, H]; what y held is gone.
  at::Tensor add_rms_norm(at::Tensor& x, at::Tensor& y, const Adapters& adapters, const at::Tensor& weight,
                          double eps) const;
  // add_lora, then swiglu of the sum: gate_up [T, 2 I] → [T, I]; what gate_up held is gone.
  at::Tensor swiglu(at::Tensor& gate_up, const Adapters& adapters) const;

  KvStore make_kv_store(const KvShape& shape, int64_t pages) const;
  // Bytes of one page of all layers in this backend's layout.
  int64_t kv_page_bytes(const KvShape& shape) const;
  // Copies whole pages, all at once: no page that is written is read or written by another copy. On a GPU one upload and
  // one launch, however many they are; without copies neither.
  void copy_kv_pages(KvStore& store, PageCopies copies) const;
  // Pages whose contents nobody needs: their memory may go back to the system.
  void discard_kv_pages(KvStore& store, std::span<const int32_t> pages) const;

  // Whether steps over such a cache can be recorded: the launches depend on the lengths of a plan's arrays and on
  // plan.launch alone, everything else is read on the device.
  virtual bool records(const KvShape&) const { return false; }
  // The launches that `work` makes, without making them. `work` stays where it is as long as the recording, and
  // has been run before as it is, so that nothing is set up for the first time.
  virtual std::unique_ptr<Recording> record(const at::Device& device, std::function<void()> work) const;
  // Makes the backend's work items, plan.extra and plan.launch.
  void plan_work(RowPlan& plan) const;
  // add_lora, then splits qkv, norms and rotates q and k, writes k and v to the plan's slots of `layer`; → q
  // [T, Hq, D], which may be a view of qkv: what qkv held is gone.
  at::Tensor rotate_and_store(at::Tensor& qkv, const Adapters& adapters, const HeadLayout& layout,
                              const HeadNorm& norm, const RotaryTables& tables, KvStore& store, int64_t layer,
                              const RowPlan& plan) const;
  // softmax(q kᵀ scale) v over positions 0 … own, [T, Hq D], in fp32 (fp64). Positions are met in an order
  // that depends on nothing but themselves, so a row's result does not depend on the other rows.
  at::Tensor paged_attention(const at::Tensor& q, const KvStore& store, int64_t layer, const RowPlan& plan,
                             double scale) const;
  // Whether the device works while the host goes on, so that a step can be launched before the last one's tokens are read.
  virtual bool runs_ahead() const { return false; }
  // tokens (int32 [T]) that are −1 − d become those of draw d of `samples` (int32 [2, D], as of sample()), on the device; 0
  // where that has none.
  void take_drawn(const at::Tensor& samples, at::Tensor tokens) const;
  // Rows of logits that should exist at a time.
  virtual int64_t logit_rows() const = 0;
  // Draws tokens from logits (wide [n, V]) of the plan's outputs from `first_output` on: the draws of those
  // outputs get their columns of `samples`, int32 [2, D] on the device: ids (−1 where the logits are not
  // finite), then the bits of the fp32 log-probabilities, so that one copy brings both back. The
  // log-probability is of the full softmax at the sampling temperature, before the filters (greedy: at 1).
  // Filters apply in the order temperature, top-k, top-p (of what top-k left, renormalised; the token that
  // crosses p belongs to it), min-p (relative to the likeliest token); among equal probabilities the smaller
  // id comes first. Without filters the uniform number walks the vocabulary in the order of ids, with filters
  // in the order of probability.
  void sample(const at::Tensor& logits, int64_t first_output, const RowPlan& plan, at::Tensor& samples) const;

  // --- Accumulators and the optimizer: each one pass with fp64 sums and one copy back ----------------------
  // Inner products of flat vectors, over each range: [ranges, N, N] row-major, symmetric.
  std::vector<double> gram(Tensors vectors, std::span<const FlatRange> ranges) const;
  // The step, in place, and what each vector made of it. Ranges ascend; what lies between them is padding, in which
  // vectors, parameters and moments are 0. Where ε is 0 and an element never had a gradient, its decay alone moves it.
  // Where memory runs out, parameters and moments have not changed.
  AdamWChange adamw_step(Tensors vectors, std::span<const double> coefficients,
                         std::span<const FlatRange> ranges, const AdamWStep& step) const;
  // Σ of squares over all the vectors.
  double squared_norm(Tensors vectors) const;
  // In place: one AdamW step of a list of tensors (Loshchilov & Hutter 2019).
  void adamw(const AdamWTensors& tensors, double learning_rate, double beta1, double beta2, double eps,
             double weight_decay) const;

 protected:
  virtual at::Tensor do_embedding(const at::Tensor& tokens, const at::Tensor& weight) const = 0;
  virtual void do_embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, Offsets groups,
                                     Tensors grad_weight) const = 0;
  // residual may be undefined.
  virtual RmsNorm do_rms_norm(at::Tensor x, const at::Tensor& residual, const at::Tensor& weight,
                              double eps) const = 0;
  virtual at::Tensor do_rms_norm_backward(const RmsNormGradient& gradient) const = 0;
  virtual at::Tensor do_swiglu(const at::Tensor& gate_up) const = 0;
  virtual at::Tensor do_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) const = 0;
  virtual Heads do_rotate_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                                const RotaryTables& tables, const TreePlan& plan) const = 0;
  virtual at::Tensor do_rotate_heads_backward(HeadsGradient& gradient, const at::Tensor& qkv,
                                              const Heads& forward, const HeadLayout& layout,
                                              const HeadNorm& norm, const RotaryTables& tables,
                                              const TreePlan& plan, Offsets groups, Tensors grad_q_norm,
                                              Tensors grad_k_norm) const = 0;
  virtual Attention do_tree_attention(const Heads& heads, const TreePlan& plan, double scale) const = 0;
  virtual HeadsGradient do_tree_attention_backward(const at::Tensor& grad, const Heads& heads,
                                                   const Attention& forward, const TreePlan& plan,
                                                   double scale) const = 0;
  virtual TokenLogprobs do_token_logprobs(const at::Tensor& hidden, const at::Tensor& weight,
                                          const LossEntries& entries) const = 0;
  virtual void do_token_logprobs_backward(const TokenLogprobsGradient& gradient, const TokenLogprobs& forward,
                                          const at::Tensor& hidden, const at::Tensor& weight,
                                          const LossEntries& entries) const = 0;
  // Whether products may be written over what an accumulator holds. If not, none is fresh: they are cleared before.
  virtual bool overwrites() const { return false; }
  virtual void do_accumulate_weight_gradient(Tensors accumulators, const at::Tensor& delta,
                                             const at::Tensor& x, Offsets groups,
                                             const std::vector<bool>& fresh, at::Tensor& counters) const = 0;
  virtual AdaptedLinear do_adapted_linear(const at::Tensor& x, const at::Tensor& weight,
                                          const at::Tensor& bias, const LoraLinear& linear) const = 0;
  virtual at::Tensor do_adapted_linear_backward(const at::Tensor& delta, const at::Tensor& projected_grad,
                                                const at::Tensor& weight, const LoraLinear& linear) const = 0;
  virtual at::Tensor do_pack_linear(const at::Tensor& weight) const = 0;  // undefined: no copy
  virtual at::Tensor do_linear(const at::Tensor& x, const PackedLinear& weight) const = 0;
  virtual at::Tensor do_recurring_linear(const at::Tensor& x, const PackedLinear& weight,
                                         const AlikeWeights&) const {
    return do_linear(x, weight);
  }
  virtual at::Tensor do_pack_head(const at::Tensor& weight) const = 0;  // undefined: no copy
  virtual at::Tensor do_logits(const at::Tensor& hidden, const PackedLinear& head) const = 0;
  virtual void do_pack_lora(LoraLinear& linear) const = 0;
  virtual void do_add_lora(at::Tensor& y, const Adapters& adapters) const = 0;
  virtual at::Tensor do_adapted_rms_norm(at::Tensor& x, at::Tensor& y, const Adapters& adapters,
                                         const at::Tensor& weight, double eps) const = 0;
  virtual at::Tensor do_adapted_swiglu(at::Tensor& gate_up, const Adapters& adapters) const = 0;
  virtual KvStore do_make_kv_store(const KvShape& shape, int64_t pages) const = 0;
  virtual int64_t do_kv_page_elements(const KvShape& shape) const = 0;
  virtual void do_copy_kv_pages(KvStore& store, PageCopies copies) const = 0;
  virtual void do_discard_kv_pages(KvStore& store, std::span<const int32_t> pages) const = 0;
  // Work items into plan.extra and plan.launch, from the plan's host side.
  virtual void plan_rows(RowPlan& plan) const = 0;
  virtual at::Tensor do_rotate_and_store(const at::Tensor& qkv, const HeadLayout& layout,
                                         const HeadNorm& norm, const RotaryTables& tables, KvStore& store,
                                         int64_t layer, const RowPlan& plan) const = 0;
  virtual at::Tensor do_adapted_rotate_and_store(at::Tensor& qkv, const Adapters& adapters,
                                                 const HeadLayout& layout, const HeadNorm& norm,
                                                 const RotaryTables& tables, KvStore& store, int64_t layer,
                                                 const RowPlan& plan) const = 0;
  virtual at::Tensor do_paged_attention(const at::Tensor& q, const KvStore& store, int64_t layer,
                                        const RowPlan& plan, double scale) const = 0;
  // Draws [begin, end) of the plan into samples [2, end − begin].
  virtual void do_sample(const at::Tensor& logits, int64_t first_output, const RowPlan& plan, int64_t begin,
                         int64_t end, at::Tensor samples) const = 0;
  virtual void do_take_drawn(const at::Tensor& ids, at::Tensor tokens) const = 0;
  virtual std::vector<double> do_gram(Tensors vectors, std::span<const FlatRange> ranges) const = 0;
  virtual AdamWChange do_adamw_step(Tensors vectors, std::span<const double> coefficients,
                                    std::span<const FlatRange> ranges, const AdamWStep& step) const = 0;
  virtual double do_squared_norm(Tensors vectors) const = 0;
  virtual void do_adamw(const AdamWTensors& tensors, double learning_rate, double beta1, double beta2,
                        double eps, double weight_decay) const = 0;

 private:
  std::vector<bool> cleared(Tensors accumulators, Offsets rows, std::vector<bool> fresh) const;
};

// The implementation for tensors of a device: the only place that chooses.
const Kernels& kernels_for(const at::Device& device);
inline const Kernels& kernels_for(const at::Tensor& x) { return kernels_for(x.device()); }

// By name, for tests: "reference", "cpu", "cuda" where built, "emulated" (CUDA kernels run on the CPU) where
// built. Throws for a name that this build lacks.
const Kernels& kernels_named(std::string_view name);
// While it is set, kernels_for returns this implementation for every device; "" ends it. For tests only.
void use_kernels(std::string_view name);

// The dtype of sums and statistics: float64 for float64, else float32.
inline at::ScalarType wide_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}
inline at::ScalarType wide_type(const at::Tensor& x) { return wide_type(x.scalar_type()); }

}  // namespace troupe::kernels
