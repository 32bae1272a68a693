#include "batch/tree_levels.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>

namespace troupe {
namespace {

constexpr int64_t kImpossible = int64_t{1} << 44;  // sums of them stay far below 2⁶³

// Where sequences part: a node of their tree, whose rows end at depth `end`. Node 0 is above all trees and has none.
struct Branch {
  Branch(int64_t ends_at, int64_t above) : end(ends_at), parent(above) {}
  int64_t end, parent;
  int64_t depth = 0;            // branches above it, node 0 among them
  std::vector<int64_t> leaves;  // lengths of the sequences that go on from here alone, or end here
  // By levels that are left and by which of the branches above it was kept last: whether it stays a node, and the rows of
  // its subtree, to which its children's are added while they are worked out.
  std::vector<bool> kept;
  std::vector<int64_t> rows;
};

class Levels {
 public:
  Levels(std::span<const int64_t> lengths, std::span<const int64_t> shared, int64_t levels)
      : shared_(shared), levels_(levels) {
    find_branches(lengths);
    choose();
  }
  std::vector<int64_t> result() const;

 private:
  void find_branches(std::span<const int64_t> lengths);
  void choose();
  // Room for its numbers of rows: of few branches at a time.
  void begin(Branch& branch) const {
    if (branch.rows.empty()) branch.rows.resize(place(branch, levels_ + 1, 0));
  }
  void choose_at(Branch& branch);
  std::vector<int64_t> ends_above(const Branch& branch) const;
  size_t place(const Branch& branch, int64_t left, int64_t above) const {
    return static_cast<size_t>(left * (branch.depth + 1) + above);
  }
  // `rows` on the next level, where `left` are left.
  static int64_t on_level(int64_t rows, int64_t left) { return rows > 0 && left == 0 ? kImpossible : rows; }

  std::span<const int64_t> shared_;
  int64_t levels_;
  std::vector<Branch> branches_;
  std::vector<int64_t> by_end_;     // branches, parents before children
  std::vector<int64_t> branch_of_;  // at which sequence i parts from the one before it
};

// One walk with the branches that are open, of which each sequence closes those that it does not share.
void Levels::find_branches(std::span<const int64_t> lengths) {
  branches_.emplace_back(0, -1);
  std::vector<int64_t> open{0};
  const auto count = static_cast<int64_t>(lengths.size());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t here = shared_[i], next = i + 1 < count ? shared_[i + 1] : 0;
    branch_of_.push_back(open.back());
    TORCH_INTERNAL_ASSERT(branches_[open.back()].end == here);
    if (next > here) {
      open.push_back(static_cast<int64_t>(branches_.size()));
      branches_.emplace_back(next, open[open.size() - 2]);
    }
    branches_[open.back()].leaves.push_back(lengths[i]);
    while (branches_[open.back()].end > next) {
      const int64_t closed = open.back();
      open.pop_back();
      if (branches_[open.back()].end < next) {
        open.push_back(static_cast<int64_t>(branches_.size()));
        branches_.emplace_back(next, open[open.size() - 2]);
      }
      branches_[closed].parent = open.back();
    }
  }
  by_end_.resize(branches_.size());
  std::iota(by_end_.begin(), by_end_.end(), 0);
  std::ranges::stable_sort(by_end_, {}, [&](int64_t i) { return branches_[i].end; });
  for (const int64_t i : by_end_) {
    if (i > 0) branches_[i].depth = branches_[branches_[i].parent].depth + 1;
  }
}

// Ends of the branches above it, node 0's first.
std::vector<int64_t> Levels::ends_above(const Branch& branch) const {
  std::vector<int64_t> ends;
  for (int64_t i = branch.parent; i >= 0; i = branches_[i].parent) ends.push_back(branches_[i].end);
  std::ranges::reverse(ends);
  return ends;
}

// The fewest rows, from the leaves up. A branch that is kept has the rows since the last one above it that was; one that is
// not leaves them to each of those below.
void Levels::choose_at(Branch& branch) {
  std::vector<int64_t> ends = ends_above(branch);
  ends.push_back(branch.end);  // where it is kept itself
  begin(branch);
  for (int64_t left = 0; left <= levels_; ++left) {
    for (size_t above = 0; above < ends.size(); ++above) {
      int64_t& rows = branch.rows[left * ends.size() + above];
      for (const int64_t length : branch.leaves) rows += on_level(length - ends[above], left);
    }
  }
  branch.kept.resize(branch.rows.size());
  for (int64_t left = levels_; left > 0; --left) {
    const int64_t below = branch.rows[place(branch, left - 1, branch.depth)];
    for (int64_t above = 0; above < branch.depth; ++above) {
      const size_t at = place(branch, left, above);
      const int64_t keeping = on_level(branch.end - ends[above], left) + below;
      branch.kept[at] = keeping <= branch.rows[at];
      branch.rows[at] = std::min(keeping, branch.rows[at]);
    }
  }
}

void Levels::choose() {
  for (auto i = by_end_.rbegin(); i != by_end_.rend(); ++i) {
    Branch& branch = branches_[*i];
    choose_at(branch);
    if (branch.parent < 0) continue;
    // The branches above it are those above its parent, and the parent.
    Branch& parent = branches_[branch.parent];
    begin(parent);
    for (int64_t left = 0; left <= levels_; ++left) {
      for (int64_t above = 0; above < branch.depth; ++above) {
        int64_t& sum = parent.rows[place(parent, left, above)];
        sum = std::min(kImpossible, sum + branch.rows[place(branch, left, above)]);
      }
    }
    branch.rows = {};
  }
}

std::vector<int64_t> Levels::result() const {
  struct State {
    int64_t left, above, end;
  };
  std::vector<State> states(branches_.size());  // below each branch
  for (const int64_t i : by_end_) {
    const Branch& branch = branches_[i];
    if (branch.parent < 0) {
      states[i] = {levels_, 0, 0};
      continue;
    }
    const State& state = states[branch.parent];
    states[i] = branch.kept[place(branch, state.left, state.above)]
                    ? State{state.left - 1, branch.depth, branch.end}
                    : state;
  }
  std::vector<int64_t> limited;
  for (const int64_t branch : branch_of_) limited.push_back(states[branch].end);
  return limited;
}

}  // namespace

std::vector<int64_t> limit_levels(std::span<const int64_t> lengths, std::span<const int64_t> shared,
                                  int64_t levels) {
  TORCH_CHECK(levels >= 1, "trees have at least one level, not ", levels);
  return Levels(lengths, shared, levels).result();
}

}  // namespace troupe
