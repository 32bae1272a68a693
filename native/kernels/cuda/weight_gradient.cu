// Gradients of narrow weights: products over the rows of a group on tensor cores, all groups in one launch. A
// block has 128 × 64 elements of one group's target and walks a part of the group's rows; where there are several
// parts, a second launch adds them in order. Cut by the shapes alone, so that sums have one order.
#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kWide = 128, kNarrow = 64, kStep = 32, kStages = 3, kWarps = 4, kThreads = kWarps * 32;
// A block walks at least so many rows, and parts are no more than fill a GPU with blocks.
constexpr int64_t kPartRows = 256, kBlocks = 512;

struct Parts {
  int64_t count, rows;  // rows of each, within a group
};
Parts parts_of(const WeightGradient& args) {
  const int64_t longest = longest_group(args.groups) > 0 ? longest_group(args.groups) : 1;
  const int64_t blocks = static_cast<int64_t>(blocks_for(args.wide_size, kWide)) *
                         blocks_for(args.narrow_size, kNarrow) * args.groups.count;
  const int64_t wanted = blocks < kBlocks ? kBlocks / blocks : 1;
  int64_t rows = static_cast<int64_t>(blocks_for(blocks_for(longest, wanted), kStep)) * kStep;
  rows = rows < kPartRows ? kPartRows : rows;
  return {static_cast<int64_t>(blocks_for(longest, rows)), rows};
}

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

// grid (wide tiles, narrow tiles, (groups, parts))
__global__ void __launch_bounds__(kThreads, 1) weight_gradient_kernel(WeightGradient args, Parts parts) {
  Stage* const stages = reinterpret_cast<Stage*>(dynamic_shared());
  const int group = static_cast<int>(blockIdx.z) % args.groups.count;
  const int64_t part = static_cast<int>(blockIdx.z) / args.groups.count;
  const int64_t begin = args.groups.offset[group] + part * parts.rows,
                end = min(args.groups.offset[group + 1], begin + parts.rows);
  if (begin >= end) return;
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
  const int64_t size = static_cast<int64_t>(args.wide_size) * args.narrow_size;
  float* const target = parts.count == 1 ? static_cast<float*>(args.groups.target[group])
                                         : args.partial + (part * args.groups.count + group) * size;
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
        if (parts.count == 1)
          target[at] += sums[m][n][i];
        else
          target[at] = sums[m][n][i];
      }
    }
  }
}

// grid (elements, groups)
__global__ void __launch_bounds__(kThreads, 1) add_parts_kernel(WeightGradient args, Parts parts) {
  const int64_t size = static_cast<int64_t>(args.wide_size) * args.narrow_size;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int group = static_cast<int>(blockIdx.y);
  if (at >= size) return;
  const int64_t rows = args.groups.offset[group + 1] - args.groups.offset[group];
  float sum = 0;
#pragma unroll 8
  for (int64_t part = 0; part * parts.rows < rows; ++part)
    sum += args.partial[(part * args.groups.count + group) * size + at];
  if (rows > 0) static_cast<float*>(args.groups.target[group])[at] += sum;
}

}  // namespace

bool weight_gradient_fits(const WeightGradient& args) {
  return args.wide_size % 8 == 0 && args.narrow_size % 8 == 0 && args.wide_stride % 8 == 0 &&
         args.narrow_stride % 8 == 0 && aligned(args.wide) && aligned(args.narrow);
}

int64_t weight_gradient_parts(const WeightGradient& args) { return parts_of(args).count; }

int weight_gradient(const WeightGradient& args, Stream stream) {
  const Parts parts = parts_of(args);
  const int error = launch(weight_gradient_kernel,
                           dim3(blocks_for(args.wide_size, kWide), blocks_for(args.narrow_size, kNarrow),
                                static_cast<unsigned>(args.groups.count * parts.count)),
                           kThreads, kStages * sizeof(Stage), stream, args, parts);
  if (error != 0 || parts.count == 1) return error;
  const int64_t size = static_cast<int64_t>(args.wide_size) * args.narrow_size;
  return launch(add_parts_kernel, dim3(blocks_for(size, kThreads), args.groups.count), kThreads, 0, stream,
                args, parts);
}

}  // namespace troupe::kernels::cuda
