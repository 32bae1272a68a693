// The CUDA kernels behind the interface of kernels.h: own kernels (launch.h) for what is bound by memory,
// cuBLASLt and flash attention by way of ATen for products. The same class over the emulation runs on CPU
// tensors, in tests.
#pragma once

#include <ATen/record_function.h>
#include <c10/core/DeviceGuard.h>

#include "kernels/cuda/launch.h"
#include "kernels/reference/reference.h"

namespace troupe::kernels::cuda {

class CudaKernels : public ReferenceKernels {
 public:
  const char* name() const override;
  int64_t launches() const override { return launch_count(); }
  std::vector<std::string> slow_paths(const KvShape& shape) const override;
  bool breadth_first() const override { return true; }
  int64_t tree_levels() const override { return 2; }  // two calls of flash attention
  bool records(const KvShape& shape) const override;
  std::unique_ptr<Recording> record(const at::Device& device, std::function<void()> work) const override;
  bool runs_ahead() const override { return true; }
  std::vector<MeasuredProduct> measured_products() const override;
  bool stacks_adapters() const override { return true; }
  // 0.31 GB of a vocabulary of 151,936, which recorded steps keep. A step of 1,024 sequences draws in two parts, at the cost of
  // two more launches: by arithmetic a product of 512 rows reads the head in 0.26 ms at 3.0 TB/s (4B) and computes for 0.55 at
  // 725 TFLOP/s, so that reading it twice takes no time, and 512 draws are two waves of a multiprocessor's two blocks already.
  int64_t logit_rows() const override { return 512; }

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
  // logsumexp [Hq, T].
  Attention do_tree_attention(const Heads& heads, const TreePlan& plan, double scale) const override;
  HeadsGradient do_tree_attention_backward(const at::Tensor& grad, const Heads& heads,
                                           const Attention& forward, const TreePlan& plan,
                                           double scale) const override;

  TokenLogprobs do_token_logprobs(const at::Tensor& hidden, const at::Tensor& weight,
                                  const LossEntries& entries) const override;
  void do_token_logprobs_backward(const TokenLogprobsGradient& gradient, const TokenLogprobs& forward,
                                  const at::Tensor& hidden, const at::Tensor& weight,
                                  const LossEntries& entries) const override;

  bool overwrites() const override { return true; }
  void do_accumulate_weight_gradient(Tensors accumulators, const at::Tensor& delta, const at::Tensor& x,
                                     Offsets groups, const std::vector<bool>& fresh,
                                     at::Tensor& counters) const override;
  AdaptedLinear do_adapted_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                  const LoraLinear& linear) const override;
  at::Tensor do_adapted_linear_backward(const at::Tensor& delta, const at::Tensor& projected_grad,
                                        const at::Tensor& weight, const LoraLinear& linear) const override;
  at::Tensor project(const at::Tensor& x, const LoraLinear& linear) const override;
  at::Tensor do_logits(const at::Tensor& hidden, const PackedLinear& head) const override;
  at::Tensor do_recurring_linear(const at::Tensor& x, const PackedLinear& weight,
                                 const AlikeWeights& alike) const override;
  void do_add_lora(at::Tensor& y, const Adapters& adapters) const override;
  at::Tensor do_adapted_rms_norm(at::Tensor& x, at::Tensor& y, const Adapters& adapters,
                                 const at::Tensor& weight, double eps) const override;
  at::Tensor do_adapted_swiglu(at::Tensor& gate_up, const Adapters& adapters) const override;

  void do_copy_kv_pages(KvStore& store, PageCopies copies) const override;
  void plan_rows(RowPlan& plan) const override;
  at::Tensor do_rotate_and_store(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                                 const RotaryTables& tables, KvStore& store, int64_t layer,
                                 const RowPlan& plan) const override;
  at::Tensor do_adapted_rotate_and_store(at::Tensor& qkv, const Adapters& adapters, const HeadLayout& layout,
                                         const HeadNorm& norm, const RotaryTables& tables, KvStore& store,
                                         int64_t layer, const RowPlan& plan) const override;
  at::Tensor do_paged_attention(const at::Tensor& q, const KvStore& store, int64_t layer, const RowPlan& plan,
                                double scale) const override;
  void do_take_drawn(const at::Tensor& ids, at::Tensor tokens) const override;
  void do_sample(const at::Tensor& logits, int64_t first_output, const RowPlan& plan, int64_t begin,
                 int64_t end, at::Tensor samples) const override;

  std::vector<double> do_gram(Tensors vectors, std::span<const FlatRange> ranges) const override;
  AdamWChange do_adamw_step(Tensors vectors, std::span<const double> coefficients,
                            std::span<const FlatRange> ranges, const AdamWStep& step) const override;
  double do_squared_norm(Tensors vectors) const override;
};

// A tensor's device as the current one, and its current stream.
class On {
 public:
  explicit On(const at::Tensor& x);
  operator Stream() const { return stream_; }

 private:
  c10::DeviceGuard guard_;
  Stream stream_;
};

// Whether what this thread launches now is recorded and not run.
bool recording_now();

// Throws where a launcher failed.
void check(int error, const char* what);
// bf16, fp32 and fp64; throws for others.
Type type_of(at::ScalarType dtype);
inline Type type_of(const at::Tensor& x) { return type_of(x.scalar_type()); }
// A [rows, size] or [rows, heads, size] tensor; null for an undefined one.
Rows rows_of(const at::Tensor& x);
// Calls f(groups, first) for at most kMaxGroups groups at a time, `first` being the first group's number. The
// targets are the accumulators'.
template <typename F>
void for_groups(Offsets offsets, Tensors accumulators, const F& f) {
  for (size_t first = 0; first < accumulators.size(); first += kMaxGroups) {
    Groups groups;
    groups.count = static_cast<int32_t>(std::min<size_t>(kMaxGroups, accumulators.size() - first));
    for (int32_t k = 0; k < groups.count; ++k) {
      groups.offset[k] = offsets[first + k];
      groups.target[k] = accumulators[first + k].data_ptr();
    }
    groups.offset[groups.count] = offsets[first + groups.count];
    f(groups, first);
  }
}
// Rows of the largest group.
inline int64_t longest_group(Offsets offsets) {
  int64_t longest = 0;
  for (size_t k = 0; k + 1 < offsets.size(); ++k) longest = std::max(longest, offsets[k + 1] - offsets[k]);
  return longest;
}

// What is one operator on a GPU, and several where the emulation runs: to those who count operators it is that one.
// f returns the results.
template <typename F>
std::vector<at::Tensor> one_operator(const char* name, const std::vector<c10::IValue>& operands, const F& f) {
  at::RecordFunction record(at::RecordScope::FUNCTION);
  record.before(name, &operands);
  const at::RecordFunctionGuard hidden(false);
  std::vector<at::Tensor> results = f();
  record.setOutputs(std::vector<c10::IValue>(results.begin(), results.end()));
  return results;
}

// a b, summed and returned wide.
at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b);
// Whether libtorch's mm writes a product of bf16 numbers into a part of an fp32 tensor, and its addmm adds one there:
// tried once, and compared.
// Throws where the device is at fault.
bool accumulates_in_place(const at::Device& device);
// sum (wide, contiguous) += a b, nothing rounded between; with `overwrite` sum = a b.
void add_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, bool overwrite);

// A fused product's heads, without where they go.
SplitHeads split_heads_of(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                          const RotaryTables& tables, const at::Tensor& positions);
// A decode step's heads, from qkv to q, which is made, and the cache.
SplitHeads stored_heads(const at::Tensor& qkv, const at::Tensor& q, const HeadLayout& layout,
                        const HeadNorm& norm, const RotaryTables& tables, const KvStore& store, int64_t layer,
                        const RowPlan& plan);

// Flash attention over packed segments: of q [Tq, Hq, D] against k and v [Tk, Hkv, D].
struct FlashResult {
  at::Tensor out;        // [Tq, Hq, D]
  at::Tensor logsumexp;  // [Hq, Tq] wide
};
FlashResult flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const TreeCall& call, double scale);
struct FlashGradient {
  at::Tensor q, k, v;
};
// out and logsumexp may be of a softmax over more keys than these.
FlashGradient flash_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                       const at::Tensor& v, const FlashResult& forward, const TreeCall& call,
                                       double scale);

}  // namespace troupe::kernels::cuda
