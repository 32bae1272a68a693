// Linear layers of few rows in float32, see FloatPanels in table.h.
#pragma once

#include <ATen/cpu/vec/vec.h>

#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

#if defined(CPU_CAPABILITY_AVX2) || defined(CPU_CAPABILITY_AVX512)

// Two vectors.
constexpr int64_t kPanelColumns = 2 * at::vec::Vectorized<float>::size();

void float_linear(int64_t rows, int64_t inputs, int64_t outputs, const float* x, const float* panels,
                  const float* bias, float* y);

#endif

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
