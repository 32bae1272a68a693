#include "kernels/waits.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <atomic>

#include "kernels/upload.h"

namespace troupe::kernels {
namespace {

std::atomic<int64_t> waits_so_far = 0;

}  // namespace

at::Tensor to_host(const at::Tensor& x) {
  ++waits_so_far;
  return x.to(at::kCPU);
}

HostCopy::HostCopy(const at::Tensor& x) : host_(x) {
  if (x.is_cpu()) return;
  host_ = at::empty(x.sizes(), x.options().device(at::kCPU).pinned_memory(true));
  host_.copy_(x, /*non_blocking=*/true);
  copied_.emplace(x.device().type());
  copied_->record(c10::impl::VirtualGuardImpl(x.device().type()).getStream(x.device()));
}

at::Tensor HostCopy::wait() {
  ++waits_so_far;
  if (copied_) copied_->synchronize();
  return host_;
}

void DeviceClock::mark() {
  marks_.emplace_back(device_.type(), c10::EventFlag::BACKEND_DEFAULT);  // the only one that has a time
  marks_.back().record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

std::vector<double> DeviceClock::wait() {
  ++waits_so_far;
  std::vector<double> times;
  if (!marks_.empty()) marks_.back().synchronize();
  for (size_t i = 1; i < marks_.size(); ++i) times.push_back(marks_[i - 1].elapsedTime(marks_[i]));
  return times;
}

at::Tensor to_device(const at::Tensor& x, const at::Device& device, at::ScalarType dtype) {
  ++waits_so_far;
  count_upload();
  return x.to(device, dtype);
}

void wait_for(const at::Device& device) {
  ++waits_so_far;
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device.type());
  guard.getStream(device).synchronize();
}

int64_t waits() { return waits_so_far; }

}  // namespace troupe::kernels
