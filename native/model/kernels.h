// Fused kernels of the transformer, forward and backward. Each takes float64, float32 and bfloat16 and
// computes in fp32 inside (fp64 for float64). On the CPU they are written for AVX-512 / AVX2 through at::vec
// and run over at::parallel_for; on other devices, the same result from ATen operators (a fused CUDA kernel
// may replace it). test/native has an ATen twin of each.
//
// T rows, H hidden size, I intermediate size, D head dimension, V vocabulary, E loss entries, K groups.
// `groups` are K + 1 row offsets: group k owns rows [groups[k], groups[k + 1]).
#pragma once

#include <ATen/ATen.h>

#include <span>
#include <vector>

namespace troupe::kernels {

// Embedding lookup: tokens [T] int64, weight [V, H] → [T, H].
at::Tensor embedding(const at::Tensor& tokens, const at::Tensor& weight);
// grad_weight[k] ([V, H], fp32/fp64) += rows of grad [T, H] of group k, at their tokens.
void embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, std::span<const int64_t> groups,
                        std::span<const at::Tensor> grad_weight);

// y = x · rsqrt(mean(x²) + eps) · weight over the last dimension (RMSNorm, arXiv 1910.07467).
// x [T, H] or [T, heads, D] (last dimension contiguous, others may be strided, e.g. a slice of a fused qkv);
// y is contiguous; rstd [T] or [T, heads] in fp32/fp64.
struct RmsNorm {
  at::Tensor y, rstd;
};
RmsNorm rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
// x += residual first, in place, then the norm of the sum: the transformer's residual stream in one pass.
RmsNorm add_rms_norm(at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps);
// Returns grad_x, in `out` where given (shape of x, last dimension contiguous; it may be `grad` itself, so
// that a slice of a fused gradient is turned in place), else contiguous; grad_weight[k] ([H] or [D],
// fp32/fp64) += group k's part. Empty grad_weight: the weight is frozen. `add` (same shape as x, optional) is
// added to grad_x: the gradient that flows past the norm.
at::Tensor rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& rstd, std::span<const int64_t> groups,
                             std::span<const at::Tensor> grad_weight, const at::Tensor& add = {},
                             at::Tensor out = {});

// Rotary embedding in place, Hugging Face's half-split layout: x [T, heads, D] (last dimension contiguous),
// positions [T] int64, cos and sin [positions, D / 2]. inverse: the transposed rotation, its backward.
void rope_(at::Tensor& x, const at::Tensor& positions, const at::Tensor& cos, const at::Tensor& sin,
           bool inverse = false);

// silu(gate) · up: gate_up [T, 2 I] (gate first) → [T, I].
at::Tensor swiglu(const at::Tensor& gate_up);
at::Tensor swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up);  // → [T, 2 I]

// Attention over a prefix tree packed into one row axis, parents before children: a row attends causally to
// its node and fully to every ancestor. q [T, Hq, D], k and v [T, Hkv, D] (last dimension contiguous, rows
// may be strided), Hq a multiple of Hkv. Parts merge by logsumexp. scale is
// 1/√D.
struct TreeNode {
  int64_t start = 0, length = 0;
  int64_t parent = -1;  // index of an earlier node, or -1
};
struct Attention {
  at::Tensor out;        // [T, Hq, D] contiguous
  at::Tensor logsumexp;  // [T, Hq], fp32/fp64
};
Attention tree_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         std::span<const TreeNode> nodes, double scale);
// The three are views of one contiguous [T, Hq + 2 Hkv, D]: the gradient of a fused q, k, v product.
struct AttentionGradient {
  at::Tensor q, k, v;
  at::Tensor qkv;
};
AttentionGradient tree_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const Attention& forward,
                                          std::span<const TreeNode> nodes, double scale);

// Log-probabilities of target tokens and entropies, never holding [E, V]: chunks of rows through the output
// projection. hidden [T, H] after the final norm; weight [V, H]; rows [E] int64 ascending (row of `hidden`
// that predicts the entry; repeats allowed); targets [E] int64. log p is of softmax(logits / temperature).
struct TokenLogprobs {
  at::Tensor logprobs, entropy, logsumexp;  // [E], fp32/fp64
};
TokenLogprobs token_logprobs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& rows,
                             const at::Tensor& targets, double temperature);
// grad_logprobs and grad_entropy [E] (the latter may be undefined). Adds to grad_hidden [T, H] (fp32/fp64 or
// the compute dtype) and, unless empty, to grad_weight[k] ([V, H]) for the entries whose rows are in group k.
// With `projection`: its out [T, S] (fp32/fp64) += dl · matrix, where dl [T, V] is the gradient of the logits
// of each row of `hidden`, which never exists whole, and matrix is [V, S] in the weight's dtype.
struct LogitProjection {
  at::Tensor matrix, out;
};
void token_logprobs_backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy,
                             const TokenLogprobs& forward, const at::Tensor& hidden, const at::Tensor& weight,
                             const at::Tensor& rows, const at::Tensor& targets, double temperature,
                             std::span<const int64_t> groups, at::Tensor& grad_hidden,
                             std::span<const at::Tensor> grad_weight, const LogitProjection& projection = {});

// accumulators[k] (fp32/fp64, [out, in]) += δ_kᵀ x_k, rows groups[k] to groups[k + 1] of delta [T, out] and x
// [T, in].
void accumulate_weight_gradient(std::span<const at::Tensor> accumulators, const at::Tensor& delta,
                                const at::Tensor& x, std::span<const int64_t> groups);

// A weight matrix in the layout that small batches multiply fastest (oneDNN's, on the CPU in bf16 and fp32);
// the plain weight elsewhere. Made once per version of the weights, used by the rollout engine.
class PackedLinear {
 public:
  PackedLinear() = default;
  explicit PackedLinear(at::Tensor weight, at::Tensor bias = {});
  at::Tensor operator()(const at::Tensor& x) const;  // [T, in] → [T, out]

 private:
  at::Tensor weight_, packed_, bias_;
};

}  // namespace troupe::kernels
