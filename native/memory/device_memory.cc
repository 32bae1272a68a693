#include "memory/device_memory.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

#include "memory/caching_allocator.h"

namespace troupe {
namespace {

// A line of /proc/meminfo in bytes. "MemAvailable:": free memory and what the page cache can give back.
std::optional<int64_t> system_memory(const char* wanted) {
  std::ifstream file("/proc/meminfo");
  for (std::string key, line; file >> key && std::getline(file, line);) {
    if (key == wanted) return std::stoll(line) * 1024;
  }
  return std::nullopt;
}

// "max" (no limit) and missing files read as nothing.
std::optional<int64_t> number_in(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

std::optional<int64_t> control_group_available() {
  const auto limit = number_in("/sys/fs/cgroup/memory.max"),
             used = number_in("/sys/fs/cgroup/memory.current");
  if (!limit || !used) return std::nullopt;
  return std::max<int64_t>(*limit - *used, 0);
}

DeviceMemory host_memory() {
  constexpr int64_t kUnknown = int64_t{4} << 30;
  const MemoryStatistics tensors = memory_statistics();
  const int64_t available = system_memory("MemAvailable:").value_or(kUnknown);
  const int64_t total = system_memory("MemTotal:").value_or(kUnknown);
  return {.free = std::min(available, control_group_available().value_or(available)) + tensors.cached,
          .limit = std::min(total, number_in("/sys/fs/cgroup/memory.max").value_or(total)),
          .used = tensors.used,
          .cached = tensors.cached,
          .peak = tensors.peak,
          .shared = true};
}

}  // namespace

DeviceMemory device_memory(const c10::Device& device) {
  if (device.is_cpu()) return host_memory();
  at::DeviceAllocator* const allocator = at::getDeviceAllocator(device.type());
  const auto index = static_cast<c10::DeviceIndex>(std::max<int>(device.index(), 0));
  const auto [free, total] = allocator->getMemoryInfo(index);
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto stats = allocator->getDeviceStats(index);
  const int64_t used = stats.allocated_bytes[kAll].current;
  const int64_t cached = stats.reserved_bytes[kAll].current - used;
  return {.free = static_cast<int64_t>(free) + cached,
          .limit = static_cast<int64_t>(total),
          .used = used,
          .cached = cached,
          .peak = stats.allocated_bytes[kAll].peak};
}

void reset_peak_memory(const c10::Device& device) {
  if (device.is_cpu()) return reset_peak_statistics();
  at::getDeviceAllocator(device.type())
      ->resetPeakStats(static_cast<c10::DeviceIndex>(std::max<int>(device.index(), 0)));
}

void release_cached_memory(const c10::Device& device) {
  if (device.is_cpu()) return release_cached_memory();
  at::getDeviceAllocator(device.type())->emptyCache();
}

}  // namespace troupe
