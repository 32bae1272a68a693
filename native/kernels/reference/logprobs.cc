// Token log-probabilities in plain ATen: chunks of entries through the output projection, each chunk's
// [entries, V] logits in fp32 or fp64, formed again in the backward pass.
#include "kernels/reference/reference.h"

namespace troupe::kernels {
namespace {

constexpr int64_t kChunk = 128;  // entries whose logits exist at a time

at::Tensor scaled_logits(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& temperatures) {
  const at::ScalarType type = wide_type(hidden);
  return at::mm(hidden.to(type), weight.to(type).t()).div_(temperatures.unsqueeze(1));
}

}  // namespace

TokenLogprobs ReferenceKernels::do_token_logprobs(const at::Tensor& hidden, const at::Tensor& weight,
                                                  const LossEntries& entries) const {
  const auto options = hidden.options().dtype(wide_type(hidden));
  TokenLogprobs result{at::empty({entries.count}, options), at::empty({entries.count}, options),
                       at::empty({entries.count}, options)};
  for (int64_t begin = 0; begin < entries.count; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, entries.count);
    const at::Tensor logits = scaled_logits(hidden.index_select(0, entries.rows.slice(0, begin, end)), weight,
                                            entries.temperatures.slice(0, begin, end));
    const at::Tensor logsumexp = at::logsumexp(logits, -1);
    const at::Tensor target = logits.gather(1, entries.targets.slice(0, begin, end).unsqueeze(1)).squeeze(1);
    const at::Tensor probabilities = logits.sub(logsumexp.unsqueeze(1)).exp_();
    result.logprobs.slice(0, begin, end).copy_(target.sub(logsumexp));
    result.entropy.slice(0, begin, end).copy_(logsumexp.sub(probabilities.mul_(logits).sum(-1)));
    result.logsumexp.slice(0, begin, end).copy_(logsumexp);
  }
  return result;
}

void ReferenceKernels::do_token_logprobs_backward(const TokenLogprobsGradient& gradient,
                                                  const TokenLogprobs& forward, const at::Tensor& hidden,
                                                  const at::Tensor& weight,
                                                  const LossEntries& entries) const {
  const at::Tensor wide_weight = weight.to(wide_type(hidden));
  const at::Tensor wide_grad_hidden = at::zeros(hidden.sizes(), wide_weight.options());
  const std::vector<int64_t> offsets = entries.entry_offsets(gradient.groups);
  for (size_t group = 0; group + 1 < offsets.size(); ++group) {
    const int64_t stop = offsets[group + 1];
    for (int64_t begin = offsets[group]; begin < stop; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, stop);
      const at::Tensor rows = entries.rows.slice(0, begin, end);
      const at::Tensor temperatures = entries.temperatures.slice(0, begin, end);
      const at::Tensor chunk = hidden.index_select(0, rows);
      const at::Tensor log_p = scaled_logits(chunk, weight, temperatures)
                                   .sub_(forward.logsumexp.slice(0, begin, end).unsqueeze(1));
      const at::Tensor p = log_p.exp();
      const at::Tensor grad = gradient.logprobs.slice(0, begin, end).unsqueeze(1);
      // ∂ log p_t / ∂ l_j = [j = t] − p_j;  ∂ entropy / ∂ l_j = −p_j (log p_j + entropy)
      at::Tensor grad_logits = p.mul(grad.neg());
      if (gradient.entropy.defined()) {
        const at::Tensor entropy = forward.entropy.slice(0, begin, end).unsqueeze(1);
        grad_logits.sub_(
            log_p.add_(entropy).mul_(p).mul_(gradient.entropy.slice(0, begin, end).unsqueeze(1)));
      }
      grad_logits.scatter_add_(1, entries.targets.slice(0, begin, end).unsqueeze(1), grad);
      grad_logits.div_(temperatures.unsqueeze(1));
      wide_grad_hidden.index_add_(0, rows, at::mm(grad_logits, wide_weight));
      if (gradient.matrix.defined()) {
        at::Tensor projected = gradient.projected;
        projected.index_add_(0, rows, at::mm(grad_logits, gradient.matrix.to(p.scalar_type())));
      }
      if (gradient.grad_weight.empty()) continue;
      at::Tensor accumulator = gradient.grad_weight[group];
      accumulator.addmm_(grad_logits.t(), chunk.to(p.scalar_type()));
    }
  }
  at::Tensor grad_hidden = gradient.grad_hidden;
  grad_hidden.add_(wide_grad_hidden);
}

}  // namespace troupe::kernels
