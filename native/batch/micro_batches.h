// Calls in parts of a bounded number of rows, which a forward and a backward pass hold at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "batch/tree_layout.h"

namespace troupe {

struct MicroBatch {
  std::vector<int64_t> calls;  // indices
  int64_t rows = 0;            // that pack() makes of them
};

// Calls of one group follow one another, and in a group those that begin alike, so that each is beside the calls that it
// shares most with. They are cut where least has to be computed again, into parts of at most `max_rows` rows as pack() lays
// them out on trees of `levels` levels (0: any number); a call that alone has more is a part of its own. Calls without a
// response have no rows and are in the first part. What comes of it does not depend on the order of the calls.
//
// A micro-batch adds to the accumulators of the groups that it has calls of, each as large as the parameters: of G groups in
// M micro-batches at most G + M − 1 are read and written so, not G · M. Throws c10::Error as tree_order does.
std::vector<MicroBatch> micro_batches(std::span<const PackedCall> calls, int64_t max_rows, int64_t levels);

}  // namespace troupe
