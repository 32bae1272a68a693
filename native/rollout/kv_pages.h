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

struct CacheBudget {
  int64_t bytes = 0;  // 0: what the device has free decides, each time that the slab is made anew
  // Then at most what so many sequences of so many tokens can fill, and `reserved` bytes are not counted as free: what
  // training is still going to make and keep. (What it frees again comes when the slab is gone.)
  int64_t sequences = 0, positions = 0, reserved = 0;
};

// A slab lives from the first request to the next `trim` that finds no page in use.
class PagePool {
 public:
  PagePool(const KvShape& shape, const CacheBudget& budget);

  const KvShape& shape() const { return shape_; }
  int64_t page_bytes() const { return page_bytes_; }
  int64_t capacity() const { return capacity_; }  // pages, of the slab or of that which would be made now
  int64_t used() const;                           // pages
  bool has_slab() const { return store_.data.defined(); }
  // Times that the device had no room for a slab and a smaller one was tried.
  int64_t shrinks() const { return shrinks_; }
  void reserve(int64_t bytes) { budget_.reserved = bytes; }
  // Where there is no slab: what one would hold that is made now.
  void resize();
  // Makes the slab, if it is not there: half as large, and half of that, where the device has no room for it. Throws
  // c10::OutOfMemoryError where it has none for a page.
  void open();
  // Null when the budget is used up. The page comes back to the pool when its last owner lets go.
  std::shared_ptr<KvPage> allocate();
  void copy(kernels::PageCopies copies);
  // After open().
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
  CacheBudget budget_;
  const kernels::Kernels& kernels_;
  int64_t page_bytes_, capacity_ = 0, shrinks_ = 0;
  kernels::KvStore store_;
  std::shared_ptr<Numbers> numbers_;  // outlives the pool while a page does
};

// Bytes for a KV cache that nobody sized: half of what the device has free, a quarter on the CPU, whose
// memory is shared with everything else.
int64_t automatic_cache_bytes(const KvShape& shape, const CacheBudget& budget);

}  // namespace troupe::rollout
