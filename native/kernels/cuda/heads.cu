// Between the fused q, k, v product and attention: norm of the heads of q and k, RoPE, and every row at its
// place, in one pass; and the same backwards. kLanes neighbouring lanes share a head: a lane takes V
// dimensions of its first half and their partners in the second.
#include "kernels/cuda/heads_row.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kThreads = 128;

template <typename T, int V, int kLanes>
__device__ __forceinline__ Accumulate<T> head_scale(const T* x, int lane, int size, double eps) {
  using A = Accumulate<T>;
  A squares = 0;
  for (int i = lane * V; i < size; i += kLanes * V) {
    A value[V];
    load(x + i, value);
#pragma unroll
    for (int j = 0; j < V; ++j) squares += value[j] * value[j];
  }
  return A(1) / sqrt(lane_sum<kLanes>(squares) / static_cast<A>(size) + static_cast<A>(eps));
}

template <typename T, int V, int kLanes>
__global__ void __launch_bounds__(kThreads, 1) split_kernel(SplitHeads heads) {
  using A = Accumulate<T>;
  const int all = heads.heads + 2 * heads.kv_heads, size = heads.size, half = size / 2;
  const int64_t unit = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const bool inside = unit < heads.rows * all;  // the warp's shuffles need every lane
  const int64_t row = inside ? unit / all : 0;
  const int head = inside ? static_cast<int>(unit % all) : 0, lane = threadIdx.x % kLanes;
  const T* const x = static_cast<const T*>(heads.qkv) + (row * all + head) * size;
  const bool query = head < heads.heads, key = !query && head < heads.heads + heads.kv_heads;
  const T* const weight = static_cast<const T*>(query ? heads.q_norm : key ? heads.k_norm : nullptr);
  A scale = 1;
  if (heads.q_norm) scale = head_scale<T, V, kLanes>(x, lane, size, heads.eps);
  if (!inside) return;
  T* const to = head_place<T>(heads, row, head);
  if (!to) return;
  const int64_t angle = static_cast<int64_t>(heads.positions[row]) * half;
  const A* const cos = static_cast<const A*>(heads.cos) + angle;
  const A* const sin = static_cast<const A*>(heads.sin) + angle;
  for (int i = lane * V; i < half; i += kLanes * V) {
    A a[V], b[V];
    load(x + i, a);
    load(x + half + i, b);
    if (weight) norm_pack<T>(a, b, scale, weight + i, weight + half + i);
    if (query || key) rotate_pack(a, b, cos + i, sin + i);
    store(a, to + i);
    store(b, to + half + i);
  }
}

// grid (blocks, groups or 1). The norms' weight gradients are summed in shared memory, [units per
// block][2][size].
template <typename T, int V, int kLanes>
__global__ void __launch_bounds__(kThreads, 1) split_backward_kernel(HeadsBackward args) {
  using A = Accumulate<T>;
  const SplitHeads& heads = args.forward;
  constexpr int kUnits = kThreads / kLanes;
  const int all = heads.heads + 2 * heads.kv_heads, size = heads.size, half = size / 2;
  const int lane = threadIdx.x % kLanes, mine = threadIdx.x / kLanes;
  const bool grouped = args.q_groups.count > 0;
  const int64_t begin = grouped ? args.q_groups.offset[blockIdx.y] * all : 0,
                end = grouped ? args.q_groups.offset[blockIdx.y + 1] * all : heads.rows * all;
  A* const sums = reinterpret_cast<A*>(dynamic_shared()) + static_cast<int64_t>(mine) * 2 * size;
  if (grouped) {
    for (int i = lane; i < 2 * size; i += kLanes) sums[i] = 0;
    __syncwarp();
  }
  const int64_t step = static_cast<int64_t>(gridDim.x) * kUnits,
                first = static_cast<int64_t>(blockIdx.x) * kUnits;
  for (int64_t base = begin + first; base < end; base += step) {
    const int64_t unit = base + mine;
    const bool inside = unit < end;
    const int64_t row = inside ? unit / all : 0;
    const int head = inside ? static_cast<int>(unit % all) : 0;
    const bool query = head < heads.heads, key = !query && head < heads.heads + heads.kv_heads;
    const int64_t place = heads.place ? heads.place[row] : row;
    const T* grad;
    if (query)
      grad = static_cast<const T*>(heads.q) + (place * heads.heads + head) * size;
    else if (key)
      grad = static_cast<const T*>(heads.k) + (place * heads.kv_heads + head - heads.heads) * size;
    else
      grad = static_cast<const T*>(heads.v) +
             (place * heads.kv_heads + head - heads.heads - heads.kv_heads) * size;
    const T* const x = static_cast<const T*>(heads.qkv) + (row * all + head) * size;
    T* const out = static_cast<T*>(args.grad_qkv) + (row * all + head) * size;
    const T* const weight = static_cast<const T*>(query ? heads.q_norm : key ? heads.k_norm : nullptr);
    const int64_t angle = static_cast<int64_t>(heads.positions[row]) * half;
    const A* const cos = static_cast<const A*>(heads.cos) + angle;
    const A* const sin = static_cast<const A*>(heads.sin) + angle;
    // The gradient before RoPE of one pack of dimensions and their partners.
    const auto unrotated = [&](int i, A(&a)[V], A(&b)[V]) {
      A ga[V], gb[V];
      load(grad + i, ga);
      load(grad + half + i, gb);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const A c = query || key ? cos[i + j] : A(1), s = query || key ? sin[i + j] : A(0);
        a[j] = ga[j] * c + gb[j] * s;
        b[j] = gb[j] * c - ga[j] * s;
      }
    };
    A scale = 1, factor = 0;
    if (heads.q_norm) {
      scale = head_scale<T, V, kLanes>(x, lane, size, heads.eps);
      A products = 0;
      if (inside && weight) {
        for (int i = lane * V; i < half; i += kLanes * V) {
          A a[V], b[V], xa[V], xb[V], wa[V], wb[V];
          unrotated(i, a, b);
          load(x + i, xa);
          load(x + half + i, xb);
          load(weight + i, wa);
          load(weight + half + i, wb);
          A* const sum = sums + (key ? size : 0);
#pragma unroll
          for (int j = 0; j < V; ++j) {
            products += a[j] * xa[j] * wa[j] + b[j] * xb[j] * wb[j];
            if (grouped) {
              sum[i + j] += a[j] * xa[j] * scale;
              sum[half + i + j] += b[j] * xb[j] * scale;
            }
          }
        }
      }
      factor = -scale * scale * scale * lane_sum<kLanes>(products) / static_cast<A>(size);
    }
    if (!inside) continue;
    for (int i = lane * V; i < half; i += kLanes * V) {
      A a[V], b[V];
      unrotated(i, a, b);
      if (weight) {
        A xa[V], xb[V], wa[V], wb[V];
        load(x + i, xa);
        load(x + half + i, xb);
        load(weight + i, wa);
        load(weight + half + i, wb);
#pragma unroll
        for (int j = 0; j < V; ++j) {
          a[j] = a[j] * wa[j] * scale + xa[j] * factor;
          b[j] = b[j] * wb[j] * scale + xb[j] * factor;
        }
      }
      store(a, out + i);
      store(b, out + half + i);
    }
  }
  if (!grouped) return;
  __syncthreads();
  const A* const block_sums = reinterpret_cast<const A*>(dynamic_shared());
  A* const to =
      static_cast<A*>(args.partial) + (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * 2 * size;
  for (int i = threadIdx.x; i < 2 * size; i += kThreads) {
    A total = 0;
    for (int u = 0; u < kUnits; ++u) total += block_sums[u * 2 * size + i];
    to[i] = total;
  }
}

// grid (columns, groups)
template <typename A>
__global__ void add_head_partials_kernel(Groups q, Groups k, const A* partial, int partials, int size) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= 2 * size || q.offset[blockIdx.y] == q.offset[blockIdx.y + 1]) return;
  A total = 0;
  for (int b = 0; b < partials; ++b)
    total += partial[(static_cast<int64_t>(blockIdx.y) * partials + b) * 2 * size + i];
  A* const target = static_cast<A*>(i < size ? q.target[blockIdx.y] : k.target[blockIdx.y]);
  target[i < size ? i : i - size] += total;
}

// Calls f with the type, elements of a pack and lanes of a head.
template <typename F>
int choose(const SplitHeads& heads, bool vectors, const F& f) {
  return with_type(heads.type, [&](auto element) {
    using One = std::integral_constant<int, 1>;
    using Eight = std::integral_constant<int, 8>;
    if constexpr (std::is_same_v<decltype(element), Bf16>) {
      vectors = vectors && aligned(heads.qkv) && aligned(heads.q_norm) && aligned(heads.k_norm) &&
                aligned(heads.q) && aligned(heads.k) && aligned(heads.v);
      if (vectors && heads.size == 64) return f(element, Eight{}, std::integral_constant<int, 4>{});
      if (vectors && heads.size == 128) return f(element, Eight{}, std::integral_constant<int, 8>{});
      if (vectors && heads.size == 256) return f(element, Eight{}, std::integral_constant<int, 16>{});
    }
    return f(element, One{}, std::integral_constant<int, 32>{});
  });
}

}  // namespace

int split_heads(const SplitHeads& heads, Stream stream) {
  if (heads.size % 2 != 0) return kInvalidValue;
  return choose(heads, true, [&](auto element, auto pack, auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    const int64_t units = heads.rows * (heads.heads + 2 * heads.kv_heads);
    return launch(split_kernel<decltype(element), decltype(pack)::value, kLanes>,
                  dim3(blocks_for(units * kLanes, kThreads)), kThreads, 0, stream, heads);
  });
}

int32_t heads_partials(int64_t longest) {
  const int64_t blocks = (longest + 7) / 8;
  return static_cast<int32_t>(blocks < 1 ? 1 : blocks > 264 ? 264 : blocks);
}

int split_heads_backward(const HeadsBackward& args, Stream stream) {
  const SplitHeads& heads = args.forward;
  const int32_t count = args.q_groups.count;
  const int64_t longest = longest_group(args.q_groups);
  if (count > 0 && longest == 0) return 0;
  return choose(heads, aligned(args.grad_qkv), [&](auto element, auto pack, auto lanes) {
    using A = Accumulate<decltype(element)>;
    constexpr int kLanes = decltype(lanes)::value, kUnits = kThreads / kLanes;
    const int64_t units = heads.rows * (heads.heads + 2 * heads.kv_heads);
    const int32_t blocks =
        count > 0 ? heads_partials(longest) : static_cast<int32_t>(blocks_for(units, kUnits));
    const size_t shared = count > 0 ? kUnits * 2 * heads.size * sizeof(A) : 0;
    const int error = launch(split_backward_kernel<decltype(element), decltype(pack)::value, kLanes>,
                             dim3(blocks, count > 0 ? count : 1), kThreads, shared, stream, args);
    if (error != 0 || count == 0) return error;
    return launch(add_head_partials_kernel<A>, dim3(blocks_for(2 * heads.size, 128), count), 128, 0, stream,
                  args.q_groups, args.k_groups, static_cast<const A*>(args.partial), static_cast<int>(blocks),
                  static_cast<int>(heads.size));
  });
}

}  // namespace troupe::kernels::cuda
