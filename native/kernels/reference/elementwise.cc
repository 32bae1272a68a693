// Embedding, norms and SwiGLU of the reference. Low-precision inputs are widened first and results rounded
// once, at the end.
#include "kernels/reference/reference.h"

namespace troupe::kernels {
namespace {

at::Tensor wide(const at::Tensor& x) { return x.to(wide_type(x)); }

}  // namespace

at::Tensor ReferenceKernels::do_embedding(const at::Tensor& tokens, const at::Tensor& weight) const {
  return weight.index_select(0, tokens);
}

void ReferenceKernels::do_embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, Offsets groups,
                                             Tensors grad_weight) const {
  for (size_t k = 0; k < grad_weight.size(); ++k) {
    at::Tensor accumulator = grad_weight[k];
    accumulator.index_add_(0, tokens.slice(0, groups[k], groups[k + 1]),
                           grad.slice(0, groups[k], groups[k + 1]).to(accumulator.scalar_type()));
  }
}

RmsNorm ReferenceKernels::do_rms_norm(at::Tensor x, const at::Tensor& residual, const at::Tensor& weight,
                                      double eps) const {
  if (residual.defined()) x.add_(residual);
  const at::Tensor wide_x = wide(x);
  const at::Tensor rstd = wide_x.square().mean(-1).add_(eps).rsqrt_();
  const at::Tensor y = wide_x.mul(rstd.unsqueeze(-1)).mul_(wide(weight)).to(x.scalar_type());
  return {y.contiguous(), rstd};
}

at::Tensor ReferenceKernels::do_rms_norm_backward(const RmsNormGradient& gradient) const {
  const at::Tensor& x = gradient.x;
  const at::Tensor wide_grad = wide(gradient.grad);
  const at::Tensor normed = wide(x).mul(gradient.rstd.unsqueeze(-1));  // x̂ = x · rstd
  for (size_t k = 0; k < gradient.grad_weight.size(); ++k) {
    const int64_t begin = gradient.groups[k], end = gradient.groups[k + 1];
    const at::Tensor product = wide_grad.slice(0, begin, end).mul(normed.slice(0, begin, end));
    at::Tensor accumulator = gradient.grad_weight[k];
    accumulator.add_(product.reshape({-1, x.size(-1)}).sum(0));
  }
  // dx = rstd · (g·w − x̂ · mean(g·w · x̂))
  const at::Tensor scaled = wide_grad.mul(wide(gradient.weight));
  const at::Tensor projection = scaled.mul(normed).mean(-1, /*keepdim=*/true);
  at::Tensor grad_x = scaled.sub(normed.mul(projection)).mul_(gradient.rstd.unsqueeze(-1));
  if (gradient.add.defined()) grad_x.add_(gradient.add);
  at::Tensor out = gradient.out;
  return out.defined() ? out.copy_(grad_x) : grad_x.to(x.scalar_type()).contiguous();
}

at::Tensor ReferenceKernels::do_swiglu(const at::Tensor& gate_up) const {
  const int64_t size = gate_up.size(-1) / 2;
  const at::Tensor gate = wide(gate_up.slice(-1, 0, size)), up = wide(gate_up.slice(-1, size, 2 * size));
  return at::silu(gate).mul_(up).to(gate_up.scalar_type());
}

at::Tensor ReferenceKernels::do_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) const {
  const int64_t size = gate_up.size(-1) / 2;
  const at::Tensor gate = wide(gate_up.slice(-1, 0, size)), up = wide(gate_up.slice(-1, size, 2 * size));
  const at::Tensor wide_grad = wide(grad), sigmoid = at::sigmoid(gate);
  // d silu(g)/dg = σ(g) · (1 + g · (1 − σ(g)))
  const at::Tensor slope = sigmoid.mul(gate.mul(sigmoid.neg().add_(1)).add_(1));
  const at::Tensor grad_gate = wide_grad.mul(up).mul_(slope);
  const at::Tensor grad_up = wide_grad.mul(gate).mul_(sigmoid);
  return at::cat({grad_gate, grad_up}, -1).to(gate_up.scalar_type());
}

}  // namespace troupe::kernels
