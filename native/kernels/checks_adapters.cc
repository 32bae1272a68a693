// Checks of adapters.
#include "kernels/checks.h"

namespace troupe::kernels {
namespace {

// Of x [T, inputs] and y [T, outputs] like `like`.
void check_terms(const LoraLinear& linear, const at::Tensor& like, int64_t inputs, int64_t outputs) {
  const void* behind = nullptr;  // the A before
  int64_t end = 0;               // of its columns of y
  for (const LoraTerm& term : linear.terms) {
    const at::Tensor &a = term.a, &b = term.b;
    check_on(a, like, like.scalar_type(), "an adapter's A");
    check_on(b, like, like.scalar_type(), "an adapter's B");
    TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(1) == inputs && b.size(1) == a.size(0) &&
                    term.begin >= end && term.begin <= outputs && b.size(0) <= outputs - term.begin &&
                    a.is_contiguous() && b.is_contiguous(),
                "adapter A ", a.sizes(), " and B ", b.sizes(), " at column ", term.begin, " do not fit ",
                inputs, " inputs and the outputs from ", end, " to ", outputs);
    TORCH_CHECK(!behind || behind == a.const_data_ptr(),
                "the A of an adapter's terms must lie one behind the other in memory");
    behind = static_cast<const char*>(a.const_data_ptr()) + a.nbytes();
    end = term.begin + b.size(0);
  }
}

void check_lora(const at::Tensor& y, const at::Tensor& x, const LoraLinear& linear) {
  check_kind(x, "an adapter's input");
  check_on(y, x, x.scalar_type(), "an adapter's output");
  TORCH_CHECK(y.dim() == 2 && x.dim() == 2 && y.size(0) == x.size(0) && (y.stride(1) == 1 || y.size(1) == 1),
              "LoRA over x ", x.sizes(), " and y ", y.sizes(), ", whose rows must be contiguous");
  check_terms(linear, x, x.size(1), y.size(1));
}

// x Aᵀ as columns of the product that y is of, and terms that lie among them.
void check_projected(const at::Tensor& y, const Adapters& adapters) {
  const at::Tensor& projected = adapters.projected;
  if (!projected.defined()) return;
  check_on(projected, y, y.scalar_type(), "x times the adapters' A");
  TORCH_CHECK(projected.dim() == 2 && projected.size(0) == y.size(0) && projected.stride(0) == y.stride(0) &&
                  (projected.stride(1) == 1 || projected.size(1) == 1) &&
                  projected.const_data_ptr() == static_cast<const char*>(y.const_data_ptr()) +
                                                    y.size(1) * static_cast<int64_t>(y.element_size()),
              "x times the adapters' A, ", projected.sizes(), ", must be the columns behind y's, ",
              y.sizes());
  for (const LoraRows& part : adapters.parts) {
    for (const LoraTerm& term : part.linear->terms)
      TORCH_CHECK(term.projected < 0 || term.projected + term.a.size(0) <= projected.size(1),
                  "an adapter's columns from ", term.projected, " on lie outside ", projected.sizes());
  }
}

}  // namespace

void check_adapter_of(const at::Tensor& weight, const LoraLinear& linear) {
  TORCH_CHECK(!linear.terms.empty(), "an adapter needs at least one term");
  TORCH_CHECK(weight.dim() == 2, "a linear layer's weight is [outputs, inputs], not ", weight.sizes());
  check_terms(linear, weight, weight.size(1), weight.size(0));
}

void check_adapted_gradient(const at::Tensor& delta, const at::Tensor& projected_grad,
                            const at::Tensor& weight, const LoraLinear& linear) {
  check_kind(delta, "the gradient of a linear layer");
  check_on(weight, delta, delta.scalar_type(), "a linear layer's weight");
  check_on(projected_grad, delta, delta.scalar_type(), "the gradient of x times the adapters' A");
  TORCH_CHECK(delta.dim() == 2 && projected_grad.dim() == 2 && delta.size(1) == weight.size(0) &&
                  projected_grad.size(0) == delta.size(0) &&
                  projected_grad.size(1) == linear.fused_a().size(0),
              "gradients ", delta.sizes(), " and ", projected_grad.sizes(), " of a linear layer ",
              weight.sizes(), " with an adapter of ", linear.fused_a().size(0), " ranks");
}

void check_adapters(const at::Tensor& y, const Adapters& adapters) {
  const at::Tensor& x = adapters.x;
  for (const LoraRows& part : adapters.parts) {
    TORCH_CHECK(part.begin >= 0 && part.begin <= part.end && part.end <= x.size(0), "an adapter's rows ",
                part.begin, " to ", part.end, " of ", x.size(0));
    check_lora(y, x, *part.linear);
  }
  TORCH_CHECK(
      x.is_contiguous() && (y.is_contiguous() || adapters.projected.defined()),
      "an adapter's x and y must be contiguous; y may be columns of a product that computed x Aᵀ as well");
  check_projected(y, adapters);
}

}  // namespace troupe::kernels
