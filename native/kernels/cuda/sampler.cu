// Draws a token from a row of logits by the rules of kernels/cpu/sampler.cc: a block for each draw, which reads the row once
// and then one chunk of it again. Draws that filter are filtered_sampler.cu's.
//
// When all chunks are read, each one's mass becomes its share of the row's, relative to the row's best; among the shares the
// draw finds its chunk, and in that its token.
#include "kernels/cuda/sampler_chunks.h"

namespace troupe::kernels::cuda {
namespace {

// By one warp: the id at which the running mass of the chunk is more than `goal`, less than the chunk's. Each lane has
// kOwn neighbours.
__device__ int walk(const Row& row, int begin, Mass goal) {
  const int first = begin + static_cast<int>(threadIdx.x % 32) * kOwn,
            end = min(first + kOwn, row.vocabulary);
  Mass own = 0;
  for (int i = first; i < end; ++i) own += row.mass(row.logits[i]);
  Mass before = before_lane(own);
  int token = -1;
  if (goal >= before && goal < before + own) {
    for (token = first; (before += row.mass(row.logits[token])) <= goal;) ++token;
  }
  return lane_max(token);
}

// By one warp: the first id of the chunk whose logit is its best.
__device__ int first_best(const Row& row, int begin) {
  int behind = 0;  // ids from the found one on, of the chunk's
  for (int i = static_cast<int>(threadIdx.x % 32); i < kChunk && begin + i < row.vocabulary; i += 32)
    if (row.logits[begin + i] == row.best) behind = max(behind, kChunk - i);
  return begin + kChunk - lane_max(behind);
}

__global__ void __launch_bounds__(kThreads, 2) draw_kernel(Draws draws, int count) {
  const int draw = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  if (filters(draws, draw)) return;
  __shared__ Mass places[kWarps];
  __shared__ int found;  // the token's chunk
  __shared__ Mass goal;  // of the chunk's mass
  Chunk* const chunks = reinterpret_cast<Chunk*>(dynamic_shared());
  Row row = row_of(draws, draw);
  row.best = read_chunks(row, chunks, count, places);
  if (!isfinite(row.best)) return no_token(draws, draw);

  const bool greedy = draws.temperatures[draw] == 0;
  const double inverse = greedy ? 1 : 1 / draws.temperatures[draw];
  const int run = (count + kThreads - 1) / kThreads, begin = min(thread * run, count),
            end = min(begin + run, count);
  Mass own = 0, total;
  for (int c = begin; c < end; ++c) own += chunks[c].share = share_of(row, inverse, chunks[c]);
  if (thread == 0) found = count;
  Mass before = before_thread(own, places, total);
  if (greedy) {
    for (int c = begin; c < end; ++c)
      if (chunks[c].best == row.best) atomicMin(&found, c);
  } else {
    // Less than the total, though the product may be rounded up to it.
    const Mass target = min(static_cast<Mass>(draws.uniforms[draw] * static_cast<double>(total)), total - 1);
    if (target >= before && target < before + own) {
      int c = begin;
      for (; target >= before + chunks[c].share; ++c) before += chunks[c].share;
      const double part = static_cast<double>(target - before) / static_cast<double>(chunks[c].share);
      goal = min(static_cast<Mass>(part * static_cast<double>(chunks[c].mass)), chunks[c].mass - 1);
      found = c;
    }
  }
  __syncthreads();
  if (thread >= 32) return;
  Row chunk = row;
  chunk.best = chunks[found].best;
  const int token = greedy ? first_best(chunk, found * kChunk) : walk(chunk, found * kChunk, goal);
  if (thread == 0)
    put_token(draws, draw, row, token, static_cast<double>(total) / static_cast<double>(kUnit));
}

}  // namespace

int draw_tokens(const Draws& draws, Stream stream) {
  const int count = chunks_of(draws.vocabulary);
  const int error =
      launch(draw_kernel, dim3(draws.count), kThreads, count * sizeof(Chunk), stream, draws, count);
  return error == 0 && draws.filtered ? draw_filtered_tokens(draws, stream) : error;
}

}  // namespace troupe::kernels::cuda
