// Softmax attention of some rows over some keys, in plain ATen operators: what the reference does for each node of a
// tree, and the CUDA backend for each segment of a call that flash attention does not take. Tensors are wide, heads
// first: queries [H, L, D], keys and values [H, S, D], one for each query head.
#pragma once

#include "kernels/kernels.h"

namespace troupe::kernels {

// [rows, heads, D] → [heads, rows, D], widened.
inline at::Tensor heads_first(const at::Tensor& x) { return x.to(wide_type(x)).transpose(0, 1); }

// The same of keys or values: one for each of `heads` query heads.
inline at::Tensor heads_repeated(const at::Tensor& x, int64_t heads) {
  return heads_first(x).repeat_interleave(heads / x.size(1), 0);
}

// [heads, rows, D] → [rows, key heads, D]: the gradient of that.
inline at::Tensor heads_folded(const at::Tensor& x, int64_t key_heads) {
  return x.view({key_heads, -1, x.size(1), x.size(2)}).sum(1).transpose(0, 1);
}

// Scaled scores [H, L, S]. Causal: the rows are the last L of the keys', and −∞ where a key lies behind its row.
inline at::Tensor attention_scores(const at::Tensor& q, const at::Tensor& k, bool causal, double scale) {
  const at::Tensor scores = at::bmm(q, k.transpose(1, 2)).mul_(scale);
  if (!causal) return scores;
  const int64_t rows = q.size(1), keys = k.size(1);
  return scores.masked_fill_(at::ones({rows, keys}, q.options().dtype(at::kBool)).triu_(keys - rows + 1),
                             -INFINITY);
}

struct DenseAttention {
  at::Tensor out, logsumexp;  // [H, L, D], [H, L]
};
inline DenseAttention dense_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      bool causal, double scale) {
  const at::Tensor scores = attention_scores(q, k, causal, scale);
  const at::Tensor logsumexp = at::logsumexp(scores, -1);
  return {at::bmm(scores.sub(logsumexp.unsqueeze(-1)).exp_(), v), logsumexp};
}

struct DenseGradient {
  at::Tensor q, k, v;
};
// `forward` may be of a softmax over more keys than these.
inline DenseGradient dense_attention_backward(const at::Tensor& grad, const at::Tensor& q,
                                              const at::Tensor& k, const at::Tensor& v,
                                              const DenseAttention& forward, bool causal, double scale) {
  const at::Tensor weights =
      attention_scores(q, k, causal, scale).sub_(forward.logsumexp.unsqueeze(-1)).exp_();
  const at::Tensor projection = grad.mul(forward.out).sum(-1, /*keepdim=*/true);
  const at::Tensor score_grad = at::bmm(grad, v.transpose(1, 2)).sub_(projection).mul_(weights).mul_(scale);
  return {at::bmm(score_grad, k), at::bmm(score_grad.transpose(1, 2), q),
          at::bmm(weights.transpose(1, 2), grad)};
}

}  // namespace troupe::kernels
