#include "memory/caching_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace troupe {
namespace {

// Smaller blocks come from malloc, which reuses them by itself (see M_MMAP_THRESHOLD in binding/addon.cc). With the
// address sanitizer all do: it watches the edges of malloc's blocks, and those that were freed.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kLeast = SIZE_MAX;
#else
constexpr size_t kLeast = size_t{64} << 10;
#endif
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPageMultiple = size_t{16} << 10;
constexpr size_t kLeastPage = 4096;  // no system that Troupe runs on has smaller pages

// Sizes come in eight steps to each power of two, so that nearly equal tensors reuse each other's blocks.
size_t size_class(size_t bytes) {
  const size_t least_unit = bytes >= kHugePage ? kHugePage : kPageMultiple;
  const size_t unit = std::max(least_unit, std::bit_floor(bytes) / 8);
  return (bytes + unit - 1) / unit * unit;
}

size_t cache_limit() {
  const auto memory =
      static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGE_SIZE));
  return std::min(size_t{1} << 30, memory / 32);
}

// Fresh memory, or null. Large blocks begin at a huge page's boundary.
void* map(size_t size) {
  const size_t slack = size >= kHugePage ? kHugePage : 0;
  void* raw = mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  if (slack == 0) return raw;
  auto* const begin = static_cast<char*>(raw);
  char* const aligned = begin + (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (aligned > begin) munmap(begin, aligned - begin);
  if (aligned < begin + slack) munmap(aligned + size, begin + slack - aligned);
#ifdef MADV_HUGEPAGE
  madvise(aligned, size, MADV_HUGEPAGE);
#endif
  return aligned;
}

class CachingAllocator final : public c10::Allocator {
 public:
  CachingAllocator() : limit_(cache_limit()) {}

  c10::DataPtr allocate(size_t bytes) override {
    void* block = bytes < kLeast ? c10::alloc_cpu(bytes) : take(size_class(bytes));
    return {block, block, &deleter, c10::Device(c10::kCPU)};
  }
  // One deleter for both kinds of blocks: libtorch's users of raw memory know no other.
  c10::DeleterFnPtr raw_deleter() const override { return &deleter; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  void free(void* block);
  void release_cached();
  MemoryStatistics statistics();
  void reset_peak();

 private:
  struct Block {
    void* begin;
    size_t size;
  };
  static void deleter(void* block);
  void* take(size_t size);
  void* reuse(size_t size);  // null if no kept block has this size
  void trim();
  void unmap_oldest();

  size_t limit_;
  std::mutex mutex_;
  std::unordered_map<void*, size_t> used_;
  std::vector<Block> cached_;  // oldest first
  size_t used_bytes_ = 0, cached_bytes_ = 0, peak_bytes_ = 0;
};

// Never destroyed: tensors may outlive every static object.
CachingAllocator& instance() {
  static CachingAllocator* const allocator = std::make_unique<CachingAllocator>().release();
  return *allocator;
}

void CachingAllocator::deleter(void* block) { instance().free(block); }

void* CachingAllocator::reuse(size_t size) {
  const auto found =
      std::find_if(cached_.rbegin(), cached_.rend(), [&](const Block& block) { return block.size == size; });
  if (found == cached_.rend()) return nullptr;
  void* const block = found->begin;
  cached_.erase(std::next(found).base());
  cached_bytes_ -= size;
  return block;
}

void* CachingAllocator::take(size_t size) {
  const std::lock_guard lock(mutex_);
  void* block = reuse(size);
  if (block == nullptr) block = map(size);
  while (block == nullptr && !cached_.empty()) {
    unmap_oldest();
    block = map(size);
  }
  TORCH_CHECK_WITH(OutOfMemoryError, block != nullptr, "cannot allocate memory: the system refused ", size,
                   " bytes");
  used_.emplace(block, size);
  used_bytes_ += size;
  peak_bytes_ = std::max(peak_bytes_, used_bytes_);
  trim();
  return block;
}

void CachingAllocator::free(void* block) {
  // Mapped blocks begin at a page; most small ones do not, and need no look-up.
  if (reinterpret_cast<uintptr_t>(block) % kLeastPage != 0) return c10::free_cpu(block);
  const std::lock_guard lock(mutex_);
  const auto found = used_.find(block);
  if (found == used_.end()) return c10::free_cpu(block);
  const size_t size = found->second;
  used_.erase(found);
  used_bytes_ -= size;
  cached_.push_back({block, size});
  cached_bytes_ += size;
  trim();
}

// Used and kept blocks together take no more than the used ones once did, and the limit: a training step
// finds the activations of the one before it.
void CachingAllocator::trim() {
  while (cached_bytes_ > limit_ + peak_bytes_ - used_bytes_) unmap_oldest();
}

void CachingAllocator::unmap_oldest() {
  const Block block = cached_.front();
  cached_.erase(cached_.begin());
  cached_bytes_ -= block.size;
  munmap(block.begin, block.size);
}

void CachingAllocator::release_cached() {
  const std::lock_guard lock(mutex_);
  while (!cached_.empty()) unmap_oldest();
}

MemoryStatistics CachingAllocator::statistics() {
  const std::lock_guard lock(mutex_);
  return {static_cast<int64_t>(used_bytes_), static_cast<int64_t>(cached_bytes_),
          static_cast<int64_t>(peak_bytes_)};
}

void CachingAllocator::reset_peak() {
  const std::lock_guard lock(mutex_);
  peak_bytes_ = used_bytes_;
}

}  // namespace

void install_caching_allocator() {
  static std::once_flag once;
  std::call_once(once, [] { c10::SetCPUAllocator(&instance(), /*priority=*/1); });
}

MemoryStatistics memory_statistics() { return instance().statistics(); }

void reset_peak_statistics() { instance().reset_peak(); }

void release_cached_memory() { instance().release_cached(); }

}  // namespace troupe
