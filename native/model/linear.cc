// Weight gradients and packed weights of kernels.h.
#include "model/dispatch.h"
#include "model/kernels.h"
#include "model/kernels_reference.h"

namespace troupe::kernels {

void accumulate_weight_gradient(at::Tensor accumulator, const at::Tensor& delta, const at::Tensor& x) {
  reference::accumulate_weight_gradient(accumulator, delta, x);
}

PackedLinear::PackedLinear(at::Tensor weight, at::Tensor bias)
    : weight_(std::move(weight)), bias_(std::move(bias)) {}

at::Tensor PackedLinear::operator()(const at::Tensor& x) const { return at::linear(x, weight_, bias_); }

}  // namespace troupe::kernels
