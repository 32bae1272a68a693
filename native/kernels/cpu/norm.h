// RMS norm, see table.h.
#pragma once

#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

void rms_norm(const NormShape& shape, View x, View residual, const void* weight, void* y, void* rstd,
              double eps);
void rms_norm_backward(const NormShape& shape, View grad, View x, const void* weight, const void* rstd,
                       View add, View out, std::span<const int64_t> groups,
                       std::span<void* const> grad_weight);

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
