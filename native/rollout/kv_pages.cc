#include "rollout/kv_pages.h"

#include <algorithm>
#include <limits>

#include "memory/device_memory.h"

namespace troupe::rollout {

PagePool::PagePool(const KvShape& shape, const CacheBudget& budget)
    : shape_(shape),
      budget_(budget),
      kernels_(kernels::kernels_for(shape.device)),
      page_bytes_(kernels_.kv_page_bytes(shape)),
      numbers_(std::make_shared<Numbers>()) {
  resize();
}

void PagePool::resize() {
  if (has_slab()) return;
  const int64_t bytes = budget_.bytes > 0 ? budget_.bytes : automatic_cache_bytes(shape_, budget_);
  // A slot, page · 16 + place, is an int32.
  capacity_ = std::min<int64_t>(bytes / page_bytes_, std::numeric_limits<int32_t>::max() / kPageTokens);
}

void PagePool::open() {
  if (has_slab()) return;
  TORCH_INTERNAL_ASSERT(numbers_->used == 0, "pages are in use of a slab that is gone");
  for (resize();;) {
    try {
      store_ = kernels_.make_kv_store(shape_, capacity_);
      return;
    } catch (const c10::OutOfMemoryError&) {
      if (capacity_ <= 1) throw;
    }
    release_cached_memory(shape_.device);
    capacity_ /= 2;
    ++shrinks_;
  }
}

int64_t PagePool::used() const { return numbers_->used; }

std::shared_ptr<KvPage> PagePool::allocate() {
  if (numbers_->used >= capacity_) return nullptr;
  auto page = std::make_unique<KvPage>();
  if (numbers_->unused.empty()) {
    page->number = numbers_->next++;
  } else {
    page->number = numbers_->unused.back();
    numbers_->unused.pop_back();
  }
  ++numbers_->used;
  return {page.release(), [numbers = numbers_](KvPage* returned) {
            const std::unique_ptr<KvPage> owned(returned);
            --numbers->used;
            numbers->unused.push_back(owned->number);
          }};
}

kernels::KvStore& PagePool::store() {
  TORCH_INTERNAL_ASSERT(has_slab(), "the KV cache was not opened");
  return store_;
}

void PagePool::copy(kernels::PageCopies copies) { kernels_.copy_kv_pages(store(), copies); }

void PagePool::trim() {
  if (!has_slab()) return;
  if (numbers_->used == 0) {
    store_ = {};
    *numbers_ = {};
    return;
  }
  std::vector<int32_t> unused = numbers_->unused;
  std::sort(unused.begin(), unused.end());
  kernels_.discard_kv_pages(store_, unused);
}

int64_t automatic_cache_bytes(const KvShape& shape, const CacheBudget& budget) {
  const int64_t page = kernels::kernels_for(shape.device).kv_page_bytes(shape);
  const int64_t allowed = device_memory(shape.device).cacheable(budget.reserved);
  int64_t wanted = (budget.positions + kPageTokens - 1) / kPageTokens + 1;
  const bool countable = !__builtin_mul_overflow(wanted, budget.sequences, &wanted) &&
                         !__builtin_mul_overflow(wanted, page, &wanted);
  return std::max(countable ? std::min(allowed, wanted) : allowed, page);
}

}  // namespace troupe::rollout
