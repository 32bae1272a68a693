// Adapters' part of a product for all segments of a batch, in bf16: scale · x Aᵀ into `projected`, then that times Bᵀ onto
// y, in one launch: its first blocks compute `projected`, the others wait for the rows that they need, and compute what
// follows the sum as well. A row's sums do not depend on the other rows. plain_lora.cu has the other types.
#include "kernels/cuda/handover.h"
#include "kernels/cuda/heads_row.h"
#include "kernels/cuda/silu.h"
#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kRows = 16, kRanks = 16;
constexpr int kWarps = 8, kThreads = kWarps * 32;
// A warp reads this much of the inputs, kept in flight at once: what a row's inputs are cut into does not depend on
// the other rows.
constexpr int kShrinkInputs = 160;

// Blocks that a multiprocessor holds at a time: two need their registers cut to 128, which spills for some architectures.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kResident = 1;
#else
constexpr int kResident = 2;
#endif

using Four = Pack<uint32_t, 4>;  // eight bf16

// What follows the sum. A unit of the second product is a term, or gate's and up's.
enum class Then { kStore, kSwiglu, kHeads };

// How the launch's work is cut: into shrink items, of 16 rows by 16 ranks over a split of the inputs, and then expand
// items, of 16 rows by as many columns as a block has.
struct Work {
  int32_t splits, units;
  int32_t shrink[kMaxTerms + 1];  // first item of each term; the last: how many there are
  int32_t expand[kMaxTerms + 1];  // likewise of each unit, counted from 0 again
  int32_t counters[kMaxTerms];    // first of a unit's, one for each of its row tiles; 0 is the ticket
};

// Which of the ranges that begin at starts[0], starts[1], … has the item.
__device__ __forceinline__ int range_of(const int32_t* starts, int item) {
  int i = 0;
  while (item >= starts[i + 1]) ++i;
  return i;
}

__device__ __forceinline__ int tiles(int64_t count, int size) {
  return static_cast<int>((count + size - 1) / size);
}

// Shrink items of a unit's row tile: those that its expand items wait for.
template <int kTerms>
__device__ __forceinline__ int shrinks_of(const Lora& lora, const Work& work, int unit) {
  int count = 0;
#pragma unroll
  for (int i = 0; i < kTerms; ++i) count += tiles(lora.terms[unit * kTerms + i].rank, kRanks) * work.splits;
  return count;
}

// The order in which a product's terms are added is free, so a lane takes eight neighbours of a row, two tensor-core
// steps' worth.
__device__ __forceinline__ void shrink(const Lora& lora, const AdapterTerm& term, int64_t row_begin,
                                       int split, int rank_begin, float (&parts)[kWarps][kRows][kRanks + 1]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const auto* const x = static_cast<const Bf16*>(lora.x);
  const auto* const matrix = static_cast<const Bf16*>(term.a);
  const Bf16 *rows[2], *ranks[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    rows[i] = x + min(row_begin + lane / 4 + i * 8, term.row_end - 1) * lora.in;
    ranks[i] = matrix + static_cast<int64_t>(min(rank_begin + lane / 4 + i * 8, term.rank - 1)) * lora.in;
  }
  const int64_t begin = (static_cast<int64_t>(split) * kWarps + warp) * kShrinkInputs + lane % 4 * 8;
  float sums[2][4] = {};
#pragma unroll
  for (int k = 0; k < kShrinkInputs; k += 32) {
    Four left[2] = {}, right[2] = {};
    if (begin + k < lora.in) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        left[i] = *reinterpret_cast<const Four*>(rows[i] + begin + k);
        right[i] = *reinterpret_cast<const Four*>(ranks[i] + begin + k);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t a[4] = {left[0].at[2 * half], left[1].at[2 * half], left[0].at[2 * half + 1],
                             left[1].at[2 * half + 1]};
#pragma unroll
      for (int n = 0; n < 2; ++n) multiply_add(sums[n], a, right[n].at[2 * half], right[n].at[2 * half + 1]);
    }
  }
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) parts[warp][lane / 4 + i / 2 * 8][n * 8 + lane % 4 * 2 + i % 2] = sums[n][i];
  }
  __syncthreads();
  const int row = threadIdx.x / kRanks, rank = threadIdx.x % kRanks;
  if (row_begin + row >= term.row_end || rank_begin + rank >= term.rank) return;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += parts[w][row][rank];
  const int64_t to = (split * lora.rows + row_begin + row) * lora.projected_width;
  static_cast<float*>(lora.projected)[to + term.projected + rank_begin + rank] =
      sum * static_cast<float>(term.scale);
}

// 16 rows' projections of ranks [k, k + 16), rounded to bf16 as they are in training, as a tensor-core product's left
// side. Which rank it calls which is free: a lane has four neighbours.
__device__ __forceinline__ void load_projected(const Lora& lora, const AdapterTerm& term, int splits,
                                               int64_t row_begin, int k, uint32_t (&left)[4]) {
  const int lane = threadIdx.x % 32, rank = k + lane % 4 * 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t row = row_begin + lane / 4 + r * 8;
    left[r] = left[2 + r] = 0;
    if (row >= term.row_end || rank >= term.rank) continue;
    float total[4] = {};
    for (int split = 0; split < splits; ++split) {
      const auto part = *reinterpret_cast<const Pack<float, 4>*>(
          static_cast<const float*>(lora.projected) + (split * lora.rows + row) * lora.projected_width +
          term.projected + rank);
#pragma unroll
      for (int i = 0; i < 4; ++i) total[i] += part.at[i];
    }
    left[r] = narrow_pair(total[0], total[1]);
    left[2 + r] = narrow_pair(total[2], total[3]);
  }
}

// B's part of ranks [k, k + 16) for 32 columns, in four tensor-core steps. Column lane / 4 of step n; results
// 2 (lane % 4) and the next are then neighbours of step n + 1's, so that a lane has eight neighbouring columns of a row.
__device__ __forceinline__ void load_b(const AdapterTerm& term, int column_begin, int k,
                                       Pack<uint32_t, 2> (&b)[4]) {
  const int lane = threadIdx.x % 32, rank = k + lane % 4 * 4, c = lane / 4;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const int column = column_begin + c / 2 * 8 + n * 2 + c % 2;
    b[n] = {};
    if (column < term.columns && rank < term.rank)
      b[n] = *reinterpret_cast<const Pack<uint32_t, 2>*>(static_cast<const Bf16*>(term.b) +
                                                         static_cast<int64_t>(column) * term.rank + rank);
  }
}

// Four of eight bf16, widened.
__device__ __forceinline__ void widen_half(const Four& from, int half, float (&to)[4]) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    to[2 * n] = float_of(from.at[half * 2 + n] << 16);
    to[2 * n + 1] = float_of(from.at[half * 2 + n] & 0xffff0000u);
  }
}

// A head of each of a lane's two rows, eight dimensions of every 32: the norm's scale, summed in split_kernel's order.
template <int kGroups>
__device__ __forceinline__ float scale_of(const Four (&y)[kGroups][2], int r, double eps) {
  constexpr int kHalf = kGroups / 2;
  float squares[kHalf] = {};
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      float value[4];
      widen_half(y[g][r], part, value);
#pragma unroll
      for (int j = 0; j < 4; ++j) squares[g % kHalf] += value[j] * value[j];
    }
  }
#pragma unroll
  for (int n = kHalf / 2; n > 0; n /= 2) {
#pragma unroll
    for (int g = 0; g < n; ++g) squares[g] += squares[g + n];
  }
  return 1.f / sqrt(lane_sum<4>(squares[0]) / static_cast<float>(kGroups * 32) + static_cast<float>(eps));
}

template <int kGroups>
__device__ __forceinline__ void store_heads(const SplitHeads& heads, const Four (&y)[kGroups][2],
                                            int64_t row_begin, int64_t row_end, int head) {
  const int lane = threadIdx.x % 32, half = heads.size / 2;
  const bool query = head < heads.heads, key = !query && head < heads.heads + heads.kv_heads;
  const auto* const weight = static_cast<const Bf16*>(query ? heads.q_norm : key ? heads.k_norm : nullptr);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float scale =
        weight ? scale_of<kGroups>(y, r, heads.eps) : 1.f;  // every lane: it sums over neighbours
    const int64_t row = row_begin + lane / 4 + r * 8;
    if (row >= row_end) continue;
    Bf16* const to = head_place<Bf16>(heads, row, head);
    if (!to) continue;
    const int64_t angle = static_cast<int64_t>(heads.positions[row]) * half;
#pragma unroll
    for (int g = 0; g < kGroups / 2; ++g) {
      Four first, second;  // of eight dimensions, four at a time: registers
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int i = g * 32 + lane % 4 * 8 + part * 4;
        float a[4], b[4];
        widen_half(y[g][r], part, a);
        widen_half(y[g + kGroups / 2][r], part, b);
        if (weight) norm_pack<Bf16>(a, b, scale, weight + i, weight + half + i);
        if (query || key) {
          float cos[4], sin[4];
          load(static_cast<const float*>(heads.cos) + angle + i, cos);
          load(static_cast<const float*>(heads.sin) + angle + i, sin);
          rotate_pack(a, b, cos, sin);
        }
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          first.at[part * 2 + n] = narrow_pair(a[2 * n], a[2 * n + 1]);
          second.at[part * 2 + n] = narrow_pair(b[2 * n], b[2 * n + 1]);
        }
      }
      *reinterpret_cast<Four*>(to + g * 32 + lane % 4 * 8) = first;
      *reinterpret_cast<Four*>(to + half + g * 32 + lane % 4 * 8) = second;
    }
  }
}

// 16 rows by 32 kGroups columns of the unit's a warp; SwiGLU: by 32 of gate and the same 32 of up.
template <Then kThen, int kGroups>
__device__ __forceinline__ void expand(const Lora& lora, const Work& work, int unit, int row_tile,
                                       int column_tile, int column_tiles, void* gated,
                                       const SplitHeads& heads) {
  constexpr int kTerms = kThen == Then::kSwiglu ? 2 : 1, kOwn = kGroups / kTerms;  // groups of a term
  const AdapterTerm* const terms = lora.terms + unit * kTerms;
  const int64_t row_begin = terms[0].row_begin + static_cast<int64_t>(row_tile) * kRows,
                row_end = terms[0].row_end;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int column_begin = (column_tile * kWarps + warp) * kOwn * 32;
  const auto column_of = [&](int g) { return column_begin + g % kOwn * 32; };  // of its term
  // What does not depend on the first product is read before it is there.
  Four y[kGroups][2] = {};
  constexpr bool kReadB = kGroups <= 4;  // registers do not hold more
  Pack<uint32_t, 2> b[kReadB ? kGroups : 1][4];
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const AdapterTerm& term = terms[g / kOwn];
    const int column = column_of(g) + lane % 4 * 8;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = row_begin + lane / 4 + r * 8;
      if (row < row_end && column < term.columns)
        y[g][r] = *reinterpret_cast<const Four*>(static_cast<const Bf16*>(lora.y) + row * lora.out +
                                                 term.column + column);
    }
    if constexpr (kReadB) load_b(term, column_of(g), 0, b[g]);
  }
  const int shrinks = shrinks_of<kTerms>(lora, work, unit);
  if (shrinks > 0) {
    uint32_t* const counter = lora.counters + work.counters[unit] + row_tile;
    if (threadIdx.x == 0) await(counter, shrinks);
    __syncthreads();
    if (threadIdx.x == 0) leave(counter, shrinks + column_tiles);
  }
  if (column_begin >= terms[0].columns) return;  // a whole warp
  uint32_t first[kTerms][4];                     // the left side of the first 16 ranks
#pragma unroll
  for (int i = 0; i < kTerms; ++i) load_projected(lora, terms[i], work.splits, row_begin, 0, first[i]);
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const AdapterTerm& term = terms[g / kOwn];
    auto& own = b[kReadB ? g : 0];
    if constexpr (!kReadB) load_b(term, column_of(g), 0, own);
    float sums[4][4] = {};
#pragma unroll
    for (int n = 0; n < 4; ++n) multiply_add(sums[n], first[g / kOwn], own[n].at[0], own[n].at[1]);
    for (int k = kRanks; k < term.rank; k += kRanks) {
      uint32_t left[4];
      load_projected(lora, term, work.splits, row_begin, k, left);
      load_b(term, column_of(g), k, own);
#pragma unroll
      for (int n = 0; n < 4; ++n) multiply_add(sums[n], left, own[n].at[0], own[n].at[1]);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int n = 0; n < 4; ++n)
        y[g][r].at[n] = narrow_pair(float_of(y[g][r].at[n] << 16) + sums[n][2 * r],
                                    float_of(y[g][r].at[n] & 0xffff0000u) + sums[n][2 * r + 1]);
    }
  }
  if constexpr (kThen == Then::kHeads) {
    store_heads<kGroups>(heads, y, row_begin, row_end, (terms[0].column + column_begin) / heads.size);
  } else {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = row_begin + lane / 4 + r * 8;
      if (row >= row_end) continue;
#pragma unroll
      for (int g = 0; g < kOwn; ++g) {
        const int column = column_of(g) + lane % 4 * 8;
        if (column >= terms[0].columns) continue;
        if constexpr (kThen == Then::kSwiglu) {
          Four out;
#pragma unroll
          for (int part = 0; part < 2; ++part) {
            float gate[4], up[4];
            widen_half(y[g][r], part, gate);
            widen_half(y[g + kOwn][r], part, up);
#pragma unroll
            for (int j = 0; j < 4; ++j) gate[j] = gate[j] * sigmoid(gate[j]) * up[j];
            out.at[part * 2] = narrow_pair(gate[0], gate[1]);
            out.at[part * 2 + 1] = narrow_pair(gate[2], gate[3]);
          }
          *reinterpret_cast<Four*>(static_cast<Bf16*>(gated) + row * (lora.out / 2) + column) = out;
        } else {
          auto* const to = static_cast<Bf16*>(lora.y) + row * lora.out + terms[0].column + column;
          *reinterpret_cast<Four*>(to) = y[g][r];
        }
      }
    }
  }
}

template <Then kThen, int kGroups>
__global__ void __launch_bounds__(kThreads, kGroups == 2 ? kResident : 1)
    lora_kernel(const __grid_constant__ Lora lora, const __grid_constant__ Work work, void* gated,
                const __grid_constant__ SplitHeads heads) {
  constexpr int kTerms = kThen == Then::kSwiglu ? 2 : 1, kColumns = kWarps * kGroups / kTerms * 32;
  __shared__ int ticket;
  __shared__ float parts[kWarps][kRows][kRanks + 1];
  if (threadIdx.x == 0) ticket = take_ticket(lora.counters, gridDim.x);
  __syncthreads();
  const int item = ticket, shrinks = work.shrink[lora.count];
  if (item < shrinks) {
    const int t = range_of(work.shrink, item), local = item - work.shrink[t], unit = t / kTerms;
    const AdapterTerm& term = lora.terms[t];
    const int pieces = work.splits * tiles(term.rank, kRanks), row_tile = local / pieces,
              piece = local % pieces;
    shrink(lora, term, term.row_begin + static_cast<int64_t>(row_tile) * kRows, piece % work.splits,
           piece / work.splits * kRanks, parts);
    __syncthreads();
    const int column_tiles = tiles(lora.terms[unit * kTerms].columns, kColumns);
    if (threadIdx.x == 0)
      arrive(lora.counters + work.counters[unit] + row_tile,
             shrinks_of<kTerms>(lora, work, unit) + column_tiles);
  } else {
    const int unit = range_of(work.expand, item - shrinks), local = item - shrinks - work.expand[unit];
    const int column_tiles = tiles(lora.terms[unit * kTerms].columns, kColumns);
    expand<kThen, kGroups>(lora, work, unit, local / column_tiles, local % column_tiles, column_tiles, gated,
                           heads);
  }
}

bool aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

int64_t row_tiles(const AdapterTerm& term) {
  return term.row_end > term.row_begin ? (term.row_end - term.row_begin + kRows - 1) / kRows : 0;
}

// For units of `terms` terms and blocks of `columns` columns.
Work work_of(const Lora& lora, int terms, int columns) {
  Work work{lora_splits(lora), lora.count / terms, {}, {}, {}};
  for (int32_t t = 0; t < lora.count; ++t) {
    const AdapterTerm& term = lora.terms[t];
    work.shrink[t + 1] =
        work.shrink[t] + static_cast<int32_t>(row_tiles(term) * work.splits * blocks_for(term.rank, kRanks));
  }
  int32_t counter = 1;
  for (int32_t u = 0; u < work.units; ++u) {
    const AdapterTerm& term = lora.terms[u * terms];
    work.expand[u + 1] =
        work.expand[u] + static_cast<int32_t>(row_tiles(term) * blocks_for(term.columns, columns));
    work.counters[u] = counter;
    counter += static_cast<int32_t>(row_tiles(term));
  }
  return work;
}

template <Then kThen, int kGroups>
int launch_lora(const Lora& lora, void* gated, const SplitHeads& heads, Stream stream) {
  constexpr int kTerms = kThen == Then::kSwiglu ? 2 : 1;
  if (!lora_fits(lora) || lora.count % kTerms != 0) return kInvalidValue;
  const Work work = work_of(lora, kTerms, kWarps * kGroups / kTerms * 32);
  const int32_t blocks = work.shrink[lora.count] + work.expand[work.units];
  return launch(lora_kernel<kThen, kGroups>, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, lora,
                work, gated, heads);
}

}  // namespace

// Whether eight inputs and columns and four ranks are read at a time.
bool lora_fits(const Lora& lora) {
  bool all = lora.type == Type::kBf16 && lora.in % 8 == 0 && lora.out % 8 == 0 &&
             lora.projected_width % 4 == 0 && aligned(lora.x) && aligned(lora.y);
  for (int32_t i = 0; i < lora.count; ++i) {
    const AdapterTerm& term = lora.terms[i];
    all = all && term.rank % 4 == 0 && term.projected % 4 == 0 && term.column % 8 == 0 &&
          term.columns % 8 == 0 && aligned(term.a) && aligned(term.b);
  }
  return all;
}

int32_t lora_splits(const Lora& lora) {
  return lora_fits(lora) ? static_cast<int32_t>(blocks_for(lora.in, kWarps * kShrinkInputs)) : 1;
}

int64_t lora_counters(const Lora& lora) {
  int64_t count = 1;
  for (int32_t i = 0; i < lora.count; ++i) count += row_tiles(lora.terms[i]);
  return count;
}

int64_t most_lora_counters(int64_t rows) { return 1 + 3 * (rows / kRows) + kMaxTerms; }

int lora(const Lora& lora, Stream stream) {
  return lora_fits(lora) ? launch_lora<Then::kStore, 2>(lora, nullptr, {}, stream) : plain_lora(lora, stream);
}

int lora_swiglu(const Lora& lora, void* gated, Stream stream) {
  if (!aligned(gated) || lora.out % 16 != 0) return kInvalidValue;
  return launch_lora<Then::kSwiglu, 2>(lora, gated, {}, stream);
}

bool lora_heads_fit(const Lora& lora, const SplitHeads& heads) {
  return lora_fits(lora) && (heads.size == 64 || heads.size == 128 || heads.size == 256) &&
         aligned(heads.q_norm) && aligned(heads.k_norm) && aligned(heads.q) && aligned(heads.k) &&
         aligned(heads.v) && aligned(heads.cos) && aligned(heads.sin);
}

int lora_heads(const Lora& lora, const SplitHeads& heads, Stream stream) {
  if (!lora_heads_fit(lora, heads)) return kInvalidValue;
  if (heads.size == 64) return launch_lora<Then::kHeads, 2>(lora, nullptr, heads, stream);
  if (heads.size == 128) return launch_lora<Then::kHeads, 4>(lora, nullptr, heads, stream);
  return launch_lora<Then::kHeads, 8>(lora, nullptr, heads, stream);
}

}  // namespace troupe::kernels::cuda
