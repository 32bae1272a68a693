// Adapters' part of a product for few rows, see table.h.
#pragma once

#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

void add_adapters(c10::ScalarType dtype, std::span<const AdapterRows> parts, int64_t inputs, int64_t outputs,
                  const void* x, void* y);

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
