// What the samplers share: a row of logits, and probability mass in 64-bit integers, so that sums do not depend on the
// order of additions.
#pragma once

#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kWarps = 16, kThreads = kWarps * 32;
constexpr float kUnit = 1099511627776.f;  // 2^40: a vocabulary of 2^23 at weight 1 still fits 64 bits
using Mass = unsigned long long;

// A row's logits, whose mass is relative to the best.
struct Row {
  const float* logits;
  int vocabulary;
  float best, inverse;  // largest logit; 1 / temperature
  // In nats.
  __device__ float distance(float logit) const { return (best - logit) * inverse; }
  __device__ float weight(float logit) const { return expf(-distance(logit)); }
  __device__ Mass mass(float logit) const { return static_cast<Mass>(weight(logit) * kUnit + 0.5f); }
};
// Its best is still to be found.
__device__ __forceinline__ Row row_of(const Draws& draws, int draw) {
  const double temperature = draws.temperatures[draw];
  return {draws.logits + static_cast<int64_t>(draws.outputs[draw] - draws.first_output) * draws.vocabulary,
          draws.vocabulary, -INFINITY, temperature == 0 ? 1.f : static_cast<float>(1 / temperature)};
}

__device__ __forceinline__ bool filters(const Draws& draws, int draw) {
  return draws.temperatures[draw] > 0 &&
         (draws.top_ks[draw] > 0 || draws.top_ps[draw] < 1 || draws.min_ps[draw] > 0);
}

// By one thread. weight: of all tokens, where the best weighs 1.
__device__ __forceinline__ void put_token(const Draws& draws, int draw, const Row& row, int token,
                                          double weight) {
  const double distance = static_cast<double>(row.logits[token]) - static_cast<double>(row.best);
  const double temperature = draws.temperatures[draw];
  draws.tokens[draw] = token;
  draws.logprobs[draw] =
      static_cast<float>((temperature == 0 ? distance : distance / temperature) - log(weight));
}
__device__ __forceinline__ void no_token(const Draws& draws, int draw) {
  if (threadIdx.x > 0) return;
  draws.tokens[draw] = -1;
  draws.logprobs[draw] = 0;
}

// The largest of the block's, in every thread. places: shared memory that nobody else uses until the next barrier.
__device__ __forceinline__ float block_best(float best, Mass (&places)[kWarps]) {
  best = lane_max(best);
  if (threadIdx.x % 32 == 0) places[threadIdx.x / 32] = bits_of(best);
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) best = fmaxf(best, float_of(static_cast<uint32_t>(places[w])));
  __syncthreads();
  return best;
}

// What the warp's lanes before this one have together.
__device__ __forceinline__ Mass before_lane(Mass own) {
  Mass upto = own;
#pragma unroll
  for (int offset = 1; offset < 32; offset <<= 1) {
    const Mass other = __shfl_up_sync(0xffffffffu, upto, offset);
    if (static_cast<int>(threadIdx.x % 32) >= offset) upto += other;
  }
  return upto - own;
}

// What the block's threads before this one have together. all: what every thread has. places: as above.
__device__ __forceinline__ Mass before_thread(Mass own, Mass (&places)[kWarps], Mass& all) {
  Mass before = before_lane(own);
  if (threadIdx.x % 32 == 31) places[threadIdx.x / 32] = before + own;
  __syncthreads();
  all = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < static_cast<int>(threadIdx.x / 32)) before += places[w];
    all += places[w];
  }
  __syncthreads();
  return before;
}

}  // namespace

// filtered_sampler.cu: the draws that filter, and no others.
int draw_filtered_tokens(const Draws& draws, Stream stream);

}  // namespace troupe::kernels::cuda
