#include "kernels/upload.h"

#include <atomic>
#include <cstring>

namespace troupe::kernels {
namespace {

std::atomic<int64_t> uploads_so_far = 0;

}  // namespace

void count_upload() { ++uploads_so_far; }
int64_t uploads() { return uploads_so_far; }

void Upload::add(const void* values, int64_t count, at::ScalarType dtype, at::Tensor& into) {
  constexpr size_t kAlignment = 16;
  bytes_.resize((bytes_.size() + kAlignment - 1) / kAlignment * kAlignment);
  const auto begin = static_cast<int64_t>(bytes_.size());
  const int64_t bytes = count * static_cast<int64_t>(c10::elementSize(dtype));
  const auto* from = static_cast<const uint8_t*>(values);
  bytes_.insert(bytes_.end(), from, from + bytes);
  parts_.push_back({begin, bytes, dtype, &into});
}

at::Tensor Upload::send(const at::Device& device, at::Tensor buffer) {
  const bool elsewhere = !device.is_cpu();
  const auto options = at::TensorOptions().dtype(at::kByte).pinned_memory(elsewhere);
  at::Tensor host = at::empty({static_cast<int64_t>(bytes_.size())}, options);
  if (!bytes_.empty()) std::memcpy(host.mutable_data_ptr(), bytes_.data(), bytes_.size());
  count_upload();
  if (!buffer.defined()) {
    buffer = elsewhere ? host.to(device, at::kByte, /*non_blocking=*/true) : host;
  } else {
    buffer.copy_(host, /*non_blocking=*/true);  // throws where the lengths differ
  }
  for (const Part& part : parts_) {
    *part.into = buffer.narrow(0, part.begin, part.bytes).view(part.dtype);
  }
  parts_.clear();
  bytes_.clear();
  return buffer;
}

}  // namespace troupe::kernels
