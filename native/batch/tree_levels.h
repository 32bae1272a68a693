// Prefix trees of few levels, for a backend whose attention costs something for each level.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace troupe {

// Of sequences in sorted order, lengths[i] tokens each, the first shared[i] of which are those of sequence i − 1:
// how many of them to share, so that no tree has more than `levels` levels (at least 1). What is not shared is rows of
// each sequence's own.
//
// The rows are the fewest of all ways to leave branches of the tree out. A sequence that begins with a branch that stays
// has its place below it, though another tree beside it might take fewer (packed_batch.cc tries that of each prompt).
std::vector<int64_t> limit_levels(std::span<const int64_t> lengths, std::span<const int64_t> shared,
                                  int64_t levels);

}  // namespace troupe
