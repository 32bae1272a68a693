// Tree attention in plain ATen: for each node, dense softmax attention of its rows over the concatenated keys
// of its ancestors and itself. No work crosses trees, but shared ancestors are read again for every
// descendant.
#include "model/kernels_reference.h"

namespace troupe::kernels::reference {
namespace {

at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

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
  const at::Tensor all = at::cat(parts, 0).to(wide_type(x)).transpose(0, 1);
  return all.repeat_interleave(heads / x.size(1), 0);
}

// Scaled scores [Hq, L, S] of a node's rows, −∞ where a row of the node lies after the query.
at::Tensor masked_scores(const at::Tensor& q, const at::Tensor& keys, double scale) {
  const int64_t length = q.size(1), total = keys.size(1);
  const at::Tensor future = at::ones({length, total}, q.options().dtype(at::kBool)).triu(total - length + 1);
  return at::bmm(q, keys.transpose(1, 2)).mul_(scale).masked_fill_(future, -INFINITY);
}

// [Hq, S, D] → [S, Hkv, D]: the gradient of repeating each key head.
at::Tensor fold_heads(const at::Tensor& x, int64_t kv_heads) {
  return x.view({kv_heads, -1, x.size(1), x.size(2)}).sum(1).transpose(0, 1);
}

}  // namespace

Attention tree_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         std::span<const TreeNode> nodes, double scale) {
  Attention result{at::empty(q.sizes(), q.options()),
                   at::empty({q.size(0), q.size(1)}, q.options().dtype(wide_type(q)))};
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].length == 0) continue;
    const std::vector<int64_t> path = chain(nodes, static_cast<int64_t>(i));
    const at::Tensor queries = rows_of(q, nodes[i]).to(wide_type(q)).transpose(0, 1);
    const at::Tensor scores = masked_scores(queries, gather_heads(k, nodes, path, q.size(1)), scale);
    const at::Tensor logsumexp = at::logsumexp(scores, -1);
    const at::Tensor weights = scores.sub(logsumexp.unsqueeze(-1)).exp_();
    const at::Tensor out = at::bmm(weights, gather_heads(v, nodes, path, q.size(1)));
    rows_of(result.out, nodes[i]).copy_(out.transpose(0, 1));
    rows_of(result.logsumexp, nodes[i]).copy_(logsumexp.t());
  }
  return result;
}

AttentionGradient tree_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const Attention& forward,
                                          std::span<const TreeNode> nodes, double scale) {
  const auto wide_options = q.options().dtype(wide_type(q));
  const at::Tensor grad_q = at::zeros(q.sizes(), wide_options), grad_k = at::zeros(k.sizes(), wide_options),
                   grad_v = at::zeros(v.sizes(), wide_options);
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].length == 0) continue;
    const std::vector<int64_t> path = chain(nodes, static_cast<int64_t>(i));
    const auto heads_first = [&](const at::Tensor& x) {
      return rows_of(x, nodes[i]).to(wide_type(q)).transpose(0, 1);
    };
    const at::Tensor queries = heads_first(q), out_grad = heads_first(grad), out = heads_first(forward.out);
    const at::Tensor keys = gather_heads(k, nodes, path, q.size(1)),
                     values = gather_heads(v, nodes, path, q.size(1));
    const at::Tensor logsumexp = rows_of(forward.logsumexp, nodes[i]).t();
    const at::Tensor weights = masked_scores(queries, keys, scale).sub_(logsumexp.unsqueeze(-1)).exp_();
    const at::Tensor projection = out_grad.mul(out).sum(-1, /*keepdim=*/true);
    const at::Tensor score_grad =
        at::bmm(out_grad, values.transpose(1, 2)).sub_(projection).mul_(weights).mul_(scale);
    rows_of(grad_q, nodes[i]).copy_(at::bmm(score_grad, keys).transpose(0, 1));
    const at::Tensor key_grad = fold_heads(at::bmm(score_grad.transpose(1, 2), queries), k.size(1));
    const at::Tensor value_grad = fold_heads(at::bmm(weights.transpose(1, 2), out_grad), k.size(1));
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

}  // namespace troupe::kernels::reference
