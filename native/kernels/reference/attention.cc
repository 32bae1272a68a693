// Attention of the reference: heads normed and rotated, then, for each node of the tree, dense softmax
// attention of its rows over the concatenated keys of its ancestors and itself. No work crosses trees, but
// shared ancestors are read again for every descendant.
#include "kernels/reference/dense_attention.h"
#include "kernels/reference/heads.h"
#include "kernels/reference/reference.h"

namespace troupe::kernels {
namespace {

// Indices of the node's ancestors and the node itself, root first.
std::vector<int64_t> chain(std::span<const TreeNode> nodes, int64_t node) {
  std::vector<int64_t> path;
  for (int64_t i = node; i >= 0; i = nodes[i].parent) path.insert(path.begin(), i);
  return path;
}

at::Tensor rows_of(const at::Tensor& x, const TreeNode& node) {
  return x.slice(0, node.start, node.start + node.length);
}

// Keys or values of the chain, one head for each query head: [Hq, S, D], widened.
at::Tensor gather_heads(const at::Tensor& x, std::span<const TreeNode> nodes,
                        const std::vector<int64_t>& path, int64_t heads) {
  std::vector<at::Tensor> parts;
  for (const int64_t i : path) parts.push_back(rows_of(x, nodes[i]));
  return heads_repeated(at::cat(parts, 0), heads);
}

}  // namespace

Heads ReferenceKernels::do_rotate_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                                        const RotaryTables& tables, const TreePlan& plan) const {
  Heads heads = split_heads(qkv, layout);
  if (norm.defined()) {
    RmsNorm q = do_rms_norm(heads.q, {}, norm.q, norm.eps), k = do_rms_norm(heads.k, {}, norm.k, norm.eps);
    heads = {std::move(q.y), std::move(k.y), heads.v, std::move(q.rstd), std::move(k.rstd)};
  }
  heads.q = rotated(heads.q, plan.positions, tables, /*inverse=*/false);
  heads.k = rotated(heads.k, plan.positions, tables, /*inverse=*/false);
  return heads;
}

at::Tensor ReferenceKernels::do_rotate_heads_backward(HeadsGradient& gradient, const at::Tensor& qkv,
                                                      const Heads& forward, const HeadLayout& layout,
                                                      const HeadNorm& norm, const RotaryTables& tables,
                                                      const TreePlan& plan, Offsets groups,
                                                      Tensors grad_q_norm, Tensors grad_k_norm) const {
  at::Tensor q = rotated(gradient.q, plan.positions, tables, /*inverse=*/true);
  at::Tensor k = rotated(gradient.k, plan.positions, tables, /*inverse=*/true);
  if (norm.defined()) {
    const Heads raw = split_heads(qkv, layout);
    q = do_rms_norm_backward({q, raw.q, norm.q, forward.q_rstd, groups, grad_q_norm, {}, {}});
    k = do_rms_norm_backward({k, raw.k, norm.k, forward.k_rstd, groups, grad_k_norm, {}, {}});
  }
  return at::cat({q, k, gradient.v}, 1).flatten(1);
}

Attention ReferenceKernels::do_tree_attention(const Heads& heads, const TreePlan& plan, double scale) const {
  const at::Tensor &q = heads.q, &k = heads.k, &v = heads.v;
  const std::span<const TreeNode> nodes(plan.nodes);
  Attention result{at::empty(q.sizes(), q.options()),
                   at::empty({q.size(0), q.size(1)}, q.options().dtype(wide_type(q)))};
  for (size_t i = 0; i < nodes.size(); ++i) {
    const std::vector<int64_t> path = chain(nodes, static_cast<int64_t>(i));
    const DenseAttention node =
        dense_attention(heads_first(rows_of(q, nodes[i])), gather_heads(k, nodes, path, q.size(1)),
                        gather_heads(v, nodes, path, q.size(1)), /*causal=*/true, scale);
    rows_of(result.out, nodes[i]).copy_(node.out.transpose(0, 1));
    rows_of(result.logsumexp, nodes[i]).copy_(node.logsumexp.t());
  }
  return result;
}

HeadsGradient ReferenceKernels::do_tree_attention_backward(const at::Tensor& grad, const Heads& heads,
                                                           const Attention& forward, const TreePlan& plan,
                                                           double scale) const {
  const at::Tensor &q = heads.q, &k = heads.k, &v = heads.v;
  const std::span<const TreeNode> nodes(plan.nodes);
  const auto wide_options = q.options().dtype(wide_type(q));
  const at::Tensor grad_q = at::zeros(q.sizes(), wide_options), grad_k = at::zeros(k.sizes(), wide_options),
                   grad_v = at::zeros(v.sizes(), wide_options);
  for (size_t i = 0; i < nodes.size(); ++i) {
    const std::vector<int64_t> path = chain(nodes, static_cast<int64_t>(i));
    const auto own = [&](const at::Tensor& x) { return heads_first(rows_of(x, nodes[i])); };
    const DenseGradient node = dense_attention_backward(
        own(grad), own(q), gather_heads(k, nodes, path, q.size(1)), gather_heads(v, nodes, path, q.size(1)),
        {own(forward.out), rows_of(forward.logsumexp, nodes[i]).t()},
        /*causal=*/true, scale);
    rows_of(grad_q, nodes[i]).copy_(node.q.transpose(0, 1));
    const at::Tensor key_grad = heads_folded(node.k, k.size(1)), value_grad = heads_folded(node.v, k.size(1));
    int64_t offset = 0;
    for (const int64_t ancestor : path) {
      const int64_t end = offset + nodes[ancestor].length;
      rows_of(grad_k, nodes[ancestor]).add_(key_grad.slice(0, offset, end));
      rows_of(grad_v, nodes[ancestor]).add_(value_grad.slice(0, offset, end));
      offset = end;
    }
  }
  const at::Tensor qkv = at::cat({grad_q, grad_k, grad_v}, 1).to(q.scalar_type());
  const std::vector<at::Tensor> parts = qkv.split_with_sizes({q.size(1), k.size(1), v.size(1)}, 1);
  return {parts[0], parts[1], parts[2], qkv};
}

}  // namespace troupe::kernels
