// Between the fused q, k, v product and attention: norm of the heads of q and k, RoPE, and every row at its
// place, in one pass; and the same backwards. Here for any type and size, a warp a head; heads that packs of 16 bytes
// divide have kernels of their own (packed_heads.cu).
#include "kernels/cuda/heads_row.h"
#include "kernels/cuda/packed_heads.h"
#include "kernels/cuda/partial_sums.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kThreads = 128, kUnits = kThreads / 32;  // a warp each

template <typename T>
__device__ __forceinline__ Accumulate<T> head_scale(const T* x, int lane, int size, double eps) {
  using A = Accumulate<T>;
  A squares = 0;
  for (int i = lane; i < size; i += 32) squares += widen(x[i]) * widen(x[i]);
  return A(1) / sqrt(lane_sum(squares) / static_cast<A>(size) + static_cast<A>(eps));
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) split_kernel(SplitHeads heads) {
  using A = Accumulate<T>;
  const int all = heads.heads + 2 * heads.kv_heads, size = heads.size, half = size / 2;
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kUnits + threadIdx.x / 32;
  if (unit >= heads.rows * all) return;  // a whole warp
  const int64_t row = unit / all;
  const int head = static_cast<int>(unit % all), lane = threadIdx.x % 32;
  const T* const x = static_cast<const T*>(heads.qkv) + (row * all + head) * size;
  const bool query = head < heads.heads, key = !query && head < heads.heads + heads.kv_heads;
  const T* const weight = static_cast<const T*>(query ? heads.q_norm : key ? heads.k_norm : nullptr);
  const A scale = heads.q_norm ? head_scale(x, lane, size, heads.eps) : 1;
  T* const to = head_place<T>(heads, row, head);
  if (!to) return;
  const int64_t angle = static_cast<int64_t>(heads.positions[row]) * half;
  const A* const cos = static_cast<const A*>(heads.cos) + angle;
  const A* const sin = static_cast<const A*>(heads.sin) + angle;
  for (int i = lane; i < half; i += 32) {
    A a[1] = {widen(x[i])}, b[1] = {widen(x[half + i])};
    if (weight) norm_pack<T>(a, b, scale, weight + i, weight + half + i);
    if (query || key) rotate_pack(a, b, cos + i, sin + i);
    to[i] = narrow<T>(a[0]);
    to[half + i] = narrow<T>(b[0]);
  }
}

// grid (blocks, groups or 1). The norms' weight gradients are summed in shared memory, [units per
// block][2][size].
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) split_backward_kernel(HeadsBackward args) {
  using A = Accumulate<T>;
  const SplitHeads& heads = args.forward;
  const int all = heads.heads + 2 * heads.kv_heads, size = heads.size, half = size / 2;
  const int lane = threadIdx.x % 32, mine = threadIdx.x / 32;
  const bool grouped = args.q_groups.count > 0;
  const int64_t begin = grouped ? args.q_groups.offset[blockIdx.y] * all : 0,
                end = grouped ? args.q_groups.offset[blockIdx.y + 1] * all : heads.rows * all;
  A* const sums = reinterpret_cast<A*>(dynamic_shared()) + static_cast<int64_t>(mine) * 2 * size;
  if (grouped) {
    for (int i = lane; i < 2 * size; i += 32) sums[i] = 0;
    __syncwarp();
  }
  const int64_t step = static_cast<int64_t>(gridDim.x) * kUnits,
                first = static_cast<int64_t>(blockIdx.x) * kUnits + mine;
  for (int64_t unit = begin + first; unit < end; unit += step) {  // a whole warp comes to its end
    const int64_t row = unit / all;
    const int head = static_cast<int>(unit % all);
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
    // The gradient before RoPE of a dimension and its partner.
    const auto unrotated = [&](int i, A& a, A& b) {
      const A ga = widen(grad[i]), gb = widen(grad[half + i]), c = query || key ? cos[i] : A(1),
              s = query || key ? sin[i] : A(0);
      a = ga * c + gb * s;
      b = gb * c - ga * s;
    };
    A scale = 1, factor = 0;
    if (weight) {
      scale = head_scale(x, lane, size, heads.eps);
      A products = 0;
      A* const sum = sums + (key ? size : 0);
      for (int i = lane; i < half; i += 32) {
        A a, b;
        unrotated(i, a, b);
        const A xa = widen(x[i]), xb = widen(x[half + i]);
        products += a * xa * widen(weight[i]) + b * xb * widen(weight[half + i]);
        if (grouped) {
          sum[i] += a * xa * scale;
          sum[half + i] += b * xb * scale;
        }
      }
      factor = -scale * scale * scale * lane_sum(products) / static_cast<A>(size);
    }
    for (int i = lane; i < half; i += 32) {
      A a, b;
      unrotated(i, a, b);
      if (weight) {
        a = a * widen(weight[i]) * scale + widen(x[i]) * factor;
        b = b * widen(weight[half + i]) * scale + widen(x[half + i]) * factor;
      }
      out[i] = narrow<T>(a);
      out[half + i] = narrow<T>(b);
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

}  // namespace

int split_heads(const SplitHeads& heads, Stream stream) {
  if (heads.size % 2 != 0) return kInvalidValue;
  if (packed_heads_fit(heads)) return split_packed_heads(heads, stream);
  return with_type(heads.type, [&](auto element) {
    const int64_t units = heads.rows * (heads.heads + 2 * heads.kv_heads);
    return launch(split_kernel<decltype(element)>, dim3(blocks_for(units, kUnits)), kThreads, 0, stream,
                  heads);
  });
}

int32_t heads_partials(int64_t longest, int64_t rows) {
  return blocks_of_group(longest, rows, 8, kPackedHeadsResident);
}

int split_heads_backward(const HeadsBackward& args, Stream stream) {
  const SplitHeads& heads = args.forward;
  const int32_t count = args.q_groups.count;
  const int64_t longest = longest_group(args.q_groups);
  if (count > 0 && longest == 0) return 0;
  const bool packed = packed_heads_fit(heads) && aligned(args.grad_qkv);
  return with_type(heads.type, [&](auto element) {
    using A = Accumulate<decltype(element)>;
    const int64_t units = heads.rows * (heads.heads + 2 * heads.kv_heads);
    const unsigned blocks = count > 0 ? static_cast<unsigned>(args.partials) : blocks_for(units, kUnits);
    const int error =
        packed ? split_packed_heads_backward(args, stream)
               : launch(split_backward_kernel<decltype(element)>, dim3(blocks, count > 0 ? count : 1),
                        kThreads, count > 0 ? kUnits * 2 * heads.size * sizeof(A) : 0, stream, args);
    if (error != 0 || count == 0) return error;
    return add_partials<A>(args.q_groups, args.k_groups, heads.size, args.partial, args.partials,
                           2 * heads.size, stream);
  });
}

}  // namespace troupe::kernels::cuda
