// SwiGLU, the embedding's gradient, rows gathered and summed: one pass over memory each.
#include "kernels/cuda/silu.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, int V>
__global__ void swiglu_kernel(const T* gate_up, T* y, int64_t packs, int64_t size) {
  using A = Accumulate<T>;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= packs) return;
  const int64_t row = at / (size / V), i = at % (size / V) * V;
  A gate[V], up[V];
  load(gate_up + row * 2 * size + i, gate);
  load(gate_up + row * 2 * size + size + i, up);
#pragma unroll
  for (int j = 0; j < V; ++j) gate[j] = gate[j] * sigmoid<T>(gate[j]) * up[j];
  store(gate, y + row * size + i);
}

template <typename T, int V>
__global__ void swiglu_backward_kernel(const T* grad, const T* gate_up, T* out, int64_t packs, int64_t size) {
  using A = Accumulate<T>;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= packs) return;
  const int64_t row = at / (size / V), i = at % (size / V) * V;
  A upstream[V], gate[V], up[V];
  load(grad + row * size + i, upstream);
  load(gate_up + row * 2 * size + i, gate);
  load(gate_up + row * 2 * size + size + i, up);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    // d silu(g)/dg = σ(g) · (1 + g · (1 − σ(g))) = σ + silu · (1 − σ)
    const A s = sigmoid<T>(gate[j]), silu = gate[j] * s;
    gate[j] = upstream[j] * up[j] * (s + silu * (1 - s));
    up[j] = upstream[j] * silu;
  }
  store(gate, out + row * 2 * size + i);
  store(up, out + row * 2 * size + size + i);
}

// grid (rows, groups): the first row of its token in the group sums all of them.
template <typename T>
__global__ void embedding_backward_kernel(const T* grad, const int64_t* tokens, int64_t size, Groups groups) {
  using A = Accumulate<T>;
  const int64_t begin = groups.offset[blockIdx.y], end = groups.offset[blockIdx.y + 1],
                row = begin + blockIdx.x;
  if (row >= end) return;
  const int64_t token = tokens[row];
  __shared__ int earlier;
  if (threadIdx.x == 0) earlier = 0;
  __syncthreads();
  for (int64_t other = begin + threadIdx.x; other < row; other += kThreads) {
    if (tokens[other] == token) earlier = 1;
  }
  __syncthreads();
  if (earlier) return;
  // The rows of the token are found kThreads at a time, and added in order.
  __shared__ unsigned char same[kThreads];
  A* const target = static_cast<A*>(groups.target[blockIdx.y]) + token * size;
  for (int64_t base = row; base < end; base += kThreads) {
    const int64_t mine = base + threadIdx.x;
    same[threadIdx.x] = mine < end && tokens[mine] == token;
    __syncthreads();
    for (int t = 0; t < kThreads; ++t) {
      if (!same[t]) continue;
      for (int64_t i = threadIdx.x; i < size; i += kThreads) target[i] += widen(grad[(base + t) * size + i]);
    }
    __syncthreads();
  }
}

template <typename A>
__global__ void add_rows_kernel(const A* x, const int64_t* rows, int64_t count, int64_t size, A* out,
                                int64_t out_stride) {
  const int64_t first = blockIdx.x, row = rows[first];
  if (first > 0 && rows[first - 1] == row) return;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) {
    A sum = out[row * out_stride + i];
    for (int64_t at = first; at < count && rows[at] == row; ++at) sum += x[at * size + i];
    out[row * out_stride + i] = sum;
  }
}

// grid (rows, tensors)
template <typename Unit>
__global__ void gather_kernel(GatherRows gather, int64_t units) {
  const int64_t row = gather.rows[blockIdx.x];
  const Unit* const x = static_cast<const Unit*>(blockIdx.y == 0 ? gather.x[0] : gather.x[1]);
  Unit* const out = static_cast<Unit*>(blockIdx.y == 0 ? gather.out[0] : gather.out[1]);
  for (int64_t i = threadIdx.x; i < units; i += kThreads) out[blockIdx.x * units + i] = x[row * units + i];
}

// Calls f with the type and 8 (packs of bf16) or 1.
template <typename F>
int choose(Type type, bool vectors, const F& f) {
  return with_type(type, [&](auto element) {
    if constexpr (std::is_same_v<decltype(element), Bf16>) {
      if (vectors) return f(element, std::integral_constant<int, 8>{});
    }
    return f(element, std::integral_constant<int, 1>{});
  });
}

__global__ void take_drawn_kernel(const int32_t* ids, int32_t draws, int32_t* tokens, int32_t count) {
  const int32_t at = static_cast<int32_t>(blockIdx.x) * kThreads + static_cast<int32_t>(threadIdx.x);
  if (at >= count || tokens[at] >= 0) return;
  tokens[at] = max(ids[min(-1 - tokens[at], draws - 1)], 0);
}

using Packed = Pack<uint32_t, 4>;

// A block for each copied page of each part.
__global__ void copy_pages_kernel(CopyPages copies, int64_t packs) {
  const int32_t* const pair = copies.pairs + 2 * static_cast<int64_t>(blockIdx.x);
  Packed* const part = static_cast<Packed*>(copies.data) + blockIdx.y * copies.pages * packs;
  const Packed* const from = part + pair[0] * packs;
  Packed* const to = part + pair[1] * packs;
  for (int64_t i = threadIdx.x; i < packs; i += kThreads) to[i] = from[i];
}

}  // namespace

int swiglu(Type type, const void* gate_up, void* y, int64_t rows, int64_t size, Stream stream) {
  return choose(type, size % 8 == 0 && aligned(gate_up) && aligned(y), [&](auto element, auto pack) {
    using T = decltype(element);
    constexpr int V = decltype(pack)::value;
    const int64_t packs = rows * (size / V);
    return launch(swiglu_kernel<T, V>, dim3(blocks_for(packs, kThreads)), kThreads, 0, stream,
                  static_cast<const T*>(gate_up), static_cast<T*>(y), packs, size);
  });
}

int swiglu_backward(Type type, const void* grad, const void* gate_up, void* grad_gate_up, int64_t rows,
                    int64_t size, Stream stream) {
  const bool vectors = size % 8 == 0 && aligned(grad) && aligned(gate_up) && aligned(grad_gate_up);
  return choose(type, vectors, [&](auto element, auto pack) {
    using T = decltype(element);
    constexpr int V = decltype(pack)::value;
    const int64_t packs = rows * (size / V);
    return launch(swiglu_backward_kernel<T, V>, dim3(blocks_for(packs, kThreads)), kThreads, 0, stream,
                  static_cast<const T*>(grad), static_cast<const T*>(gate_up), static_cast<T*>(grad_gate_up),
                  packs, size);
  });
}

int embedding_backward(Type type, const void* grad, const int64_t* tokens, int64_t size, const Groups& groups,
                       Stream stream) {
  return with_type(type, [&](auto element) {
    using T = decltype(element);
    return launch(embedding_backward_kernel<T>,
                  dim3(static_cast<unsigned>(longest_group(groups)), groups.count), kThreads, 0, stream,
                  static_cast<const T*>(grad), tokens, size, groups);
  });
}

int add_rows(Type type, const void* x, const int64_t* rows, int64_t count, int64_t size, void* out,
             int64_t out_stride, Stream stream) {
  const auto add = [&](auto element) {
    using A = decltype(element);
    return launch(add_rows_kernel<A>, dim3(static_cast<unsigned>(count)), kThreads, 0, stream,
                  static_cast<const A*>(x), rows, count, size, static_cast<A*>(out), out_stride);
  };
  return type == Type::kDouble ? add(double{}) : add(float{});
}

int gather_rows(const GatherRows& gather, Stream stream) {
  const auto in_units = [&](auto unit) {
    using Unit = decltype(unit);
    return launch(gather_kernel<Unit>, dim3(static_cast<unsigned>(gather.count), 2), kThreads, 0, stream,
                  gather, gather.bytes / static_cast<int64_t>(sizeof(Unit)));
  };
  const bool packs = gather.bytes % 16 == 0 && aligned(gather.x[0]) && aligned(gather.x[1]) &&
                     aligned(gather.out[0]) && aligned(gather.out[1]);
  return packs ? in_units(Packed{}) : in_units(uint16_t{});
}

int copy_pages(const CopyPages& copies, Stream stream) {
  constexpr int64_t kBytes = sizeof(Packed);
  if (copies.bytes % kBytes != 0 || !aligned(copies.data)) return kInvalidValue;
  return launch(copy_pages_kernel,
                dim3(static_cast<unsigned>(copies.count), static_cast<unsigned>(copies.parts)), kThreads, 0,
                stream, copies, copies.bytes / kBytes);
}

int take_drawn(const int32_t* ids, int32_t draws, int32_t* tokens, int32_t count, Stream stream) {
  return launch(take_drawn_kernel, dim3(static_cast<unsigned>(blocks_for(count, kThreads))), kThreads, 0,
                stream, ids, draws, tokens, count);
}

}  // namespace troupe::kernels::cuda
