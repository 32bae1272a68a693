#include "memory/device_memory.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <optional>
#include <string>

#include "memory/caching_allocator.h"

namespace troupe {
namespace {

// The number that follows a word in a file of such lines.
std::optional<int64_t> number_after(const std::string& word, const std::string& path) {
  std::ifstream file(path);
  for (std::string key, line; file >> key && std::getline(file, line);) {
    if (key == word) return std::stoll(line);
  }
  return std::nullopt;
}

// Bytes of /proc/meminfo. "MemAvailable:": free memory and what the page cache can give back.
std::optional<int64_t> system_memory(const char* wanted) {
  const auto kilobytes = number_after(wanted, "/proc/meminfo");
  return kilobytes ? std::optional(*kilobytes * 1024) : std::nullopt;
}

// "max" (no limit) and missing files read as nothing.
std::optional<int64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

struct Allowance {
  std::optional<int64_t> limit, available;
};

void lower(std::optional<int64_t>& least, int64_t value) { least = std::min(least.value_or(value), value); }

// What a control group allows. Pages of files that nobody uses count as used there, and are given back when asked for.
void lower_to(const std::string& group, bool unified, Allowance& allowed) {
  const auto limit = number_in(group + (unified ? "/memory.max" : "/memory.limit_in_bytes")),
             used = number_in(group + (unified ? "/memory.current" : "/memory.usage_in_bytes")),
             files = number_after(unified ? "inactive_file" : "total_inactive_file", group + "/memory.stat");
  if (limit) lower(allowed.limit, *limit);
  if (limit && used)
    lower(allowed.available, std::clamp<int64_t>(*limit - *used + files.value_or(0), 0, *limit));
}

// The process's control group and those around it, of version 2 or of version 1's memory controller. In a container
// the mounted root may be its own group, whatever the path says.
Allowance control_groups() {
  Allowance allowed;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool unified = controllers == ",,";
    if (!unified && controllers.find(",memory,") == std::string::npos) continue;
    const std::string root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      while (!path.empty() && path.back() == '/') path.pop_back();
      lower_to(root + path, unified, allowed);
      if (path.find('/') == std::string::npos) break;
    }
  }
  return allowed;
}

class HostMemory final : public MemorySource {
 public:
  DeviceMemory now() override {
    constexpr int64_t kUnknown = int64_t{4} << 30;
    const MemoryStatistics tensors = memory_statistics();
    const int64_t available = system_memory("MemAvailable:").value_or(kUnknown);
    const int64_t total = system_memory("MemTotal:").value_or(kUnknown);
    const Allowance allowed = control_groups();
    return {.free = std::min(available, allowed.available.value_or(available)) + tensors.cached,
            .limit = std::min(total, allowed.limit.value_or(total)),
            .used = tensors.used,
            .cached = tensors.cached,
            .peak = tensors.peak,
            .shared = true};
  }
  void reset_peak() override { reset_peak_statistics(); }
  void release_cached() override { release_cached_memory(); }
  bool cuts_blocks() const override { return false; }
};

class GpuMemory final : public MemorySource {
 public:
  explicit GpuMemory(const c10::Device& device)
      : allocator_(at::getDeviceAllocator(device.type())),
        index_(static_cast<c10::DeviceIndex>(std::max<int>(device.index(), 0))) {}

  DeviceMemory now() override {
    const auto [free, total] = allocator_->getMemoryInfo(index_);
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = allocator_->getDeviceStats(index_);
    const int64_t used = stats.allocated_bytes[kAll].current;
    const int64_t cached = stats.reserved_bytes[kAll].current - used;
    return {.free = static_cast<int64_t>(free) + cached,
            .limit = static_cast<int64_t>(total),
            .used = used,
            .cached = cached,
            .peak = stats.allocated_bytes[kAll].peak};
  }
  void reset_peak() override { allocator_->resetPeakStats(index_); }
  void release_cached() override { allocator_->emptyCache(); }

 private:
  at::DeviceAllocator* allocator_;
  c10::DeviceIndex index_;
};

std::atomic<MemorySource*> instead_of_host{nullptr};

template <typename F>
auto with_source(const c10::Device& device, const F& f) {
  if (!device.is_cpu()) {
    GpuMemory gpu(device);
    return f(static_cast<MemorySource&>(gpu));
  }
  HostMemory host;
  MemorySource* const instead = instead_of_host;
  return f(instead ? *instead : static_cast<MemorySource&>(host));
}

}  // namespace

DeviceMemory device_memory(const c10::Device& device) {
  return with_source(device, [](MemorySource& source) { return source.now(); });
}

void reset_peak_memory(const c10::Device& device) {
  with_source(device, [](MemorySource& source) { source.reset_peak(); });
}

void release_cached_memory(const c10::Device& device) {
  with_source(device, [](MemorySource& source) { source.release_cached(); });
}

void release_uncut_memory(const c10::Device& device) {
  with_source(device, [](MemorySource& source) {
    if (source.cuts_blocks()) source.release_cached();
  });
}

void replace_host_memory(MemorySource* source) { instead_of_host = source; }

}  // namespace troupe
