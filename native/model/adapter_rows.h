// Room for adapters' A behind a frozen base's matrices. Each adapter that decodes has a place there while it lives: its
// ranks in each matrix, the same ranks behind all of them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace troupe {

class ParameterSet;

constexpr int64_t kMostAdapterRanks = 1 << 16;

class AdapterRows {
 public:
  explicit AdapterRows(int64_t ranks) : ranks_(ranks) {}
  // The adapter's first rank, a multiple of 8 like what it takes; -1: there is no room for it.
  int64_t place(const std::shared_ptr<ParameterSet>& adapter, int64_t ranks);
  static int64_t padded(int64_t ranks) { return (ranks + 7) / 8 * 8; }

 private:
  struct Place {
    std::weak_ptr<ParameterSet> adapter;
    int64_t begin, end;
  };
  int64_t ranks_;
  std::vector<Place> places_;  // in their order
};

}  // namespace troupe
