// How much memory the machine has left, as far as it says so.
#pragma once

#include <cstdint>

namespace troupe::training {

// Bytes that can be allocated without swapping: the least of what the kernel calls available and what the
// control group still allows; on machines that say neither, 4 GiB.
int64_t available_memory();

// Bytes that the process may ever use: the machine's memory or, if less, what its control group allows. The
// same in every run on one machine.
int64_t total_memory();

}  // namespace troupe::training
