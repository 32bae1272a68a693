// Token log-probabilities in plain ATen: chunks of entries through the output projection, each chunk's
// [entries, V] logits in fp32 or fp64, formed again in the backward pass.
#include "model/kernels_reference.h"

namespace troupe::kernels::reference {
namespace {

constexpr int64_t kChunk = 128;  // entries whose logits exist at a time

at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor scaled_logits(const at::Tensor& hidden, const at::Tensor& weight, double temperature) {
  const at::ScalarType type = wide_type(hidden);
  return at::mm(hidden.to(type), weight.to(type).t()).div_(temperature);
}

}  // namespace

TokenLogprobs token_logprobs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& rows,
                             const at::Tensor& targets, double temperature) {
  const int64_t entries = rows.size(0);
  const auto options = hidden.options().dtype(wide_type(hidden));
  TokenLogprobs result{at::empty({entries}, options), at::empty({entries}, options),
                       at::empty({entries}, options)};
  for (int64_t begin = 0; begin < entries; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, entries);
    const at::Tensor logits =
        scaled_logits(hidden.index_select(0, rows.slice(0, begin, end)), weight, temperature);
    const at::Tensor logsumexp = at::logsumexp(logits, -1);
    const at::Tensor target = logits.gather(1, targets.slice(0, begin, end).unsqueeze(1)).squeeze(1);
    const at::Tensor probabilities = logits.sub(logsumexp.unsqueeze(1)).exp_();
    result.logprobs.slice(0, begin, end).copy_(target.sub(logsumexp));
    result.entropy.slice(0, begin, end).copy_(logsumexp.sub(probabilities.mul_(logits).sum(-1)));
    result.logsumexp.slice(0, begin, end).copy_(logsumexp);
  }
  return result;
}

void token_logprobs_backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy,
                             const TokenLogprobs& forward, const at::Tensor& hidden, const at::Tensor& weight,
                             const at::Tensor& rows, const at::Tensor& targets, double temperature,
                             std::span<const int64_t> groups, at::Tensor& grad_hidden,
                             std::span<const at::Tensor> grad_weight, const LogitProjection& projection) {
  const at::Tensor wide_weight = weight.to(wide_type(hidden));
  const at::Tensor wide_grad_hidden = at::zeros(hidden.sizes(), wide_weight.options());
  const at::Tensor starts =
      at::searchsorted(rows, at::tensor(at::IntArrayRef(groups.data(), groups.size()), rows.options()))
          .to(at::kCPU);
  for (int64_t group = 0; group + 1 < starts.size(0); ++group) {
    const int64_t stop = starts[group + 1].item<int64_t>();
    for (int64_t begin = starts[group].item<int64_t>(); begin < stop; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, stop);
      const at::Tensor chunk_rows = rows.slice(0, begin, end);
      const at::Tensor chunk = hidden.index_select(0, chunk_rows);
      const at::Tensor log_p =
          scaled_logits(chunk, weight, temperature).sub_(forward.logsumexp.slice(0, begin, end).unsqueeze(1));
      const at::Tensor p = log_p.exp();
      const at::Tensor grad = grad_logprobs.slice(0, begin, end).to(p.scalar_type()).unsqueeze(1);
      // ∂ log p_t / ∂ l_j = [j = t] − p_j;  ∂ entropy / ∂ l_j = −p_j (log p_j + entropy)
      at::Tensor grad_logits = p.mul(grad.neg());
      if (grad_entropy.defined()) {
        const at::Tensor entropy = forward.entropy.slice(0, begin, end).unsqueeze(1);
        grad_logits.sub_(log_p.add_(entropy).mul_(p).mul_(grad_entropy.slice(0, begin, end).unsqueeze(1)));
      }
      grad_logits.scatter_add_(1, targets.slice(0, begin, end).unsqueeze(1), grad);
      grad_logits.div_(temperature);
      wide_grad_hidden.index_add_(0, chunk_rows, at::mm(grad_logits, wide_weight));
      if (projection.matrix.defined()) {
        at::Tensor out = projection.out;
        out.index_add_(0, chunk_rows, at::mm(grad_logits, projection.matrix.to(p.scalar_type())));
      }
      if (!grad_weight.empty()) grad_weight[group].add_(at::mm(grad_logits.t(), chunk.to(p.scalar_type())));
    }
  }
  grad_hidden.add_(wide_grad_hidden);
}

}  // namespace troupe::kernels::reference
