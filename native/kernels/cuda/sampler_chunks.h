// How the samplers read a row: by warps, in chunks of kChunk logits, each of which counts its mass relative to its own best,
// since the row's is not known yet. Chunks begin at the same ids wherever the row lies in memory and however many rows there
// are: a draw does not depend on either.
#pragma once

#include "kernels/cuda/sampler_row.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kOwn = 16, kChunk = 32 * kOwn;  // logits of a lane, of a warp

struct Chunk {
  Mass mass, share;  // relative to the chunk's best; to the row's
  float best;        // +∞ where a logit is no number
};

inline int chunks_of(int vocabulary) { return (vocabulary + kChunk - 1) / kChunk; }

// The id of this lane's logit number j. Lanes have packs of four in turn.
__device__ __forceinline__ int id_of(int begin, int j) {
  return begin + (j / 4 * 32 + static_cast<int>(threadIdx.x % 32)) * 4 + j % 4;
}

// A warp's N logits for each lane, −∞ for what lies behind the last; all are under way before one is used.
template <int N>
__device__ __forceinline__ void load_logits(const Row& row, int begin, float (&logits)[N]) {
  if (reinterpret_cast<uintptr_t>(row.logits) % 16 == 0 && begin + 32 * N <= row.vocabulary) {
    Pack<float, 4> own[N / 4];
#pragma unroll
    for (int j = 0; j < N / 4; ++j)
      own[j] = *reinterpret_cast<const Pack<float, 4>*>(row.logits + id_of(begin, j * 4));
#pragma unroll
    for (int j = 0; j < N; ++j) logits[j] = own[j / 4].at[j % 4];
  } else {  // the row's last chunk, and rows that no pack begins with
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int id = id_of(begin, j);
      logits[j] = id < row.vocabulary ? row.logits[id] : -INFINITY;
    }
  }
}

// In every lane.
__device__ __forceinline__ Chunk read_chunk(Row row, int begin) {
  float logits[kOwn];
  load_logits(row, begin, logits);
  bool strange = false;
#pragma unroll
  for (int j = 0; j < kOwn; ++j) {
    strange |= logits[j] != logits[j];
    row.best = fmaxf(row.best, logits[j]);
  }
  row.best = lane_max(strange ? INFINITY : row.best);
  if (!isfinite(row.best)) return {0, 0, row.best};
  Mass mass = 0;
#pragma unroll
  for (int j = 0; j < kOwn; ++j) mass += row.mass(logits[j]);
  return {lane_sum(mass), 0, row.best};
}

// By the block: all chunks of the row, and the row's best, which is not finite where a logit is +∞ or no number, or all are
// −∞. places: as block_best's.
__device__ __forceinline__ float read_chunks(const Row& row, Chunk* chunks, int count,
                                             Mass (&places)[kWarps]) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int c = thread / 32; c < count; c += kWarps) {
    const Chunk chunk = read_chunk(row, c * kChunk);
    if (thread % 32 == 0) chunks[c] = chunk;
  }
  __syncthreads();
  float best = -INFINITY;
  for (int c = thread; c < count; c += kThreads) best = fmaxf(best, chunks[c].best);
  return block_best(best, places);
}

// A chunk's mass relative to the row's best.
__device__ __forceinline__ Mass share_of(const Row& row, double inverse, const Chunk& chunk) {
  const double distance = static_cast<double>(chunk.best) - static_cast<double>(row.best);
  return static_cast<Mass>(static_cast<double>(chunk.mass) * exp(distance * inverse) + 0.5);
}

}  // namespace
}  // namespace troupe::kernels::cuda
