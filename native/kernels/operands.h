// What the fused operations (kernels.h) take and give, where that is more than a tensor.
//
// T rows, H hidden size, I intermediate size, D head dimension, V vocabulary, E loss entries, K groups.
// `groups` are K + 1 row offsets: group k owns rows [groups[k], groups[k + 1]); gradient accumulators are one
// per group, contiguous, fp32 (fp64), on the device, and are added to. Where an operation returns the gradient of its
// input as well, the groups cover all rows. "wide": fp32 (fp64 for fp64).
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <span>
#include <vector>

#include "kernels/plans.h"

namespace troupe::kernels {

using Tensors = std::span<const at::Tensor>;
using Offsets = std::span<const int64_t>;
using PageCopies = std::span<const PageCopy>;

struct RmsNorm {
  at::Tensor y, rstd;  // y contiguous like x; rstd [T] (or [T, heads]) wide
};

struct RmsNormGradient {
  at::Tensor grad, x, weight, rstd;  // of y; the forward's input, weight and result
  Offsets groups;
  Tensors grad_weight;  // [H] each; empty: the weight is frozen
  at::Tensor add;       // optional, like x: added to the result, the gradient that flows past the norm
  at::Tensor out;       // optional: where the result goes; may be `grad` itself
};

// The fused q, k, v product's columns: Hq heads of q, Hkv of k, Hkv of v, D wide.
struct HeadLayout {
  int64_t query_heads = 0, key_heads = 0, dim = 0;
  int64_t width() const { return (query_heads + 2 * key_heads) * dim; }
};
// RMSNorm over each head of q and k before the rotation (Qwen3); undefined weights: none.
struct HeadNorm {
  at::Tensor q, k;  // [D]
  double eps = 0;
  bool defined() const { return q.defined(); }
};
// Rotary embedding, Hugging Face's half-split layout: cos and sin [positions, D / 2] wide.
struct RotaryTables {
  at::Tensor cos, sin;
};
// Normed and rotated heads, and rstd [T, heads] of the norms (undefined without). Rows are in the order that
// the backend's attention wants (the batch's, or breadth first); it is no one else's business.
struct Heads {
  at::Tensor q, k, v;  // [T, heads, D]
  at::Tensor q_rstd, k_rstd;
};
struct HeadsGradient {
  at::Tensor q, k, v;  // like Heads
  at::Tensor qkv;      // the buffer that they are views of, if they are
};
struct Attention {
  at::Tensor out;        // [T, Hq, D] contiguous, rows in the batch's order
  at::Tensor logsumexp;  // wide, in the backend's own layout
};

struct TokenLogprobs {
  at::Tensor logprobs, entropy, logsumexp;  // [E] wide
};
struct TokenLogprobsGradient {
  at::Tensor logprobs, entropy;  // [E] wide, gradients of the results; entropy may be undefined
  Offsets groups;                // row offsets of the groups in grad_weight; {0, T} for one
  Tensors grad_weight;           // [V, H] each, or empty: the head is frozen
  std::vector<bool> fresh;       // of each of them: overwritten and not added to; empty: none is
  at::Tensor grad_hidden;        // [T, H] wide, or of the compute dtype: added to
  at::Tensor matrix, projected;  // optional: projected [T, S] (wide) += dl · matrix [V, S], where dl [T, V]
                                 // is the gradient of each row's logits, which never exists whole
};

// A weight in the layout that a backend's products of few rows want. Belongs to one version of the weight.
struct PackedLinear {
  at::Tensor weight, bias;  // as they were; bias may be undefined
  at::Tensor packed;        // the backend's copy; undefined: none
  int64_t packed_bytes() const { return packed.defined() ? static_cast<int64_t>(packed.nbytes()) : 0; }
};

// The weights [out, in] of all layers that a product of one layer has the sizes of; that layer's own among them.
using AlikeWeights = std::function<std::vector<at::Tensor>()>;
// What was measured of a product [rows, inputs] × [inputs, outputs].
struct MeasuredProduct {
  int64_t inputs = 0, outputs = 0, rows = 0;
  int32_t offered = 0;  // ways to compute it, beside the usual one
  int32_t refused = 0;  // of them failed
  int32_t wrong = 0;    // of them had another result
  int32_t chosen = -1;  // the one that is used; −1: the usual one
  double usual = 0,
         taken = 0;  // microseconds of the usual one and of that one; 0: nothing was to be compared
};

// y[:, begin : begin + b.size(0)] += scale · (x Aᵀ) Bᵀ
struct LoraTerm {
  int64_t begin = 0;  // first column of y
  at::Tensor a;       // [rank, in]; the terms' A lie one behind the other in memory
  at::Tensor b;       // [out of this term, rank]
  // Where a product of the rollout has x Aᵀ already: its first column in Adapters::projected; -1: nowhere.
  int64_t projected = -1;
};
// What one adapter adds to one (fused) linear layer.
struct LoraLinear {
  std::vector<LoraTerm> terms;  // their columns ascend and do not overlap; some may be no term's
  double scale = 0;
  at::Tensor packed;  // the backend's copy of B, see pack_lora
  // [Σ rank, in]: a view of all terms' A, for one product with them; there is a term.
  at::Tensor fused_a() const {
    if (terms.size() == 1) return terms[0].a;
    int64_t ranks = 0;
    for (const LoraTerm& term : terms) ranks += term.a.size(0);
    const int64_t in = terms[0].a.size(1);
    return terms[0].a.as_strided({ranks, in}, {in, 1});
  }
};
// A linear layer's result with an adapter.
struct AdaptedLinear {
  at::Tensor y;          // [T, out]
  at::Tensor projected;  // scale · x Aᵀ of all terms side by side [T, Σ rank]
};
// Rows [begin, end) of x and y are this adapter's.
struct LoraRows {
  const LoraLinear* linear = nullptr;
  int64_t begin = 0, end = 0;
  bool always_fused = false;  // whatever the number of rows: a row's sums must not depend on it
};

// What a product's result still lacks: the parts of all segments' adapters, from the product's own x [T, in].
struct Adapters {
  at::Tensor x;
  std::span<const LoraRows> parts;
  // [T, ranks] x Aᵀ of the terms that say where, the same product's columns behind its result's; undefined: of none.
  at::Tensor projected;
};
// Whether `projected` has x Aᵀ of the part's adapter.
bool is_projected(const LoraRows& part, const Adapters& adapters);

// Parameters inside flat vectors: elements [begin, begin + size).
struct FlatRange {
  int64_t begin = 0, size = 0;
  bool decays = true;
};
// One AdamW step of flat parameters with the gradient clip · Σ_j a_j g_j. Those that decay are the elements
// [0, decay_size).
struct AdamWStep {
  at::Tensor theta;                           // what is stepped, like the g_j
  at::Tensor copy;                            // bf16: theta rounded, written with it; undefined: none
  std::vector<at::Tensor> averages, squares;  // moments, of the parameters that decay and of the others
  int64_t decay_size = 0;
  double learning_rate = 0, beta1 = 0, beta2 = 0, eps = 0;
  double weight_decay = 0;  // of the parameters that decay
  double clip = 1;          // factor on the gradient
  int64_t step = 1;         // counting this one, from 1
  bool measure = true;      // whether an AdamWChange is wanted
  bool keep_total = false;  // g_0 becomes Σ_j a_j g_j; if not, what it holds afterwards is not specified
  // Called once, right before the first parameter or moment changes: what throws earlier has left them as they were.
  std::function<void()> before_change = [] {};
};
// What a step made of each source; empty and 0 where it was not to be measured.
struct AdamWChange {
  // ⟨u_j, Δθ⟩ over each range for the N vectors, the momentum carried over and weight decay: [ranges, N + 2].
  // Δθ is the parameters' change and u_j the part of it that comes from one source,
  // u_j = −lr (1 − β₁) clip a_j g_j / ((1 − β₁ᵗ)(√v̂ + ε)), so each row sums to ‖Δθ‖².
  std::vector<double> products;
  double squared_norm = 0;  // ‖Σ_j a_j g_j‖², of what was formed and applied
};
// Of one dtype and device; steps are fp32 scalars.
struct AdamWTensors {
  std::vector<at::Tensor> parameters, gradients, averages, squares, steps;
};

}  // namespace troupe::kernels
