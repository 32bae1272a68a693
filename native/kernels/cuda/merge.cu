// Merges what a row's calls of attention found, and sums what their backward passes did: softmax over all
// keys is the parts' outputs, weighted by exp(logsumexp of the part − logsumexp of all).
//
// Both are bound by memory where a thread has several 16-byte loads under way for each address and each weight that it
// works out: kPacks of them.
#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32, kPacks = 4;

template <int V, typename T>
__device__ __forceinline__ const Pack<T, V>* pack_at(const T* from) {
  return reinterpret_cast<const Pack<T, V>*>(from);
}

// A warp has neighbouring rows of one head, whose logsumexp lie side by side: kLanes lanes a row, each with kPacks packs
// of V of its dimensions at a time.
template <typename T, int V, int kLanes>
__global__ void __launch_bounds__(kThreads, 3) merge_kernel(MergeParts merge) {
  using A = Accumulate<T>;
  constexpr int kRows = 32 / kLanes, kStep = kLanes * V;
  const unsigned warp = blockIdx.x * kWarps + threadIdx.x / 32, heads = static_cast<unsigned>(merge.heads);
  const int64_t head = warp % heads, first = static_cast<int64_t>(warp / heads) * kRows;
  if (first >= merge.rows) return;
  const int lane = threadIdx.x % kLanes;
  const bool inside = first + threadIdx.x % 32 / kLanes < merge.rows;  // the warp comes to its end together
  const int64_t row = inside ? first + threadIdx.x % 32 / kLanes : first;
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
  A total = exp(own - best);
  for (int i = 0; i < merge.count; ++i) total += exp(logsumexp_of(merge.parts[i]) - best);
  const A inverse = A(1) / total, own_weight = exp(own - best) * inverse;
  const int64_t at = (row * heads + head) * merge.size;
  const T* const base = static_cast<const T*>(merge.out) + at;
  T* const to = merge.order ? static_cast<T*>(merge.ordered) + (merge.order[row] * heads + head) * merge.size
                            : static_cast<T*>(merge.out) + at;
  for (int d = lane * V; d < merge.size; d += kPacks * kStep) {
    A sum[kPacks][V] = {};
    // Packs of one part, all of them loaded before the first is used.
    const auto add = [&](const T* from, A weight) {
      Pack<T, V> packs[kPacks];
#pragma unroll
      for (int p = 0; p < kPacks; ++p)
        packs[p] = d + p * kStep < merge.size ? *pack_at<V>(from + d + p * kStep) : Pack<T, V>{};
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
#pragma unroll
        for (int j = 0; j < V; ++j) sum[p][j] += weight * widen(packs[p].at[j]);
      }
    };
    add(base, own_weight);
    for (int i = 0; i < merge.count; ++i) {
      const AttentionPart& part = merge.parts[i];
      const A weight = exp(logsumexp_of(part) - best) * inverse;
      if (weight == 0) continue;
      add(static_cast<const T*>(part.out) + ((row - part.begin) * heads + head) * merge.size, weight);
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if (inside && d + p * kStep < merge.size) store(sum[p], to + d + p * kStep);
  }
  __syncwarp();  // every lane has read the logsumexp
  if (inside && lane == 0) *logsumexp = best + log(total);
}

struct Sums {
  SumParts of[kMaxSums];
};

// A thread has V columns of kPacks neighbouring rows. grid (blocks of the largest, sums)
template <typename T, int V>
__global__ void __launch_bounds__(kThreads, 3) sum_kernel(const __grid_constant__ Sums sums) {
  using A = Accumulate<T>;
  const SumParts& sum = sums.of[blockIdx.y];
  const unsigned at = blockIdx.x * kThreads + threadIdx.x, packs = static_cast<unsigned>(sum.width / V);
  const int64_t first = static_cast<int64_t>(at / packs) * kPacks, column = at % packs * V;
  if (first >= sum.rows) return;
  A total[kPacks][V] = {};
  for (int i = 0; i < sum.count; ++i) {
    const AttentionPart& part = sum.parts[i];
    const T* const from = static_cast<const T*>(part.out) + column;
    Pack<T, V> packs[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int64_t row = first + p - part.begin;
      packs[p] = row >= 0 && row < part.rows ? *pack_at<V>(from + row * sum.width) : Pack<T, V>{};
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
#pragma unroll
      for (int j = 0; j < V; ++j) total[p][j] += widen(packs[p].at[j]);
    }
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (first + p < sum.rows) store(total[p], static_cast<T*>(sum.out) + (first + p) * sum.width + column);
}

template <int V, int kLanes, typename T>
int launch_merge(const MergeParts& merge, Stream stream) {
  const int64_t warps = (merge.rows + 32 / kLanes - 1) / (32 / kLanes) * merge.heads;
  if (warps > INT32_MAX) return kInvalidValue;
  return launch(merge_kernel<T, V, kLanes>, dim3(blocks_for(warps, kWarps)), kThreads, 0, stream, merge);
}

template <int V, typename T>
int launch_sums(const SumParts* sums, int count, Stream stream) {
  Sums all{};
  int64_t threads = 0;
  for (int i = 0; i < count; ++i) {
    all.of[i] = sums[i];
    threads = std::max(threads, (sums[i].rows + kPacks - 1) / kPacks * (sums[i].width / V));
  }
  if (threads > INT32_MAX) return kInvalidValue;
  return launch(sum_kernel<T, V>, dim3(blocks_for(threads, kThreads), static_cast<unsigned>(count)), kThreads,
                0, stream, all);
}

}  // namespace

int merge_parts(const MergeParts& merge, Stream stream) {
  bool vectors = merge.type == Type::kBf16 && aligned(merge.out) && aligned(merge.ordered);
  for (int i = 0; i < merge.count; ++i) vectors = vectors && aligned(merge.parts[i].out);
  if (vectors && merge.size == 64) return launch_merge<8, 2, Bf16>(merge, stream);
  if (vectors && merge.size == 128) return launch_merge<8, 4, Bf16>(merge, stream);
  if (vectors && merge.size == 256) return launch_merge<8, 8, Bf16>(merge, stream);
  return with_type(merge.type,
                   [&](auto element) { return launch_merge<1, 32, decltype(element)>(merge, stream); });
}

int sum_parts(const SumParts* sums, int count, Stream stream) {
  if (count < 1 || count > kMaxSums) return kInvalidValue;
  const Type type = sums[0].type;
  bool vectors = type == Type::kBf16;
  for (int s = 0; s < count; ++s) {
    vectors = vectors && sums[s].width % 8 == 0 && aligned(sums[s].out);
    for (int i = 0; i < sums[s].count; ++i) vectors = vectors && aligned(sums[s].parts[i].out);
  }
  if (vectors) return launch_sums<8, Bf16>(sums, count, stream);
  return with_type(type,
                   [&](auto element) { return launch_sums<1, decltype(element)>(sums, count, stream); });
}

}  // namespace troupe::kernels::cuda
