// Gradients of narrow weights: products over the rows of a group on tensor cores, all groups in one launch. A
// block has 128 × 64 elements of one group's target and walks the group's rows, so that sums have one order.
#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kWide = 128, kNarrow = 64, kStep = 32, kStages = 3, kWarps = 4, kThreads = kWarps * 32;

// 16-byte chunks of a row of `width` elements, swizzled so that ldmatrix meets no bank twice.
template <int width>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  return row * width + (chunk ^ (row & 7)) * 8;
}

struct Stage {
  Bf16 wide[kStep * kWide];
  Bf16 narrow[kStep * kNarrow];
};

template <int width>
__device__ __forceinline__ void fetch(Bf16* to, const Bf16* from, int64_t stride, int64_t row, int64_t end,
                                      int column, int size) {
#pragma unroll
  for (int i = 0; i < kStep * width / 8 / kThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kThreads, r = at / (width / 8),
              chunk = at % (width / 8);
    const bool inside = row + r < end && column + chunk * 8 < size;
    copy16_or_zero(to + swizzled<width>(r, chunk),
                   inside ? from + (row + r) * stride + column + chunk * 8 : from, inside);
  }
}

// grid (wide tiles, narrow tiles, groups)
__global__ void __launch_bounds__(kThreads, 1) weight_gradient_kernel(WeightGradient args) {
  Stage* const stages = reinterpret_cast<Stage*>(dynamic_shared());
  const int64_t begin = args.groups.offset[blockIdx.z], end = args.groups.offset[blockIdx.z + 1];
  if (begin == end) return;
  const int wide_begin = static_cast<int>(blockIdx.x) * kWide,
            narrow_begin = static_cast<int>(blockIdx.y) * kNarrow;
  const Bf16* const wide = static_cast<const Bf16*>(args.wide);
  const Bf16* const narrow = static_cast<const Bf16*>(args.narrow);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int steps = static_cast<int>((end - begin + kStep - 1) / kStep);
  const auto start = [&](int step) {
    if (step < steps) {
      Stage& stage = stages[step % kStages];
      const int64_t row = begin + static_cast<int64_t>(step) * kStep;
      fetch<kWide>(stage.wide, wide, args.wide_stride, row, end, wide_begin, args.wide_size);
      fetch<kNarrow>(stage.narrow, narrow, args.narrow_stride, row, end, narrow_begin, args.narrow_size);
    }
    commit_copies();
  };
  for (int step = 0; step + 1 < kStages; ++step) start(step);
  float sums[2][kNarrow / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    wait_copies<kStages - 2>();
    __syncthreads();  // the stage has come for everyone, and the one before has been read
    start(step + kStages - 1);
    const Stage& stage = stages[step % kStages];
#pragma unroll
    for (int t = 0; t < kStep; t += 16) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const int row = t + lane / 16 * 8 + lane % 8, chunk = warp * 4 + m * 2 + lane / 8 % 2;
        load_matrices_transposed(a[m], stage.wide + swizzled<kWide>(row, chunk));
      }
#pragma unroll
      for (int n = 0; n < kNarrow / 16; ++n) {
        uint32_t b[4];
        const int row = t + lane / 8 % 2 * 8 + lane % 8, chunk = n * 2 + lane / 16;
        load_matrices_transposed(b, stage.narrow + swizzled<kNarrow>(row, chunk));
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          multiply_add(sums[m][2 * n], a[m], b[0], b[1]);
          multiply_add(sums[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
  wait_copies<0>();
  float* const target = static_cast<float*>(args.groups.target[blockIdx.z]);
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < kNarrow / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = wide_begin + warp * 32 + m * 16 + lane / 4 + i / 2 * 8;
        const int column = narrow_begin + n * 8 + lane % 4 * 2 + i % 2;
        if (row >= args.wide_size || column >= args.narrow_size) continue;
        const int64_t at = args.transposed ? static_cast<int64_t>(column) * args.wide_size + row
                                           : static_cast<int64_t>(row) * args.narrow_size + column;
        target[at] += sums[m][n][i];
      }
    }
  }
}

}  // namespace

bool weight_gradient_fits(const WeightGradient& args) {
  return args.wide_size % 8 == 0 && args.narrow_size % 8 == 0 && args.wide_stride % 8 == 0 &&
         args.narrow_stride % 8 == 0 && reinterpret_cast<uintptr_t>(args.wide) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(args.narrow) % 16 == 0;
}

int weight_gradient(const WeightGradient& args, Stream stream) {
  return launch(
      weight_gradient_kernel,
      dim3(blocks_for(args.wide_size, kWide), blocks_for(args.narrow_size, kNarrow), args.groups.count),
      kThreads, kStages * sizeof(Stage), stream, args);
}

}  // namespace troupe::kernels::cuda
