#include "rollout/kv_pages.h"

#include <algorithm>
#include <limits>

#include "memory/device_memory.h"

namespace troupe::rollout {

PagePool::PagePool(const KvShape& shape, int64_t budget_bytes)
    : shape_(shape),
      kernels_(kernels::kernels_for(shape.device)),
      page_bytes_(kernels_.kv_page_bytes(shape)),
      // A slot, page · 16 + place, is an int32.
      capacity_(
          std::min<int64_t>(budget_bytes / page_bytes_, std::numeric_limits<int32_t>::max() / kPageTokens)),
      numbers_(std::make_shared<Numbers>()) {}

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
  if (!store_.data.defined()) store_ = kernels_.make_kv_store(shape_, capacity_);
  return store_;
}

void PagePool::copy(const KvPage& from, const KvPage& to) {
  const std::pair<int32_t, int32_t> pages[] = {{from.number, to.number}};
  kernels_.copy_kv_pages(store(), pages);
}

void PagePool::trim() {
  if (!store_.data.defined()) return;
  if (numbers_->used == 0) {
    store_ = {};
    *numbers_ = {};
    return;
  }
  std::vector<int32_t> unused = numbers_->unused;
  std::sort(unused.begin(), unused.end());
  kernels_.discard_kv_pages(store_, unused);
}

int64_t automatic_cache_bytes(const KvShape& shape, int64_t sequences, int64_t positions) {
  const int64_t page = kernels::kernels_for(shape.device).kv_page_bytes(shape);
  const int64_t free = device_memory(shape.device).cacheable();
  int64_t wanted = (positions + kPageTokens - 1) / kPageTokens + 1;
  const bool countable =
      !__builtin_mul_overflow(wanted, sequences, &wanted) && !__builtin_mul_overflow(wanted, page, &wanted);
  return std::max(countable ? std::min(free, wanted) : free, page);
}

}  // namespace troupe::rollout
