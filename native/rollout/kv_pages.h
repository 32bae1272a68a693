// Memory of the KV cache: pages of 16 tokens for all layers, from one budget.
//
// A page covers 16 absolute positions, [16 i, 16 i + 16), whatever node of the tree holds it. So the order in
// which a query meets its keys depends on their positions only, never on how the tree happened to be cut, and
// a result does not depend on what else is in the cache.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace troupe::rollout {

constexpr int64_t kPageTokens = 16;

struct KvShape {
  int64_t layers = 0, kv_heads = 0, head_dim = 0;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;

  // Values are padded to whole vectors of 16.
  int64_t value_dim() const { return (head_dim + 15) / 16 * 16; }
  // One layer and KV head: keys transposed [head_dim, 16] (16 scores are one vector), then values
  // [16, value_dim].
  int64_t block() const { return kPageTokens * (head_dim + value_dim()); }
  int64_t page_elements() const { return layers * kv_heads * block(); }
  int64_t page_bytes() const;
  bool operator==(const KvShape&) const = default;
};

struct KvPage {
  at::Tensor data;          // [layers, kv_heads, block]
  void* address = nullptr;  // of the data
};

class PagePool {
 public:
  PagePool(const KvShape& shape, int64_t budget_bytes);

  const KvShape& shape() const { return shape_; }
  int64_t capacity() const { return capacity_; }  // pages
  int64_t used() const;                           // pages
  // Null when the budget is used up. The page comes back to the pool when its last owner lets go.
  std::shared_ptr<KvPage> allocate();
  // Returns unused pages to the system.
  void trim();

 private:
  struct Store {
    std::vector<std::unique_ptr<KvPage>> unused;
    int64_t used = 0;
  };
  KvShape shape_;
  int64_t capacity_;
  std::shared_ptr<Store> store_;  // outlives the pool while a page does
};

}  // namespace troupe::rollout
