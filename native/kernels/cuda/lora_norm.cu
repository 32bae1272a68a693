// Adapters' part of a product, the residual stream and the RMS norm (arXiv 1910.07467) of it, in one launch between two
// products: what a decode layer does behind o and behind down. All of bf16.
//
// A block has kRows rows and all of their columns: few, so that a step's rows are on all multiprocessors. Few rows would
// leave most of a tensor core's 16 empty. So the product of one group of columns takes some of them, zeros standing in the
// others, and that of the next group others, into the same sums: at the end every lane has eight columns of one row.
// B, the larger operand, and the norm's weight come to registers while the product before still ends. A row's sums are of
// one order whatever kRows is.
#include "kernels/cuda/lora_tile.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kMostWarps = 20;
constexpr int kGroup = 32;         // columns of four tensor-core steps
constexpr int kSpan = 4 * kGroup;  // columns that a warp goes through at a time

// The columns of a block of kRows rows. A warp has kSpans spans of them, a span kPieces pieces, a piece kGroups groups; of one
// group of each piece a lane has eight columns of its row. kHeld: a warp's pieces.
template <int kRows, int kSpans>
struct BlockColumns {
  static constexpr int kGroups = 8 / kRows, kPiece = kGroups * kGroup, kPieces = kSpan / kPiece,
                       kHeld = kSpans * kPieces;
  int out, warps, warp;
  __device__ __forceinline__ explicit BlockColumns(const Lora& lora)
      : out(static_cast<int>(lora.out)),
        warps(static_cast<int>(blockDim.x) / 32),
        warp(static_cast<int>(threadIdx.x) / 32) {}
  // A lane's row of the block, and its group of each piece.
  static __device__ __forceinline__ int lane_row() { return threadIdx.x % 32 / 4 % kRows; }
  static __device__ __forceinline__ int lane_group() { return threadIdx.x % 32 / 4 / kRows; }
  __device__ __forceinline__ bool inside(int h) const { return (warp + h / kPieces * warps) * kSpan < out; }
  // Where piece h begins. Of a span behind the last one, that of the last: read without a branch, and not written.
  __device__ __forceinline__ int piece(int h) const {
    return min((warp + h / kPieces * warps) * kSpan, out - kSpan) + h % kPieces * kPiece;
  }
  __device__ __forceinline__ int lane_column(int h) const {
    return piece(h) + lane_group() * kGroup + static_cast<int>(threadIdx.x) % 4 * 8;
  }
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

// What a block reads before the product has ended: the norm's weight, and of its first term the first ranks of B where a warp
// has but one piece, for which registers are left. Both are written behind ordinary launches alone.
template <int kRows, int kSpans>
struct Early {
  using Columns = BlockColumns<kRows, kSpans>;
  static constexpr bool kHoldsB = Columns::kHeld == 1;
  int term = 0;  // the first with rows of this block or behind it
  Two b[Columns::kGroups][4] = {};
  Four weight[Columns::kHeld];

  __device__ __forceinline__ Early(const LoraNorm& norm, const Columns& columns, int64_t block_begin) {
    const Lora& lora = norm.lora;
    while (term < lora.count && lora.terms[term].row_end <= block_begin) ++term;
    if (kHoldsB && term < lora.count) {
#pragma unroll
      for (int g = 0; g < Columns::kGroups; ++g)
        load_group(lora.terms[term], columns.piece(0) + g * kGroup, 0, b[g]);
    }
#pragma unroll
    for (int h = 0; h < Columns::kHeld; ++h)
      weight[h] =
          *reinterpret_cast<const Four*>(static_cast<const Bf16*>(norm.weight) + columns.lane_column(h));
  }
};

// Adds a term to its rows' y; `row` is the lane's, and `sums_row` where y of it begins.
template <int kRows, int kSpans, int kHeld>
__device__ __forceinline__ void add_term(const AdapterTerm& term, const BlockColumns<kRows, kSpans>& columns,
                                         const Early<kRows, kSpans>& early, bool is_first, int64_t row,
                                         const Bf16* sums_row, Four (&y)[kHeld]) {
  using Columns = BlockColumns<kRows, kSpans>;
  const bool within = row >= term.row_begin && row < term.row_end;
  const int rank = within ? term.rank : 0;
  const Two projected = load_ranks(sums_row + term.projected, 0, rank);
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    float sums[2][4] = {};
    for (int k = 0; k < term.rank; k += kStep) {
      const Two own = k == 0 ? projected : load_ranks(sums_row + term.projected, k, rank);
#pragma unroll
      for (int g = 0; g < Columns::kGroups; ++g) {
        Two b[4];
        if (Early<kRows, kSpans>::kHoldsB && is_first && k == 0) {
#pragma unroll
          for (int n = 0; n < 4; ++n) b[n] = early.b[g][n];
        } else {
          load_group(term, columns.piece(h) + g * kGroup, k, b);
        }
        multiply(b, own, Columns::lane_group() == g, sums);
      }
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const float* const two = sums[n / 2] + n % 2 * 2;
      if (within) y[h].at[n] = add_scaled(y[h].at[n], term.scale, two[0], two[1]);
    }
  }
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

// Of a lane's row, over all of its columns, from the lane's sums by piece. In one order for any kRows: of each four groups in a
// row first neighbours and then both pairs, which are other lanes' with two rows and another piece's with four.
template <int kRows, int kPieces>
__device__ __forceinline__ float row_sum(float (&pieces)[kPieces]) {
  __shared__ float parts[kMostWarps][kRows];
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2)
      if (offset < 4 || offset >= 4 * kRows) pieces[p] += __shfl_xor_sync(0xffffffffu, pieces[p], offset);
  }
#pragma unroll
  for (int p = 1; p < kPieces; ++p) pieces[0] += pieces[p];
  if (lane % 4 == 0 && lane < 4 * kRows) parts[threadIdx.x / 32][lane / 4] = pieces[0];
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) sum += parts[w][lane / 4 % kRows];
  return sum;
}

__device__ __forceinline__ Four normalized(const Four& x, float scale, const Four& weight) {
  Four y;
#pragma unroll
  for (int n = 0; n < 4; ++n)
    y.at[n] = narrow_pair(first_of(x.at[n]) * (scale * first_of(weight.at[n])),
                          second_of(x.at[n]) * (scale * second_of(weight.at[n])));
  return y;
}

template <int kRows, int kSpans>
__global__ void __launch_bounds__(kMostWarps * 32, 1)
    lora_norm_kernel(const __grid_constant__ LoraNorm norm) {
  using Columns = BlockColumns<kRows, kSpans>;
  constexpr int kHeld = Columns::kHeld;
  const Lora& lora = norm.lora;
  const Columns columns(lora);
  // Rows behind the last read what that has, and are not written.
  const int64_t block_begin = static_cast<int64_t>(blockIdx.x) * kRows,
                own_row = block_begin + Columns::lane_row(), row = min(own_row, lora.rows - 1);
  const Early<kRows, kSpans> early(norm, columns, block_begin);
  wait_for_previous();
  const Bf16* const sums_row = static_cast<const Bf16*>(lora.y) + row * lora.stride;
  Bf16* const stream_row = static_cast<Bf16*>(norm.x) + row * lora.out;
  Four y[kHeld], x[kHeld];
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    y[h] = *reinterpret_cast<const Four*>(sums_row + columns.lane_column(h));
    x[h] = *reinterpret_cast<const Four*>(stream_row + columns.lane_column(h));
  }
  for (int i = early.term; i < lora.count && lora.terms[i].row_begin < block_begin + kRows; ++i)
    add_term(lora.terms[i], columns, early, i == early.term, row, sums_row, y);
  float squares[Columns::kPieces] = {};
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const float sum = add_residual(y[h], x[h]);
    if (columns.inside(h)) squares[h % Columns::kPieces] += sum;
  }
  const float mean = row_sum<kRows>(squares) / static_cast<float>(columns.out);
  const float scale = 1.f / sqrtf(mean + static_cast<float>(norm.eps));
  if (own_row >= lora.rows) return;
  Bf16* const normed_row = static_cast<Bf16*>(norm.y) + row * lora.out;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    if (!columns.inside(h)) continue;
    *reinterpret_cast<Four*>(stream_row + columns.lane_column(h)) = x[h];
    *reinterpret_cast<Four*>(normed_row + columns.lane_column(h)) = normalized(x[h], scale, early.weight[h]);
  }
}

template <int kRows, int kSpans>
int launch_lora_norm(const LoraNorm& norm, Stream stream) {
  const auto spans = static_cast<int>(norm.lora.out / kSpan);
  return launch_early(lora_norm_kernel<kRows, kSpans>, dim3(blocks_for(norm.lora.rows, kRows)),
                      (spans + kSpans - 1) / kSpans * 32, 0, stream, norm);
}

}  // namespace

bool lora_norm_fits(const LoraNorm& norm) {
  const Lora& lora = norm.lora;
  bool fits = lora_fits(lora) && lora.out % kSpan == 0 && lora.out <= 2 * kMostWarps * kSpan &&
              aligned(norm.x) && aligned(norm.weight) && aligned(norm.y);
  for (int i = 0; i < lora.count; ++i) {
    const AdapterTerm& term = lora.terms[i];
    fits = fits && term.rank <= kMostNormRank && term.column == 0 && term.columns == lora.out &&
           (i == 0 || term.row_begin >= lora.terms[i - 1].row_end);
  }
  return fits;
}

// More rows than two for each of some 128 multiprocessors read B half as often by four.
int lora_norm(const LoraNorm& norm, Stream stream) {
  if (!lora_norm_fits(norm)) return kInvalidValue;
  if (norm.lora.out > kMostWarps * kSpan) return launch_lora_norm<2, 2>(norm, stream);
  if (norm.lora.rows > 256) return launch_lora_norm<4, 1>(norm, stream);
  return launch_lora_norm<2, 1>(norm, stream);
}

}  // namespace troupe::kernels::cuda
