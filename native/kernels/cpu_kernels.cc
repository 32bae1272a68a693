// Training's operations on the CPU.
#include "kernels/cpu_kernels.h"

#include "kernels/reference/heads.h"

namespace troupe::kernels {
namespace {

cpu::NormShape shape_of(const at::Tensor& x) {
  return {x.scalar_type(), x.size(0), x.dim() == 3 ? x.size(1) : 1, x.size(-1)};
}

std::vector<void*> pointers(Tensors tensors) {
  std::vector<void*> result;
  for (const at::Tensor& tensor : tensors) result.push_back(tensor.data_ptr());
  return result;
}

std::vector<cpu::Node> nodes_of(const TreePlan& plan) {
  std::vector<cpu::Node> result;
  for (const TreeNode& node : plan.nodes) result.push_back({node.start, node.length, node.parent});
  return result;
}

cpu::AttentionShape shape_of(const Heads& heads, std::span<const cpu::Node> nodes, double scale) {
  return {heads.q.scalar_type(), heads.q.size(1), heads.k.size(1), heads.q.size(2), scale, nodes};
}

cpu::LogprobRows lines_of(const LossEntries& entries, const at::Tensor& hidden) {
  return {static_cast<int64_t>(entries.line_rows.size()),
          hidden.data_ptr(),
          hidden.stride(0),
          entries.line_rows.data(),
          entries.lines.data(),
          entries.line_temperatures.data(),
          entries.host_targets.data()};
}

}  // namespace

cpu::View view_of(const at::Tensor& x) {
  TORCH_INTERNAL_ASSERT(x.size(-1) <= 1 || x.stride(-1) == 1);
  return {x.data_ptr(), x.stride(0), x.dim() == 3 ? x.stride(1) : 0};
}

void CpuKernels::do_embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, Offsets groups,
                                       Tensors grad_weight) const {
  const at::Tensor rows = grad.contiguous(), ids = tokens.to(at::kLong).contiguous();
  for (size_t k = 0; k < grad_weight.size(); ++k) {
    const int64_t count = groups[k + 1] - groups[k];
    if (count == 0) continue;
    table_.embedding_backward(grad.scalar_type(), count, grad.size(1), rows.slice(0, groups[k]).data_ptr(),
                              ids.data_ptr<int64_t>() + groups[k], grad_weight[k].data_ptr());
  }
}

RmsNorm CpuKernels::do_rms_norm(at::Tensor x, const at::Tensor& residual, const at::Tensor& weight,
                                double eps) const {
  const bool in_place = residual.defined();
  // x changes with a residual: a copy of it would be lost.
  if (in_place && x.stride(-1) != 1) return ReferenceKernels::do_rms_norm(x, residual, weight, eps);
  const at::Tensor plain = rows_contiguous(x), plain_weight = weight.contiguous();
  const at::Tensor plain_residual = in_place ? rows_contiguous(residual) : residual;
  RmsNorm result{at::empty(x.sizes(), x.options()),
                 at::empty(x.sizes().slice(0, x.dim() - 1), x.options().dtype(wide_type(x)))};
  table_.rms_norm(shape_of(x), view_of(plain), in_place ? view_of(plain_residual) : cpu::View{},
                  plain_weight.data_ptr(), result.y.data_ptr(), result.rstd.data_ptr(), eps);
  return result;
}

at::Tensor CpuKernels::do_rms_norm_backward(const RmsNormGradient& gradient) const {
  const at::Tensor& x = gradient.x;
  at::Tensor out = gradient.out;
  if (!out.defined()) out = at::empty(x.sizes(), x.options());
  const at::Tensor plain_grad = rows_contiguous(gradient.grad), plain_x = rows_contiguous(x),
                   plain_weight = gradient.weight.contiguous(), plain_rstd = gradient.rstd.contiguous();
  const at::Tensor plain_add = gradient.add.defined() ? rows_contiguous(gradient.add) : gradient.add;
  table_.rms_norm_backward(shape_of(x), view_of(plain_grad), view_of(plain_x), plain_weight.data_ptr(),
                           plain_rstd.data_ptr(), plain_add.defined() ? view_of(plain_add) : cpu::View{},
                           view_of(out), gradient.groups, pointers(gradient.grad_weight));
  return out;
}

at::Tensor CpuKernels::do_swiglu(const at::Tensor& gate_up) const {
  const at::Tensor plain = gate_up.contiguous();
  const int64_t size = gate_up.size(1) / 2;
  at::Tensor out = at::empty({gate_up.size(0), size}, gate_up.options());
  table_.swiglu(gate_up.scalar_type(), gate_up.size(0), size, plain.data_ptr(), out.data_ptr());
  return out;
}

at::Tensor CpuKernels::do_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) const {
  const at::Tensor plain_grad = grad.contiguous(), plain = gate_up.contiguous();
  at::Tensor out = at::empty(gate_up.sizes(), gate_up.options());
  table_.swiglu_backward(gate_up.scalar_type(), gate_up.size(0), gate_up.size(1) / 2, plain_grad.data_ptr(),
                         plain.data_ptr(), out.data_ptr());
  return out;
}

// In place; the last dimension must be contiguous.
void CpuKernels::rotate(at::Tensor x, const at::Tensor& positions, const RotaryTables& tables,
                        bool inverse) const {
  table_.rope(shape_of(x), view_of(x), positions.const_data_ptr<int32_t>(), tables.cos.data_ptr(),
              tables.sin.data_ptr(), inverse);
}

Heads CpuKernels::do_rotate_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                                  const RotaryTables& tables, const TreePlan& plan) const {
  Heads heads = split_heads(qkv, layout);
  if (norm.defined()) {
    RmsNorm q = do_rms_norm(heads.q, {}, norm.q, norm.eps), k = do_rms_norm(heads.k, {}, norm.k, norm.eps);
    heads = {std::move(q.y), std::move(k.y), heads.v, std::move(q.rstd), std::move(k.rstd)};
  } else {
    // One copy of both, rotated in place.
    const at::Tensor both = qkv.narrow(1, 0, (layout.query_heads + layout.key_heads) * layout.dim)
                                .clone(at::MemoryFormat::Contiguous)
                                .unflatten(1, {layout.query_heads + layout.key_heads, layout.dim});
    heads.q = both.narrow(1, 0, layout.query_heads);
    heads.k = both.narrow(1, layout.query_heads, layout.key_heads);
  }
  rotate(heads.q, plan.positions, tables, /*inverse=*/false);
  rotate(heads.k, plan.positions, tables, /*inverse=*/false);
  return heads;
}

at::Tensor CpuKernels::do_rotate_heads_backward(HeadsGradient& gradient, const at::Tensor& qkv,
                                                const Heads& forward, const HeadLayout& layout,
                                                const HeadNorm& norm, const RotaryTables& tables,
                                                const TreePlan& plan, Offsets groups, Tensors grad_q_norm,
                                                Tensors grad_k_norm) const {
  if (!gradient.qkv.defined()) {
    return ReferenceKernels::do_rotate_heads_backward(gradient, qkv, forward, layout, norm, tables, plan,
                                                      groups, grad_q_norm, grad_k_norm);
  }
  // In the gradient's own buffer.
  rotate(gradient.q, plan.positions, tables, /*inverse=*/true);
  rotate(gradient.k, plan.positions, tables, /*inverse=*/true);
  if (norm.defined()) {
    const Heads raw = split_heads(qkv, layout);
    do_rms_norm_backward({gradient.q, raw.q, norm.q, forward.q_rstd, groups, grad_q_norm, {}, gradient.q});
    do_rms_norm_backward({gradient.k, raw.k, norm.k, forward.k_rstd, groups, grad_k_norm, {}, gradient.k});
  }
  return gradient.qkv.flatten(1);
}

Attention CpuKernels::do_tree_attention(const Heads& heads, const TreePlan& plan, double scale) const {
  const at::Tensor& q = heads.q;
  const std::vector<cpu::Node> nodes = nodes_of(plan);
  Attention result{at::empty(q.sizes(), q.options()),
                   at::empty({q.size(0), q.size(1)}, q.options().dtype(wide_type(q)))};
  const at::Tensor plain_q = rows_contiguous(q), plain_k = rows_contiguous(heads.k),
                   plain_v = rows_contiguous(heads.v);
  table_.attention(shape_of(heads, nodes, scale), view_of(plain_q), view_of(plain_k), view_of(plain_v),
                   result.out.data_ptr(), result.logsumexp.data_ptr());
  return result;
}

HeadsGradient CpuKernels::do_tree_attention_backward(const at::Tensor& grad, const Heads& heads,
                                                     const Attention& forward, const TreePlan& plan,
                                                     double scale) const {
  const at::Tensor& q = heads.q;
  const std::vector<cpu::Node> nodes = nodes_of(plan);
  const int64_t query_heads = q.size(1), key_heads = heads.k.size(1);
  HeadsGradient result;
  result.qkv = at::empty({q.size(0), query_heads + 2 * key_heads, q.size(2)}, q.options());
  result.q = result.qkv.narrow(1, 0, query_heads);
  result.k = result.qkv.narrow(1, query_heads, key_heads);
  result.v = result.qkv.narrow(1, query_heads + key_heads, key_heads);
  const at::Tensor plain_q = rows_contiguous(q), plain_k = rows_contiguous(heads.k),
                   plain_v = rows_contiguous(heads.v), plain_grad = rows_contiguous(grad),
                   out = rows_contiguous(forward.out), logsumexp = forward.logsumexp.contiguous();
  table_.attention_backward(shape_of(heads, nodes, scale), view_of(plain_q), view_of(plain_k),
                            view_of(plain_v), view_of(plain_grad), view_of(out), logsumexp.data_ptr(),
                            view_of(result.q), view_of(result.k), view_of(result.v));
  return result;
}

TokenLogprobs CpuKernels::do_token_logprobs(const at::Tensor& hidden, const at::Tensor& weight,
                                            const LossEntries& entries) const {
  const auto options = hidden.options().dtype(wide_type(hidden));
  TokenLogprobs result{at::empty({entries.count}, options), at::empty({entries.count}, options),
                       at::empty({entries.count}, options)};
  if (entries.count == 0) return result;
  const at::Tensor plain = rows_contiguous(hidden), plain_weight = weight.contiguous();
  table_.token_logprobs({hidden.scalar_type(), weight.size(0), weight.size(1), plain_weight.data_ptr()},
                        lines_of(entries, plain), result.logprobs.data_ptr(), result.entropy.data_ptr(),
                        result.logsumexp.data_ptr());
  return result;
}

void CpuKernels::do_token_logprobs_backward(const TokenLogprobsGradient& gradient,
                                            const TokenLogprobs& forward, const at::Tensor& hidden,
                                            const at::Tensor& weight, const LossEntries& entries) const {
  const std::vector<int64_t> boundaries = entries.line_offsets(gradient.groups);
  const std::vector<void*> weights = pointers(gradient.grad_weight);
  const at::Tensor &matrix = gradient.matrix, &grad_hidden = gradient.grad_hidden;
  const at::Tensor plain = rows_contiguous(hidden), plain_weight = weight.contiguous(),
                   logprobs = gradient.logprobs.contiguous(), entropy = forward.entropy.contiguous(),
                   logsumexp = forward.logsumexp.contiguous();
  const at::Tensor grad_entropy =
      gradient.entropy.defined() ? gradient.entropy.contiguous() : gradient.entropy;
  table_.token_logprobs_backward(
      {hidden.scalar_type(), weight.size(0), weight.size(1), plain_weight.data_ptr()},
      lines_of(entries, plain),
      {logprobs.data_ptr(), grad_entropy.defined() ? grad_entropy.data_ptr() : nullptr, entropy.data_ptr(),
       logsumexp.data_ptr(), boundaries, grad_hidden.data_ptr(), grad_hidden.stride(0),
       grad_hidden.scalar_type() == wide_type(hidden), weights,
       matrix.defined() ? matrix.const_data_ptr() : nullptr, matrix.defined() ? matrix.size(1) : 0,
       matrix.defined() ? gradient.projected.data_ptr() : nullptr});
}

}  // namespace troupe::kernels
