// How much memory the machine has left, as far as it says so.
#pragma once

#include <cstdint>

namespace troupe::training {

// Bytes that can be allocated without swapping: the least of what the kernel calls available and what the
// control group still allows; on machines that say neither, 4 GiB.
int64_t available_memory();

}  // namespace troupe::training
