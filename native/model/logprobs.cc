// Token log-probabilities of kernels.h: checks, finds the distinct rows and calls the CPU kernels or the
// reference.
#include "model/dispatch.h"
#include "model/kernels.h"
#include "model/kernels_reference.h"

namespace troupe::kernels {
namespace {

// Entries of one row are neighbours: a row goes through the projection once.
struct DistinctRows {
  std::vector<int64_t> rows, starts;
  at::Tensor targets;
};

DistinctRows distinct_rows(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& rows,
                           const at::Tensor& targets) {
  TORCH_CHECK(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) &&
                  hidden.scalar_type() == weight.scalar_type(),
              "log-probabilities need hidden [T, H] and weight [V, H] of one dtype, got ", hidden.sizes(),
              " and ", weight.sizes());
  TORCH_CHECK(rows.scalar_type() == at::kLong && targets.scalar_type() == at::kLong &&
                  rows.sizes() == targets.sizes(),
              "rows and targets must be int64 and of one length");
  DistinctRows result;
  result.targets = targets.contiguous();
  const at::Tensor plain = rows.contiguous();
  const int64_t *row = plain.data_ptr<int64_t>(), *target = result.targets.data_ptr<int64_t>();
  for (int64_t i = 0; i < rows.size(0); ++i) {
    TORCH_CHECK(row[i] >= 0 && row[i] < hidden.size(0), "entry ", i, ": row ", row[i], " of ",
                hidden.size(0));
    TORCH_CHECK(target[i] >= 0 && target[i] < weight.size(0), "entry ", i, ": token ", target[i],
                " is outside the vocabulary of ", weight.size(0));
    if (i == 0 || row[i] != row[i - 1]) {
      TORCH_CHECK(i == 0 || row[i] > row[i - 1], "rows must ascend: ", row[i], " after ", row[i - 1]);
      result.rows.push_back(row[i]);
      result.starts.push_back(i);
    }
  }
  result.starts.push_back(rows.size(0));
  return result;
}

cpu::LogprobRows view_of(const DistinctRows& distinct, const at::Tensor& hidden) {
  return {static_cast<int64_t>(distinct.rows.size()),
          hidden.data_ptr(),
          hidden.stride(0),
          distinct.rows.data(),
          distinct.starts.data(),
          distinct.targets.data_ptr<int64_t>()};
}

}  // namespace

TokenLogprobs token_logprobs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& rows,
                             const at::Tensor& targets, double temperature) {
  TORCH_CHECK(temperature > 0, "the temperature of log-probabilities must be positive, not ", temperature);
  const cpu::Table* table = cpu_kernels(hidden);
  if (!table) return reference::token_logprobs(hidden, weight, rows, targets, temperature);
  const DistinctRows distinct = distinct_rows(hidden, weight, rows, targets);
  const auto options = hidden.options().dtype(accumulate_type(hidden));
  TokenLogprobs result{at::empty(rows.sizes(), options), at::empty(rows.sizes(), options),
                       at::empty(rows.sizes(), options)};
  if (distinct.rows.empty()) return result;
  const at::Tensor plain = rows_contiguous(hidden), plain_weight = weight.contiguous();
  table->token_logprobs(
      {hidden.scalar_type(), weight.size(0), weight.size(1), plain_weight.data_ptr(), temperature},
      view_of(distinct, plain), result.logprobs.data_ptr(), result.entropy.data_ptr(),
      result.logsumexp.data_ptr());
  return result;
}

void token_logprobs_backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy,
                             const TokenLogprobs& forward, const at::Tensor& hidden, const at::Tensor& weight,
                             const at::Tensor& rows, const at::Tensor& targets, double temperature,
                             std::span<const int64_t> groups, at::Tensor& grad_hidden,
                             std::span<const at::Tensor> grad_weight, const LogitProjection& projection) {
  const cpu::Table* table = cpu_kernels(hidden);
  const at::ScalarType wide = accumulate_type(hidden);
  if (!table || grad_hidden.stride(-1) != 1) {
    return reference::token_logprobs_backward(grad_logprobs, grad_entropy, forward, hidden, weight, rows,
                                              targets, temperature, groups, grad_hidden, grad_weight,
                                              projection);
  }
  const DistinctRows distinct = distinct_rows(hidden, weight, rows, targets);
  TORCH_CHECK(grad_hidden.sizes() == hidden.sizes() &&
                  (grad_hidden.scalar_type() == wide || grad_hidden.scalar_type() == hidden.scalar_type()),
              "the hidden states' gradient must be [T, H] in ", wide, " or their own dtype");
  TORCH_CHECK(groups.size() >= 2 && groups.front() == 0 && groups.back() == hidden.size(0),
              "groups must be row offsets from 0 to ", hidden.size(0));
  TORCH_CHECK(grad_weight.empty() || grad_weight.size() + 1 == groups.size(), "expected ", groups.size() - 1,
              " weight gradients, got ", grad_weight.size());
  std::vector<int64_t> boundaries;
  for (const int64_t row : groups) {
    boundaries.push_back(std::lower_bound(distinct.rows.begin(), distinct.rows.end(), row) -
                         distinct.rows.begin());
  }
  std::vector<void*> weights;
  for (const at::Tensor& accumulator : grad_weight) {
    TORCH_CHECK(accumulator.scalar_type() == wide && accumulator.is_contiguous() &&
                    accumulator.sizes() == weight.sizes(),
                "a weight gradient must be contiguous ", wide, " ", weight.sizes());
    weights.push_back(accumulator.data_ptr());
  }
  const at::Tensor& matrix = projection.matrix;
  TORCH_CHECK(!matrix.defined() ||
                  (matrix.dim() == 2 && matrix.size(0) == weight.size(0) && matrix.is_contiguous() &&
                   matrix.scalar_type() == weight.scalar_type() && projection.out.is_contiguous() &&
                   projection.out.scalar_type() == wide && projection.out.size(0) == hidden.size(0) &&
                   projection.out.size(1) == matrix.size(1)),
              "the projection of the logits' gradient must be contiguous, [V, S] ", weight.scalar_type(),
              " into [T, S] ", wide);
  if (distinct.rows.empty()) return;
  const at::Tensor plain = rows_contiguous(hidden), plain_weight = weight.contiguous(),
                   plain_grad = grad_logprobs.to(wide).contiguous(), entropy = forward.entropy.contiguous(),
                   logsumexp = forward.logsumexp.contiguous();
  const at::Tensor plain_entropy = grad_entropy.defined() ? grad_entropy.to(wide).contiguous() : grad_entropy;
  table->token_logprobs_backward(
      {hidden.scalar_type(), weight.size(0), weight.size(1), plain_weight.data_ptr(), temperature},
      view_of(distinct, plain),
      {plain_grad.data_ptr(), plain_entropy.defined() ? plain_entropy.data_ptr() : nullptr,
       entropy.data_ptr(), logsumexp.data_ptr(), boundaries, grad_hidden.data_ptr(), grad_hidden.stride(0),
       grad_hidden.scalar_type() == wide, weights, matrix.defined() ? matrix.const_data_ptr() : nullptr,
       matrix.defined() ? matrix.size(1) : 0, matrix.defined() ? projection.out.data_ptr() : nullptr});
}

}  // namespace troupe::kernels
