// Weight gradients, see table.h.
#pragma once

#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

void weight_gradient(int64_t outputs, int64_t inputs, View delta, View x,
                     std::span<const WeightGradientGroup> groups);

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
