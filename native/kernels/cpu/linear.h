#pragma once

#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

#ifdef CPU_CAPABILITY_AVX2
void float_linear(int64_t rows, int64_t inputs, int64_t outputs, const float* x, const float* panels,
                  const float* bias, float* y);
#endif

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
