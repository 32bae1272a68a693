#include "batch/micro_batches.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <compare>
#include <optional>

namespace troupe {
namespace {

// A micro-batch takes, beside what its rows do, about as long as so many rows: on an H200 the 2,000 to 3,000 launches of
// Qwen3's shapes take 8 to 12 ms at 4 µs each (docs/cuda-measurements.md), 300 rows of the 4B shape and 750 of 0.6B's.
constexpr int64_t kRowsOfOne = 512;
// A group that is cut has its accumulators read and written once more: 1.1 ms of 0.6B's full parameters, 90 of its rows.
constexpr int64_t kRowsOfGroup = 64;
// What fewer tokens save is nothing: texts begin alike by chance.
constexpr int64_t kSlight = 16;

// Micro-batches of fewer calls are as long as can be; those of n times as many may lack n calls.
constexpr int64_t kExact = 32;

// What cuts cost: rows that are computed again and micro-batches; then how unequal these are, for a small last one would
// need other blocks of memory than those before it, and they more than they had to.
struct Cost {
  int64_t rows = 0;
  double squares = 0;  // Σ rows²
  auto operator<=>(const Cost&) const = default;
};

class Cutter {
 public:
  Cutter(const std::vector<std::vector<TreeCall>>& groups, int64_t max_rows, int64_t levels)
      : max_rows_(max_rows), levels_(levels) {
    for (const std::vector<TreeCall>& group : groups) {
      calls_.insert(calls_.end(), group.begin(), group.end());
      ends_.push_back(count());
    }
    for (const TreeCall& call : calls_) added_.push_back(added_.back() + call.length - call.shared);
  }
  std::vector<MicroBatch> result() const;

 private:
  int64_t count() const { return static_cast<int64_t>(calls_.size()); }
  // Rows of the calls from `begin` to `end` where everything is shared.
  int64_t least_rows(int64_t begin, int64_t end) const {
    return added_[end] - added_[begin] + calls_[begin].shared;
  }
  int64_t rows(int64_t begin, int64_t end) const;
  // More calls never have fewer rows.
  bool fit(int64_t begin, int64_t end) const {
    return least_rows(begin, end) <= max_rows_ && (levels_ == 0 || rows(begin, end) <= max_rows_);
  }
  std::vector<int64_t> furthest() const;
  std::vector<int64_t> next(const std::vector<int64_t>& furthest) const;

  int64_t max_rows_, levels_;
  std::vector<TreeCall> calls_;    // group after group
  std::vector<int64_t> ends_;      // of each group
  std::vector<int64_t> added_{0};  // rows that the calls before each add to those before them
};

int64_t Cutter::rows(int64_t begin, int64_t end) const {
  if (levels_ == 0) return least_rows(begin, end);
  int64_t rows = 0;
  for (int64_t from = begin; const int64_t group_end : ends_) {
    const int64_t to = std::min(end, group_end);
    if (from >= to) continue;
    rows += rows_of(lay_out(std::span(calls_).subspan(from, to - from), levels_));
    from = to;
  }
  return rows;
}

// Where the longest micro-batch ends that begins with each call: each end is found from the one before it. Where micro-batches
// have hundreds of calls and trees few levels, whose rows are not known without laying them out, a few calls in a row take the
// end of the first of them, which fits all of them.
std::vector<int64_t> Cutter::furthest() const {
  std::vector<int64_t> ends;
  int64_t end = 0;
  while (std::ssize(ends) < count()) {
    const int64_t begin = std::ssize(ends);
    end = std::max(end, begin + 1);
    const int64_t alike = levels_ == 0 ? 1 : 1 + (end - begin) / kExact;
    const auto fits = [&](int64_t other) { return other <= count() && fit(begin, other); };
    int64_t step = alike;
    for (; fits(end + step); step *= 2) end += step;
    for (int64_t beyond = end + step; beyond - end > 1;) {
      const int64_t middle = (end + beyond) / 2;
      (fits(middle) ? end : beyond) = middle;
    }
    ends.insert(ends.end(), std::min(alike, count() - begin), end);
  }
  return ends;
}

// Where the micro-batch ends that begins with each call, of the division of the calls from there on that costs least.
std::vector<int64_t> Cutter::next(const std::vector<int64_t>& furthest) const {
  std::vector<int64_t> next(count());
  std::vector<Cost> costs(count() + 1);
  for (int64_t begin = count() - 1; begin >= 0; --begin) {
    std::optional<Cost> least;
    for (int64_t end = begin + 1; end <= furthest[begin]; ++end) {
      const auto rows = static_cast<double>(least_rows(begin, end));
      const Cost cost{costs[end].rows, costs[end].squares + rows * rows};
      if (least && *least <= cost) continue;
      least = cost;
      next[begin] = end;
    }
    costs[begin] = *least;
    const bool whole = begin == 0 || std::ranges::binary_search(ends_, begin);
    costs[begin].rows += kRowsOfOne + calls_[begin].shared / kSlight * kSlight + (whole ? 0 : kRowsOfGroup);
  }
  return next;
}

std::vector<MicroBatch> Cutter::result() const {
  const std::vector<int64_t> ends = next(furthest());
  std::vector<MicroBatch> batches;
  for (int64_t begin = 0; begin < count(); begin = ends[begin]) {
    MicroBatch& batch = batches.emplace_back();
    for (int64_t i = begin; i < ends[begin]; ++i) batch.calls.push_back(calls_[i].call);
    batch.rows = rows(begin, ends[begin]);
  }
  return batches;
}

}  // namespace

std::vector<MicroBatch> micro_batches(std::span<const PackedCall> calls, int64_t max_rows, int64_t levels) {
  TORCH_CHECK(max_rows > 0, "a micro-batch has at least one row, not ", max_rows);
  int64_t groups = 1;
  for (const PackedCall& call : calls) groups = std::max(groups, call.group + 1);
  std::vector<MicroBatch> batches = Cutter(tree_order(calls, groups), max_rows, levels).result();
  if (batches.empty() && !calls.empty()) batches.emplace_back();
  for (size_t c = 0; c < calls.size(); ++c) {
    if (calls[c].response.empty()) batches.front().calls.push_back(static_cast<int64_t>(c));
  }
  return batches;
}

}  // namespace troupe
