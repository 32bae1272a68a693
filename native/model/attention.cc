// Tree attention of kernels.h.
#include "model/dispatch.h"
#include "model/kernels.h"
#include "model/kernels_reference.h"

namespace troupe::kernels {

Attention tree_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         std::span<const TreeNode> nodes, double scale) {
  return reference::tree_attention(q, k, v, nodes, scale);
}

AttentionGradient tree_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const Attention& forward,
                                          std::span<const TreeNode> nodes, double scale) {
  return reference::tree_attention_backward(grad, q, k, v, forward, nodes, scale);
}

}  // namespace troupe::kernels
