// Work items of paged attention (launch.h), made on the host once per step: how a row's positions are cut into parts,
// and which rows read which pages together.
//
// Parts are cut at multiples of kPartPages pages, but a last part of kShortPages pages or less belongs to the one before
// it: a block of so few pages costs nearly what a full one does. Where a row is cut thus depends on its own position
// alone, and each part is summed in an order of its own pages: a row's result depends neither on how the tree is cut nor
// on who else is in the batch.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/launch.h"

namespace troupe::kernels::cuda {

constexpr int kPartPages = 16;
constexpr int kShortPages = 8;
// Pages of a tile, each counted once, beyond which no further row joins it.
constexpr int kTilePages = 32;

struct PagedPlan {
  // Rows whose partial results fit memory together: one launch for its tiles, one to merge what has several parts.
  struct Chunk {
    int32_t row_begin, row_end;
    int32_t tile_begin, tile_end;
    int32_t partial_begin, partial_end;
  };
  std::vector<PagedTile> tiles;
  std::vector<PagedRun> runs;
  std::vector<PagedMember> members;  // partials counted from the chunk's first
  std::vector<int32_t> starts;       // [rows + 1]: a row's first partial, counted over all chunks
  std::vector<Chunk> chunks;
};

// Row r reads the page table tables[r] (a row of pages [tables, table_width]) up to positions[r], and the step writes slots (page ·
// 16 + place in it; below 0: nowhere). group: query heads of one KV head. A chunk has at most `most_partials` partial results,
// or one row.
PagedPlan plan_paged(const std::vector<int32_t>& tables, const std::vector<int32_t>& positions,
                     const std::vector<int32_t>& slots, const std::vector<int32_t>& pages,
                     int64_t table_width, int32_t group, int64_t most_partials);

}  // namespace troupe::kernels::cuda
