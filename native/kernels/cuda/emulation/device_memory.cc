#include "kernels/cuda/emulation/device_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <algorithm>
#include <list>
#include <map>
#include <memory>
#include <mutex>

#include "memory/device_memory.h"

namespace troupe::kernels::cuda::emulation {
namespace {

constexpr size_t kLeast = size_t{256} << 10;  // smaller blocks are not the device's
constexpr size_t kUnit = size_t{64} << 10;

struct Segment {
  char* begin;
  size_t size;
};
struct Block {
  size_t size;
  bool used;
  std::list<Segment>::iterator segment;
};

class DeviceAllocator final : public c10::Allocator, public MemorySource {
 public:
  explicit DeviceAllocator(c10::Allocator& host) : host_(host) {}
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kLeast || !is_emulated()) return host_.allocate(bytes);
    void* const block = take((bytes + kUnit - 1) / kUnit * kUnit);
    return {block, block, &deleter, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &deleter; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  DeviceMemory now() override {
    const std::lock_guard lock(mutex_);
    return {.free = static_cast<int64_t>(size_ - std::min(size_, used_)),
            .limit = static_cast<int64_t>(size_),
            .used = static_cast<int64_t>(used_),
            .cached = static_cast<int64_t>(reserved_ - used_),
            .peak = static_cast<int64_t>(peak_)};
  }
  void reset_peak() override {
    const std::lock_guard lock(mutex_);
    peak_ = used_;
  }
  void release_cached() override {
    const std::lock_guard lock(mutex_);
    release();
  }
  void resize(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    size_ = static_cast<size_t>(bytes);
    release();
  }

 private:
  using Place = std::map<char*, Block>::iterator;

  bool is_emulated() {
    const std::lock_guard lock(mutex_);
    return size_ > 0;
  }

  static void deleter(void* block);

  void* take(size_t size) {
    const std::lock_guard lock(mutex_);
    Place place = best_fit(size);
    if (place == blocks_.end()) place = new_segment(size);
    auto& [begin, block] = *place;
    if (block.size > size) {
      blocks_[begin + size] = {block.size - size, false, block.segment};
      block.size = size;
    }
    block.used = true;
    used_ += size;
    peak_ = std::max(peak_, used_);
    return begin;
  }

  Place best_fit(size_t size) {
    Place best = blocks_.end();
    for (Place place = blocks_.begin(); place != blocks_.end(); ++place) {
      const Block& block = place->second;
      if (block.used || block.size < size) continue;
      if (best == blocks_.end() || block.size < best->second.size) best = place;
    }
    return best;
  }

  Place new_segment(size_t size) {
    if (reserved_ + size > size_) release();
    TORCH_CHECK_WITH(OutOfMemoryError, reserved_ + size <= size_,
                     "the emulated device is out of memory: ", size, " bytes asked for, ",
                     size_ - std::min(size_, reserved_), " free, ", reserved_ - used_, " kept in pieces");
    reserved_ += size;
    segments_.push_front({static_cast<char*>(c10::alloc_cpu(size)), size});
    return blocks_.emplace(segments_.front().begin, Block{size, false, segments_.begin()}).first;
  }

  // Segments of one free block go back.
  void release() {
    for (Place place = blocks_.begin(); place != blocks_.end();) {
      const Block block = place->second;
      if (block.used || block.size != block.segment->size) {
        ++place;
        continue;
      }
      reserved_ -= block.size;
      c10::free_cpu(place->first);
      segments_.erase(block.segment);
      place = blocks_.erase(place);
    }
  }

  // Whether the block was this device's.
  bool give_back(char* begin) {
    const std::lock_guard lock(mutex_);
    Place place = blocks_.find(begin);
    if (place == blocks_.end()) return false;
    place->second.used = false;
    used_ -= place->second.size;
    join(place, std::next(place));
    if (place != blocks_.begin()) join(std::prev(place), place);
    return true;
  }

  void join(Place first, Place second) {
    if (second == blocks_.end() || first->second.used || second->second.used) return;
    if (first->second.segment != second->second.segment) return;
    first->second.size += second->second.size;
    blocks_.erase(second);
  }

  c10::Allocator& host_;
  std::mutex mutex_;
  size_t size_ = 0, reserved_ = 0, used_ = 0, peak_ = 0;
  std::list<Segment> segments_;
  std::map<char*, Block> blocks_;  // by address: neighbours of a segment are neighbours
};

// Never taken back: tensors may outlive every static object.
DeviceAllocator& device() {
  static DeviceAllocator* const allocator = [] {
    auto made = std::make_unique<DeviceAllocator>(*c10::GetCPUAllocator());
    c10::SetCPUAllocator(made.get(), /*priority=*/1);
    return made.release();
  }();
  return *allocator;
}

// Of raw memory of either: libtorch's users of that know it by its address alone.
void DeviceAllocator::deleter(void* block) {
  if (!device().give_back(static_cast<char*>(block))) device().host_.raw_deleter()(block);
}

}  // namespace

void emulate_device_memory(int64_t bytes) {
  device().resize(bytes);
  replace_host_memory(bytes > 0 ? &device() : nullptr);
}

c10::Allocator& tensor_memory() { return device(); }

}  // namespace troupe::kernels::cuda::emulation
