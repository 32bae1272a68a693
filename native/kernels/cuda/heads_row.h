// What a head of q, k or v goes through between the fused product and attention, a pack of dimensions at a time.
#pragma once

#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {

// Where the cache has a head of k or v of the token in `slot`; null: nowhere.
template <typename T>
__device__ __forceinline__ T* cached_place(const SplitHeads& heads, void* base, int64_t slot, int head) {
  if (slot < 0) return nullptr;
  const int64_t page = slot / kPageTokens, inside = slot % kPageTokens;
  return static_cast<T*>(base) + ((page * heads.kv_heads + head) * kPageTokens + inside) * heads.size;
}

// Where a head of k or v goes; null: nowhere.
template <typename T>
__device__ __forceinline__ T* key_value_place(const SplitHeads& heads, void* base, int64_t row, int head) {
  if (heads.slots) return cached_place<T>(heads, base, heads.slots[row], head);
  const int64_t to = heads.place ? heads.place[row] : row;
  return static_cast<T*>(base) + (to * heads.kv_heads + head) * heads.size;
}

// Where head `head` of a row of the fused product goes, q's first, then k's, then v's; null: nowhere.
template <typename T>
__device__ __forceinline__ T* head_place(const SplitHeads& heads, int64_t row, int head) {
  if (head < heads.heads) {
    const int64_t place = heads.place ? heads.place[row] : row;
    return static_cast<T*>(heads.q) + (place * heads.heads + head) * heads.size;
  }
  if (head < heads.heads + heads.kv_heads) return key_value_place<T>(heads, heads.k, row, head - heads.heads);
  return key_value_place<T>(heads, heads.v, row, head - heads.heads - heads.kv_heads);
}

// V dimensions of a head's first half, a, and their partners in the second, b, times the norm's scale and weights.
template <typename T, int V>
__device__ __forceinline__ void norm_pack(Accumulate<T> (&a)[V], Accumulate<T> (&b)[V], Accumulate<T> scale,
                                          const T* weight_a, const T* weight_b) {
  Accumulate<T> wa[V], wb[V];
  load(weight_a, wa);
  load(weight_b, wb);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    a[j] = a[j] * scale * wa[j];
    b[j] = b[j] * scale * wb[j];
  }
  round_to<T>(a);
  round_to<T>(b);
}

// RoPE of such a pack.
template <int V, typename A>
__device__ __forceinline__ void rotate_pack(A (&a)[V], A (&b)[V], const A* cos, const A* sin) {
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const A c = cos[j], s = sin[j], first = a[j];
    a[j] = first * c - b[j] * s;
    b[j] = b[j] * c + first * s;
  }
}

}  // namespace troupe::kernels::cuda
