// Where a kernel's device decides its code: the one place. Until the CPU kernels land, all devices take the
// reference.
#include "model/kernels.h"

#include "model/kernels_reference.h"

namespace troupe::kernels {

at::Tensor embedding(const at::Tensor& tokens, const at::Tensor& weight) {
  return reference::embedding(tokens, weight);
}

void embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, std::span<const int64_t> groups,
                        std::span<const at::Tensor> grad_weight) {
  reference::embedding_backward(grad, tokens, groups, grad_weight);
}

RmsNorm rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return reference::rms_norm(x, weight, eps);
}

RmsNorm add_rms_norm(at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps) {
  return reference::add_rms_norm(x, residual, weight, eps);
}

at::Tensor rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& rstd, std::span<const int64_t> groups,
                             std::span<const at::Tensor> grad_weight, const at::Tensor& add) {
  return reference::rms_norm_backward(grad, x, weight, rstd, groups, grad_weight, add);
}

void rope_(at::Tensor& x, const at::Tensor& positions, const at::Tensor& cos, const at::Tensor& sin,
           bool inverse) {
  reference::rope_(x, positions, cos, sin, inverse);
}

at::Tensor swiglu(const at::Tensor& gate_up) { return reference::swiglu(gate_up); }
at::Tensor swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) {
  return reference::swiglu_backward(grad, gate_up);
}

Attention tree_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         std::span<const TreeNode> nodes, double scale) {
  return reference::tree_attention(q, k, v, nodes, scale);
}

AttentionGradient tree_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const Attention& forward,
                                          std::span<const TreeNode> nodes, double scale) {
  return reference::tree_attention_backward(grad, q, k, v, forward, nodes, scale);
}

TokenLogprobs token_logprobs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& rows,
                             const at::Tensor& targets, double temperature) {
  return reference::token_logprobs(hidden, weight, rows, targets, temperature);
}

void token_logprobs_backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy,
                             const TokenLogprobs& forward, const at::Tensor& hidden, const at::Tensor& weight,
                             const at::Tensor& rows, const at::Tensor& targets, double temperature,
                             std::span<const int64_t> groups, at::Tensor& grad_hidden,
                             std::span<const at::Tensor> grad_weight) {
  reference::token_logprobs_backward(grad_logprobs, grad_entropy, forward, hidden, weight, rows, targets,
                                     temperature, groups, grad_hidden, grad_weight);
}

void accumulate_weight_gradient(at::Tensor accumulator, const at::Tensor& delta, const at::Tensor& x) {
  reference::accumulate_weight_gradient(accumulator, delta, x);
}

PackedLinear::PackedLinear(at::Tensor weight, at::Tensor bias)
    : weight_(std::move(weight)), bias_(std::move(bias)) {}

at::Tensor PackedLinear::operator()(const at::Tensor& x) const { return at::linear(x, weight_, bias_); }

}  // namespace troupe::kernels
