// norm.cu's passes for wide rows of bf16: a block has a row, of which a thread holds kHeld packs of 8 from the one time that
// they are read; the weight stays in L1. With so many rows under way at a time memory bounds the pass.
#include "kernels/cuda/device.h"
#include "kernels/cuda/packed_norm.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int64_t kNarrowest = 1024, kWidest = 8192;

using Eight = Pack<Bf16, 8>;

__device__ __forceinline__ Bf16* row_of(const Rows& rows, int64_t index, int64_t heads) {
  const int64_t row = heads == 1 ? index : index / heads;
  return static_cast<Bf16*>(rows.data) + row * rows.row_stride + (index - row * heads) * rows.head_stride;
}

// A thread's packs of a row, or zeros.
template <int kWarps, int kHeld>
struct Held {
  Eight packs[kHeld];

  static __device__ __forceinline__ int64_t at(int p) { return (threadIdx.x + p * kWarps * 32) * 8; }
  __device__ __forceinline__ void read(const Bf16* row, int64_t size) {
#pragma unroll
    for (int p = 0; p < kHeld; ++p)
      packs[p] = at(p) < size ? *reinterpret_cast<const Eight*>(row + at(p)) : Eight{};
  }
};

template <int kWarps, int kHeld>
__global__ void __launch_bounds__(kWarps * 32, kHeld < 3     ? 8
                                               : kHeld == 3  ? 7
                                               : kWarps == 4 ? 5
                                                             : 2)
    packed_norm_kernel(const __grid_constant__ Norm norm) {
  const int64_t index = blockIdx.x;
  Bf16* const row = row_of(norm.x, index, norm.heads);
  Held<kWarps, kHeld> x, other;
  wait_for_previous();
  x.read(row, norm.size);
  if (norm.residual.data) other.read(row_of(norm.residual, index, norm.heads), norm.size);
  float squares = 0;
#pragma unroll
  for (int p = 0; p < kHeld; ++p) {
    if (norm.residual.data) {
      // As rounded: what the backward pass will read.
#pragma unroll
      for (int j = 0; j < 8; ++j)
        x.packs[p].at[j] = narrow<Bf16>(widen(x.packs[p].at[j]) + widen(other.packs[p].at[j]));
      if (x.at(p) < norm.size) *reinterpret_cast<Eight*>(row + x.at(p)) = x.packs[p];
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) squares += widen(x.packs[p].at[j]) * widen(x.packs[p].at[j]);
  }
  // On its way while the sum is made. All of it before y is written: the compiler does not move a load over a store.
  Held<kWarps, kHeld> weight;
  weight.read(static_cast<const Bf16*>(norm.weight), norm.size);
  const float mean = block_sum<kWarps>(squares) / static_cast<float>(norm.size);
  const float scale = 1.0f / sqrtf(mean + static_cast<float>(norm.eps));
  if (threadIdx.x == 0) static_cast<float*>(norm.rstd)[index] = scale;
  Bf16* const y = static_cast<Bf16*>(norm.y) + index * norm.size;
#pragma unroll
  for (int p = 0; p < kHeld; ++p) {
    if (x.at(p) >= norm.size) continue;
    float value[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) value[j] = widen(x.packs[p].at[j]) * (scale * widen(weight.packs[p].at[j]));
    store(value, y + x.at(p));
  }
}

// What the backward pass reads of a row.
template <int kWarps, int kHeld>
struct BackwardRow {
  Held<kWarps, kHeld> grad, x, add;
  float scale;

  __device__ __forceinline__ void read(const NormBackward& norm, int64_t index) {
    grad.read(row_of(norm.grad, index, norm.heads), norm.size);
    x.read(row_of(norm.x, index, norm.heads), norm.size);
    if (norm.add.data) add.read(row_of(norm.add, index, norm.heads), norm.size);
    scale = static_cast<const float*>(norm.rstd)[index];
  }
};

// grid (blocks, groups or 1); kGrouped: the weight trains. A block then has every gridDim.x-th row of its group, and leaves
// its sums.
template <int kWarps, int kHeld, bool kGrouped>
__global__ void __launch_bounds__(kWarps * 32, kGrouped     ? packed_norm_resident(kWarps* kHeld * 256)
                                               : kWarps > 4 ? 1
                                               : kHeld > 3  ? 4
                                                            : 5)
    packed_norm_backward_kernel(const __grid_constant__ NormBackward norm) {
  using Row = BackwardRow<kWarps, kHeld>;
  const int64_t begin = kGrouped ? norm.groups.offset[blockIdx.y] * norm.heads : 0;
  const int64_t end = (kGrouped ? norm.groups.offset[blockIdx.y + 1] : norm.rows) * norm.heads;
  const Bf16* const weight = static_cast<const Bf16*>(norm.weight);
  [[maybe_unused]] float sums[kHeld][8] = {};
  for (int64_t index = begin + blockIdx.x; index < end; index += gridDim.x) {
    Row row;
    row.read(norm, index);
    float products = 0;
#pragma unroll
    for (int p = 0; p < kHeld; ++p) {
      if (row.x.at(p) >= norm.size) continue;
      float w[8];
      load(weight + row.x.at(p), w);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float product = widen(row.grad.packs[p].at[j]) * widen(row.x.packs[p].at[j]);
        if constexpr (kGrouped) sums[p][j] += product * row.scale;
        products += product * w[j];
      }
    }
    const float scale = row.scale;
    const float factor = -scale * scale * scale * block_sum<kWarps>(products) / static_cast<float>(norm.size);
    Bf16* const out = row_of(norm.out, index, norm.heads);
#pragma unroll
    for (int p = 0; p < kHeld; ++p) {
      if (row.x.at(p) >= norm.size) continue;
      float w[8], g[8];
      load(weight + row.x.at(p), w);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        g[j] = widen(row.grad.packs[p].at[j]) * w[j] * scale + widen(row.x.packs[p].at[j]) * factor;
        if (norm.add.data) g[j] += widen(row.add.packs[p].at[j]);
      }
      store(g, out + row.x.at(p));
    }
    if constexpr (!kGrouped) return;
  }
  if constexpr (kGrouped) {
    float* const to = static_cast<float*>(norm.partial) +
                      (blockIdx.y * static_cast<int64_t>(gridDim.x) + blockIdx.x) * norm.size;
#pragma unroll
    for (int p = 0; p < kHeld; ++p) {
#pragma unroll
      for (int j = 0; j < 8; ++j)
        if (Held<kWarps, kHeld>::at(p) < norm.size) to[Held<kWarps, kHeld>::at(p) + j] = sums[p][j];
    }
  }
}

// Calls f with the warps of a block and the packs that a thread of it holds.
template <typename F>
int choose(int64_t size, const F& f) {
  using Four = std::integral_constant<int, 4>;
  if (size <= 1024) return f(Four{}, std::integral_constant<int, 1>{});
  if (size <= 2048) return f(Four{}, std::integral_constant<int, 2>{});
  if (size <= 3072) return f(Four{}, std::integral_constant<int, 3>{});
  if (size <= 4096) return f(Four{}, Four{});
  return f(std::integral_constant<int, 8>{}, Four{});
}

}  // namespace

bool packed_norm_fits(Type type, int64_t size) {
  return type == Type::kBf16 && size >= kNarrowest && size <= kWidest && size % 8 == 0;
}

int packed_rms_norm(const Norm& norm, Stream stream) {
  return choose(norm.size, [&](auto warps, auto held) {
    constexpr int kWarps = decltype(warps)::value;
    return launch_early(packed_norm_kernel<kWarps, decltype(held)::value>,
                        dim3(static_cast<unsigned>(norm.rows * norm.heads)), kWarps * 32, 0, stream, norm);
  });
}

int packed_rms_norm_backward(const NormBackward& norm, Stream stream) {
  return choose(norm.size, [&](auto warps, auto held) {
    constexpr int kWarps = decltype(warps)::value, kHeld = decltype(held)::value;
    if (norm.groups.count == 0)
      return launch(packed_norm_backward_kernel<kWarps, kHeld, false>,
                    dim3(static_cast<unsigned>(norm.rows * norm.heads)), kWarps * 32, 0, stream, norm);
    return launch(packed_norm_backward_kernel<kWarps, kHeld, true>,
                  dim3(static_cast<unsigned>(norm.partials), static_cast<unsigned>(norm.groups.count)),
                  kWarps * 32, 0, stream, norm);
  });
}

}  // namespace troupe::kernels::cuda
