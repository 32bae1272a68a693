// A warp's tile of lora.cu's product, added to y, and what follows the sum. Warps share nothing: what each reads goes from
// memory to its registers, and all of it is under way before one sum is made.
#pragma once

#include "kernels/cuda/lora_heads.h"
#include "kernels/cuda/silu.h"

namespace troupe::kernels::cuda {

constexpr int kWarps = 4, kThreads = kWarps * 32;
constexpr int kRows = 16;  // of a tensor-core product

// What follows the sum. A unit of the product is a term, or gate's and up's.
enum class Then { kStore, kSwiglu, kHeads };
template <Then kThen>
constexpr int kTermsOf = kThen == Then::kSwiglu ? 2 : 1;

// A warp has kTiles times 16 rows by kGroups times 32 columns; SwiGLU: half of the groups of gate and the same of up.
template <Then kThen, int kGroups>
constexpr int kTileColumns = 32 * kGroups / kTermsOf<kThen>;

// The eight of a term's end where a lane's go beyond it.
__device__ __forceinline__ int inside(int column, const AdapterTerm& term) {
  return min(column, term.columns - 8);
}

// B of the first of the columns that a lane reads it of: a tensor-core step's eight are the 2 n and 2 n + 1 of every eight of
// a group, so that a lane's results are neighbours.
__device__ __forceinline__ const Bf16* lane_b(const AdapterTerm& term, int group_begin) {
  const int lane = threadIdx.x % 32, column = inside(group_begin + lane / 8 * 8, term) + lane / 4 % 2;
  return static_cast<const Bf16*>(term.b) + static_cast<int64_t>(column) * term.rank;
}
__device__ __forceinline__ void load_b(const AdapterTerm& term, const Bf16* from, int k, Two (&b)[4]) {
#pragma unroll
  for (int n = 0; n < 4; ++n) b[n] = load_ranks(from + 2 * n * term.rank, k, term.rank);
}
__device__ __forceinline__ void load_projected(const Lora& lora, const AdapterTerm& term,
                                               const TileRows& rows, int k, uint32_t (&p)[4]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const Two four = load_ranks(static_cast<const Bf16*>(lora.y) + rows.row[r] * lora.stride + term.projected,
                                k, term.rank);
    p[r] = four.at[0];
    p[2 + r] = four.at[1];
  }
}
__device__ __forceinline__ void multiply(const uint32_t (&p)[4], const Two (&b)[4], float (&sums)[4][4]) {
#pragma unroll
  for (int n = 0; n < 4; ++n) multiply_add(sums[n], p, b[n].at[0], b[n].at[1]);
}

template <int kOwn>
__device__ __forceinline__ void store_swiglu(const Lora& lora, const Four (&y)[2 * kOwn][2],
                                             const TileRows& rows, int tile_begin, int columns, void* gated) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int g = 0; g < kOwn; ++g) {
      const int column = tile_begin + g * 32 + lane_columns();
      Four out;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        float gate[4], up[4];
        widen_half(y[g][r], part, gate);
        widen_half(y[g + kOwn][r], part, up);
#pragma unroll
        for (int j = 0; j < 4; ++j) gate[j] = gate[j] * sigmoid<Bf16>(gate[j]) * up[j];
        out.at[part * 2] = narrow_pair(gate[0], gate[1]);
        out.at[part * 2 + 1] = narrow_pair(gate[2], gate[3]);
      }
      if (rows.inside[r] && column < columns)
        *reinterpret_cast<Four*>(static_cast<Bf16*>(gated) + rows.row[r] * (lora.out / 2) + column) = out;
    }
  }
}

// The tile's columns of y in a unit's terms, eight at a time: f(group, row, where they lie, whether they are the tile's own).
template <int kGroups, int kOwn, typename F>
__device__ __forceinline__ void for_lane(const Lora& lora, const AdapterTerm* terms, const TileRows& rows,
                                         int tile_begin, const F& f) {
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const AdapterTerm& term = terms[g / kOwn];
    const int column = tile_begin + g % kOwn * 32 + lane_columns();
#pragma unroll
    for (int r = 0; r < 2; ++r)
      f(g, r,
        reinterpret_cast<Four*>(static_cast<Bf16*>(lora.y) + rows.row[r] * lora.stride + term.column +
                                inside(column, term)),
        rows.inside[r] && column < term.columns);
  }
}

template <Then kThen, int kTiles, int kGroups>
__device__ __forceinline__ void expand(const Lora& lora, const AdapterTerm* terms, int64_t row_begin,
                                       int tile_begin, void* gated, const SplitHeads& heads) {
  constexpr int kTerms = kTermsOf<kThen>, kOwn = kGroups / kTerms;  // groups of a term
  Two b[kGroups][4];
#pragma unroll
  for (int g = 0; g < kGroups; ++g)  // an adapter's, which is written behind ordinary launches alone
    load_b(terms[g / kOwn], lane_b(terms[g / kOwn], tile_begin + g % kOwn * 32), 0, b[g]);
  [[maybe_unused]] HeadOperands<kGroups> operands;
  if constexpr (kThen == Then::kHeads) {
    static_assert(kTiles == 1);
    operands.read_early(heads, TileRows(row_begin, terms[0].row_end),
                        (terms[0].column + tile_begin) / heads.size);
  }
  wait_for_previous();
  uint32_t p[kTiles][kTerms][4];
  Four y[kTiles][kGroups][2];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const TileRows rows(row_begin + t * kRows, terms[0].row_end);
#pragma unroll
    for (int i = 0; i < kTerms; ++i) load_projected(lora, terms[i], rows, 0, p[t][i]);
    for_lane<kGroups, kOwn>(lora, terms, rows, tile_begin,
                            [&](int g, int r, const Four* from, bool) { y[t][g][r] = *from; });
  }
  if constexpr (kThen == Then::kHeads) {
    operands.read_angles(heads);
    let_next_begin();  // attention, whose reads from here on are behind these
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const TileRows rows(row_begin + t * kRows, terms[0].row_end);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const AdapterTerm& term = terms[g / kOwn];
      float sums[4][4] = {};
      multiply(p[t][g / kOwn], b[g], sums);
      for (int k = kStep; k < term.rank; k += kStep) {
        uint32_t more_p[4];
        Two more_b[4];
        load_projected(lora, term, rows, k, more_p);
        load_b(term, lane_b(term, tile_begin + g % kOwn * 32), k, more_b);
        multiply(more_p, more_b, sums);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int n = 0; n < 4; ++n)
          y[t][g][r].at[n] = add_scaled(y[t][g][r].at[n], term.scale, sums[n][2 * r], sums[n][2 * r + 1]);
      }
    }
    if constexpr (kThen == Then::kHeads)
      store_heads(heads, y[t], rows, operands);
    else if constexpr (kThen == Then::kSwiglu)
      store_swiglu<kOwn>(lora, y[t], rows, tile_begin, terms[0].columns, gated);
    else
      for_lane<kGroups, kOwn>(lora, terms, rows, tile_begin, [&](int g, int r, Four* to, bool own) {
        if (own) *to = y[t][g][r];
      });
  }
}

}  // namespace troupe::kernels::cuda
