// Which tokens of which calls are one row, in numbers alone: packed_batch.cc makes rows of it, micro_batches.cc counts them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace troupe {

struct PackedCall {
  std::span<const int32_t> prompt;
  std::span<const int32_t> response;  // each of its tokens is one loss entry, in order
  int64_t group = 0;
  double temperature = 0;  // at which its tokens were sampled; 0: the pass's

  // Those that have rows: all but the last token of the response, which predicts nothing. Without a response there is no
  // loss, and so no row.
  int64_t length() const {
    return response.empty() ? 0 : static_cast<int64_t>(prompt.size() + response.size()) - 1;
  }
  int32_t token(int64_t at) const {
    const auto prompts = static_cast<int64_t>(prompt.size());
    return at < prompts ? prompt[at] : response[at - prompts];
  }
};

// A call that has rows, beside those of its group that begin most as it does.
struct TreeCall {
  int64_t call = 0;    // its index among the calls
  int64_t length = 0;  // tokens that have rows
  int64_t shared = 0;  // of them those that it has in common with the one before it; 0 for the first
  int64_t prompt = 0;  // a number that calls of the same prompt have
};

// The calls of each group in the order of their tokens. Throws c10::Error for a group that is not one of `groups` and for an
// empty prompt.
std::vector<std::vector<TreeCall>> tree_order(std::span<const PackedCall> calls, int64_t groups);

// From a root of a group's trees to a leaf.
struct TreePath {
  std::vector<int64_t>
      calls;           // each goes on from the one before it, as a conversation's turns do; the longest last
  int64_t length = 0;  // tokens of the longest
  int64_t shared = 0;  // of them those that are rows of the path before it
};

// Paths of neighbours in the order of a group. Trees have at most `levels` levels, with as few rows as can be; 0: any number
// of levels, and everything that calls begin alike with is shared.
std::vector<TreePath> lay_out(std::span<const TreeCall> calls, int64_t levels);

int64_t rows_of(std::span<const TreePath> paths);

}  // namespace troupe
