// Attention over pages without tensor cores, for any type and head size: a warp for each (row, query head),
// 32 positions at a time, each lane with the score of one.
#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kWarps = 4, kWidest = 256;

template <typename T>
__global__ void __launch_bounds__(kWarps * 32, 1) rows_kernel(PagedRows args) {
  using A = Accumulate<T>;
  __shared__ A weights[kWarps][32];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int head = static_cast<int>(blockIdx.y);
  if (row >= args.rows) return;
  const int kv_head = head / (args.heads / args.kv_heads);
  const int lane = threadIdx.x % 32, size = args.size;
  A* const mine = weights[threadIdx.x / 32];
  const T* const q =
      static_cast<const T*>(args.q) + row * args.q_row_stride + static_cast<int64_t>(head) * size;
  const int32_t* const pages = args.pages + args.tables[row] * args.table_width;
  const int positions = args.positions[row] + 1;
  const auto at = [&](const void* base, int position) {
    const int64_t page = pages[position / kPageTokens];
    return static_cast<const T*>(base) +
           ((page * args.kv_heads + kv_head) * kPageTokens + position % kPageTokens) * size;
  };
  A out[kWidest / 32] = {};
  A best = -INFINITY, total = 0;
  for (int base = 0; base < positions; base += 32) {
    const int position = base + lane;
    A score = -INFINITY;
    if (position < positions) {
      const T* const key = at(args.k, position);
      A sum = 0;
      for (int d = 0; d < size; ++d) sum += widen(q[d]) * widen(key[d]);
      score = sum * static_cast<A>(args.scale);
    }
    const A highest = max(best, lane_max(score));
    const A shrink = exp(best - highest), weight = exp(score - highest);
    best = highest;
    total = total * shrink + lane_sum(weight);
    mine[lane] = weight;
    __syncwarp();
    const int count = min(32, positions - base);
#pragma unroll
    for (int i = 0; i < kWidest / 32; ++i) {
      const int d = lane + i * 32;
      if (d >= size) break;
      A sum = out[i] * shrink;
      for (int t = 0; t < count; ++t) sum += mine[t] * widen(at(args.v, base + t)[d]);
      out[i] = sum;
    }
    __syncwarp();
  }
  T* const to = static_cast<T*>(args.out) + (row * args.heads + head) * size;
#pragma unroll
  for (int i = 0; i < kWidest / 32; ++i) {
    const int d = lane + i * 32;
    if (d < size) to[d] = narrow<T>(out[i] / total);
  }
}

}  // namespace

int paged_attention_rows(const PagedRows& args, Stream stream) {
  if (args.size > kWidest) return kInvalidValue;
  return with_type(args.type, [&](auto element) {
    return launch(rows_kernel<decltype(element)>, dim3(blocks_for(args.rows, kWarps), args.heads),
                  kWarps * 32, 0, stream, args);
  });
}

}  // namespace troupe::kernels::cuda
