// How a launch of lora.cu is cut: into shrink items, of rows by ranks over a split of the inputs, and then expand items,
// of 64 rows by some tiles of columns. Which sums are formed, and in what order, depends on widths and ranks alone; the
// number of rows decides only who forms them.
#pragma once

#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {

constexpr int kWarps = 8, kThreads = kWarps * 32;
constexpr int kStep = 16;  // rows, and ranks, of a tensor-core product
constexpr int kRows = 64;  // of an expand item, and of what it waits for
// A chunk of the inputs, summed by itself; a split has one for each warp.
constexpr int kChunkInputs = 160, kSplitInputs = kWarps * kChunkInputs;

// Shared memory of the largest shrink item.
constexpr size_t kShrinkShared = 2 * 64 * 65 * sizeof(float);

using Four = Pack<uint32_t, 4>;  // eight bf16

// What follows the sum. A unit of the second product is a term, or gate's and up's.
enum class Then { kStore, kSwiglu, kHeads };

struct Work {
  bool wide;  // shrink items are of 64 rows by 64 ranks, not of 16 by 16
  int32_t splits, units;
  int32_t column_tiles;           // that an expand item goes through, one after another
  int32_t shrink[kMaxTerms + 1];  // first item of each term; the last: how many there are
  int32_t expand[kMaxTerms + 1];  // likewise of each unit, counted from 0 again
  int32_t counters[kMaxTerms];    // first of a unit's, one for each of its row tiles; 0 is the ticket
};

__host__ __device__ __forceinline__ int tiles(int64_t count, int size) {
  return static_cast<int>((count + size - 1) / size);
}
__host__ __device__ __forceinline__ int shrink_size(bool wide) { return wide ? kRows : kStep; }
// Of `rows` rows of a term.
__host__ __device__ __forceinline__ int shrink_items(int64_t rows, int rank, int splits, bool wide) {
  return tiles(rows, shrink_size(wide)) * tiles(rank, shrink_size(wide)) * splits;
}
// Ranks in shared memory, zeros behind a term's own, and from one row of them to the next: eight rows lie in different
// banks.
__host__ __device__ __forceinline__ int padded_rank(int rank) { return tiles(rank, kStep) * kStep; }
__host__ __device__ __forceinline__ int rank_pitch(int rank) { return rank == 0 ? 0 : padded_rank(rank) + 8; }

// Which of the ranges that begin at starts[0], starts[1], … has the item.
__device__ __forceinline__ int range_of(const int32_t* starts, int item) {
  int i = 0;
  while (item >= starts[i + 1]) ++i;
  return i;
}

// A block's threads go through `rows` rows of `width` each, side by side: f(row, place).
template <typename F>
__device__ __forceinline__ void for_places(int rows, int width, const F& f) {
  int row = static_cast<int>(threadIdx.x) / width, place = static_cast<int>(threadIdx.x) % width;
  const int row_step = kThreads / width, place_step = kThreads % width;
  while (row < rows) {
    f(row, place);
    row += row_step;
    place += place_step;
    if (place < width) continue;
    place -= width;
    ++row;
  }
}

}  // namespace troupe::kernels::cuda
