// Gradients of narrow weights: products over the rows of a group on tensor cores, all groups in one launch. A
// block has a tile of one group's target, kWide by as many columns as the narrow side has (kMostNarrow at most), and walks
// a part of the group's rows. What the parts found is added in their order, by the block of a tile that comes last: cut by
// the shapes alone, sums have one order. The wide side is read once, which is what bounds it: a block's copies of the next
// kStages − 1 steps are under way.
#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kWide = 128, kMostNarrow = 64, kStep = 32, kStages = 4, kWarps = 4, kThreads = kWarps * 32;
// A block walks at least so many rows, and parts are no more than give each multiprocessor three blocks, which are there
// at a time unless tiles are of kMostNarrow columns: two then.
constexpr int64_t kPartRows = 256, kBlocks = 384;

// 0, 1, … blocks − 1, in the order in which blocks come; then the counter is zero again. For one thread of a block.
__device__ __forceinline__ int take_ticket(uint32_t* counter, unsigned blocks) {
  return static_cast<int>(atomicInc(counter, blocks - 1));
}

// Columns of a tile.
int narrow_tile(int32_t size) { return size < kMostNarrow ? (size + 15) / 16 * 16 : kMostNarrow; }

int64_t tiles_of(const WeightGradient& args) {
  return static_cast<int64_t>(blocks_for(args.wide_size, kWide)) *
         blocks_for(args.narrow_size, narrow_tile(args.narrow_size));
}

struct Parts {
  int64_t count, rows;  // rows of each, within a group
};
Parts parts_of(const WeightGradient& args) {
  const int64_t longest = longest_group(args.groups) > 0 ? longest_group(args.groups) : 1;
  const int64_t blocks = tiles_of(args) * args.groups.count;
  const int64_t wanted = blocks < kBlocks ? kBlocks / blocks : 1;
  int64_t rows = static_cast<int64_t>(blocks_for(blocks_for(longest, wanted), kStep)) * kStep;
  rows = rows < kPartRows ? kPartRows : rows;
  return {static_cast<int64_t>(blocks_for(longest, rows)), rows};
}

// 16-byte chunks of a stage's row, which is padded by one: ldmatrix, which reads eight rows, meets no bank twice.
template <int width>
__device__ __forceinline__ int chunk_at(int row, int chunk) {
  return row * (width + 8) + chunk * 8;
}

template <int kNarrow>
struct Stage {
  Bf16 wide[kStep * (kWide + 8)];
  Bf16 narrow[kStep * (kNarrow + 8)];
};

// `width` columns of a step's rows, the first of which is at `from`; zeros beyond the `rows` and `columns` that are left.
template <int width>
__device__ __forceinline__ void fetch(Bf16* to, const Bf16* from, int stride, int64_t rows, int columns) {
  constexpr int kChunks = width / 8, kAll = kStep * kChunks;
#pragma unroll
  for (int i = 0; i < (kAll + kThreads - 1) / kThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kThreads, r = at / kChunks, chunk = at % kChunks;
    if (kAll % kThreads != 0 && at >= kAll) break;
    const bool inside = r < rows && chunk * 8 < columns;
    copy16_or_zero(to + chunk_at<width>(r, chunk), inside ? from + r * stride + chunk * 8 : from, inside);
  }
}

// Sums of a thread: kNarrow / 8 columns of 16 × 8 tiles for each half of its warp's 32 rows.
template <int kNarrow>
using Sums = float[2][kNarrow / 8][4];
using Four = Pack<float, 4>;

// Where the sum 4 i + j of this thread goes, in a tile that begins at this row and column; −1: nowhere.
template <int kNarrow>
__device__ __forceinline__ int place_of(const WeightGradient& args, int wide_begin, int narrow_begin, int i,
                                        int j) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, m = i / (kNarrow / 8), n = i % (kNarrow / 8);
  const int row = wide_begin + warp * 32 + m * 16 + lane / 4 + j / 2 * 8;
  const int column = narrow_begin + n * 8 + lane % 4 * 2 + j % 2;
  if (row >= args.wide_size || column >= args.narrow_size) return -1;
  return args.transposed ? column * args.wide_size + row : row * args.narrow_size + column;
}

// target += the sums with numbers 4 first … 4 first + 15. All are read before one is written: else each would wait for
// memory behind the one before.
template <int kNarrow>
__device__ __forceinline__ void add_to_target(const WeightGradient& args, float* target, int wide_begin,
                                              int narrow_begin, int first, const float (&sums)[4][4]) {
  int places[4][4];
  float old[4][4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      places[c][j] = place_of<kNarrow>(args, wide_begin, narrow_begin, first + c, j);
      old[c][j] = places[c][j] < 0 ? 0.f : target[places[c][j]];
    }
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (places[c][j] >= 0) target[places[c][j]] = old[c][j] + sums[c][j];
  }
}

// grid (wide tiles, narrow tiles, (groups, parts))
template <int kNarrow>
__global__ void __launch_bounds__(kThreads, kNarrow < kMostNarrow ? 3 : 2)
    weight_gradient_kernel(WeightGradient args, Parts parts) {
  using Steps = Stage<kNarrow>;
  Steps* const stages = reinterpret_cast<Steps*>(dynamic_shared());
  const int group = static_cast<int>(blockIdx.z) % args.groups.count;
  const int64_t part = static_cast<int>(blockIdx.z) / args.groups.count;
  const int64_t group_begin = args.groups.offset[group], group_end = args.groups.offset[group + 1];
  const int64_t begin = group_begin + part * parts.rows, end = min(group_end, begin + parts.rows);
  if (begin >= end) return;
  const int wide_begin = static_cast<int>(blockIdx.x) * kWide,
            narrow_begin = static_cast<int>(blockIdx.y) * kNarrow;
  const Bf16* const wide = static_cast<const Bf16*>(args.wide) + wide_begin;
  const Bf16* const narrow = static_cast<const Bf16*>(args.narrow) + narrow_begin;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int steps = static_cast<int>((end - begin + kStep - 1) / kStep);
  const auto start = [&](int step) {
    if (step < steps) {
      Steps& stage = stages[step % kStages];
      const int64_t row = begin + static_cast<int64_t>(step) * kStep;
      fetch<kWide>(stage.wide, wide + row * args.wide_stride, static_cast<int>(args.wide_stride), end - row,
                   args.wide_size - wide_begin);
      fetch<kNarrow>(stage.narrow, narrow + row * args.narrow_stride, static_cast<int>(args.narrow_stride),
                     end - row, args.narrow_size - narrow_begin);
    }
    commit_copies();
  };
  for (int step = 0; step + 1 < kStages; ++step) start(step);
  Sums<kNarrow> sums = {};
  for (int step = 0; step < steps; ++step) {
    wait_copies<kStages - 2>();
    __syncthreads();  // the stage has come for everyone, and the one before has been read
    start(step + kStages - 1);
    const Steps& stage = stages[step % kStages];
#pragma unroll
    for (int t = 0; t < kStep; t += 16) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const int row = t + lane / 16 * 8 + lane % 8, chunk = warp * 4 + m * 2 + lane / 8 % 2;
        load_matrices_transposed(a[m], stage.wide + chunk_at<kWide>(row, chunk));
      }
#pragma unroll
      for (int n = 0; n < kNarrow / 16; ++n) {
        uint32_t b[4];
        const int row = t + lane / 8 % 2 * 8 + lane % 8, chunk = n * 2 + lane / 16;
        load_matrices_transposed(b, stage.narrow + chunk_at<kNarrow>(row, chunk));
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          multiply_add(sums[m][2 * n], a[m], b[0], b[1]);
          multiply_add(sums[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
  wait_copies<0>();
  constexpr int kFours = kNarrow / 4;
  float* const target = static_cast<float*>(args.groups.target[group]);
  const auto group_parts = static_cast<int>((group_end - group_begin + parts.rows - 1) / parts.rows);
  if (group_parts == 1) {
#pragma unroll
    for (int first = 0; first < kFours; first += 4) {
      float four[4][4];
#pragma unroll
      for (int c = 0; c < 4; ++c) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
          four[c][j] = sums[(first + c) / (kNarrow / 8)][(first + c) % (kNarrow / 8)][j];
      }
      add_to_target<kNarrow>(args, target, wide_begin, narrow_begin, first, four);
    }
    return;
  }
  // A part's sums as the threads have them: each reads again what it has written, or what its likes in other blocks have.
  const int64_t tiles = static_cast<int64_t>(gridDim.x) * gridDim.y,
                tile = blockIdx.y * static_cast<int64_t>(gridDim.x) + blockIdx.x + group * tiles;
  const auto sums_of = [&](int64_t which) {
    return reinterpret_cast<Four*>(args.partial) +
           (which * args.groups.count * tiles + tile) * kFours * kThreads + threadIdx.x;
  };
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    Four mine;
#pragma unroll
    for (int j = 0; j < 4; ++j) mine.at[j] = sums[i / (kNarrow / 8)][i % (kNarrow / 8)][j];
    sums_of(part)[i * kThreads] = mine;
  }
  __syncthreads();
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = take_ticket(args.counters + tile, group_parts) == group_parts - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last) return;
  for (int first = 0; first < kFours; first += 4) {
    float totals[4][4] = {};
#pragma unroll(kNarrow < kMostNarrow ? 4 : 2)  // as many as there are registers for
    for (int other = 0; other < group_parts; ++other) {
      const Four* const from = sums_of(other) + first * kThreads;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const Four found = from[c * kThreads];
#pragma unroll
        for (int j = 0; j < 4; ++j) totals[c][j] += found.at[j];
      }
    }
    add_to_target<kNarrow>(args, target, wide_begin, narrow_begin, first, totals);
  }
}

template <int kNarrow>
int launch_tiles(const WeightGradient& args, Stream stream) {
  const Parts parts = parts_of(args);
  return launch(weight_gradient_kernel<kNarrow>,
                dim3(blocks_for(args.wide_size, kWide), blocks_for(args.narrow_size, kNarrow),
                     static_cast<unsigned>(args.groups.count * parts.count)),
                kThreads, kStages * sizeof(Stage<kNarrow>), stream, args, parts);
}

}  // namespace

bool weight_gradient_fits(const WeightGradient& args) {
  return args.wide_size % 8 == 0 && args.narrow_size % 8 == 0 && args.wide_stride % 8 == 0 &&
         args.narrow_stride % 8 == 0 && aligned(args.wide) && aligned(args.narrow) &&
         args.wide_size <= INT32_MAX / args.narrow_size && args.wide_stride <= INT32_MAX / kStep &&
         args.narrow_stride <= INT32_MAX / kStep;
}

int64_t weight_gradient_counters(const WeightGradient& args) {
  return parts_of(args).count > 1 ? tiles_of(args) * args.groups.count : 0;
}

int64_t weight_gradient_partial(const WeightGradient& args) {
  return parts_of(args).count * weight_gradient_counters(args) * kWide * narrow_tile(args.narrow_size);
}

int weight_gradient(const WeightGradient& args, Stream stream) {
  switch (narrow_tile(args.narrow_size)) {
    case 16:
      return launch_tiles<16>(args, stream);
    case 32:
      return launch_tiles<32>(args, stream);
    case 48:
      return launch_tiles<48>(args, stream);
    default:
      return launch_tiles<kMostNarrow>(args, stream);
  }
}

}  // namespace troupe::kernels::cuda
