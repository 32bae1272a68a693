// Attention of query rows over pages of the KV cache on tensor cores: a block takes one tile, up to 16 (row,
// query head) pairs of one KV head that read the same run of pages; its warps take the pages in turn and
// merge at the end. What a pair finds depends on its own query and keys alone: pages behind its own position
// add exactly nothing.
#include "kernels/cuda/tensor_core.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kPage = kPageTokens, kWarps = 4, kThreads = kWarps * 32;

// 16-byte chunks of a row, swizzled so that ldmatrix meets no bank twice.
template <int D>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  return row * D + (chunk ^ (row & 7)) * 8;
}

template <int D>
__device__ __forceinline__ void fetch_page(Bf16* to, const Bf16* from, int lane) {
#pragma unroll
  for (int i = 0; i < kPage * D / 8 / 32; ++i) {
    const int at = lane + i * 32, row = at / (D / 8), chunk = at % (D / 8);
    copy16(to + swizzled<D>(row, chunk), from + row * D + chunk * 8);
  }
}

template <int D>
struct Shared {
  Bf16 q[kTileRows * D];
  union {
    Bf16 pages[kWarps][2][2][kPage * D];  // warp, stage, keys or values
    float out[kWarps][kTileRows][D];      // once every page has been read
  };
  float best[kWarps][kTileRows], total[kWarps][kTileRows];
};

// grid (tiles, kv heads)
template <int D>
__global__ void __launch_bounds__(kThreads, 1) tile_kernel(PagedAttention args) {
  Shared<D>& shared = *reinterpret_cast<Shared<D>*>(dynamic_shared());
  const PagedTile tile = args.tiles[blockIdx.x];
  if (tile.row_count == 0) return;  // padding, see PagedTile
  const int group = args.heads / args.kv_heads, head = static_cast<int>(blockIdx.y);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const PagedMember* const members = args.members + tile.member_begin;
  const Bf16* const q = static_cast<const Bf16*>(args.q);
  for (int i = threadIdx.x; i < kTileRows * D / 8; i += kThreads) {
    const int row = i / (D / 8), chunk = i % (D / 8);
    const int pair = tile.row_begin + min(row, tile.row_count - 1);  // rows beyond the last repeat it
    const int64_t from = members[pair / group].row * args.q_row_stride +
                         static_cast<int64_t>(head * group + pair % group) * D + chunk * 8;
    copy16(shared.q + swizzled<D>(row, chunk), q + from);
  }
  commit_copies();
  const auto page_at = [&](const void* base, int p) {
    const int64_t page = args.pages[tile.pages + p];
    return static_cast<const Bf16*>(base) + (page * args.kv_heads + head) * (kPage * D);
  };
  const auto fetch = [&](int stage, int p) {
    fetch_page<D>(shared.pages[warp][stage][0], page_at(args.k, p), lane);
    fetch_page<D>(shared.pages[warp][stage][1], page_at(args.v, p), lane);
  };
  if (warp < tile.page_count) fetch(0, warp);
  commit_copies();
  // Of this lane's two rows, how many of the tile's positions each may see.
  int seen[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int pair = tile.row_begin + min(lane / 4 + r * 8, tile.row_count - 1);
    seen[r] = args.positions[members[pair / group].row] + 1 - tile.position;
  }
  wait_copies<1>();
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
  for (int p = warp; p < tile.page_count; p += kWarps, stage ^= 1) {
    if (p + kWarps < tile.page_count) fetch(stage ^ 1, p + kWarps);
    commit_copies();
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
#pragma unroll
    for (int r = 0; r < 2; ++r) {  // rows lane / 4 and lane / 4 + 8
      float e[4];
      float highest = best[r];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int token = p * kPage + j / 2 * 8 + lane % 4 * 2 + j % 2;
        e[j] = token < seen[r] ? score[j / 2][2 * r + j % 2] * scale : -INFINITY;
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
    const Bf16* const values = shared.pages[warp][stage][1];
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      uint32_t b[4];
      load_matrices_transposed(b, values + swizzled<D>(lane % 16, d * 2 + lane / 16));
      multiply_add(out[2 * d], weights, b[0], b[1]);
      multiply_add(out[2 * d + 1], weights, b[2], b[3]);
    }
    __syncwarp();
  }
  wait_copies<0>();
  __syncthreads();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
    const int row = lane / 4 + r * 8;
    if (lane % 4 == 0) {
      shared.best[warp][row] = best[r];
      shared.total[warp][row] = total[r];
    }
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
      shared.out[warp][row][d * 8 + lane % 4 * 2] = out[d][2 * r];
      shared.out[warp][row][d * 8 + lane % 4 * 2 + 1] = out[d][2 * r + 1];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < tile.row_count * D; i += kThreads) {
    const int row = i / D, d = i % D, pair = tile.row_begin + row;
    float highest = -INFINITY, sum = 0, value = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) highest = fmaxf(highest, shared.best[w][row]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = exp2f(shared.best[w][row] - highest);
      sum += shared.total[w][row] * factor;
      value += shared.out[w][row][d] * factor;
    }
    const int64_t to =
        static_cast<int64_t>(members[pair / group].partial) * args.heads + head * group + pair % group;
    args.partial[to * D + d] = value / sum;
    if (d == 0) args.partial_logsumexp[to] = highest + log2f(sum);
  }
}

// Merges the parts of each row, root first: a warp for each (row, head).
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    merge_kernel(const float* partial, const float* logsumexp, const int32_t* starts, int partial_base,
                 int64_t row_begin, int64_t row_end, int heads, int size, T* out) {
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (unit >= (row_end - row_begin) * heads) return;
  const int64_t row = row_begin + unit / heads, head = unit % heads;
  const int begin = starts[row] - partial_base, end = starts[row + 1] - partial_base;
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
  return launch(tile_kernel<D>, dim3(args.tile_count, args.kv_heads), kThreads, sizeof(Shared<D>), stream,
                args);
}

}  // namespace

bool paged_attention_fits(Type type, int32_t size) {
  if (type != Type::kBf16 || (size != 64 && size != 128 && size != 256)) return false;
#ifdef __CUDACC__
  // 139 KB for heads of 256: more than a block gets on consumer cards.
  int device = 0, most = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  const size_t needed = size == 256   ? sizeof(Shared<256>)
                        : size == 128 ? sizeof(Shared<128>)
                                      : sizeof(Shared<64>);
  return needed <= static_cast<size_t>(most);
#else
  return true;
#endif
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
