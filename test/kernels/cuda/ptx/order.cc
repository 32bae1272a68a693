#include "order.h"

#include <stdexcept>

namespace troupe::kernels::cuda::ptx {
namespace {

constexpr const char* kRacingWrites = "a race: writes what another thread writes";

Past past(const Moment& now) {
  if (now.block >> 22 || now.thread >> 10 || now.barriers >> 12 || now.syncs >> 12 || now.fences >> 4)
    throw std::runtime_error("ptx: more blocks, barriers or fences than an access is kept with (order.h)");
  Past result;
  result.block = now.block;
  result.thread = now.thread;
  result.barriers = now.barriers;
  result.syncs = now.syncs;
  result.fences = now.fences;
  result.exists = 1;
  return result;
}

bool same_warp(const Past& then, const Moment& now) { return then.thread / 32 == now.thread / 32; }

// Whether what a thread of the same block did then comes before what is done now in every order that a card might run them in.
bool comes_before(const Past& then, const Moment& now) {
  if (!then.exists || then.barriers != now.barriers || then.thread == now.thread) return true;
  return same_warp(then, now) && then.syncs != now.syncs;
}

// The same of all that have read.
bool reads_come_before(const Past& read, const Moment& now) {
  if (read.exists && read.barriers == now.barriers) {
    if (read.several) return false;
    if (read.special && same_warp(read, now) && read.syncs == now.syncs) return false;
  }
  return comes_before(read, now);
}

void remember_read(Past& read, const Moment& now) {
  Past next = past(now);
  if (read.exists && read.barriers == now.barriers) {
    next.several = read.several || !same_warp(read, now);
    next.special = read.syncs == now.syncs && (read.special || read.thread != now.thread);
  }
  read = next;
}

}  // namespace

void BlockOrder::fence(const Moment& now) {
  OfBlock& mine = blocks_[now.block];
  mine.released.push_back({{now.block, now.thread, now.barriers, now.fences}, now.thread, now.barriers});
  for (const Known& known : mine.seen) {
    if (knows(known, now)) mine.released.push_back({known.release, now.thread, now.barriers});
  }
}

void BlockOrder::atomic(uint64_t address, const Moment& now) {
  OfBlock& mine = blocks_[now.block];
  std::vector<Release>& here = published_[address];
  for (const Release& release : here) mine.seen.push_back({release, now.thread, now.barriers});
  for (const Known& known : mine.released) {
    if (knows(known, now)) here.push_back(known.release);
  }
}

bool BlockOrder::orders(const Past& then, const Moment& now) const {
  const auto mine = blocks_.find(now.block);
  if (mine == blocks_.end()) return false;
  for (const Known& known : mine->second.released) {
    const Release& release = known.release;
    if (release.block != then.block || !knows(known, now)) continue;
    if (then.barriers < release.barriers) return true;
    if (then.thread == release.thread && then.fences <= release.fences) return true;
  }
  return false;
}

const char* SharedShadow::touch(Cell& cell, Use use, const Moment& now, bool same) {
  if (use != Use::kWrite && !cell.written.exists) return "reads shared memory that nobody has written";
  if (cell.written.copying)
    return "touches memory that an asynchronous copy writes, and nobody has waited for";
  const bool atomics = use == Use::kAtomic && cell.written.special;
  if (!same && !atomics && !comes_before(cell.written, now))
    return use == Use::kRead ? "a race: reads shared memory that another thread writes" : kRacingWrites;
  if (use == Use::kRead) {
    remember_read(cell.read, now);
    return "";
  }
  if (!same && !reads_come_before(cell.read, now))
    return "a race: writes shared memory that another thread reads";
  cell.written = past(now);
  cell.written.special = use == Use::kAtomic;
  return "";
}

const char* SharedShadow::touch(size_t at, size_t bytes, Use use, const Moment& now, bool same) {
  for (size_t i = at; i < at + bytes; ++i) {
    const char* const wrong = touch(cells_[i], use, now, same);
    if (wrong[0] != '\0') return wrong;
  }
  return "";
}

const char* SharedShadow::begin_copy(size_t at, size_t bytes, const Moment& now) {
  const char* const wrong = touch(at, bytes, Use::kWrite, now, /*same=*/false);
  if (wrong[0] != '\0') return wrong;
  for (size_t i = at; i < at + bytes; ++i) cells_[i].written.copying = 1;
  return "";
}

void SharedShadow::end_copy(size_t at, size_t bytes, const Moment& now) {
  for (size_t i = at; i < at + bytes; ++i) cells_[i].written = past(now);
}

// Aligned: no access lies on two pages.
bool GlobalShadow::races(uint64_t address, size_t bytes, const Moment& now) const {
  const auto found = pages_.find(address / kPage);
  if (found == pages_.end()) return false;
  const Past* const written = found->second->written + address % kPage / kUnit;
  for (size_t i = 0; i < bytes / kUnit; ++i) {
    const Past& then = written[i];
    if (then.exists && !(then.block == now.block ? comes_before(then, now) : order_.orders(then, now)))
      return true;
  }
  return false;
}

const char* GlobalShadow::touch(uint64_t address, size_t bytes, Use use, const Moment& now, bool same) {
  if (bytes < kUnit) return "a write of a single byte, which order.h does not keep";
  if (use == Use::kAtomic) order_.atomic(address, now);
  std::unique_ptr<Page>& page = pages_[address / kPage];
  if (!page) page = std::make_unique<Page>();
  Past* const written = page->written + address % kPage / kUnit;
  const bool atomics = use == Use::kAtomic && written->special;
  if (!same && !atomics && races(address, bytes, now)) return kRacingWrites;
  for (size_t i = 0; i < bytes / kUnit; ++i) {
    written[i] = past(now);
    written[i].special = use == Use::kAtomic;
  }
  return "";
}

}  // namespace troupe::kernels::cuda::ptx
