// A batch of calls packed into one row axis as prefix trees: a token that calls share is one row.
//
// Calls share a node only within one gradient group (docs: shared rows would mix the groups' gradients). Rows
// of one group are contiguous, so group k owns rows [groups[k], groups[k + 1]). Within a group, trees follow
// one another, parents before children.
#pragma once

#include <span>
#include <vector>

#include "batch/tree_layout.h"
#include "kernels/plans.h"

namespace troupe {

struct PackedBatch {
  std::vector<int64_t> tokens;     // [T]
  std::vector<int64_t> positions;  // [T], from the root of each tree
  std::vector<kernels::TreeNode> nodes;
  std::vector<int64_t> groups;  // K + 1 row offsets
  // Loss entries, sorted by row (so by group): entry e is the prediction of targets[e] at row rows[e], at
  // temperature temperatures[e] (0: the pass's).
  std::vector<int64_t> rows, targets;  // [E]
  std::vector<double> temperatures;    // [E]
  // Entry of the j-th response token of call c: entries[call_starts[c] + j]. [E], and calls + 1 offsets.
  std::vector<int64_t> entries;
  std::vector<int64_t> call_starts;
  int64_t tokens_seen = 0;  // Σ prompt + response over the calls: what an unshared batch would compute
};

// share = false: one chain per call, the slow twin of the tests and of benchmarks. Trees have at most `levels` levels
// (0: as many as there are; else Kernels::tree_levels of who computes the batch): tokens that more would share are
// rows of several calls. With two levels or more there are never more rows than sharing prompts alone would leave.
PackedBatch pack(std::span<const PackedCall> calls, int64_t groups, bool share = true, int64_t levels = 0);

// Levels of its deepest tree.
int64_t tree_levels(const PackedBatch& batch);

}  // namespace troupe
