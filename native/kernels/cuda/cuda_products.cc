// Products on the CUDA kernels: the output projection with its loss, weight gradients and adapters in training.
#include "kernels/cuda/cuda_kernels.h"

namespace troupe::kernels::cuda {
namespace {

// Entries whose logits exist at a time: enough to fill a GPU, 0.6 GB of float32 logits at 150,000 tokens.
constexpr int64_t kChunk = 1024;

// A gradient with at most this many rows or columns (an adapter's) has a kernel of its own, all groups in one
// launch.
constexpr int64_t kNarrow = 128;
// Counters of the largest gradients that are usual: one launch clears them for a whole pass.
constexpr int64_t kCounters = 4096;

bool narrow_gradient(Tensors accumulators, const at::Tensor& delta, const at::Tensor& x, Offsets groups,
                     const std::vector<bool>& fresh, at::Tensor& counters) {
  const auto bf16 = [](const at::Tensor& rows) {
    return rows.scalar_type() == at::kBFloat16 && rows.stride(1) == 1;
  };
  if (!bf16(delta) || !bf16(x) || std::min(delta.size(1), x.size(1)) > kNarrow) return false;
  const bool delta_is_wide = delta.size(1) >= x.size(1);
  const at::Tensor &wide = delta_is_wide ? delta : x, &narrow = delta_is_wide ? x : delta;
  WeightGradient args{wide.data_ptr(),
                      narrow.data_ptr(),
                      wide.stride(0),
                      narrow.stride(0),
                      static_cast<int32_t>(wide.size(1)),
                      static_cast<int32_t>(narrow.size(1)),
                      !delta_is_wide,
                      {},
                      nullptr,
                      nullptr};
  if (!weight_gradient_fits(args)) return false;
  for (size_t k = 0; k < accumulators.size(); ++k) {
    if (fresh[k]) accumulators[k].zero_();
  }
  const On on(delta);
  for_groups(groups, accumulators, [&](const Groups& some, size_t) {
    args.groups = some;
    at::Tensor partial;
    const int64_t counted = weight_gradient_counters(args);
    if (counted > 0) {
      if (!counters.defined() || counters.numel() < counted)
        counters = at::zeros({std::max(counted, kCounters)}, delta.options().dtype(at::kInt));
      partial = at::empty({weight_gradient_partial(args)}, delta.options().dtype(at::kFloat));
      args.partial = partial.data_ptr<float>();
      args.counters = reinterpret_cast<uint32_t*>(counters.data_ptr<int32_t>());
    }
    check(weight_gradient(args, on), "weight_gradient");
  });
  return true;
}

at::Tensor rows_at(const at::Tensor& x, const at::Tensor& rows) { return x.index_select(0, rows); }

// Whether each of so many columns is a term's.
bool covers(const LoraLinear& linear, int64_t columns) {
  for (const LoraTerm& term : linear.terms) columns -= term.b.size(0);
  return columns == 0;
}

}  // namespace

TokenLogprobs CudaKernels::do_token_logprobs(const at::Tensor& hidden, const at::Tensor& weight,
                                             const LossEntries& entries) const {
  const On on(hidden);
  const auto options = hidden.options().dtype(wide_type(hidden));
  TokenLogprobs result{at::empty({entries.count}, options), at::empty({entries.count}, options),
                       at::empty({entries.count}, options)};
  for (int64_t begin = 0; begin < entries.count; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, entries.count);
    const auto part = [&](const at::Tensor& x) { return x.slice(0, begin, end).data_ptr(); };
    const at::Tensor logits = wide_product(rows_at(hidden, entries.rows.slice(0, begin, end)), weight.t());
    check(cuda::token_logprobs(
              {type_of(logits), logits.data_ptr(), static_cast<const int64_t*>(part(entries.targets)),
               static_cast<const double*>(part(entries.temperatures)), part(result.logprobs),
               part(result.entropy), part(result.logsumexp), end - begin, weight.size(0)},
              on),
          "token_logprobs");
  }
  return result;
}

void CudaKernels::do_token_logprobs_backward(const TokenLogprobsGradient& gradient,
                                             const TokenLogprobs& forward, const at::Tensor& hidden,
                                             const at::Tensor& weight, const LossEntries& entries) const {
  const On on(hidden);
  const at::ScalarType wide = wide_type(hidden);
  const bool wide_result = gradient.grad_hidden.scalar_type() == wide;
  at::Tensor grad_hidden =
      wide_result ? gradient.grad_hidden : at::zeros(hidden.sizes(), hidden.options().dtype(wide));
  const at::Tensor grad_logprobs = gradient.logprobs.contiguous();
  const at::Tensor grad_entropy =
      gradient.entropy.defined() ? gradient.entropy.contiguous() : gradient.entropy;
  // out[row] += of each entry, rows ascending.
  const auto add = [&](at::Tensor& out, const at::Tensor& x, const at::Tensor& rows) {
    check(add_rows(type_of(wide), x.data_ptr(), rows.data_ptr<int64_t>(), x.size(0), x.size(1),
                   out.data_ptr(), out.stride(0), on),
          "add_rows");
  };
  const std::vector<int64_t> one{0, entries.count};
  const std::vector<int64_t> offsets =
      gradient.grad_weight.empty() ? one : entries.entry_offsets(gradient.groups);
  for (size_t group = 0; group + 1 < offsets.size(); ++group) {
    for (int64_t begin = offsets[group]; begin < offsets[group + 1]; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, offsets[group + 1]);
      const auto part = [&](const at::Tensor& x) { return x.slice(0, begin, end).data_ptr(); };
      const at::Tensor rows = entries.rows.slice(0, begin, end), chunk = rows_at(hidden, rows);
      const at::Tensor logits = wide_product(chunk, weight.t());
      at::Tensor grad_logits = at::empty(logits.sizes(), hidden.options());
      check(cuda::token_logprobs_backward(
                {type_of(hidden), logits.data_ptr(), static_cast<const int64_t*>(part(entries.targets)),
                 static_cast<const double*>(part(entries.temperatures)), part(forward.entropy),
                 part(forward.logsumexp), part(grad_logprobs),
                 grad_entropy.defined() ? part(grad_entropy) : nullptr, grad_logits.data_ptr(), end - begin,
                 weight.size(0)},
                on),
            "token_logprobs_backward");
      add(grad_hidden, wide_product(grad_logits, weight), rows);
      if (gradient.matrix.defined()) {
        at::Tensor projected = gradient.projected;
        add(projected, wide_product(grad_logits, gradient.matrix), rows);
      }
      if (gradient.grad_weight.empty()) continue;
      at::Tensor accumulator = gradient.grad_weight[group];
      const bool first = gradient.fresh[group] && begin == offsets[group];
      add_product(accumulator, grad_logits.t(), chunk, first);
    }
  }
  if (wide_result) return;
  at::Tensor result = gradient.grad_hidden;
  result.add_(grad_hidden);
}

void CudaKernels::do_accumulate_weight_gradient(Tensors accumulators, const at::Tensor& delta,
                                                const at::Tensor& x, Offsets groups,
                                                const std::vector<bool>& fresh, at::Tensor& counters) const {
  if (narrow_gradient(accumulators, delta, x, groups, fresh, counters)) return;
  for (size_t k = 0; k < accumulators.size(); ++k) {
    if (groups[k] == groups[k + 1]) continue;
    at::Tensor accumulator = accumulators[k];
    add_product(accumulator, delta.slice(0, groups[k], groups[k + 1]).t(),
                x.slice(0, groups[k], groups[k + 1]), fresh[k]);
  }
}

at::Tensor CudaKernels::project(const at::Tensor& x, const LoraLinear& linear) const {
  const at::Tensor a = linear.fused_a();
  // beta 0: what the empty tensor holds is not read.
  return at::empty({x.size(0), a.size(0)}, x.options()).addmm_(x, a.t(), 0, linear.scale);
}

// The adapter's part first, then the base's product added to it, which reads y while it computes. The adapter's product
// computes next to nothing: behind the base's it would wait for y to be read and written (docs/cuda-measurements.md). The
// base's part, the larger one, is rounded with the sum only.
AdaptedLinear CudaKernels::do_adapted_linear(const at::Tensor& x, const at::Tensor& weight,
                                             const at::Tensor& bias, const LoraLinear& linear) const {
  // Columns of no term would have to be cleared first, and ATen has no product that adds a bias and a matrix.
  if (bias.defined() || !covers(linear, weight.size(0)))
    return ReferenceKernels::do_adapted_linear(x, weight, bias, linear);
  AdaptedLinear result{at::empty({x.size(0), weight.size(0)}, x.options()), project(x, linear)};
  // beta 0: what the empty tensor holds is not read.
  add_terms(result.y, result.projected, linear, 0);
  result.y.addmm_(x, weight.t());
  return result;
}

at::Tensor CudaKernels::do_adapted_linear_backward(const at::Tensor& delta, const at::Tensor& projected_grad,
                                                   const at::Tensor& weight, const LoraLinear& linear) const {
  return at::mm(projected_grad, linear.fused_a()).addmm_(delta, weight);
}

at::Tensor CudaKernels::do_logits(const at::Tensor& hidden, const PackedLinear& head) const {
  return wide_product(hidden, head.weight.t());
}

}  // namespace troupe::kernels::cuda
