// What the arguments of the fused operations must be: shapes, dtypes, devices, ranges of numbers on the host. Every
// check throws a sentence; the backends rely on them.
#pragma once

#include "kernels/kernels.h"

namespace troupe::kernels {

// dtype, on the device of `like`.
void check_on(const at::Tensor& x, const at::Tensor& like, at::ScalarType dtype, const char* what);
// fp64, fp32 or bf16.
void check_kind(const at::Tensor& x, const char* what);
// Shape, dtype and device of `like`.
void check_like(const at::Tensor& x, const at::Tensor& like, const char* what);
void check_embedding(const at::Tensor& tokens, const at::Tensor& weight);
void check_groups(Offsets groups, Tensors accumulators, int64_t rows, const at::Tensor& like,
                  at::IntArrayRef shape);
void check_norm(const at::Tensor& x, const at::Tensor& weight);
void check_norm_gradient(const RmsNormGradient& gradient);
void check_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                 const RotaryTables& tables);
// The same, and no gaps between the rows.
void check_dense_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                       const RotaryTables& tables);
void check_heads_gradient(const HeadsGradient& gradient, const at::Tensor& qkv, const HeadLayout& layout,
                          const TreePlan& plan, Offsets groups, Tensors grad_q_norm, Tensors grad_k_norm);
void check_attention(const Heads& heads, const TreePlan& plan);
void check_projection(const at::Tensor& hidden, const at::Tensor& weight,
                      const LossEntries* entries = nullptr);
void check_logprobs_gradient(const TokenLogprobsGradient& gradient, const TokenLogprobs& forward,
                             const at::Tensor& hidden, const at::Tensor& weight, const LossEntries& entries);
void check_linear(const at::Tensor& x, const PackedLinear& linear);
// Of a linear layer with this weight.
void check_adapter_of(const at::Tensor& weight, const LoraLinear& linear);
void check_adapted_gradient(const at::Tensor& delta, const at::Tensor& projected_grad,
                            const at::Tensor& weight, const LoraLinear& linear);
void check_adapters(const at::Tensor& y, const Adapters& adapters);
void check_gate_up(const at::Tensor& gate_up);
// Of a plan's host side, before it goes to the device.
void check_plan(const RowPlan& plan);
// That a step's rows read and write pages of the store only: a walk over all their pages, which the rollout engine's
// own plans are spared.
void check_pages(const RowPlan& plan, const KvStore& store);
void check_copies(PageCopies copies, const KvStore& store);
void check_samples(const at::Tensor& logits, const RowPlan& plan, const at::Tensor& samples);
void check_flat(Tensors vectors, std::span<const FlatRange> ranges);
void check_step(Tensors vectors, std::span<const double> coefficients, std::span<const FlatRange> ranges,
                const AdamWStep& step);

}  // namespace troupe::kernels
