// One transformer layer of the training pass: forward, and the backward written by hand. Between the two only
// what cannot be had again by a memory-bound pass is kept: norm outputs, SwiGLU and normed heads are
// recomputed.
#pragma once

#include "model/policy.h"
#include "training/linear.h"

namespace troupe::training {

// What every layer of one pass shares.
struct PassInputs {
  const Policy& policy;
  const kernels::Kernels& backend;
  const kernels::TreePlan& plan;
  kernels::RotaryTables tables;
};

// The residual stream before a layer, and its norm.
struct Stream {
  at::Tensor x;  // [T, H]
  kernels::RmsNorm normed;
};

struct LayerActivations {
  at::Tensor input, input_rstd;  // [T, H], [T]: residual stream before the layer
  at::Tensor qkv;                // [T, (Hq + 2 Hkv) D], before norm and RoPE
  kernels::Attention attention;
  at::Tensor middle, middle_rstd;  // residual stream between attention and MLP
  at::Tensor gate_up;              // [T, 2 I]
  at::Tensor qkv_projected, o_projected, gate_up_projected, down_projected;  // LoRA: scale · x Aᵀ

  // Drops everything but `input`, from which layer_forward makes it again.
  void keep_input_only();
  bool input_only() const { return !qkv.defined(); }
};

// stream.x [T, H] → the residual stream after layer i, not yet normed.
at::Tensor layer_forward(const PassInputs& pass, int64_t i, const Stream& stream,
                         LayerActivations& activations);

// grad: of the layer's output [T, H]. Frees the activations on the way. Returns the gradient of the layer's
// input; undefined where nothing below trains.
at::Tensor layer_backward(const PassInputs& pass, int64_t i, LayerActivations& activations, at::Tensor grad,
                          const GradientSink& sink);

// Bytes that the activations of one layer take at `rows` rows.
int64_t layer_bytes(const Policy& policy, int64_t rows);

}  // namespace troupe::training
