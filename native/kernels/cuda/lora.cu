// Adapters' part of a product for all segments of a batch, in bf16: x Aᵀ, which the product computed beside its own columns,
// times Bᵀ onto y, in one launch with what follows the sum. A row's sums depend neither on the other rows nor on how many
// there are.
#include <algorithm>

#include "kernels/cuda/lora_expand.h"

namespace troupe::kernels::cuda {
namespace {

// Blocks that a multiprocessor holds at a time, by the registers that they need.
template <Then kThen, int kGroups>
constexpr int kResident = kThen == Then::kSwiglu  ? 5
                          : kThen == Then::kStore ? 4
                                                  : 2;

// A launch's blocks: of each unit its row tiles by its column tiles.
struct Work {
  int32_t units;
  int32_t first[kMaxTerms + 1];  // block of each unit; the last: how many there are
};

__host__ __device__ __forceinline__ int tiles(int64_t count, int size) {
  return static_cast<int>((count + size - 1) / size);
}

template <Then kThen, int kTiles, int kGroups>
__global__ void __launch_bounds__(kThreads, kResident<kThen, kGroups>)
    lora_kernel(const __grid_constant__ Lora lora, const __grid_constant__ Work work, void* gated,
                const __grid_constant__ SplitHeads heads) {
  constexpr int kColumns = kTileColumns<kThen, kGroups>;
  const int block = static_cast<int>(blockIdx.x), warp = static_cast<int>(threadIdx.x) / 32;
  int unit = 0;
  while (block >= work.first[unit + 1]) ++unit;
  const AdapterTerm* const terms = lora.terms + unit * kTermsOf<kThen>;
  const int across = tiles(terms[0].columns, kWarps * kColumns), item = block - work.first[unit];
  const int column = (item % across * kWarps + warp) * kColumns;
  if (column >= terms[0].columns) return;
  const int64_t row = terms[0].row_begin + static_cast<int64_t>(item / across) * kTiles * kRows;
  expand<kThen, kTiles, kGroups>(lora, terms, row, column, gated, heads);
}

int64_t rows_of(const AdapterTerm& term) { return std::max<int64_t>(0, term.row_end - term.row_begin); }

template <Then kThen, int kTiles, int kGroups>
int launch_lora(const Lora& lora, void* gated, const SplitHeads& heads, Stream stream) {
  constexpr int kTerms = kTermsOf<kThen>, kColumns = kTileColumns<kThen, kGroups>;
  if (!lora_fits(lora) || lora.count % kTerms != 0) return kInvalidValue;
  Work work{lora.count / kTerms, {}};
  int64_t blocks = 0;
  for (int32_t u = 0; u < work.units; ++u) {
    const AdapterTerm& term = lora.terms[u * kTerms];
    blocks +=
        static_cast<int64_t>(tiles(rows_of(term), kTiles * kRows)) * tiles(term.columns, kWarps * kColumns);
    if (blocks > INT32_MAX) return kInvalidValue;
    work.first[u + 1] = static_cast<int32_t>(blocks);
  }
  if constexpr (kThen == Then::kHeads) {
    if (const int error = prefer_shared_memory(lora_kernel<kThen, kTiles, kGroups>, true)) return error;
  }
  return launch_early(lora_kernel<kThen, kTiles, kGroups>, dim3(static_cast<unsigned>(blocks)), kThreads, 0,
                      stream, lora, work, gated, heads);
}

}  // namespace

// Eight columns and four ranks are read at a time.
bool lora_fits(const Lora& lora) {
  return lora.out % 8 == 0 && lora.stride % 8 == 0 && lora.stride <= INT32_MAX / kRows && aligned(lora.y) &&
         std::all_of(lora.terms, lora.terms + lora.count, [](const AdapterTerm& term) {
           return term.rank % 4 == 0 && term.rank <= kMostFusedRank && term.projected % 4 == 0 &&
                  term.column % 8 == 0 && term.columns % 8 == 0 && aligned(term.b);
         });
}

int lora(const Lora& lora, Stream stream) {
  return launch_lora<Then::kStore, 2, 2>(lora, nullptr, {}, stream);
}

int lora_swiglu(const Lora& lora, void* gated, Stream stream) {
  if (!aligned(gated) || lora.out % 16 != 0) return kInvalidValue;
  return launch_lora<Then::kSwiglu, 2, 2>(lora, gated, {}, stream);
}

bool lora_heads_fit(const Lora& lora, const SplitHeads& heads) {
  const bool size = heads.size == 64 || heads.size == 128 || heads.size == 256;
  return lora_fits(lora) && size && heads.slots && !heads.place && aligned(heads.q_norm) &&
         aligned(heads.k_norm) && aligned(heads.q) && aligned(heads.k) && aligned(heads.v) &&
         aligned(heads.cos) && aligned(heads.sin);
}

int lora_heads(const Lora& lora, const SplitHeads& heads, Stream stream) {
  if (!lora_heads_fit(lora, heads)) return kInvalidValue;
  if (heads.size == 64) return launch_lora<Then::kHeads, 1, 2>(lora, nullptr, heads, stream);
  if (heads.size == 128) return launch_lora<Then::kHeads, 1, 4>(lora, nullptr, heads, stream);
  return launch_lora<Then::kHeads, 1, 8>(lora, nullptr, heads, stream);
}

}  // namespace troupe::kernels::cuda
