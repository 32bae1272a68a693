// Where the host waits for a device. Nothing outside waits.cc copies to the host or waits in any other way (a test reads
// the sources), so that tests can count how often a pass does: on the CPU too, where it costs nothing.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/Event.h>

#include <optional>
#include <vector>

namespace troupe::kernels {

// The values in the host's memory.
at::Tensor to_host(const at::Tensor& x);
// A copy to the host's memory that goes on while the host does something else: of what the device has been told so far.
class HostCopy {
 public:
  explicit HostCopy(const at::Tensor& x);
  // The values, once they are there: the one wait.
  at::Tensor wait();

 private:
  at::Tensor host_;
  std::optional<c10::Event> copied_;  // none: they are the host's
};
// The times between marks on a device's current stream.
class DeviceClock {
 public:
  explicit DeviceClock(const at::Device& device) : device_(device) {}
  void mark();
  // Milliseconds from each mark to the next, once the device has come to the last: one wait.
  std::vector<double> wait();

 private:
  at::Device device_;
  std::vector<c10::Event> marks_;
};
// A copy there of values in memory that is not pinned, as another type.
at::Tensor to_device(const at::Tensor& x, const at::Device& device, at::ScalarType dtype);
// Until the device has done what it was told.
void wait_for(const at::Device& device);
// How often the host has waited since the process began.
int64_t waits();

}  // namespace troupe::kernels
