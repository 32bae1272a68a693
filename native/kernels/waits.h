// Where the host waits for a device. Nothing outside waits.cc copies to the host or waits in any other way (a test reads
// the sources), so that tests can count how often a pass does: on the CPU too, where it costs nothing.
#pragma once

#include <ATen/ATen.h>

namespace troupe::kernels {

// The values in the host's memory.
at::Tensor to_host(const at::Tensor& x);
// A copy there of values in memory that is not pinned, as another type.
at::Tensor to_device(const at::Tensor& x, const at::Device& device, at::ScalarType dtype);
// Until the device has done what it was told.
void wait_for(const at::Device& device);
// How often the host has waited since the process began.
int64_t waits();

}  // namespace troupe::kernels
