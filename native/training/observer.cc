#include "training/observer.h"

#include <algorithm>
#include <utility>

namespace troupe::training {
namespace {

// The parameters of which this process's shard has a part, as ranges of it.
struct Parts {
  std::vector<kernels::FlatRange> ranges;
  std::vector<int64_t> parameters;
};

Parts parts_of(const ParameterSet& set) {
  Parts parts;
  const int64_t first = set.shard_begin(), last = first + set.shard_size();
  const std::vector<ParameterSpec>& parameters = set.layout().parameters;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterSpec& spec = parameters[i];
    const int64_t begin = std::max(spec.offset, first), end = std::min(spec.offset + spec.size, last);
    if (begin >= end) continue;
    parts.ranges.push_back({begin - first, end - begin, spec.decay});
    parts.parameters.push_back(static_cast<int64_t>(i));
  }
  return parts;
}

// `values`, [parts, width], as [parameters, width] with 0 where there is no part.
std::vector<double> by_parameter(const ParameterSet& set, const Parts& parts, size_t width,
                                 const std::vector<double>& values) {
  std::vector<double> result(set.layout().parameters.size() * width);
  for (size_t i = 0; i < parts.parameters.size(); ++i) {
    std::copy_n(values.begin() + i * width, width, result.begin() + parts.parameters[i] * width);
  }
  return result;
}

// The accumulators and then the extras; checks that they are alike.
std::vector<at::Tensor> all_vectors(const ParameterSet& parameters, const std::vector<at::Tensor>& extras) {
  const int64_t groups = parameters.gradient_groups();
  TORCH_CHECK(groups > 0, "no gradients were begun: there is nothing to observe");
  std::vector<at::Tensor> vectors;
  for (int64_t k = 0; k < groups; ++k) vectors.push_back(parameters.gradient_shard(k));
  for (const at::Tensor& extra : extras) {
    TORCH_CHECK(extra.sizes() == vectors[0].sizes() && extra.scalar_type() == vectors[0].scalar_type() &&
                    extra.is_contiguous(),
                "an extra vector must be like the gradients, ", vectors[0].scalar_type(), " ",
                vectors[0].sizes(), ", got ", extra.scalar_type(), " ", extra.sizes());
    vectors.push_back(extra);
  }
  return vectors;
}

void check_coefficients(std::span<const double> coefficients, size_t vectors) {
  TORCH_CHECK(coefficients.size() == vectors, "there are ", vectors, " gradients but ", coefficients.size(),
              " coefficients");
}

}  // namespace

std::vector<double> gram(const ParameterSet& parameters, const std::vector<at::Tensor>& extras) {
  const std::vector<at::Tensor> vectors = all_vectors(parameters, extras);
  const size_t width = vectors.size() * vectors.size();
  const Parts parts = parts_of(parameters);
  if (parts.ranges.empty()) return by_parameter(parameters, parts, width, {});
  return by_parameter(parameters, parts, width, kernels::kernels_for(vectors[0]).gram(vectors, parts.ranges));
}

at::Tensor total_gradient(ParameterSet& parameters, std::span<const double> coefficients,
                          const std::vector<at::Tensor>& extras) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> vectors = all_vectors(parameters, extras);
  const std::vector<double> ones(vectors.size(), 1.0);
  if (coefficients.empty()) coefficients = ones;
  check_coefficients(coefficients, vectors.size());
  at::Tensor total = vectors[0];
  if (parameters.sketch()) parameters.sketch()->add_vectors_to(parameters.gradient(0));
  if (coefficients[0] != 1) total.mul_(coefficients[0]);
  for (size_t k = 1; k < vectors.size(); ++k) total.add_(vectors[k], coefficients[k]);
  parameters.keep_first_gradient();
  return total;
}

void add_gradients(const ParameterSet& parameters, at::Tensor target, double decay,
                   std::span<const double> coefficients) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> vectors = all_vectors(parameters, {target});
  check_coefficients(coefficients, vectors.size() - 1);
  if (decay == 0)
    target.zero_();
  else if (decay != 1)
    target.mul_(decay);
  for (size_t k = 0; k + 1 < vectors.size(); ++k) {
    if (coefficients[k] != 0) target.add_(vectors[k], coefficients[k]);
  }
}

kernels::AdamWChange adamw_step(ParameterSet& parameters, AdamW& optimizer,
                                std::span<const double> coefficients, const std::vector<at::Tensor>& extras,
                                const StepOptions& options) {
  const std::vector<at::Tensor> vectors = all_vectors(parameters, extras);
  check_coefficients(coefficients, vectors.size());
  const Parts parts = parts_of(parameters);
  kernels::AdamWStep step;
  step.theta = parameters.master();
  step.copy = parameters.rounded_shard();
  step.clip = options.clip;
  step.measure = options.measure;
  step.keep_total = options.keep_total;
  // What throws behind it leaves another version, which may be changed in part (PolicyState.changing).
  step.before_change = [&] { parameters.count_version(); };
  kernels::AdamWChange change = optimizer.step_flat(vectors, coefficients, parts.ranges, std::move(step));
  if (options.measure) change.products = by_parameter(parameters, parts, vectors.size() + 2, change.products);
  return change;
}

}  // namespace troupe::training
