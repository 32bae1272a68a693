// Passes over flat vectors with sums in fp64, see table.h.
#pragma once

#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

void gram(c10::ScalarType dtype, std::span<const void* const> vectors, std::span<const Range> ranges,
          double* out);
void step_products(c10::ScalarType dtype, std::span<const void* const> vectors,
                   std::span<const double> coefficients, const void* theta, std::span<const Range> ranges,
                   const AdamW& step, double* out);
double squared_norm(c10::ScalarType dtype, const void* vector, int64_t size);

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
