// The heads that a warp's tile of lora.cu's product makes: their norm, rotation and place in the cache. What that needs beside
// the product comes from memory while the product still ends, and is waited for with it.
#pragma once

#include "kernels/cuda/heads_row.h"
#include "kernels/cuda/lora_tile.h"

namespace troupe::kernels::cuda {

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

// What a head of a lane's two rows needs beside the product.
template <int kGroups>
struct HeadOperands {
  // Wide heads leave no registers: theirs are read when they are needed.
  static constexpr bool kHeld = kGroups <= 4;
  static constexpr int kHalf = kGroups / 2;
  int head;
  bool query, key;
  const Bf16* weight;                 // of the head's norm, or null
  int32_t position[2], slot[2];       // of the rows
  Four weights[kHeld ? kGroups : 1];  // of the lane's eight dimensions of each group
  float cos[2][kHeld ? kHalf : 1][2][4],
      sin[2][kHeld ? kHalf : 1][2][4];  // of the rows, of each group of the first half

  // What was written behind ordinary launches alone: the step's plan, and a norm's weight.
  __device__ __forceinline__ void read_early(const SplitHeads& heads, const TileRows& rows, int own_head) {
    head = own_head;
    query = head < heads.heads;
    key = !query && head < heads.heads + heads.kv_heads;
    weight = static_cast<const Bf16*>(query ? heads.q_norm : key ? heads.k_norm : nullptr);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      position[r] = heads.positions[rows.row[r]];
      slot[r] = heads.slots[rows.row[r]];
    }
    if constexpr (kHeld) {
      if (!weight) return;
#pragma unroll
      for (int g = 0; g < kGroups; ++g)
        weights[g] = *reinterpret_cast<const Four*>(weight + g * 32 + lane_columns());
    }
  }
  // Behind the loads of the product, which need not wait for positions.
  __device__ __forceinline__ void read_angles(const SplitHeads& heads) {
    if constexpr (kHeld) {
#pragma unroll
      for (int i = 0; i < 4 * kHalf; ++i) {
        const int r = i / (2 * kHalf), g = i / 2 % kHalf, part = i % 2;
        read_angle(heads, r, g, part, cos[r][g][part], sin[r][g][part]);
      }
    }
  }
  __device__ __forceinline__ void read_angle(const SplitHeads& heads, int r, int g, int part,
                                             float (&to_cos)[4], float (&to_sin)[4]) const {
    const int64_t at =
        static_cast<int64_t>(position[r]) * (heads.size / 2) + g * 32 + lane_columns() + part * 4;
    load(static_cast<const float*>(heads.cos) + at, to_cos);
    load(static_cast<const float*>(heads.sin) + at, to_sin);
  }

  // Four dimensions of a row's first half, a, and their partners in the second, b.
  __device__ __forceinline__ void norm(int g, int part, float scale, float (&a)[4], float (&b)[4]) const {
    if (!weight) return;
    if constexpr (kHeld) {
      const auto of = [&](int group) { return reinterpret_cast<const Bf16*>(weights[group].at) + part * 4; };
      norm_pack<Bf16>(a, b, scale, of(g), of(g + kHalf));
    } else {
      const Bf16* const from = weight + g * 32 + lane_columns() + part * 4;
      norm_pack<Bf16>(a, b, scale, from, from + kHalf * 32);
    }
  }
  __device__ __forceinline__ void rotate(const SplitHeads& heads, int r, int g, int part, float (&a)[4],
                                         float (&b)[4]) const {
    if (!query && !key) return;
    if constexpr (kHeld) {
      rotate_pack(a, b, cos[r][g][part], sin[r][g][part]);
    } else {
      float own_cos[4], own_sin[4];
      read_angle(heads, r, g, part, own_cos, own_sin);
      rotate_pack(a, b, own_cos, own_sin);
    }
  }
  // Where a row's head goes; null: nowhere.
  __device__ __forceinline__ Bf16* place(const SplitHeads& heads, int64_t row, int r) const {
    if (query) return static_cast<Bf16*>(heads.q) + (row * heads.heads + head) * heads.size;
    if (key) return cached_place<Bf16>(heads, heads.k, slot[r], head - heads.heads);
    return cached_place<Bf16>(heads, heads.v, slot[r], head - heads.heads - heads.kv_heads);
  }
};

template <int kGroups>
__device__ __forceinline__ void store_heads(const SplitHeads& heads, const Four (&y)[kGroups][2],
                                            const TileRows& rows, const HeadOperands<kGroups>& operands) {
  constexpr int kHalf = kGroups / 2;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float scale =
        operands.weight ? scale_of<kGroups>(y, r, heads.eps) : 1.f;  // every lane: it sums over neighbours
    Bf16* const to = operands.place(heads, rows.row[r], r);
    if (!rows.inside[r] || !to) continue;
#pragma unroll
    for (int g = 0; g < kHalf; ++g) {
      Four first, second;  // of eight dimensions, four at a time: registers
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        float a[4], b[4];
        widen_half(y[g][r], part, a);
        widen_half(y[g + kHalf][r], part, b);
        operands.norm(g, part, scale, a, b);
        operands.rotate(heads, r, g, part, a, b);
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          first.at[part * 2 + n] = narrow_pair(a[2 * n], a[2 * n + 1]);
          second.at[part * 2 + n] = narrow_pair(b[2 * n], b[2 * n + 1]);
        }
      }
      *reinterpret_cast<Four*>(to + g * 32 + lane_columns()) = first;
      *reinterpret_cast<Four*>(to + (g + kHalf) * 32 + lane_columns()) = second;
    }
  }
}

}  // namespace troupe::kernels::cuda
