// Passes over accumulators on the CPU.
#include "kernels/cpu_kernels.h"

namespace troupe::kernels {
namespace {

std::vector<const void*> read_pointers(Tensors vectors) {
  std::vector<const void*> result;
  for (const at::Tensor& vector : vectors) result.push_back(vector.const_data_ptr());
  return result;
}

std::vector<cpu::Range> ranges_of(std::span<const FlatRange> ranges) {
  std::vector<cpu::Range> result;
  for (const FlatRange& range : ranges) result.push_back({range.begin, range.size, range.decays});
  return result;
}

}  // namespace

std::vector<double> CpuKernels::do_gram(Tensors vectors, std::span<const FlatRange> ranges) const {
  std::vector<double> result(ranges.size() * vectors.size() * vectors.size());
  table_.gram(vectors[0].scalar_type(), read_pointers(vectors), ranges_of(ranges), result.data());
  return result;
}

std::vector<double> CpuKernels::do_optimizer_products(Tensors vectors, std::span<const double> coefficients,
                                                      std::span<const FlatRange> ranges,
                                                      const AdamWStep& step) const {
  cpu::AdamW adamw{step.learning_rate, step.beta1, step.beta2, step.eps, step.weight_decay,
                   step.clip,          step.step,  {},         {},       step.decay_size};
  for (size_t part = 0; part < step.averages.size(); ++part) {
    adamw.averages[part] = step.averages[part].const_data_ptr();
    adamw.squares[part] = step.squares[part].const_data_ptr();
  }
  std::vector<double> result(ranges.size() * (vectors.size() + 2));
  table_.step_products(step.theta.scalar_type(), read_pointers(vectors), coefficients,
                       step.theta.const_data_ptr(), ranges_of(ranges), adamw, result.data());
  return result;
}

double CpuKernels::do_squared_norm(Tensors vectors) const {
  double sum = 0;
  for (const at::Tensor& vector : vectors) {
    if (vector.scalar_type() != wide_type(vector)) {  // bf16 or fp16
      sum += ReferenceKernels::do_squared_norm({&vector, 1});
      continue;
    }
    const at::Tensor flat = vector.contiguous();
    sum += table_.squared_norm(flat.scalar_type(), flat.const_data_ptr(), flat.numel());
  }
  return sum;
}

}  // namespace troupe::kernels
