// Accumulators and the optimizer in the reference: parts of the flat vectors at a time, so that fp64 copies
// stay small, and one copy back.
#include <ATen/ops/_fused_adamw.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/reference/reference.h"

namespace troupe::kernels {
namespace {

constexpr int64_t kPart = int64_t{1} << 22;  // elements that are widened at a time

// f(range index, first element, count)
template <typename F>
void for_parts(std::span<const FlatRange> ranges, const F& f) {
  for (size_t r = 0; r < ranges.size(); ++r) {
    for (int64_t done = 0; done < ranges[r].size; done += kPart) {
      f(static_cast<int64_t>(r), ranges[r].begin + done, std::min(kPart, ranges[r].size - done));
    }
  }
}

// A copy, of float64 too: what is made of it is made in place.
at::Tensor widened(const at::Tensor& flat, int64_t begin, int64_t count) {
  return flat.narrow(0, begin, count).to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
}

at::Tensor stacked(Tensors vectors, int64_t begin, int64_t count) {
  std::vector<at::Tensor> rows;
  for (const at::Tensor& vector : vectors) rows.push_back(vector.narrow(0, begin, count));
  return at::stack(rows).to(at::kDouble);
}

std::vector<double> on_host(const at::Tensor& results) {
  const at::Tensor host = to_host(results).contiguous();
  const double* data = host.const_data_ptr<double>();
  return {data, data + host.numel()};
}

}  // namespace

std::vector<double> ReferenceKernels::do_gram(Tensors vectors, std::span<const FlatRange> ranges) const {
  const auto size = static_cast<int64_t>(vectors.size());
  const at::Tensor sums =
      at::zeros({static_cast<int64_t>(ranges.size()), size, size}, vectors[0].options().dtype(at::kDouble));
  for_parts(ranges, [&](int64_t range, int64_t begin, int64_t count) {
    const at::Tensor all = stacked(vectors, begin, count);
    sums.select(0, range).addmm_(all, all.t());
  });
  return on_host(sums);
}

std::vector<double> ReferenceKernels::do_optimizer_products(Tensors vectors,
                                                            std::span<const double> coefficients,
                                                            std::span<const FlatRange> ranges,
                                                            const AdamWStep& step) const {
  const auto size = static_cast<int64_t>(vectors.size());
  const at::Tensor sums =
      at::zeros({static_cast<int64_t>(ranges.size()), size + 2}, step.theta.options().dtype(at::kDouble));
  const double correction1 = 1 - std::pow(step.beta1, static_cast<double>(step.step));
  const double correction2 = 1 - std::pow(step.beta2, static_cast<double>(step.step));
  for_parts(ranges, [&](int64_t range, int64_t begin, int64_t count) {
    const bool decays = ranges[range].decays;
    const int64_t origin = decays ? 0 : step.decay_size;
    const auto moment = [&](const std::vector<at::Tensor>& parts) {
      return widened(parts[decays ? 0 : 1], begin - origin, count);
    };
    const at::Tensor all = stacked(vectors, begin, count);  // [N, count]
    at::Tensor g = at::zeros({count}, sums.options());
    for (int64_t j = 0; j < size; ++j) g.add_(all[j], coefficients[j]);
    g.mul_(step.clip);
    const at::Tensor v =
        moment(step.squares).mul_(step.beta2).add_(g.square(), 1 - step.beta2).div_(correction2);
    const at::Tensor scale =
        v.sqrt().add_(step.eps).mul_(correction1).reciprocal_().mul_(-step.learning_rate);
    // Where ε is 0 and there is no gradient, nothing moves: 0 · ∞ would say otherwise.
    scale.masked_fill_(at::isfinite(scale).logical_not(), 0);
    const at::Tensor momentum = moment(step.averages).mul_(scale).mul_(step.beta1);
    const at::Tensor decay =
        widened(step.theta, begin, count).mul_(decays ? -step.learning_rate * step.weight_decay : 0.0);
    const at::Tensor change = scale.mul(g).mul_(1 - step.beta1).add_(momentum).add_(decay);
    const at::Tensor row = sums.select(0, range);
    const at::Tensor w = scale.mul(change).mul_((1 - step.beta1) * step.clip);
    for (int64_t j = 0; j < size; ++j) row[j].add_(all[j].dot(w), coefficients[j]);
    row[size].add_(momentum.dot(change));
    row[size + 1].add_(decay.dot(change));
  });
  return on_host(sums);
}

AdamWChange ReferenceKernels::do_adamw_step(Tensors vectors, std::span<const double> coefficients,
                                            std::span<const FlatRange> ranges, const AdamWStep& step) const {
  AdamWChange change;
  if (step.measure) change.products = do_optimizer_products(vectors, coefficients, ranges, step);
  at::Tensor total = vectors[0];
  if (coefficients[0] != 1) total.mul_(coefficients[0]);
  for (size_t j = 1; j < vectors.size(); ++j) total.add_(vectors[j], coefficients[j]);
  if (step.measure) change.squared_norm = do_squared_norm({&total, 1});
  at::Tensor gradient = total;
  if (step.clip != 1) gradient = step.keep_total ? total.mul(step.clip) : total.mul_(step.clip);
  const int64_t begins[] = {0, step.decay_size, step.theta.numel()};
  const at::Tensor steps = at::full({}, static_cast<double>(step.step), total.options().dtype(at::kFloat));
  // From here on nothing is allocated: theta and the moments change, and no error leaves them changed by half.
  step.before_change();
  for (size_t part = 0; part < 2; ++part) {
    const auto of = [&](const at::Tensor& flat) {
      return flat.narrow(0, begins[part], begins[part + 1] - begins[part]);
    };
    do_adamw({{of(step.theta)}, {of(gradient)}, {step.averages[part]}, {step.squares[part]}, {steps}},
             step.learning_rate, step.beta1, step.beta2, step.eps, part == 0 ? step.weight_decay : 0);
  }
  if (step.copy.defined()) step.copy.copy_(step.theta);
  return change;
}

double ReferenceKernels::do_squared_norm(Tensors vectors) const {
  at::Tensor sum = at::zeros({}, vectors[0].options().dtype(at::kDouble));
  for (const at::Tensor& vector : vectors) {
    const at::Tensor flat = vector.reshape({-1});
    for (int64_t begin = 0; begin < flat.numel(); begin += kPart) {
      const at::Tensor part = widened(flat, begin, std::min(kPart, flat.numel() - begin));
      sum.add_(part.dot(part));
    }
  }
  return *to_host(sum).const_data_ptr<double>();
}

void ReferenceKernels::do_adamw(const AdamWTensors& tensors, double learning_rate, double beta1, double beta2,
                                double eps, double weight_decay) const {
  // Where ε is 0 and there was no gradient yet, 0 / 0 would be the change: the smallest number leaves it at 0.
  const double least = tensors.parameters[0].scalar_type() == at::kDouble ? std::numeric_limits<double>::min()
                                                                          : std::numeric_limits<float>::min();
  at::_fused_adamw_(tensors.parameters, tensors.gradients, tensors.averages, tensors.squares, {},
                    tensors.steps, learning_rate, beta1, beta2, weight_decay, std::max(eps, least),
                    /*amsgrad=*/false, /*maximize=*/false);
}

}  // namespace troupe::kernels
