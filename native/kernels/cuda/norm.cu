// RMS norm (arXiv 1910.07467) forward and backward. A row is shared by kWarps warps, which read it twice: the
// second time it comes from the cache. Wide rows of bf16 have kernels of their own (packed_norm.cu).
#include "kernels/cuda/packed_norm.h"
#include "kernels/cuda/partial_sums.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kBlockWarps = 4;  // of a block whose warps have a row each
constexpr int kWideWarps = 8;   // of a block that has one row
constexpr int64_t kWideRow = 1024;

template <typename T>
__device__ __forceinline__ T* row_of(const Rows& rows, int64_t index, int64_t heads) {
  return static_cast<T*>(rows.data) + index / heads * rows.row_stride + index % heads * rows.head_stride;
}

template <int kWarps, typename A>
__device__ __forceinline__ A row_sum(A value) {
  if constexpr (kWarps == 1) return lane_sum(value);
  return block_sum<kWarps>(value);
}

template <typename T, int V, int kWarps>
__global__ void __launch_bounds__(kWarps == 1 ? kBlockWarps * 32 : kWarps * 32, 1) norm_kernel(Norm norm) {
  using A = Accumulate<T>;
  constexpr int kThreads = kWarps * 32, kRowsPerBlock = kWarps == 1 ? kBlockWarps : 1;
  const int64_t index =
      static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + (kWarps == 1 ? threadIdx.x / 32 : 0);
  if (index >= norm.rows * norm.heads) return;  // a whole warp, or block
  const int thread = static_cast<int>(threadIdx.x) % kThreads;
  T* const x = row_of<T>(norm.x, index, norm.heads);
  const T* const residual = norm.residual.data ? row_of<T>(norm.residual, index, norm.heads) : nullptr;
  const T* const weight = static_cast<const T*>(norm.weight);
  T* const y = static_cast<T*>(norm.y) + index * norm.size;
  A squares = 0;
  wait_for_previous();
  for (int64_t i = thread * V; i < norm.size; i += kThreads * V) {
    A value[V];
    load(x + i, value);
    if (residual) {
      A other[V];
      load(residual + i, other);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        // As rounded: what the backward pass will read.
        value[j] = widen(narrow<T>(value[j] + other[j]));
      }
      store(value, x + i);
    }
#pragma unroll
    for (int j = 0; j < V; ++j) squares += value[j] * value[j];
  }
  const A mean = row_sum<kWarps>(squares) / static_cast<A>(norm.size);
  const A scale = A(1) / sqrt(mean + static_cast<A>(norm.eps));
  if (thread == 0) static_cast<A*>(norm.rstd)[index] = scale;
  for (int64_t i = thread * V; i < norm.size; i += kThreads * V) {
    A value[V], factor[V];
    load(x + i, value);
    load(weight + i, factor);
#pragma unroll
    for (int j = 0; j < V; ++j) value[j] *= scale * factor[j];
    store(value, y + i);
  }
}

// grid (partials / rows per block, groups). Sums of the weight's gradient lie in shared memory, each column
// with one thread.
template <typename T, int V, int kWarps>
__global__ void __launch_bounds__(kWarps == 1 ? kBlockWarps * 32 : kWarps * 32, 1)
    norm_backward_kernel(NormBackward norm) {
  using A = Accumulate<T>;
  constexpr int kThreads = kWarps * 32, kRowsPerBlock = kWarps == 1 ? kBlockWarps : 1;
  const int thread = static_cast<int>(threadIdx.x) % kThreads, lane_row = kWarps == 1 ? threadIdx.x / 32 : 0;
  const bool grouped = norm.groups.count > 0;
  const int64_t begin = grouped ? norm.groups.offset[blockIdx.y] * norm.heads : 0;
  const int64_t end = (grouped ? norm.groups.offset[blockIdx.y + 1] : norm.rows) * norm.heads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + lane_row,
                step = static_cast<int64_t>(gridDim.x) * kRowsPerBlock;
  A* const sums = reinterpret_cast<A*>(dynamic_shared()) + lane_row * norm.size;
  if (grouped) {
    for (int64_t i = thread * V; i < norm.size; i += kThreads * V) {
#pragma unroll
      for (int j = 0; j < V; ++j) sums[i + j] = 0;
    }
  }
  const T* const weight = static_cast<const T*>(norm.weight);
  for (int64_t index = begin + first; index < end; index += step) {
    const T* const grad = row_of<T>(norm.grad, index, norm.heads);
    const T* const x = row_of<T>(norm.x, index, norm.heads);
    const T* const add = norm.add.data ? row_of<T>(norm.add, index, norm.heads) : nullptr;
    T* const out = row_of<T>(norm.out, index, norm.heads);
    const A scale = static_cast<const A*>(norm.rstd)[index];
    A products = 0;
    for (int64_t i = thread * V; i < norm.size; i += kThreads * V) {
      A g[V], value[V], w[V];
      load(grad + i, g);
      load(x + i, value);
      load(weight + i, w);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        if (grouped) sums[i + j] += g[j] * value[j] * scale;
        products += g[j] * value[j] * w[j];
      }
    }
    const A factor = -scale * scale * scale * row_sum<kWarps>(products) / static_cast<A>(norm.size);
    for (int64_t i = thread * V; i < norm.size; i += kThreads * V) {
      A g[V], value[V], w[V];
      load(grad + i, g);
      load(x + i, value);
      load(weight + i, w);
#pragma unroll
      for (int j = 0; j < V; ++j) g[j] = g[j] * w[j] * scale + value[j] * factor;
      if (add) {
        load(add + i, value);
#pragma unroll
        for (int j = 0; j < V; ++j) g[j] += value[j];
      }
      store(g, out + i);
    }
  }
  if (!grouped) return;
  const int64_t partials = static_cast<int64_t>(gridDim.x) * kRowsPerBlock;
  A* const to = static_cast<A*>(norm.partial) + (blockIdx.y * partials + first) * norm.size;
  for (int64_t i = thread * V; i < norm.size; i += kThreads * V) {
#pragma unroll
    for (int j = 0; j < V; ++j) to[i + j] = sums[i + j];
  }
}

int rows_per_block(int64_t size) { return size >= kWideRow ? 1 : kBlockWarps; }

bool aligned(const Rows& rows) {
  return cuda::aligned(rows.data) && rows.row_stride % 8 == 0 && rows.head_stride % 8 == 0;
}

// Calls f with the row's element type, elements of a 16-byte pack (or 1) and warps.
template <typename F>
int choose(Type type, bool vectors, int64_t size, const F& f) {
  return with_type(type, [&](auto element) {
    using T = decltype(element);
    using One = std::integral_constant<int, 1>;
    using Pack16 = std::integral_constant<int, std::is_same_v<T, Bf16> ? 8 : 1>;
    using Wide = std::integral_constant<int, kWideWarps>;
    if (rows_per_block(size) == 1) return vectors ? f(element, Pack16{}, Wide{}) : f(element, One{}, Wide{});
    return vectors ? f(element, Pack16{}, One{}) : f(element, One{}, One{});
  });
}

}  // namespace

int rms_norm(const Norm& norm, Stream stream) {
  const bool vectors = norm.size % 8 == 0 && aligned(norm.x) && aligned(norm.residual) &&
                       aligned(norm.weight) && aligned(norm.y);
  if (vectors && packed_norm_fits(norm.type, norm.size)) return packed_rms_norm(norm, stream);
  return choose(norm.type, vectors, norm.size, [&](auto element, auto pack, auto warps) {
    constexpr int kWarps = decltype(warps)::value;
    const int rows = kWarps == 1 ? kBlockWarps : 1;
    return launch_early(norm_kernel<decltype(element), decltype(pack)::value, kWarps>,
                        dim3(blocks_for(norm.rows * norm.heads, rows)), rows * kWarps * 32, 0, stream, norm);
  });
}

int32_t norm_partials(int64_t longest, int64_t rows, int64_t size) {
  const int per_block = rows_per_block(size);
  return blocks_of_group(longest, rows, 8 * per_block, per_block == 1 ? packed_norm_resident(size) : 2) *
         per_block;
}

int rms_norm_backward(const NormBackward& norm, Stream stream) {
  const bool vectors = norm.size % 8 == 0 && aligned(norm.grad) && aligned(norm.x) && aligned(norm.add) &&
                       aligned(norm.out) && aligned(norm.weight);
  const int32_t count = norm.groups.count;
  const int64_t longest = count > 0 ? longest_group(norm.groups) : norm.rows;
  if (longest == 0) return 0;
  return choose(norm.type, vectors, norm.size, [&](auto element, auto pack, auto warps) {
    using A = Accumulate<decltype(element)>;
    constexpr int kWarps = decltype(warps)::value;
    const int rows = kWarps == 1 ? kBlockWarps : 1;
    const unsigned blocks = count > 0 ? norm.partials / rows : blocks_for(norm.rows * norm.heads, rows);
    const int error = vectors && packed_norm_fits(norm.type, norm.size)
                          ? packed_rms_norm_backward(norm, stream)
                          : launch(norm_backward_kernel<decltype(element), decltype(pack)::value, kWarps>,
                                   dim3(blocks, count > 0 ? count : 1), rows * kWarps * 32,
                                   count > 0 ? rows * norm.size * sizeof(A) : 0, stream, norm);
    if (error != 0 || count == 0) return error;
    return add_partials<A>(norm.groups, {}, norm.size, norm.partial, norm.partials, norm.size, stream);
  });
}

}  // namespace troupe::kernels::cuda
