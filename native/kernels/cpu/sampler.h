// Draws one token from a row of logits, see table.h.
#pragma once

#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

DrawnToken sample(c10::ScalarType accumulate, const void* logits, int64_t vocabulary,
                  const SampleOptions& options);

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
