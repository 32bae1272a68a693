// The first product of lora.cu: scale · x Aᵀ, in partial sums over splits of the inputs.
#pragma once

#include "kernels/cuda/lora_work.h"

namespace troupe::kernels::cuda {

// 16 kRowWarps rows by 16 kRankTiles ranks over a split. The block's warps share out rows and the split's eight chunks;
// whatever the shares, a chunk is summed by itself, then four chunks in order, then both halves. x goes to the one warp
// that needs it; A, of which kRowWarps warps need the same at about the same time, comes through L1 for all but one.
// The order in which a chunk's terms are added is free, so a lane takes eight neighbours of a row, two tensor-core
// steps' worth.
template <int kRowWarps, int kRankTiles>
__device__ __forceinline__ void shrink(const Lora& lora, const AdapterTerm& term, int64_t row_begin,
                                       int split, int rank_begin) {
  constexpr int kInputWarps = kWarps / kRowWarps, kChunks = kWarps / kInputWarps;  // chunks of a warp
  constexpr int kItemRows = kRowWarps * kStep, kItemRanks = kRankTiles * kStep;
  using Parts = float[kInputWarps][kItemRows][kItemRanks + 1];
  static_assert(sizeof(Parts) <= kShrinkShared);
  auto& parts = *reinterpret_cast<Parts*>(dynamic_shared());
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row_warp = warp % kRowWarps, input_warp = warp / kRowWarps;
  const auto* const matrix = static_cast<const Bf16*>(term.a);
  const Bf16* rows[2];
  int32_t ranks[kRankTiles][2];  // first elements
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t row = row_begin + row_warp * kStep + lane / 4 + i * 8;
    rows[i] = static_cast<const Bf16*>(lora.x) + min(row, term.row_end - 1) * lora.in;
#pragma unroll
    for (int t = 0; t < kRankTiles; ++t)
      ranks[t][i] =
          min(rank_begin + t * kStep + lane / 4 + i * 8, term.rank - 1) * static_cast<int32_t>(lora.in);
  }
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int chunk_begin = split * kSplitInputs + (input_warp * kChunks + chunk) * kChunkInputs;
    float sums[kRankTiles][2][4] = {};
#pragma unroll
    for (int k = 0; k < kChunkInputs; k += 32) {
      if (k == 0 && chunk_begin >= lora.in) break;  // the whole chunk
      const int at = chunk_begin + k + lane % 4 * 8;
      const bool inside = at < lora.in;
      Four left[2] = {};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (inside) left[i] = *reinterpret_cast<const Four*>(rows[i] + at);
      }
#pragma unroll
      for (int t = 0; t < kRankTiles; ++t) {
        if (t > 0 && rank_begin + t * kStep >= term.rank) break;  // the whole block
        Four right[2] = {};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (inside) right[i] = *reinterpret_cast<const Four*>(matrix + ranks[t][i] + at);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint32_t a[4] = {left[0].at[2 * half], left[1].at[2 * half], left[0].at[2 * half + 1],
                                 left[1].at[2 * half + 1]};
#pragma unroll
          for (int n = 0; n < 2; ++n)
            multiply_add(sums[t][n], a, right[n].at[2 * half], right[n].at[2 * half + 1]);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < kRankTiles; ++t) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& part = parts[input_warp][row_warp * kStep + lane / 4 + i / 2 * 8]
                             [t * kStep + n * 8 + lane % 4 * 2 + i % 2];
          part = (chunk == 0 ? 0.f : part) + sums[t][n][i];
        }
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kItemRows * kItemRanks; i += kThreads) {
    const int row = i / kItemRanks, rank = i % kItemRanks;
    if (row_begin + row >= term.row_end || rank_begin + rank >= term.rank) continue;
    float halves[2] = {};
#pragma unroll
    for (int w = 0; w < kInputWarps; ++w) halves[w / (kInputWarps / 2)] += parts[w][row][rank];
    const int64_t to = (split * lora.rows + row_begin + row) * lora.projected_width;
    static_cast<float*>(lora.projected)[to + term.projected + rank_begin + rank] =
        (halves[0] + halves[1]) * static_cast<float>(term.scale);
  }
}

}  // namespace troupe::kernels::cuda
