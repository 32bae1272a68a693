// Attention of query rows over pages of the KV cache on tensor cores: a block takes one tile, up to 16 (row,
// query head) pairs of one KV head that read pages together; its warps take the pages in turn and merge at the
// end. What a pair finds depends on its own query and keys alone: a page's warp is given by its place in the
// part, and what a pair does not see adds exactly nothing.
#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kPage = kPageTokens, kWarps = 4, kThreads = kWarps * 32;
static_assert(2 * kWarps == kMostSettled, "each warp's first two pages");

using Eight = Pack<Bf16, 8>;

// 16-byte chunks of a row, swizzled so that ldmatrix meets no bank twice.
template <int D>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  return row * D + (chunk ^ (row & 7)) * 8;
}

// Of a page's copies: with all of them compute capability 10 spills.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kUnrolledCopies = 4;
#else
constexpr int kUnrolledCopies = 16;
#endif

// A page's keys and values: its first `tokens`, and zeros, since nobody may have written the rest and a weight of zero would
// not silence a NaN.
template <int D>
__device__ __forceinline__ void fetch_page(Bf16 (&to)[2][kPage * D], const Bf16* k, const Bf16* v, int tokens,
                                           int lane) {
#pragma unroll kUnrolledCopies
  for (int i = 0; i < kPage * D / 8 / 32; ++i) {
    const int at = lane + i * 32, row = at / (D / 8), chunk = at % (D / 8);
    const bool inside = row < tokens;
    copy16_or_zero(to[0] + swizzled<D>(row, chunk), k + row * D + chunk * 8, inside);
    copy16_or_zero(to[1] + swizzled<D>(row, chunk), v + row * D + chunk * 8, inside);
  }
}

template <int D>
struct Shared {
  static constexpr int kOutStride = D + 8;  // eight rows' pairs of floats meet no bank twice
  Bf16 q[kTileRows * D];
  union {
    Bf16 pages[kWarps][2][2][kPage * D];        // warp, stage, keys or values
    float out[kWarps][kTileRows * kOutStride];  // once every page has been read
  };
  float best[kWarps][kTileRows], total[kWarps][kTileRows];
};

// A page of a tile: of its run `run`, at place `at` of the part, and how many of the run's tokens from this page on there
// are. A warp's are those whose place is its number modulo kWarps, run after run.
struct Place {
  int run, at, tokens;
};
__device__ __forceinline__ Place settle(int run, int at, const PagedRun* runs, int run_count, int warp) {
  for (; run < run_count; ++run) {
    const int tokens = runs[run].tokens - at * kPage;
    if (tokens > 0) return {run, at, tokens};
    if (run + 1 == run_count) continue;
    const int begin = runs[run + 1].begin;
    at = begin + ((warp - begin) & (kWarps - 1));
  }
  return {run_count, at, 0};
}

// A page's scores → its weights, packed as the left side of their product with the values; the sums so far are brought
// to the new best score. A lane has two rows, lane / 4 and that + 8; `visible` of the page's tokens are each one's to see.
template <int D>
__device__ __forceinline__ void soften(const float (&score)[2][4], const int (&visible)[2], float scale,
                                       float (&best)[2], float (&total)[2], float (&out)[D / 8][4],
                                       uint32_t (&weights)[4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float e[4];
    float highest = best[r];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int token = j / 2 * 8 + lane % 4 * 2 + j % 2;
      e[j] = token < visible[r] ? score[j / 2][2 * r + j % 2] * scale : -INFINITY;
      highest = fmaxf(highest, e[j]);
    }
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
    // A row that has seen nothing yet: −∞ − −∞ is no number.
    const float base = highest == -INFINITY ? 0.f : highest;
    const float shrink = exp2f(best[r] - base);
    best[r] = highest;
#pragma unroll
    for (int j = 0; j < 4; ++j) e[j] = exp2f(e[j] - base);
    total[r] = total[r] * shrink + ((e[0] + e[1]) + (e[2] + e[3]));
    weights[r] = narrow_pair(e[0], e[1]);
    weights[2 + r] = narrow_pair(e[2], e[3]);
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
      out[d][2 * r] *= shrink;
      out[d][2 * r + 1] *= shrink;
    }
  }
}

// What a warp has found, to where merge_warps reads it.
template <int D>
__device__ __forceinline__ void share(const float (&best)[2], float (&total)[2], const float (&out)[D / 8][4],
                                      int row_count, Shared<D>& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
    const int row = lane / 4 + r * 8;
    if (lane % 4 == 0) {
      shared.best[warp][row] = best[r];
      shared.total[warp][row] = total[r];
    }
    if (row >= row_count) continue;
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
      const float pair[2] = {out[d][2 * r], out[d][2 * r + 1]};
      store(pair, shared.out[warp] + row * Shared<D>::kOutStride + d * 8 + lane % 4 * 2);
    }
  }
}

// The warps' results as one: a row's own where it has one part, else this part of it.
template <int D>
__device__ __forceinline__ void merge_warps(const PagedAttention& args, const PagedTile& tile, int group,
                                            int head, const Shared<D>& shared) {
  for (int i = threadIdx.x; i < tile.row_count * (D / 4); i += kThreads) {
    const int row = i / (D / 4), d = i % (D / 4) * 4, pair = tile.row_begin + row;
    float highest = -INFINITY, sum = 0, value[4] = {};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) highest = fmaxf(highest, shared.best[w][row]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = exp2f(shared.best[w][row] - highest);
      sum += shared.total[w][row] * factor;
      float part[4];
      load(shared.out[w] + row * Shared<D>::kOutStride + d, part);
#pragma unroll
      for (int j = 0; j < 4; ++j) value[j] += part[j] * factor;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) value[j] /= sum;
    const PagedMember of = args.members[tile.member_begin + pair / group];
    const int64_t own = head * group + pair % group;
    if (of.partial < 0) {
      store(value, static_cast<Bf16*>(args.out) + (of.row * static_cast<int64_t>(args.heads) + own) * D + d);
      continue;
    }
    const int64_t to = of.partial * static_cast<int64_t>(args.heads) + own;
    store(value, args.partial + to * D + d);
    if (d == 0) args.partial_logsumexp[to] = highest + log2f(sum);
  }
}

// grid (tiles, kv heads)
template <int D>
__global__ void __launch_bounds__(kThreads, D <= 64    ? 4
                                            : D <= 128 ? 3
                                                       : 1) tile_kernel(PagedAttention args) {
  Shared<D>& shared = *reinterpret_cast<Shared<D>*>(dynamic_shared());
  const PagedTile tile = args.tiles[blockIdx.x];
  if (tile.row_count == 0) return;  // padding, see PagedTile
  const int group = args.heads / args.kv_heads, head = static_cast<int>(blockIdx.y);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const PagedMember* const members = args.members + tile.member_begin;
  // This lane's two rows: which member's they are, and how many of the part's tokens it sees.
  int member[2], seen[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    member[r] = (tile.row_begin + min(lane / 4 + r * 8, tile.row_count - 1)) / group;
    seen[r] = members[member[r]].seen;
  }
  // The number of the page to be fetched next is read one page ahead.
  const PagedRun* const runs = args.runs + tile.run_begin;
  const auto page_of = [&](Place place) { return args.pages[runs[place.run].pages + place.at]; };
  Place now = settle(0, warp, runs, tile.run_count, warp);
  const int first_page = now.run < tile.run_count ? page_of(now) : 0;
  Place next = settle(now.run, now.at + kWarps, runs, tile.run_count, warp);
  int next_page = next.run < tile.run_count ? page_of(next) : 0;
  const auto fetch = [&](int stage, int64_t page, int tokens) {
    const int64_t from = (page * args.kv_heads + head) * (kPage * D);
    fetch_page<D>(shared.pages[warp][stage], static_cast<const Bf16*>(args.k) + from,
                  static_cast<const Bf16*>(args.v) + from, tokens, lane);
  };
  // Until here the step's plan alone was read, which was sent behind ordinary launches. So were keys and values of earlier
  // steps written: a product, an ordinary launch, lies before the kernel that this one may overtake.
  if (warp + kWarps >= tile.settled) wait_for_previous();
  if (now.run < tile.run_count) fetch(0, first_page, now.tokens);
  commit_copies();
  if (next.run < tile.run_count) fetch(1, next_page, next.tokens);
  commit_copies();
  wait_for_previous();
  const Bf16* const q = static_cast<const Bf16*>(args.q);
  for (int i = threadIdx.x; i < kTileRows * D / 8; i += kThreads) {
    const int row = i / (D / 8), chunk = i % (D / 8);
    const int pair = tile.row_begin + min(row, tile.row_count - 1);  // rows beyond the last repeat it
    const int64_t from = members[pair / group].row * args.q_row_stride +
                         static_cast<int64_t>(head * group + pair % group) * D + chunk * 8;
    // Not as a copy: that would be waited for behind the pages.
    *reinterpret_cast<Eight*>(shared.q + swizzled<D>(row, chunk)) = *reinterpret_cast<const Eight*>(q + from);
  }
  __syncthreads();
  // Heads of 256 leave no registers for the queries: they are read again for every page.
  constexpr bool kHoldQueries = D <= 128;
  const auto load_query = [&](uint32_t(&to)[4], int i) {
    load_matrices(to, shared.q + swizzled<D>(lane % 16, i * 2 + lane / 16));
  };
  uint32_t held[kHoldQueries ? D / 16 : 1][4];
  if constexpr (kHoldQueries) {
#pragma unroll
    for (int i = 0; i < D / 16; ++i) load_query(held[i], i);
  }

  float out[D / 8][4] = {};
  float best[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
  const float scale = static_cast<float>(args.scale * 1.4426950408889634);  // the softmax is of base 2
  int stage = 0;
  for (; now.run < tile.run_count; stage ^= 1) {
    const PagedRun& run = runs[now.run];
    const int first_token = now.at * kPage;
    int visible[2];
#pragma unroll
    for (int r = 0; r < 2; ++r)
      visible[r] = member[r] >= run.member_begin && member[r] < run.member_end ? seen[r] - first_token : 0;
    now = next;
    next = settle(next.run, next.at + kWarps, runs, tile.run_count, warp);
    if (next.run < tile.run_count) next_page = page_of(next);
    wait_copies<1>();
    __syncwarp();
    float score[2][4] = {};
    const Bf16* const keys = shared.pages[warp][stage][0];
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t b[4];  // tokens 0–7 and 8–15, each with the low and high 8 of these 16 dimensions
      load_matrices(b, keys + swizzled<D>(lane % 8 + lane / 16 * 8, i * 2 + lane / 8 % 2));
      uint32_t again[4];
      if constexpr (!kHoldQueries) load_query(again, i);
      const auto& query = kHoldQueries ? held[kHoldQueries ? i : 0] : again;
      multiply_add(score[0], query, b[0], b[1]);
      multiply_add(score[1], query, b[2], b[3]);
    }
    uint32_t weights[4];
    soften<D>(score, visible, scale, best, total, out, weights);
    const Bf16* const values = shared.pages[warp][stage][1];
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      uint32_t b[4];
      load_matrices_transposed(b, values + swizzled<D>(lane % 16, d * 2 + lane / 16));
      multiply_add(out[2 * d], weights, b[0], b[1]);
      multiply_add(out[2 * d + 1], weights, b[2], b[3]);
    }
    __syncwarp();
    if (next.run < tile.run_count) fetch(stage, next_page, next.tokens);
    commit_copies();
  }
  wait_copies<0>();
  __syncthreads();
  share<D>(best, total, out, tile.row_count, shared);
  __syncthreads();
  merge_warps<D>(args, tile, group, head, shared);
}

// Merges the parts of each row that has several, root first: a warp for each (row, head).
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    merge_kernel(const float* partial, const float* logsumexp, const int32_t* starts, int partial_base,
                 int64_t row_begin, int64_t row_end, int heads, int size, T* out) {
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (unit >= (row_end - row_begin) * heads) return;
  const int64_t row = row_begin + unit / heads, head = unit % heads;
  const int begin = starts[row] - partial_base, end = starts[row + 1] - partial_base;
  if (begin == end) return;
  float highest = -INFINITY, total = 0;
  for (int i = begin; i < end; ++i)
    highest = fmaxf(highest, logsumexp[static_cast<int64_t>(i) * heads + head]);
  for (int i = begin; i < end; ++i)
    total += exp2f(logsumexp[static_cast<int64_t>(i) * heads + head] - highest);
  // Heads of 64 on: a multiple of four.
  for (int d = threadIdx.x % 32 * 4; d < size; d += 128) {
    float value[4] = {};
#pragma unroll 2
    for (int i = begin; i < end; ++i) {
      const int64_t at = static_cast<int64_t>(i) * heads + head;
      const float weight = exp2f(logsumexp[at] - highest) / total;
      float part[4];
      load(partial + at * size + d, part);
#pragma unroll
      for (int j = 0; j < 4; ++j) value[j] += weight * part[j];
    }
    store(value, out + (row * heads + head) * size + d);
  }
}

template <int D>
int launch_tiles(const PagedAttention& args, Stream stream) {
  return launch_early(tile_kernel<D>, dim3(args.tile_count, args.kv_heads), kThreads, sizeof(Shared<D>),
                      stream, args);
}

}  // namespace

int paged_attention_fits(Type type, int32_t size, bool& fits) {
  fits = type == Type::kBf16 && (size == 64 || size == 128 || size == 256);
  if (!fits) return 0;
#ifdef __CUDACC__
  // 139 KB for heads of 256: more than a block gets on consumer cards.
  int device = 0, most = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  if (const cudaError_t error =
          cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device))
    return error;
  const size_t needed = size == 256   ? sizeof(Shared<256>)
                        : size == 128 ? sizeof(Shared<128>)
                                      : sizeof(Shared<64>);
  fits = needed <= static_cast<size_t>(most);
#endif
  return 0;
}

int paged_attention(const PagedAttention& args, Stream stream) {
  if (args.type != Type::kBf16) return kInvalidValue;
  if (args.size == 64) return launch_tiles<64>(args, stream);
  if (args.size == 128) return launch_tiles<128>(args, stream);
  if (args.size == 256) return launch_tiles<256>(args, stream);
  return kInvalidValue;
}

int merge_paged(Type type, const float* partial, const float* partial_logsumexp, const int32_t* starts,
                int32_t partial_base, int64_t row_begin, int64_t row_end, int32_t heads, int32_t size,
                void* out, Stream stream) {
  if (type != Type::kBf16) return kInvalidValue;
  return launch(merge_kernel<Bf16>, dim3(blocks_for((row_end - row_begin) * heads, kWarps)), kThreads, 0,
                stream, partial, partial_logsumexp, starts, partial_base, row_begin, row_end, heads, size,
                static_cast<Bf16*>(out));
}

}  // namespace troupe::kernels::cuda
