// Work items of paged attention (launch.h), made on the host once per step: which rows read which run of
// pages together. Runs are cut at fixed multiples of kSplitPages pages; rows share a tile where all pages of
// the run that they need are the same.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/launch.h"

namespace troupe::kernels::cuda {

struct PagedPlan {
  // Rows whose partial results fit memory together: one launch for its tiles, one to merge.
  struct Chunk {
    int32_t row_begin, row_end;
    int32_t tile_begin, tile_end;
    int32_t partial_begin, partial_end;
  };
  std::vector<PagedTile> tiles;
  std::vector<PagedMember> members;  // partials counted from the chunk's first
  std::vector<int32_t> starts;       // [rows + 1]: a row's first partial, counted over all chunks
  std::vector<Chunk> chunks;
};

// Row r reads the page table tables[r] (a row of pages [tables, table_width]) up to positions[r]. group:
// query heads of one KV head. A chunk has at most `most_partials` partial results, or one row.
PagedPlan plan_paged(const std::vector<int32_t>& tables, const std::vector<int32_t>& positions,
                     const std::vector<int32_t>& pages, int64_t table_width, int32_t group,
                     int64_t most_partials);

}  // namespace troupe::kernels::cuda
