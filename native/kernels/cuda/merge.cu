// Merges what a row's calls of attention found, and sums what their backward passes did: softmax over all
// keys is the parts' outputs, weighted by exp(logsumexp of the part − logsumexp of all).
#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// kLanes neighbouring lanes have a (row, head), V of its dimensions each at a time.
template <typename T, int V, int kLanes>
__global__ void __launch_bounds__(kThreads, 1) merge_kernel(MergeParts merge) {
  using A = Accumulate<T>;
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * (kThreads / kLanes) + threadIdx.x / kLanes;
  const bool inside = unit < merge.rows * merge.heads;  // the warp comes to its end together
  const int64_t row = inside ? unit / merge.heads : 0, head = inside ? unit % merge.heads : 0;
  const int lane = threadIdx.x % kLanes;
  A* const logsumexp = static_cast<A*>(merge.logsumexp) + head * merge.rows + row;
  const A own = *logsumexp;
  // +∞ or −∞ mark a row that met no key.
  const auto logsumexp_of = [&](const AttentionPart& part) {
    if (row < part.begin || row >= part.begin + part.rows) return A(-INFINITY);
    const A value = static_cast<const A*>(part.logsumexp)[head * part.rows + row - part.begin];
    return isfinite(value) ? value : A(-INFINITY);
  };
  A best = own;
  for (int i = 0; i < merge.count; ++i) best = max(best, logsumexp_of(merge.parts[i]));
  A total = 0;
  const T* const base = static_cast<const T*>(merge.out) + (row * merge.heads + head) * merge.size;
  T* const to = merge.order
                    ? static_cast<T*>(merge.ordered) + (merge.order[row] * merge.heads + head) * merge.size
                    : static_cast<T*>(merge.out) + (row * merge.heads + head) * merge.size;
  for (int d = lane * V; d < merge.size; d += kLanes * V) {
    A sum[V], part_values[V];
    load(base + d, sum);
    total = exp(own - best);
#pragma unroll
    for (int j = 0; j < V; ++j) sum[j] *= total;
    for (int i = 0; i < merge.count; ++i) {
      const AttentionPart& part = merge.parts[i];
      const A weight = exp(logsumexp_of(part) - best);
      if (weight == 0) continue;
      total += weight;
      load(static_cast<const T*>(part.out) + ((row - part.begin) * merge.heads + head) * merge.size + d,
           part_values);
#pragma unroll
      for (int j = 0; j < V; ++j) sum[j] += weight * part_values[j];
    }
#pragma unroll
    for (int j = 0; j < V; ++j) sum[j] /= total;
    if (inside) store(sum, to + d);
  }
  __syncwarp();  // every lane has read the logsumexp
  if (inside && lane == 0) *logsumexp = best + log(total);
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads, 1) sum_kernel(SumParts sum) {
  using A = Accumulate<T>;
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * V;
  if (at >= sum.rows * sum.width) return;
  const int64_t row = at / sum.width, column = at % sum.width;
  A total[V] = {}, values[V];
  for (int i = 0; i < sum.count; ++i) {
    const AttentionPart& part = sum.parts[i];
    if (row < part.begin || row >= part.begin + part.rows) continue;
    load(static_cast<const T*>(part.out) + (row - part.begin) * sum.width + column, values);
#pragma unroll
    for (int j = 0; j < V; ++j) total[j] += values[j];
  }
  store(total, static_cast<T*>(sum.out) + at);
}

bool aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

template <int V, int kLanes, typename T>
int launch_merge(const MergeParts& merge, Stream stream) {
  return launch(merge_kernel<T, V, kLanes>, dim3(blocks_for(merge.rows * merge.heads, kThreads / kLanes)),
                kThreads, 0, stream, merge);
}

}  // namespace

int merge_parts(const MergeParts& merge, Stream stream) {
  bool vectors = merge.type == Type::kBf16 && aligned(merge.out) && aligned(merge.ordered);
  for (int i = 0; i < merge.count; ++i) vectors = vectors && aligned(merge.parts[i].out);
  if (vectors && merge.size == 64) return launch_merge<8, 8, Bf16>(merge, stream);
  if (vectors && merge.size == 128) return launch_merge<8, 16, Bf16>(merge, stream);
  if (vectors && merge.size == 256) return launch_merge<8, 32, Bf16>(merge, stream);
  return with_type(merge.type,
                   [&](auto element) { return launch_merge<1, 32, decltype(element)>(merge, stream); });
}

int sum_parts(const SumParts& sum, Stream stream) {
  bool vectors = sum.type == Type::kBf16 && sum.width % 8 == 0 && aligned(sum.out);
  for (int i = 0; i < sum.count; ++i) vectors = vectors && aligned(sum.parts[i].out);
  const int64_t size = sum.rows * sum.width;
  if (vectors)
    return launch(sum_kernel<Bf16, 8>, dim3(blocks_for(size, kThreads * 8)), kThreads, 0, stream, sum);
  return with_type(sum.type, [&](auto element) {
    return launch(sum_kernel<decltype(element), 1>, dim3(blocks_for(size, kThreads)), kThreads, 0, stream,
                  sum);
  });
}

}  // namespace troupe::kernels::cuda
