// Everything of kernels_reference.h but attention and the output projection: embedding, norm, RoPE, SwiGLU,
// weight gradients. Low-precision inputs are widened first and results rounded once, at the end.
#include "model/kernels_reference.h"

namespace troupe::kernels::reference {
namespace {

at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}
at::Tensor wide(const at::Tensor& x) { return x.to(wide_type(x)); }

}  // namespace

at::Tensor embedding(const at::Tensor& tokens, const at::Tensor& weight) {
  return weight.index_select(0, tokens);
}

void embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, std::span<const int64_t> groups,
                        std::span<const at::Tensor> grad_weight) {
  for (size_t k = 0; k < grad_weight.size(); ++k) {
    const at::Tensor& accumulator = grad_weight[k];
    accumulator.index_add_(0, tokens.slice(0, groups[k], groups[k + 1]),
                           grad.slice(0, groups[k], groups[k + 1]).to(accumulator.scalar_type()));
  }
}

RmsNorm rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide_x = wide(x);
  const at::Tensor rstd = wide_x.square().mean(-1).add_(eps).rsqrt_();
  const at::Tensor y = wide_x.mul(rstd.unsqueeze(-1)).mul_(wide(weight)).to(x.scalar_type());
  return {y.contiguous(), rstd};
}

RmsNorm add_rms_norm(at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps) {
  x.add_(residual);
  return rms_norm(x, weight, eps);
}

at::Tensor rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& rstd, std::span<const int64_t> groups,
                             std::span<const at::Tensor> grad_weight, const at::Tensor& add, at::Tensor out) {
  const at::Tensor wide_grad = wide(grad);
  const at::Tensor normed = wide(x).mul(rstd.unsqueeze(-1));  // x̂ = x · rstd
  for (size_t k = 0; k < grad_weight.size(); ++k) {
    const at::Tensor product =
        wide_grad.slice(0, groups[k], groups[k + 1]).mul(normed.slice(0, groups[k], groups[k + 1]));
    grad_weight[k].add_(product.reshape({-1, weight.size(0)}).sum(0));
  }
  // dx = rstd · (g·w − x̂ · mean(g·w · x̂))
  const at::Tensor scaled = wide_grad.mul(wide(weight));
  const at::Tensor projection = scaled.mul(normed).mean(-1, /*keepdim=*/true);
  at::Tensor grad_x = scaled.sub(normed.mul(projection)).mul_(rstd.unsqueeze(-1));
  if (add.defined()) grad_x.add_(add);
  return out.defined() ? out.copy_(grad_x) : grad_x.to(x.scalar_type()).contiguous();
}

void rope_(at::Tensor& x, const at::Tensor& positions, const at::Tensor& cos, const at::Tensor& sin,
           bool inverse) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor c = cos.index_select(0, positions).unsqueeze(1);
  at::Tensor s = sin.index_select(0, positions).unsqueeze(1);
  if (inverse) s = s.neg();
  const at::Tensor first = wide(x.slice(-1, 0, half)), second = wide(x.slice(-1, half, 2 * half));
  const at::Tensor rotated_first = first.mul(c).sub_(second.mul(s));
  const at::Tensor rotated_second = second.mul(c).add_(first.mul(s));
  x.slice(-1, 0, half).copy_(rotated_first);
  x.slice(-1, half, 2 * half).copy_(rotated_second);
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  const int64_t size = gate_up.size(-1) / 2;
  const at::Tensor gate = wide(gate_up.slice(-1, 0, size)), up = wide(gate_up.slice(-1, size, 2 * size));
  return at::silu(gate).mul_(up).to(gate_up.scalar_type());
}

at::Tensor swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) {
  const int64_t size = gate_up.size(-1) / 2;
  const at::Tensor gate = wide(gate_up.slice(-1, 0, size)), up = wide(gate_up.slice(-1, size, 2 * size));
  const at::Tensor wide_grad = wide(grad), sigmoid = at::sigmoid(gate);
  // d silu(g)/dg = σ(g) · (1 + g · (1 − σ(g)))
  const at::Tensor slope = sigmoid.mul(gate.mul(sigmoid.neg().add_(1)).add_(1));
  const at::Tensor grad_gate = wide_grad.mul(up).mul_(slope);
  const at::Tensor grad_up = wide_grad.mul(gate).mul_(sigmoid);
  return at::cat({grad_gate, grad_up}, -1).to(gate_up.scalar_type());
}

void accumulate_weight_gradient(std::span<const at::Tensor> accumulators, const at::Tensor& delta,
                                const at::Tensor& x, std::span<const int64_t> groups) {
  for (size_t k = 0; k < accumulators.size(); ++k) {
    const at::Tensor rows = delta.slice(0, groups[k], groups[k + 1]);
    accumulators[k].add_(at::mm(rows.t(), x.slice(0, groups[k], groups[k + 1])));
  }
}

}  // namespace troupe::kernels::reference
