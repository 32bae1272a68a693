// The kernels of kernels.h once more, in plain ATen operators: slow, short, right on any device and in any
// floating-point dtype. Two uses: the twins that test/kernels compares the fast kernels with, and the path
// that kernels.cc takes where no fast kernel exists. Signatures and shapes are those of kernels.h.
#pragma once

#include "model/kernels.h"

namespace troupe::kernels::reference {

at::Tensor embedding(const at::Tensor& tokens, const at::Tensor& weight);
void embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, std::span<const int64_t> groups,
                        std::span<const at::Tensor> grad_weight);

RmsNorm rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
RmsNorm add_rms_norm(at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps);
at::Tensor rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& rstd, std::span<const int64_t> groups,
                             std::span<const at::Tensor> grad_weight, const at::Tensor& add = {},
                             at::Tensor out = {});

void rope_(at::Tensor& x, const at::Tensor& positions, const at::Tensor& cos, const at::Tensor& sin,
           bool inverse = false);

at::Tensor swiglu(const at::Tensor& gate_up);
at::Tensor swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up);

Attention tree_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         std::span<const TreeNode> nodes, double scale);
AttentionGradient tree_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const Attention& forward,
                                          std::span<const TreeNode> nodes, double scale);

TokenLogprobs token_logprobs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& rows,
                             const at::Tensor& targets, double temperature);
void token_logprobs_backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy,
                             const TokenLogprobs& forward, const at::Tensor& hidden, const at::Tensor& weight,
                             const at::Tensor& rows, const at::Tensor& targets, double temperature,
                             std::span<const int64_t> groups, at::Tensor& grad_hidden,
                             std::span<const at::Tensor> grad_weight, const LogitProjection& projection = {});

void accumulate_weight_gradient(std::span<const at::Tensor> accumulators, const at::Tensor& delta,
                                const at::Tensor& x, std::span<const int64_t> groups);

}  // namespace troupe::kernels::reference
