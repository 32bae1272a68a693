// Tree attention of kernels.h: checks, allocates, and calls the CPU kernels or the reference.
#include "model/dispatch.h"
#include "model/kernels.h"
#include "model/kernels_reference.h"

namespace troupe::kernels {
namespace {

std::vector<cpu::Node> checked_nodes(std::span<const TreeNode> nodes, int64_t rows) {
  std::vector<cpu::Node> result;
  int64_t covered = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    TORCH_CHECK(nodes[i].start >= 0 && nodes[i].length >= 0 && nodes[i].start + nodes[i].length <= rows,
                "node ", i, " covers rows ", nodes[i].start, " to ", nodes[i].start + nodes[i].length, " of ",
                rows);
    TORCH_CHECK(nodes[i].parent < static_cast<int64_t>(i), "node ", i, " must come after its parent ",
                nodes[i].parent);
    covered += nodes[i].length;
    result.push_back({nodes[i].start, nodes[i].length, nodes[i].parent});
  }
  TORCH_CHECK(covered == rows, "the nodes cover ", covered, " of ", rows, " rows");
  return result;
}

cpu::AttentionShape checked_shape(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  std::span<const cpu::Node> nodes, double scale) {
  TORCH_CHECK(
      q.dim() == 3 && k.dim() == 3 && v.sizes() == k.sizes() && k.size(0) == q.size(0) &&
          k.size(2) == q.size(2) && k.size(1) > 0 && q.size(1) % k.size(1) == 0,
      "attention over q ", q.sizes(), ", k ", k.sizes(), " and v ", v.sizes(),
      ": expected [rows, heads, size] with equal rows and sizes and query heads a multiple of key heads");
  TORCH_CHECK(k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type(),
              "q, k and v must have one dtype");
  return {q.scalar_type(), q.size(0), q.size(1), k.size(1), q.size(2), scale, nodes};
}

}  // namespace

Attention tree_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         std::span<const TreeNode> nodes, double scale) {
  const std::vector<cpu::Node> checked = checked_nodes(nodes, q.size(0));
  const cpu::AttentionShape shape = checked_shape(q, k, v, checked, scale);
  const cpu::Table* table = cpu_kernels(q);
  if (!table) return reference::tree_attention(q, k, v, nodes, scale);
  Attention result{at::empty(q.sizes(), q.options()),
                   at::empty({q.size(0), q.size(1)}, q.options().dtype(accumulate_type(q)))};
  const at::Tensor plain_q = rows_contiguous(q), plain_k = rows_contiguous(k), plain_v = rows_contiguous(v);
  table->attention(shape, view_of(plain_q), view_of(plain_k), view_of(plain_v), result.out.data_ptr(),
                   result.logsumexp.data_ptr());
  return result;
}

AttentionGradient tree_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const Attention& forward,
                                          std::span<const TreeNode> nodes, double scale) {
  const std::vector<cpu::Node> checked = checked_nodes(nodes, q.size(0));
  const cpu::AttentionShape shape = checked_shape(q, k, v, checked, scale);
  TORCH_CHECK(grad.sizes() == q.sizes() && forward.out.sizes() == q.sizes(),
              "the attention's gradient must have the shape of q, ", q.sizes(), ", not ", grad.sizes());
  const cpu::Table* table = cpu_kernels(q);
  if (!table) return reference::tree_attention_backward(grad, q, k, v, forward, nodes, scale);
  const int64_t query_heads = q.size(1), key_heads = k.size(1);
  AttentionGradient result;
  result.qkv = at::empty({q.size(0), query_heads + 2 * key_heads, q.size(2)}, q.options());
  result.q = result.qkv.slice(1, 0, query_heads);
  result.k = result.qkv.slice(1, query_heads, query_heads + key_heads);
  result.v = result.qkv.slice(1, query_heads + key_heads);
  const at::Tensor plain_q = rows_contiguous(q), plain_k = rows_contiguous(k), plain_v = rows_contiguous(v),
                   plain_grad = rows_contiguous(grad), out = rows_contiguous(forward.out),
                   logsumexp = forward.logsumexp.contiguous();
  table->attention_backward(shape, view_of(plain_q), view_of(plain_k), view_of(plain_v), view_of(plain_grad),
                            view_of(out), logsumexp.data_ptr(), view_of(result.q), view_of(result.k),
                            view_of(result.v));
  return result;
}

}  // namespace troupe::kernels
