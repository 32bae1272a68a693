#include "training/observer.h"

#include <algorithm>

#include "memory/device_memory.h"

namespace troupe::training {
namespace {

std::vector<kernels::FlatRange> ranges_of(const ParameterLayout& layout) {
  std::vector<kernels::FlatRange> ranges;
  for (const ParameterSpec& spec : layout.parameters) ranges.push_back({spec.offset, spec.size, spec.decay});
  return ranges;
}

// The accumulators and then the extras; checks that they are alike.
std::vector<at::Tensor> all_vectors(const ParameterSet& parameters, const std::vector<at::Tensor>& extras) {
  const int64_t groups = parameters.gradient_groups();
  TORCH_CHECK(groups > 0, "no gradients were begun: there is nothing to observe");
  std::vector<at::Tensor> vectors;
  for (int64_t k = 0; k < groups; ++k) vectors.push_back(parameters.gradient(k));
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
  return kernels::kernels_for(vectors[0]).gram(vectors, ranges_of(parameters.layout()));
}

at::Tensor total_gradient(ParameterSet& parameters, std::span<const double> coefficients,
                          const std::vector<at::Tensor>& extras) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> vectors = all_vectors(parameters, extras);
  const std::vector<double> ones(vectors.size(), 1.0);
  if (coefficients.empty()) coefficients = ones;
  check_coefficients(coefficients, vectors.size());
  at::Tensor total = vectors[0];
  if (parameters.sketch()) parameters.sketch()->add_vectors_to(total);
  if (coefficients[0] != 1) total.mul_(coefficients[0]);
  for (size_t k = 1; k < vectors.size(); ++k) total.add_(vectors[k], coefficients[k]);
  const int64_t bytes = total.numel() * static_cast<int64_t>(total.element_size());
  parameters.keep_first_gradient(device_memory(total.device()).keepable() / std::max<int64_t>(1, bytes));
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

std::vector<double> optimizer_products(const ParameterSet& parameters, std::span<const double> coefficients,
                                       const std::vector<at::Tensor>& extras,
                                       const kernels::AdamWStep& step) {
  const std::vector<at::Tensor> vectors = all_vectors(parameters, extras);
  const ParameterLayout& layout = parameters.layout();
  return kernels::kernels_for(vectors[0])
      .optimizer_products(vectors, coefficients, parameters.master(), ranges_of(layout), layout.decay_size,
                          step);
}

}  // namespace troupe::training
