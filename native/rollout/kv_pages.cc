#include "rollout/kv_pages.h"

namespace troupe::rollout {

int64_t KvShape::page_bytes() const {
  return page_elements() * static_cast<int64_t>(c10::elementSize(dtype));
}

PagePool::PagePool(const KvShape& shape, int64_t budget_bytes)
    : shape_(shape), capacity_(budget_bytes / shape.page_bytes()), store_(std::make_shared<Store>()) {}

int64_t PagePool::used() const { return store_->used; }

std::shared_ptr<KvPage> PagePool::allocate() {
  if (store_->used >= capacity_) return nullptr;
  std::unique_ptr<KvPage> page;
  if (store_->unused.empty()) {
    const auto options = at::TensorOptions().dtype(shape_.dtype).device(shape_.device);
    auto data = at::empty({shape_.layers, shape_.kv_heads, shape_.block()}, options);
    void* address = data.mutable_data_ptr();
    page = std::make_unique<KvPage>(KvPage{std::move(data), address});
  } else {
    page = std::move(store_->unused.back());
    store_->unused.pop_back();
  }
  ++store_->used;
  return {page.release(), [store = store_](KvPage* returned) {
            --store->used;
            store->unused.emplace_back(returned);
          }};
}

void PagePool::trim() { store_->unused.clear(); }

}  // namespace troupe::rollout
