// Memory of the KV cache: pages of 16 tokens for all layers, known by number, in one slab per device.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/kernels.h"

namespace troupe::rollout {

using kernels::kPageTokens;
using kernels::KvShape;

struct KvPage {
  int32_t number;
};

class PagePool {
 public:
  PagePool(const KvShape& shape, int64_t budget_bytes);

  const KvShape& shape() const { return shape_; }
  int64_t page_bytes() const { return page_bytes_; }
  int64_t capacity() const { return capacity_; }  // pages
  int64_t used() const;                           // pages
  // Null when the budget is used up. The page comes back to the pool when its last owner lets go.
  std::shared_ptr<KvPage> allocate();
  void copy(const KvPage& from, const KvPage& to);
  // Makes the slab, if it is not there.
  kernels::KvStore& store();
  // Returns unused memory to the system: the slab, where no page is in use.
  void trim();

 private:
  struct Numbers {
    std::vector<int32_t> unused;
    int32_t next = 0;  // never used from here on
    int64_t used = 0;
  };
  KvShape shape_;
  const kernels::Kernels& kernels_;
  int64_t page_bytes_, capacity_;
  kernels::KvStore store_;
  std::shared_ptr<Numbers> numbers_;  // outlives the pool while a page does
};

// Bytes for a KV cache that nobody sized: half of what the device has free, a quarter on the CPU, whose
// memory is shared with everything else. At most what `sequences` of `positions` tokens can fill.
int64_t automatic_cache_bytes(const KvShape& shape, int64_t sequences, int64_t positions);

}  // namespace troupe::rollout
