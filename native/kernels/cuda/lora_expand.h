// A tile of lora.cu's product, added to y, and what follows the sum.
#pragma once

#include "kernels/cuda/heads_row.h"
#include "kernels/cuda/silu.h"
#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {

constexpr int kWarps = 4, kThreads = kWarps * 32;
constexpr int kStep = 16;  // rows, and ranks, of a tensor-core product
constexpr int kRows = 64;  // of a tile

using Four = Pack<uint32_t, 4>;  // eight bf16

// What follows the sum. A unit of the product is a term, or gate's and up's.
enum class Then { kStore, kSwiglu, kHeads };
template <Then kThen>
constexpr int kTermsOf = kThen == Then::kSwiglu ? 2 : 1;

// A block's warps have 16 rows each, and all of its columns.
static_assert(kWarps * kStep == kRows);

// Columns of a tile of a unit's, in each of its terms. kGroups: of 32 columns, that a warp has.
template <Then kThen, int kGroups>
constexpr int kTileColumns = 32 * kGroups / kTermsOf<kThen>;

// Ranks in shared memory, zeros behind a term's own, and from one row of them to the next: eight rows lie in different
// banks.
__host__ __device__ __forceinline__ int padded_rank(int rank) { return (rank + kStep - 1) / kStep * kStep; }
__host__ __device__ __forceinline__ int rank_pitch(int rank) { return rank == 0 ? 0 : padded_rank(rank) + 8; }

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

// A term's sides of the product in shared memory, [64][pitch] and [columns][pitch].
struct Sides {
  Bf16 *projected, *b;
  int pitch;
};

// B's rows of the tile's columns begin to come. Of 32 columns, those that are 2 n and 2 n + 1 of an eight lie together: they
// are tensor-core step n's, whose results 2 (lane % 4) and the next are then neighbours of step n + 1's, so that a lane
// gets eight neighbouring columns of a row.
template <int kColumns>
__device__ __forceinline__ void copy_b(const AdapterTerm& term, int tile_begin, const Sides& sides) {
  if (term.rank == 0) return;
  const auto* const matrix = static_cast<const Bf16*>(term.b);
  for_places(kColumns, padded_rank(term.rank) / 4, [&](int column, int four) {
    const bool inside = tile_begin + column < term.columns && four * 4 < term.rank;
    const int place = column / 32 * 32 + column % 8 / 2 * 8 + column % 32 / 8 * 2 + column % 2;
    copy8_or_zero(sides.b + place * sides.pitch + four * 4,
                  inside ? matrix + static_cast<int64_t>(tile_begin + column) * term.rank + four * 4 : matrix,
                  inside);
  });
}

// The tile's rows of x Aᵀ begin to come.
__device__ __forceinline__ void copy_projected(const Lora& lora, const AdapterTerm& term, int64_t row_begin,
                                               const Sides& sides) {
  if (term.rank == 0) return;
  const auto* const from = static_cast<const Bf16*>(lora.y) + term.projected;
  for_places(kRows, padded_rank(term.rank) / 4, [&](int row, int four) {
    const bool inside = row_begin + row < term.row_end && four * 4 < term.rank;
    copy8_or_zero(sides.projected + row * sides.pitch + four * 4,
                  inside ? from + (row_begin + row) * lora.stride + four * 4 : from, inside);
  });
}

// 16 rows by 32 columns, in four tensor-core steps of every 16 ranks.
__device__ __forceinline__ void multiply(const Sides& sides, int ranks, int row, int column,
                                         float (&sums)[4][4]) {
  const int lane = threadIdx.x % 32;
  const Bf16* const left = sides.projected + (row + lane % 16) * sides.pitch + lane / 16 * 8;
  const Bf16* const right = sides.b + (column + lane / 16 * 8 + lane % 8) * sides.pitch + lane / 8 % 2 * 8;
  for (int k = 0; k < ranks; k += kStep) {
    uint32_t a[4];
    load_matrices(a, left + k);
#pragma unroll
    for (int n = 0; n < 4; n += 2) {
      uint32_t b[4];
      load_matrices(b, right + n * 8 * sides.pitch + k);
      multiply_add(sums[n], a, b[0], b[1]);
      multiply_add(sums[n + 1], a, b[2], b[3]);
    }
  }
}

// Four of eight bf16, widened.
__device__ __forceinline__ void widen_half(const Four& from, int half, float (&to)[4]) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    to[2 * n] = float_of(from.at[half * 2 + n] << 16);
    to[2 * n + 1] = float_of(from.at[half * 2 + n] & 0xffff0000u);
  }
}

// A head of each of a lane's two rows, eight dimensions of every 32: the norm's scale, summed in split_kernel's order.
template <int kGroups>
__device__ __forceinline__ float scale_of(const Four (&y)[kGroups][2], int r, double eps) {
  constexpr int kHalf = kGroups / 2;
  float squares[kHalf] = {};
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      float value[4];
      widen_half(y[g][r], part, value);
#pragma unroll
      for (int j = 0; j < 4; ++j) squares[g % kHalf] += value[j] * value[j];
    }
  }
#pragma unroll
  for (int n = kHalf / 2; n > 0; n /= 2) {
#pragma unroll
    for (int g = 0; g < n; ++g) squares[g] += squares[g + n];
  }
  return 1.f / sqrt(lane_sum<4>(squares[0]) / static_cast<float>(kGroups * 32) + static_cast<float>(eps));
}

template <int kGroups>
__device__ __forceinline__ void store_heads(const SplitHeads& heads, const Four (&y)[kGroups][2],
                                            int64_t row_begin, int64_t row_end, int head) {
  const int lane = threadIdx.x % 32, half = heads.size / 2;
  const bool query = head < heads.heads, key = !query && head < heads.heads + heads.kv_heads;
  const auto* const weight = static_cast<const Bf16*>(query ? heads.q_norm : key ? heads.k_norm : nullptr);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float scale =
        weight ? scale_of<kGroups>(y, r, heads.eps) : 1.f;  // every lane: it sums over neighbours
    const int64_t row = row_begin + lane / 4 + r * 8;
    if (row >= row_end) continue;
    Bf16* const to = head_place<Bf16>(heads, row, head);
    if (!to) continue;
    const int64_t angle = static_cast<int64_t>(heads.positions[row]) * half;
#pragma unroll
    for (int g = 0; g < kGroups / 2; ++g) {
      Four first, second;  // of eight dimensions, four at a time: registers
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int i = g * 32 + lane % 4 * 8 + part * 4;
        float a[4], b[4];
        widen_half(y[g][r], part, a);
        widen_half(y[g + kGroups / 2][r], part, b);
        if (weight) norm_pack<Bf16>(a, b, scale, weight + i, weight + half + i);
        if (query || key) {
          float cos[4], sin[4];
          load(static_cast<const float*>(heads.cos) + angle + i, cos);
          load(static_cast<const float*>(heads.sin) + angle + i, sin);
          rotate_pack(a, b, cos, sin);
        }
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          first.at[part * 2 + n] = narrow_pair(a[2 * n], a[2 * n + 1]);
          second.at[part * 2 + n] = narrow_pair(b[2 * n], b[2 * n + 1]);
        }
      }
      *reinterpret_cast<Four*>(to + g * 32 + lane % 4 * 8) = first;
      *reinterpret_cast<Four*>(to + half + g * 32 + lane % 4 * 8) = second;
    }
  }
}

template <int kOwn>
__device__ __forceinline__ void store_swiglu(const Lora& lora, const Four (&y)[2 * kOwn][2],
                                             int64_t row_begin, int64_t row_end, int column_begin,
                                             int columns, void* gated) {
  const int lane = threadIdx.x % 32, width = static_cast<int>(lora.out / 2);
  Bf16* const rows = static_cast<Bf16*>(gated) + row_begin * width;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = lane / 4 + r * 8;
    if (row_begin + row >= row_end) continue;
#pragma unroll
    for (int g = 0; g < kOwn; ++g) {
      const int column = column_begin + g * 32 + lane % 4 * 8;
      if (column >= columns) continue;
      Four out;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        float gate[4], up[4];
        widen_half(y[g][r], part, gate);
        widen_half(y[g + kOwn][r], part, up);
#pragma unroll
        for (int j = 0; j < 4; ++j) gate[j] = gate[j] * sigmoid(gate[j]) * up[j];
        out.at[part * 2] = narrow_pair(gate[0], gate[1]);
        out.at[part * 2 + 1] = narrow_pair(gate[2], gate[3]);
      }
      *reinterpret_cast<Four*>(rows + row * width + column) = out;
    }
  }
}

// A lane's places in y: rows lane / 4 and that + 8, eight columns of every 32.
template <int kGroups, typename F>
__device__ __forceinline__ void for_lane(const Lora& lora, const AdapterTerm* terms, int groups_of_term,
                                         int64_t row_begin, int column_begin, const F& f) {
  const int lane = threadIdx.x % 32,
            left = static_cast<int>(min(terms[0].row_end - row_begin, int64_t{kStep}));
  // Within 16 rows 32 bits are enough: fewer registers.
  Bf16* const rows = static_cast<Bf16*>(lora.y) + row_begin * lora.stride;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const AdapterTerm& term = terms[g / groups_of_term];
    const int column = column_begin + g % groups_of_term * 32 + lane % 4 * 8;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = lane / 4 + r * 8;
      if (row < left && column < term.columns)
        f(g, r, reinterpret_cast<Four*>(rows + row * static_cast<int>(lora.stride) + term.column + column));
    }
  }
}

// 64 rows by a tile of a unit's columns; a warp has 16 rows by 32 kGroups columns; SwiGLU: by half of them of gate and the
// same half of up.
template <Then kThen, int kGroups>
__device__ __forceinline__ void expand(const Lora& lora, const AdapterTerm* terms, int64_t tile_row,
                                       int tile_begin, void* gated, const SplitHeads& heads) {
  constexpr int kTerms = kTermsOf<kThen>, kOwn = kGroups / kTerms;  // groups of a term
  constexpr int kColumns = kTileColumns<kThen, kGroups>;
  const int64_t row_end = terms[0].row_end;
  const int row = static_cast<int>(threadIdx.x) / 32 * kStep;
  Sides sides[kTerms];
  auto* shared = reinterpret_cast<Bf16*>(dynamic_shared());
#pragma unroll
  for (int i = 0; i < kTerms; ++i) {
    const int pitch = rank_pitch(terms[i].rank);
    sides[i] = {shared, shared + kRows * pitch, pitch};
    shared += (kRows + kColumns) * pitch;
    copy_b<kColumns>(terms[i], tile_begin,
                     sides[i]);  // an adapter's, which is written behind ordinary launches alone
  }
  wait_for_previous();
#pragma unroll
  for (int i = 0; i < kTerms; ++i) copy_projected(lora, terms[i], tile_row, sides[i]);
  commit_copies();
  Four y[kGroups][2] = {};
  for_lane<kGroups>(lora, terms, kOwn, tile_row + row, tile_begin,
                    [&](int g, int r, const Four* from) { y[g][r] = *from; });
  wait_copies<0>();
  __syncthreads();
  if (tile_row + row >= row_end || tile_begin >= terms[0].columns) return;  // a whole warp
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const AdapterTerm& term = terms[g / kOwn];
    float sums[4][4] = {};
    multiply(sides[g / kOwn], term.rank, row, g % kOwn * 32, sums);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int n = 0; n < 4; ++n)
        y[g][r].at[n] =
            narrow_pair(fmaf(term.scale, sums[n][2 * r], float_of(y[g][r].at[n] << 16)),
                        fmaf(term.scale, sums[n][2 * r + 1], float_of(y[g][r].at[n] & 0xffff0000u)));
    }
  }
  if constexpr (kThen == Then::kHeads)
    store_heads<kGroups>(heads, y, tile_row + row, row_end, (terms[0].column + tile_begin) / heads.size);
  else if constexpr (kThen == Then::kSwiglu)
    store_swiglu<kOwn>(lora, y, tile_row + row, row_end, tile_begin, terms[0].columns, gated);
  else
    for_lane<kGroups>(lora, terms, kOwn, tile_row + row, tile_begin,
                      [&](int g, int r, Four* to) { *to = y[g][r]; });
}

}  // namespace troupe::kernels::cuda
