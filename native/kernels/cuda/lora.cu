// Adapters' part of a product for all segments of a batch, in bf16: scale · x Aᵀ into `projected`, then that times Bᵀ onto
// y, in one launch: its first blocks compute `projected`, the others wait for the rows that they need, and compute what
// follows the sum as well. A row's sums do not depend on the other rows, nor on how many there are. plain_lora.cu has the
// other types.
#include <algorithm>

#include "kernels/cuda/lora_expand.h"
#include "kernels/cuda/lora_shrink.h"

namespace troupe::kernels::cuda {
namespace {

// Blocks that a multiprocessor holds at a time: two of 128 registers a thread, where those are enough.
constexpr int kResident = 2;

// As many blocks as a large GPU has multiprocessors, about.
constexpr int kFullDevice = 132;
// From so many items of 16 rows by 16 ranks on, larger ones fill the device as well, and read x and A a quarter as often.
constexpr int kManyItems = 4 * kFullDevice;
constexpr int kMostColumnTiles = 4;

template <Then kThen, int kGroups>
__global__ void __launch_bounds__(kThreads, kGroups <= 4 ? kResident : 1)
    lora_kernel(const __grid_constant__ Lora lora, const __grid_constant__ Work work, void* gated,
                const __grid_constant__ SplitHeads heads) {
  constexpr int kTerms = kThen == Then::kSwiglu ? 2 : 1, kColumns = kTileColumns<kThen, kGroups>;
  __shared__ int ticket;
  if (threadIdx.x == 0) ticket = take_ticket(lora.counters, gridDim.x);
  __syncthreads();
  const int shrinks = work.shrink[lora.count];
  const bool first = ticket < shrinks;
  const int item = first ? ticket : ticket - shrinks;
  const int term = first ? range_of(work.shrink, item) : 0;
  const int unit = first ? term / kTerms : range_of(work.expand, item);
  const AdapterTerm* const terms = lora.terms + unit * kTerms;
  const int items = tiles(terms[0].columns, kColumns * work.column_tiles);  // of a row tile's expand items
  if (!first) {
    const int local = item - work.expand[unit];
    expand<kThen, kGroups>(lora, work, unit, local / items, local % items, items, gated, heads);
    return;
  }
  const AdapterTerm& own = lora.terms[term];
  const int size = shrink_size(work.wide), local = item - work.shrink[term];
  const int pieces = work.splits * tiles(own.rank, size), piece = local % pieces;
  const int row = local / pieces * size, rank = piece / work.splits * size, split = piece % work.splits;
  if (work.wide)
    shrink<4, 4>(lora, own, own.row_begin + row, split, rank);
  else
    shrink<1, 1>(lora, own, own.row_begin + row, split, rank);
  __syncthreads();
  if (threadIdx.x == 0)
    arrive(lora.counters + work.counters[unit] + row / kRows,
           shrinks_of<kTerms>(terms, work, row / kRows) + items);
}

int64_t rows_of(const AdapterTerm& term) { return std::max<int64_t>(0, term.row_end - term.row_begin); }

// For units of `terms` terms and column tiles of `columns` columns.
Work work_of(const Lora& lora, int terms, int columns) {
  Work work{false, lora_splits(lora), lora.count / terms, 1, {}, {}, {}};
  const auto shrinks = [&](int32_t t) {
    return shrink_items(rows_of(lora.terms[t]), lora.terms[t].rank, work.splits, work.wide);
  };
  int64_t small = 0, expands = 0;
  for (int32_t t = 0; t < lora.count; ++t) small += shrinks(t);
  for (int32_t u = 0; u < work.units; ++u)
    expands += tiles(rows_of(lora.terms[u * terms]), kRows) * tiles(lora.terms[u * terms].columns, columns);
  work.wide = small > kManyItems;
  // The more, the less often partial sums are added again.
  work.column_tiles = static_cast<int32_t>(std::clamp<int64_t>(expands / kFullDevice, 1, kMostColumnTiles));
  for (int32_t t = 0; t < lora.count; ++t) work.shrink[t + 1] = work.shrink[t] + shrinks(t);
  int32_t counter = 1;
  for (int32_t u = 0; u < work.units; ++u) {
    const AdapterTerm& term = lora.terms[u * terms];
    const int32_t row_tiles = tiles(rows_of(term), kRows);
    work.expand[u + 1] = work.expand[u] + row_tiles * tiles(term.columns, columns * work.column_tiles);
    work.counters[u] = counter;
    counter += row_tiles;
  }
  return work;
}

template <Then kThen, int kGroups>
int launch_lora(const Lora& lora, void* gated, const SplitHeads& heads, Stream stream) {
  constexpr int kTerms = kThen == Then::kSwiglu ? 2 : 1, kColumns = kTileColumns<kThen, kGroups>;
  if (!lora_fits(lora) || lora.count % kTerms != 0) return kInvalidValue;
  const Work work = work_of(lora, kTerms, kColumns);
  size_t shared = kShrinkShared;
  for (int32_t u = 0; u < work.units; ++u) {
    size_t pitches = 0;
    for (int i = 0; i < kTerms; ++i) pitches += rank_pitch(lora.terms[u * kTerms + i].rank);
    shared = std::max(shared, pitches * (kRows + kColumns) * sizeof(Bf16));
  }
  const int32_t blocks = work.shrink[lora.count] + work.expand[work.units];
  return launch(lora_kernel<kThen, kGroups>, dim3(static_cast<unsigned>(blocks)), kThreads, shared, stream,
                lora, work, gated, heads);
}

bool ranks_up_to(const Lora& lora, int32_t most) {
  return std::all_of(lora.terms, lora.terms + lora.count,
                     [&](const AdapterTerm& term) { return term.rank <= most; });
}

}  // namespace

// Whether eight inputs and columns and four ranks are read at a time.
bool lora_fits(const Lora& lora) {
  bool all = lora.type == Type::kBf16 && lora.in % 8 == 0 && lora.out % 8 == 0 &&
             lora.projected_width % 4 == 0 && aligned(lora.x) && aligned(lora.y) &&
             ranks_up_to(lora, kMostFusedRank);
  for (int32_t i = 0; i < lora.count; ++i) {
    const AdapterTerm& term = lora.terms[i];
    all = all && term.rank % 4 == 0 && term.projected % 4 == 0 && term.column % 8 == 0 &&
          term.columns % 8 == 0 && aligned(term.a) && aligned(term.b);
  }
  return all;
}

int32_t lora_splits(const Lora& lora) { return lora_fits(lora) ? tiles(lora.in, kSplitInputs) : 1; }

int64_t lora_counters(const Lora& lora) {
  int64_t count = 1;
  for (int32_t i = 0; i < lora.count; ++i) count += tiles(rows_of(lora.terms[i]), kRows);
  return count;
}

int64_t most_lora_counters(int64_t rows) { return 1 + 3 * (rows / kRows) + kMaxTerms; }

int lora(const Lora& lora, Stream stream) {
  return lora_fits(lora) ? launch_lora<Then::kStore, 2>(lora, nullptr, {}, stream) : plain_lora(lora, stream);
}

int lora_swiglu(const Lora& lora, void* gated, Stream stream) {
  if (!aligned(gated) || lora.out % 16 != 0) return kInvalidValue;
  return launch_lora<Then::kSwiglu, 2>(lora, gated, {}, stream);
}

bool lora_heads_fit(const Lora& lora, const SplitHeads& heads) {
  // B of two heads of 256 has room in a block's shared memory up to rank 64.
  const bool size = heads.size == 64 || heads.size == 128 || (heads.size == 256 && ranks_up_to(lora, 64));
  return lora_fits(lora) && size && aligned(heads.q_norm) && aligned(heads.k_norm) && aligned(heads.q) &&
         aligned(heads.k) && aligned(heads.v) && aligned(heads.cos) && aligned(heads.sin);
}

int lora_heads(const Lora& lora, const SplitHeads& heads, Stream stream) {
  if (!lora_heads_fit(lora, heads)) return kInvalidValue;
  if (heads.size == 64) return launch_lora<Then::kHeads, 2>(lora, nullptr, heads, stream);
  if (heads.size == 128) return launch_lora<Then::kHeads, 4>(lora, nullptr, heads, stream);
  return launch_lora<Then::kHeads, 8>(lora, nullptr, heads, stream);
}

}  // namespace troupe::kernels::cuda
