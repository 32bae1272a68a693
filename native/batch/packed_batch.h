// A batch of calls packed into one row axis as prefix trees: every shared token is one row.
//
// Calls share a node only within one gradient group (docs: shared rows would mix the groups' gradients). Rows
// of one group are contiguous, so group k owns rows [groups[k], groups[k + 1]). Within a group, trees follow
// one another, parents before children.
#pragma once

#include <ATen/ATen.h>

#include <span>
#include <vector>

#include "model/kernels.h"

namespace troupe {

struct PackedCall {
  std::span<const int32_t> prompt;
  std::span<const int32_t> response;  // each of its tokens is one loss entry, in order
  int64_t group = 0;
};

struct PackedBatch {
  at::Tensor tokens;     // [T] int64
  at::Tensor positions;  // [T] int64, from the root of each tree
  std::vector<kernels::TreeNode> nodes;
  std::vector<int64_t> groups;  // K + 1 row offsets
  // Loss entries, sorted by row (so by group): entry e is the prediction of targets[e] at row rows[e].
  at::Tensor rows, targets;  // [E] int64
  // Entry of the j-th response token of call c: entries[call_starts[c] + j]. [E] int64, and calls + 1
  // offsets.
  at::Tensor entries;
  std::vector<int64_t> call_starts;
  int64_t tokens_seen = 0;  // Σ prompt + response over the calls: what an unshared batch would compute
};

// share = false: one chain per call, the slow twin of the tests and of benchmarks.
PackedBatch pack(std::span<const PackedCall> calls, int64_t groups, bool share = true);

}  // namespace troupe
