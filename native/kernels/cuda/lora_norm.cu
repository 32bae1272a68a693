// Adapters' part of a product, the residual stream and the RMS norm (arXiv 1910.07467) of it, in one launch between two
// products: what a decode layer does behind o and behind down. All of bf16.
//
// A block has kRows rows and all of their columns: few, so that a step's rows are on all multiprocessors. Few rows would
// leave most of a tensor core's 16 empty. So the product of one group of columns takes some of them, zeros standing in the
// others, and that of the next group others, into the same sums: at the end every lane has eight columns of one row.
// B, the larger operand, and the norm's weight come to registers while the product before still ends.
#include "kernels/cuda/lora_tile.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kMostWarps = 20;
constexpr int kGroup = 32;  // columns of four tensor-core steps

// A block of kRows rows, a warp of which goes through spans of kSpan columns.
template <int kRows>
struct Tile {
  static constexpr int kGroups = 8 / kRows;  // of a span
  static constexpr int kSpan = kGroups * kGroup;
  // A lane's row of the block, the group that it has of each span, and its eight columns there.
  static __device__ __forceinline__ int row() { return threadIdx.x % 32 / 4 % kRows; }
  static __device__ __forceinline__ int group() { return threadIdx.x % 32 / 4 / kRows; }
  static __device__ __forceinline__ int column() { return group() * kGroup + threadIdx.x % 4 * 8; }
};

// B of a group's columns that a lane reads: the tensor cores' step n has the columns 2 n and 2 n + 1 of every eight.
__device__ __forceinline__ void load_group(const AdapterTerm& term, int group_begin, int k, Two (&b)[4]) {
  const int lane = threadIdx.x % 32, column = group_begin + lane / 8 * 8 + lane / 4 % 2;
  const Bf16* const from = static_cast<const Bf16*>(term.b) + static_cast<int64_t>(column) * term.rank;
#pragma unroll
  for (int n = 0; n < 4; ++n) b[n] = load_ranks(from + 2 * n * term.rank, k, term.rank);
}

// Adds the products of one group's columns to the sums of the lanes that have it: of steps 0 and 2 in the tensor cores' rows
// below 8, of 1 and 3 above.
__device__ __forceinline__ void multiply(const Two (&b)[4], const Two& projected, bool mine,
                                         float (&sums)[2][4]) {
  const uint32_t low = mine ? projected.at[0] : 0, high = mine ? projected.at[1] : 0;
  const uint32_t above[4] = {low, 0, high, 0}, below[4] = {0, low, 0, high};
#pragma unroll
  for (int n = 0; n < 4; ++n) multiply_add(sums[n / 2], n % 2 == 0 ? above : below, b[n].at[0], b[n].at[1]);
}

// x += y of eight columns, as rounded; → their squares' sum.
__device__ __forceinline__ float add_residual(const Four& y, Four& x) {
  float squares = 0;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    x.at[n] = narrow_pair(first_of(x.at[n]) + first_of(y.at[n]), second_of(x.at[n]) + second_of(y.at[n]));
    squares += first_of(x.at[n]) * first_of(x.at[n]);
    squares += second_of(x.at[n]) * second_of(x.at[n]);
  }
  return squares;
}

// Of a lane's row, over all of its columns.
template <int kRows>
__device__ __forceinline__ float row_sum(float value) {
  __shared__ float parts[kMostWarps][kRows];
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2)
    if (offset < 4 || offset >= 4 * kRows) value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (lane % 4 == 0 && lane < 4 * kRows) parts[threadIdx.x / 32][lane / 4] = value;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) sum += parts[w][Tile<kRows>::row()];
  return sum;
}

// kHeld: spans of a warp.
template <int kRows, int kHeld>
__global__ void __launch_bounds__(kMostWarps * 32, 1)
    lora_norm_kernel(const __grid_constant__ LoraNorm norm) {
  using Tile = Tile<kRows>;
  constexpr int kGroups = Tile::kGroups;
  constexpr bool kEarly = kHeld * kGroups <= 4 && kRows == 2;  // the first ranks of B are held
  const Lora& lora = norm.lora;
  const int out = static_cast<int>(lora.out), warps = static_cast<int>(blockDim.x) / 32;
  // Rows behind the last and spans behind the last read what these have, and are not written.
  const int64_t block_begin = static_cast<int64_t>(blockIdx.x) * kRows, own_row = block_begin + Tile::row(),
                row = min(own_row, lora.rows - 1);
  const auto span_of = [&](int h) { return (static_cast<int>(threadIdx.x) / 32 + h * warps) * Tile::kSpan; };
  const auto span_inside = [&](int h) { return min(span_of(h), out - Tile::kSpan); };
  int first = 0;
  while (first < lora.count && lora.terms[first].row_end <= block_begin) ++first;
  [[maybe_unused]] Two early[kHeld][kGroups][4] = {};
  Four weight[kHeld], y[kHeld], x[kHeld];
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    if (kEarly && first < lora.count) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g)
        load_group(lora.terms[first], span_inside(h) + g * kGroup, 0, early[h][g]);
    }
    weight[h] = *reinterpret_cast<const Four*>(static_cast<const Bf16*>(norm.weight) + span_inside(h) +
                                               Tile::column());
  }
  wait_for_previous();
  const Bf16* const sums_row = static_cast<const Bf16*>(lora.y) + row * lora.stride;
  Bf16* const stream_row = static_cast<Bf16*>(norm.x) + row * out;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    y[h] = *reinterpret_cast<const Four*>(sums_row + span_inside(h) + Tile::column());
    x[h] = *reinterpret_cast<const Four*>(stream_row + span_inside(h) + Tile::column());
  }
  for (int i = first; i < lora.count && lora.terms[i].row_begin < block_begin + kRows; ++i) {
    const AdapterTerm& term = lora.terms[i];
    const bool within = row >= term.row_begin && row < term.row_end;
    const int rank = within ? term.rank : 0;
    const Two projected = load_ranks(sums_row + term.projected, 0, rank);
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      float sums[2][4] = {};
      for (int k = 0; k < term.rank; k += kStep) {
        const Two own = k == 0 ? projected : load_ranks(sums_row + term.projected, k, rank);
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          Two b[4];
          if (kEarly && i == first && k == 0) {
#pragma unroll
            for (int n = 0; n < 4; ++n) b[n] = early[h][g][n];
          } else {
            load_group(term, span_inside(h) + g * kGroup, k, b);
          }
          multiply(b, own, Tile::group() == g, sums);
        }
      }
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const float* const two = sums[n / 2] + n % 2 * 2;
        if (within) y[h].at[n] = add_scaled(y[h].at[n], term.scale, two[0], two[1]);
      }
    }
  }
  float squares = 0;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const float sum = add_residual(y[h], x[h]);
    if (span_of(h) < out) squares += sum;
  }
  const float mean = row_sum<kRows>(squares) / static_cast<float>(out);
  const float scale = 1.f / sqrtf(mean + static_cast<float>(norm.eps));
  if (own_row >= lora.rows) return;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    if (span_of(h) >= out) continue;
    const int column = span_of(h) + Tile::column();
    *reinterpret_cast<Four*>(stream_row + column) = x[h];
    Four normed;
#pragma unroll
    for (int n = 0; n < 4; ++n)
      normed.at[n] = narrow_pair(first_of(x[h].at[n]) * (scale * first_of(weight[h].at[n])),
                                 second_of(x[h].at[n]) * (scale * second_of(weight[h].at[n])));
    *reinterpret_cast<Four*>(static_cast<Bf16*>(norm.y) + row * out + column) = normed;
  }
}

template <int kRows, int kHeld>
int launch_lora_norm(const LoraNorm& norm, Stream stream) {
  const auto spans = static_cast<int>(norm.lora.out / Tile<kRows>::kSpan);
  return launch_early(lora_norm_kernel<kRows, kHeld>, dim3(blocks_for(norm.lora.rows, kRows)),
                      (spans + kHeld - 1) / kHeld * 32, 0, stream, norm);
}

}  // namespace

bool lora_norm_fits(const LoraNorm& norm) {
  constexpr int kSpan = Tile<2>::kSpan;
  const Lora& lora = norm.lora;
  bool fits = lora_fits(lora) && lora.out % kSpan == 0 && lora.out <= 2 * kMostWarps * kSpan &&
              aligned(norm.x) && aligned(norm.weight) && aligned(norm.y);
  for (int i = 0; i < lora.count; ++i) {
    const AdapterTerm& term = lora.terms[i];
    fits = fits && term.column == 0 && term.columns == lora.out &&
           (i == 0 || term.row_begin >= lora.terms[i - 1].row_end);
  }
  return fits;
}

// More rows than two for each of some 128 multiprocessors read B half as often by four.
int lora_norm(const LoraNorm& norm, Stream stream) {
  if (!lora_norm_fits(norm)) return kInvalidValue;
  if (norm.lora.out > kMostWarps * Tile<2>::kSpan) return launch_lora_norm<2, 2>(norm, stream);
  if (norm.lora.rows > 256) return launch_lora_norm<4, 2>(norm, stream);
  return launch_lora_norm<2, 1>(norm, stream);
}

}  // namespace troupe::kernels::cuda
