// In what order threads touch memory. Two of which one writes a byte must be told apart: by a barrier of their block, of their
// warp where they are of one (that its lanes run together is nothing to rely on), or, in two blocks, by a fence behind the
// one's access, an atomic of both on one address, and a fence before the other's. What runs here runs in one order of many;
// a pair that nothing orders is a race whichever it was. Several may write the value that is there already.
//
// Global memory is also read where what is read is not used: of a tile that ends beyond the edge, at the nearest place that there
// is, which is another thread's. So a read there that races is no fault by itself, but gives garbage, and a write behind such a
// read none at all: the blocks and warps come in another order the next time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace troupe::kernels::cuda::ptx {

enum class Use { kRead, kWrite, kAtomic };

// When a thread does something: what has been passed of its block's barriers, of its warp's since the last of those, and of
// its warp's fences. Each has to fit into the bits that Past has of it.
struct Moment {
  uint32_t block;
  uint32_t thread;
  uint32_t barriers, syncs, fences;
};

// One access to a byte, kept.
struct Past {
  uint64_t block : 22 = 0, thread : 10 = 0, barriers : 12 = 0, syncs : 12 = 0, fences : 4 = 0;
  uint64_t exists : 1 = 0;
  uint64_t special : 1 = 0;  // a write: by an atomic; reads: by several lanes of the warp since its barrier
  uint64_t several : 1 = 0;  // reads: by several warps of the block since its barrier
  uint64_t copying : 1 = 0;  // a write: by an asynchronous copy that nobody has waited for
};
static_assert(sizeof(Past) == 8);

// What blocks let each other see, by fences and atomics.
class BlockOrder {
 public:
  void fence(const Moment& now);
  void atomic(uint64_t address, const Moment& now);
  bool orders(const Past& then, const Moment& now) const;

 private:
  // What `thread` did before a fence, and all of its block before the barrier before it.
  struct Release {
    uint32_t block, thread, barriers, fences;
  };
  // A release that a thread knows of, and from when.
  struct Known {
    Release release;
    uint32_t thread, barriers;
  };
  static bool knows(const Known& known, const Moment& now) {
    return known.thread == now.thread || known.barriers < now.barriers;
  }

  struct OfBlock {
    std::vector<Known> seen;      // by an atomic, without a fence behind it yet
    std::vector<Known> released;  // its own, and what it has seen with one
  };
  std::unordered_map<uint32_t, OfBlock> blocks_;
  std::unordered_map<uint64_t, std::vector<Release>> published_;  // at addresses of atomics
};

// A block's shared memory, byte by byte.
class SharedShadow {
 public:
  void reset(size_t bytes) { cells_.assign(bytes, Cell{}); }
  const char* touch(size_t at, size_t bytes, Use use, const Moment& now, bool same);
  // An asynchronous copy into these bytes begins, or has been waited for.
  const char* begin_copy(size_t at, size_t bytes, const Moment& now);
  void end_copy(size_t at, size_t bytes, const Moment& now);

 private:
  struct Cell {
    Past written, read;
  };
  static const char* touch(Cell& cell, Use use, const Moment& now, bool same);

  std::vector<Cell> cells_;
};

// Global memory that a launch writes, by two bytes: nothing smaller is written.
class GlobalShadow {
 public:
  // Whether a read races.
  bool races(uint64_t address, size_t bytes, const Moment& now) const;
  // What is wrong with a write or an atomic, or "".
  const char* touch(uint64_t address, size_t bytes, Use use, const Moment& now, bool same);
  void fence(const Moment& now) { order_.fence(now); }

 private:
  static constexpr uint64_t kPage = 4096, kUnit = 2;
  struct Page {
    Past written[kPage / kUnit];
  };

  BlockOrder order_;
  std::unordered_map<uint64_t, std::unique_ptr<Page>> pages_;
};

}  // namespace troupe::kernels::cuda::ptx
