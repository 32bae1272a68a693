// heads.cu's passes for bf16 heads of 64, 128 and 256. kLanes neighbouring lanes share a head: each has 8 dimensions of its
// first half and their partners in the second, in registers from the one time that they are read. A warp has several
// heads of one row, and a lane of it kHeads at a time: what the row itself needs is worked out once for them, and so many
// loads are under way that memory bounds the pass.
#include "kernels/cuda/heads_row.h"
#include "kernels/cuda/packed_heads.h"
#include "kernels/cuda/partial_sums.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * 32, kHeads = 4, kBackwardHeads = 2;

using Eight = Pack<Bf16, 8>;
__device__ __forceinline__ Eight eight_at(const Bf16* from) { return *reinterpret_cast<const Eight*>(from); }

// Items of a row, each one warp's.
__host__ __device__ constexpr int items_of(int all, int heads) { return (all + heads - 1) / heads; }

// Cosines and sines of a row's position, of the dimensions from i on.
struct Angles {
  float cos[8], sin[8];

  __device__ __forceinline__ Angles(const SplitHeads& heads, int64_t row, int64_t half, int i) {
    const int64_t at = heads.positions[row] * half + i;
    read(static_cast<const float*>(heads.cos) + at, cos);
    read(static_cast<const float*>(heads.sin) + at, sin);
  }
  static __device__ __forceinline__ void read(const float* from, float (&to)[8]) {
#pragma unroll
    for (int j = 0; j < 8; j += 4) {
      const auto four = *reinterpret_cast<const Pack<float, 4>*>(from + j);
#pragma unroll
      for (int l = 0; l < 4; ++l) to[j + l] = four.at[l];
    }
  }
};

// 1 / the root mean square of a head, whose dimensions its lanes have.
template <int kLanes>
__device__ __forceinline__ float scale_of(const Eight& a, const Eight& b, double eps) {
  float squares = 0;
#pragma unroll
  for (int j = 0; j < 8; ++j) squares += widen(a.at[j]) * widen(a.at[j]);
#pragma unroll
  for (int j = 0; j < 8; ++j) squares += widen(b.at[j]) * widen(b.at[j]);
  return 1.0f / sqrtf(lane_sum<kLanes>(squares) / (16 * kLanes) + static_cast<float>(eps));
}

template <int kLanes>
__global__ void __launch_bounds__(kThreads, 4) split_packed_kernel(const __grid_constant__ SplitHeads heads) {
  constexpr int kGroups = 32 / kLanes, kHalf = 8 * kLanes, kSize = 2 * kHalf;
  const int all = heads.heads + 2 * heads.kv_heads;
  const unsigned item = blockIdx.x * kWarps + threadIdx.x / 32,
                 per_row = static_cast<unsigned>(items_of(all, kGroups * kHeads));
  const int64_t row = item / per_row;
  if (row >= heads.rows) return;
  const int i = static_cast<int>(threadIdx.x) % kLanes * 8;
  const int first =
      static_cast<int>(item % per_row) * kGroups * kHeads + static_cast<int>(threadIdx.x) % 32 / kLanes;
  const Bf16* const x = static_cast<const Bf16*>(heads.qkv) + (row * all + first) * kSize + i;
  Eight first_half[kHeads] = {}, second_half[kHeads] = {};
#pragma unroll
  for (int p = 0; p < kHeads; ++p) {
    if (first + p * kGroups >= all) continue;
    first_half[p] = eight_at(x + p * kGroups * kSize);
    second_half[p] = eight_at(x + p * kGroups * kSize + kHalf);
  }
  const Angles angles(heads, row, kHalf, i);
  Bf16* const q = static_cast<Bf16*>(heads.q) + (heads.place ? heads.place[row] : row) * heads.heads * kSize;
  Bf16* const k = key_value_place<Bf16>(heads, heads.k, row, 0);
  Bf16* const v = key_value_place<Bf16>(heads, heads.v, row, 0);
  const int between = heads.slots ? kPageTokens * kSize : kSize;  // heads of k or v
  let_next_begin();  // attention, in the rollout, whose reads from here on are behind these
  float scales[kHeads];
#pragma unroll
  for (int p = 0; p < kHeads; ++p)
    scales[p] = heads.q_norm ? scale_of<kLanes>(first_half[p], second_half[p], heads.eps) : 1;
#pragma unroll
  for (int p = 0; p < kHeads; ++p) {
    const int head = first + p * kGroups, key = head - heads.heads, value = key - heads.kv_heads;
    if (head >= all || (key >= 0 && !k)) continue;
    float a[8], b[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      a[j] = widen(first_half[p].at[j]);
      b[j] = widen(second_half[p].at[j]);
    }
    const Bf16* const weight = static_cast<const Bf16*>(key < 0 ? heads.q_norm : heads.k_norm);
    if (weight && value < 0) norm_pack<Bf16>(a, b, scales[p], weight + i, weight + kHalf + i);
    if (value < 0) rotate_pack(a, b, angles.cos, angles.sin);
    Bf16* const to = (key < 0     ? q + static_cast<int64_t>(head) * kSize
                      : value < 0 ? k + static_cast<int64_t>(key) * between
                                  : v + static_cast<int64_t>(value) * between) +
                     i;
    store(a, to);
    store(b, to + kHalf);
  }
}

// A lane's sums of the gradients of both norms' weights.
struct WeightSums {
  float q[16] = {}, k[16] = {};
};

// grid (blocks, groups or 1); kGrouped: the norms' weights train, and each block leaves its sums. Without groups a warp has
// one item.
template <int kLanes, bool kGrouped>
__global__ void __launch_bounds__(kThreads, kGrouped ? kPackedHeadsResident : 4)
    split_packed_backward_kernel(const __grid_constant__ HeadsBackward args) {
  constexpr int kGroups = 32 / kLanes, kHalf = 8 * kLanes, kSize = 2 * kHalf;
  const SplitHeads& heads = args.forward;
  const int all = heads.heads + 2 * heads.kv_heads;
  const auto per_row = static_cast<unsigned>(items_of(all, kGroups * kBackwardHeads));
  const int64_t begin = kGrouped ? args.q_groups.offset[blockIdx.y] : 0,
                end = kGrouped ? args.q_groups.offset[blockIdx.y + 1] : heads.rows;
  const int i = static_cast<int>(threadIdx.x) % kLanes * 8;
  [[maybe_unused]] WeightSums sums;
  for (unsigned item = blockIdx.x * kWarps + threadIdx.x / 32;; item += gridDim.x * kWarps) {
    const int64_t row = begin + item / per_row;
    if (row >= end) break;
    const int first = static_cast<int>(item % per_row) * kGroups * kBackwardHeads +
                      static_cast<int>(threadIdx.x) % 32 / kLanes;
    const int64_t place = heads.place ? heads.place[row] : row, at = (row * all + first) * kSize + i;
    const Bf16* const x = static_cast<const Bf16*>(heads.qkv) + at;
    Bf16* const out = static_cast<Bf16*>(args.grad_qkv) + at;
    Eight grads[kBackwardHeads][2] = {}, inputs[kBackwardHeads][2] = {};
#pragma unroll
    for (int p = 0; p < kBackwardHeads; ++p) {
      const int head = first + p * kGroups, key = head - heads.heads, value = key - heads.kv_heads;
      if (head >= all) continue;
      const Bf16* const from =
          key < 0     ? static_cast<const Bf16*>(heads.q) + (place * heads.heads + head) * kSize
          : value < 0 ? static_cast<const Bf16*>(heads.k) + (place * heads.kv_heads + key) * kSize
                      : static_cast<const Bf16*>(heads.v) + (place * heads.kv_heads + value) * kSize;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        grads[p][h] = eight_at(from + i + h * kHalf);
        if (heads.q_norm && value < 0) inputs[p][h] = eight_at(x + p * kGroups * kSize + h * kHalf);
      }
    }
    const Angles angles(heads, row, kHalf, i);
#pragma unroll
    for (int p = 0; p < kBackwardHeads; ++p) {
      const int head = first + p * kGroups, key = head - heads.heads, value = key - heads.kv_heads;
      float a[8], b[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float ga = widen(grads[p][0].at[j]), gb = widen(grads[p][1].at[j]);
        // The gradient before RoPE.
        const float c = value < 0 ? angles.cos[j] : 1, s = value < 0 ? angles.sin[j] : 0;
        a[j] = ga * c + gb * s;
        b[j] = gb * c - ga * s;
      }
      if (heads.q_norm) {
        const float scale = scale_of<kLanes>(inputs[p][0], inputs[p][1], heads.eps);
        const Bf16* const weight = static_cast<const Bf16*>(key < 0 ? heads.q_norm : heads.k_norm) + i;
        const Eight wa = eight_at(weight), wb = eight_at(weight + kHalf);
        float products = 0;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const float xa = widen(inputs[p][0].at[j]), xb = widen(inputs[p][1].at[j]);
          products += a[j] * xa * widen(wa.at[j]) + b[j] * xb * widen(wb.at[j]);
          if constexpr (kGrouped) {
            if (key < 0) {
              sums.q[j] += a[j] * xa * scale;
              sums.q[8 + j] += b[j] * xb * scale;
            } else if (value < 0) {
              sums.k[j] += a[j] * xa * scale;
              sums.k[8 + j] += b[j] * xb * scale;
            }
          }
        }
        const float factor = -scale * scale * scale * lane_sum<kLanes>(products) / kSize;
        if (value < 0) {
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            a[j] = a[j] * widen(wa.at[j]) * scale + widen(inputs[p][0].at[j]) * factor;
            b[j] = b[j] * widen(wb.at[j]) * scale + widen(inputs[p][1].at[j]) * factor;
          }
        }
      }
      if (head >= all) continue;
      store(a, out + p * kGroups * kSize);
      store(b, out + p * kGroups * kSize + kHalf);
    }
  }
  if constexpr (kGrouped) {
    constexpr int kUnits = kThreads / kLanes;
    float* const shared = reinterpret_cast<float*>(dynamic_shared());  // [units][2][size]
    float* const mine = shared + threadIdx.x / kLanes * 2 * kSize + i;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      mine[j] = sums.q[j];
      mine[kHalf + j] = sums.q[8 + j];
      mine[kSize + j] = sums.k[j];
      mine[kSize + kHalf + j] = sums.k[8 + j];
    }
    __syncthreads();
    float* const to = static_cast<float*>(args.partial) +
                      (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * 2 * kSize;
    for (int c = threadIdx.x; c < 2 * kSize; c += kThreads) {
      float total = 0;
      for (int u = 0; u < kUnits; ++u) total += shared[u * 2 * kSize + c];
      to[c] = total;
    }
  }
}

// Calls f with the lanes of a head.
template <typename F>
int choose(const SplitHeads& heads, const F& f) {
  switch (heads.size) {
    case 64:
      return f(std::integral_constant<int, 4>{});
    case 128:
      return f(std::integral_constant<int, 8>{});
    case 256:
      return f(std::integral_constant<int, 16>{});
    default:
      return kInvalidValue;
  }
}

// Blocks for an item of each warp.
int64_t blocks_of(const SplitHeads& heads, int heads_of_item) {
  const int64_t items = heads.rows * items_of(heads.heads + 2 * heads.kv_heads, heads_of_item);
  return (items + kWarps - 1) / kWarps;
}

}  // namespace

bool packed_heads_fit(const SplitHeads& heads) {
  return heads.type == Type::kBf16 && (heads.size == 64 || heads.size == 128 || heads.size == 256) &&
         aligned(heads.qkv) && aligned(heads.q_norm) && aligned(heads.k_norm) && aligned(heads.cos) &&
         aligned(heads.sin) && aligned(heads.q) && aligned(heads.k) && aligned(heads.v) &&
         heads.rows * (heads.heads + 2 * heads.kv_heads) <= INT32_MAX;
}

int split_packed_heads(const SplitHeads& heads, Stream stream) {
  return choose(heads, [&](auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    if (const int error = prefer_shared_memory(split_packed_kernel<kLanes>, heads.slots != nullptr))
      return error;
    return launch(split_packed_kernel<kLanes>,
                  dim3(static_cast<unsigned>(blocks_of(heads, 32 / kLanes * kHeads))), kThreads, 0, stream,
                  heads);
  });
}

int split_packed_heads_backward(const HeadsBackward& args, Stream stream) {
  return choose(args.forward, [&](auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    const int32_t groups = args.q_groups.count;
    if (groups == 0)
      return launch(split_packed_backward_kernel<kLanes, false>,
                    dim3(static_cast<unsigned>(blocks_of(args.forward, 32 / kLanes * kBackwardHeads))),
                    kThreads, 0, stream, args);
    return launch(split_packed_backward_kernel<kLanes, true>,
                  dim3(static_cast<unsigned>(args.partials), static_cast<unsigned>(groups)), kThreads,
                  kThreads / kLanes * 2 * args.forward.size * sizeof(float), stream, args);
  });
}

}  // namespace troupe::kernels::cuda
