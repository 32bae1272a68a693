// Norms, RoPE, SwiGLU and embedding of kernels.h: checks shapes, allocates results and hands the work to the
// CPU kernels, or to the reference where there are none. Attention, the output projection and linear layers
// have files of their own.
#include "model/kernels.h"

#include "model/dispatch.h"
#include "model/kernels_reference.h"

namespace troupe::kernels {
namespace {

cpu::NormShape shape_of(const at::Tensor& x) {
  TORCH_CHECK(x.dim() == 2 || x.dim() == 3, "expected [rows, size] or [rows, heads, size], got ", x.sizes());
  return {x.scalar_type(), x.size(0), x.dim() == 3 ? x.size(1) : 1, x.size(-1)};
}

// The accumulators of the groups as pointers; each contiguous and of the accumulate type.
std::vector<void*> accumulators(std::span<const at::Tensor> tensors, at::ScalarType dtype,
                                std::span<const int64_t> groups, int64_t rows) {
  if (tensors.empty()) return {};
  TORCH_CHECK(groups.size() == tensors.size() + 1 && groups.front() == 0 && groups.back() == rows,
              "groups must be ", tensors.size() + 1, " row offsets from 0 to ", rows);
  std::vector<void*> pointers;
  for (const at::Tensor& tensor : tensors) {
    TORCH_CHECK(tensor.scalar_type() == dtype && tensor.is_contiguous(),
                "a gradient accumulator must be contiguous ", dtype);
    pointers.push_back(tensor.data_ptr());
  }
  return pointers;
}

RmsNorm norm(const cpu::Table& table, const at::Tensor& x, const at::Tensor& residual,
             const at::Tensor& weight, double eps) {
  const cpu::NormShape shape = shape_of(x);
  TORCH_CHECK(weight.scalar_type() == x.scalar_type() && weight.numel() == shape.size,
              "the norm's weight must be ", x.scalar_type(), " [", shape.size, "]");
  RmsNorm result{at::empty(x.sizes(), x.options()),
                 at::empty(x.sizes().slice(0, x.dim() - 1), x.options().dtype(accumulate_type(x)))};
  const at::Tensor plain_weight = weight.contiguous();
  table.rms_norm(shape, view_of(x), residual.defined() ? view_of(residual) : cpu::View{},
                 plain_weight.data_ptr(), result.y.data_ptr(), result.rstd.data_ptr(), eps);
  return result;
}

}  // namespace

at::Tensor embedding(const at::Tensor& tokens, const at::Tensor& weight) {
  return reference::embedding(tokens, weight);
}

void embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, std::span<const int64_t> groups,
                        std::span<const at::Tensor> grad_weight) {
  const cpu::Table* table = cpu_kernels(grad);
  if (!table) return reference::embedding_backward(grad, tokens, groups, grad_weight);
  const std::vector<void*> totals = accumulators(grad_weight, accumulate_type(grad), groups, grad.size(0));
  const at::Tensor rows = grad.contiguous(), ids = tokens.contiguous();
  for (size_t k = 0; k < totals.size(); ++k) {
    const int64_t count = groups[k + 1] - groups[k];
    if (count == 0) continue;
    table->embedding_backward(grad.scalar_type(), count, grad.size(1), rows.slice(0, groups[k]).data_ptr(),
                              ids.data_ptr<int64_t>() + groups[k], totals[k]);
  }
}

RmsNorm rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const cpu::Table* table = cpu_kernels(x);
  return table ? norm(*table, rows_contiguous(x), {}, weight, eps) : reference::rms_norm(x, weight, eps);
}

RmsNorm add_rms_norm(at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps) {
  TORCH_CHECK(x.sizes() == residual.sizes() && x.scalar_type() == residual.scalar_type(),
              "the residual must have the shape and dtype of x: ", x.sizes(), ", not ", residual.sizes());
  const cpu::Table* table = cpu_kernels(x);
  if (!table || rows_contiguous(x).data_ptr() != x.data_ptr()) {
    return reference::add_rms_norm(x, residual, weight, eps);
  }
  return norm(*table, x, rows_contiguous(residual), weight, eps);
}

at::Tensor rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& rstd, std::span<const int64_t> groups,
                             std::span<const at::Tensor> grad_weight, const at::Tensor& add, at::Tensor out) {
  const cpu::Table* table = cpu_kernels(x);
  if (!table || (out.defined() && out.stride(-1) != 1)) {
    return reference::rms_norm_backward(grad, x, weight, rstd, groups, grad_weight, add, out);
  }
  if (!out.defined()) out = at::empty(x.sizes(), x.options());
  TORCH_CHECK(
      grad.sizes() == x.sizes() && out.sizes() == x.sizes() && (!add.defined() || add.sizes() == x.sizes()),
      "the norm's gradients must have its input's shape ", x.sizes());
  const std::vector<void*> totals = accumulators(grad_weight, accumulate_type(x), groups, x.size(0));
  const at::Tensor plain_grad = rows_contiguous(grad), plain_x = rows_contiguous(x),
                   plain_weight = weight.contiguous(), plain_rstd = rstd.contiguous();
  const at::Tensor plain_add = add.defined() ? rows_contiguous(add) : add;
  table->rms_norm_backward(shape_of(x), view_of(plain_grad), view_of(plain_x), plain_weight.data_ptr(),
                           plain_rstd.data_ptr(), add.defined() ? view_of(plain_add) : cpu::View{},
                           view_of(out), groups, totals);
  return out;
}

void rope_(at::Tensor& x, const at::Tensor& positions, const at::Tensor& cos, const at::Tensor& sin,
           bool inverse) {
  const cpu::Table* table = cpu_kernels(x);
  if (!table || x.stride(-1) != 1) return reference::rope_(x, positions, cos, sin, inverse);
  TORCH_CHECK(x.size(-1) % 2 == 0, "RoPE needs an even head dimension, not ", x.size(-1));
  TORCH_CHECK(cos.scalar_type() == accumulate_type(x) && cos.is_contiguous() && sin.is_contiguous() &&
                  cos.size(-1) == x.size(-1) / 2,
              "RoPE's tables must be contiguous ", accumulate_type(x), " [positions, ", x.size(-1) / 2, "]");
  const at::Tensor plain_positions = positions.contiguous();
  table->rope(shape_of(x), view_of(x), plain_positions.data_ptr<int64_t>(), cos.data_ptr(), sin.data_ptr(),
              inverse);
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  const cpu::Table* table = cpu_kernels(gate_up);
  if (!table) return reference::swiglu(gate_up);
  const at::Tensor plain = gate_up.contiguous();
  const int64_t size = gate_up.size(1) / 2;
  at::Tensor out = at::empty({gate_up.size(0), size}, gate_up.options());
  table->swiglu(gate_up.scalar_type(), gate_up.size(0), size, plain.data_ptr(), out.data_ptr());
  return out;
}

at::Tensor swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) {
  const cpu::Table* table = cpu_kernels(gate_up);
  if (!table) return reference::swiglu_backward(grad, gate_up);
  const at::Tensor plain_grad = grad.contiguous(), plain = gate_up.contiguous();
  at::Tensor out = at::empty(gate_up.sizes(), gate_up.options());
  table->swiglu_backward(gate_up.scalar_type(), gate_up.size(0), gate_up.size(1) / 2, plain_grad.data_ptr(),
                         plain.data_ptr(), out.data_ptr());
  return out;
}

}  // namespace troupe::kernels
