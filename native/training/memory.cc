#include "training/memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

#include "memory/caching_allocator.h"

namespace troupe::training {
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

}  // namespace

int64_t available_memory() {
  const int64_t system = system_memory("MemAvailable:").value_or(int64_t{4} << 30);
  return std::min(system, control_group_available().value_or(system)) + memory_statistics().cached;
}

int64_t total_memory() {
  const int64_t system = system_memory("MemTotal:").value_or(int64_t{4} << 30);
  return std::min(system, number_in("/sys/fs/cgroup/memory.max").value_or(system));
}

}  // namespace troupe::training
