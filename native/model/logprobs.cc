// Token log-probabilities of kernels.h.
#include "model/dispatch.h"
#include "model/kernels.h"
#include "model/kernels_reference.h"

namespace troupe::kernels {

TokenLogprobs token_logprobs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& rows,
                             const at::Tensor& targets, double temperature) {
  return reference::token_logprobs(hidden, weight, rows, targets, temperature);
}

void token_logprobs_backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy,
                             const TokenLogprobs& forward, const at::Tensor& hidden, const at::Tensor& weight,
                             const at::Tensor& rows, const at::Tensor& targets, double temperature,
                             std::span<const int64_t> groups, at::Tensor& grad_hidden,
                             std::span<const at::Tensor> grad_weight) {
  reference::token_logprobs_backward(grad_logprobs, grad_entropy, forward, hidden, weight, rows, targets,
                                     temperature, groups, grad_hidden, grad_weight);
}

}  // namespace troupe::kernels
