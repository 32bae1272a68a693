// What the sampler's two ways share: a row of logits, probability mass in integers, a block's scratch memory.
#pragma once

#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kWarps = 16, kThreads = kWarps * 32, kBins = 256;
constexpr float kUnit = 1099511627776.f;  // 2^40: a vocabulary of 2^23 at weight 1 still fits 64 bits
constexpr float kBinsPerNat = 9.f;        // exp(−256 / 9) is less than half a unit
constexpr int kMost = 2048;               // tokens that are sorted rather than searched
constexpr int kCuts = 8;  // distances from the best, in nats: the least that is enough is taken
using Mass = unsigned long long;

// Floats ordered as unsigned integers.
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t bits = bits_of(x == 0 ? 0.f : x);  // −0 is 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(uint32_t bits) {
  return float_of(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

struct Scratch {
  Mass mass[kBins];
  unsigned count[kBins];
  Mass mass_above;
  unsigned count_above, bin;
  int token;
  Mass run[kWarps];
  int first[kWarps];
  // The likeliest tokens where few are enough: bits of the logit, then the id's complement; sums of mass up
  // to each.
  unsigned long long keys[kMost];
  Mass sums[kMost];
  unsigned found;
};

// A row's logits as the searches see them.
struct Row {
  const float* logits;
  int vocabulary;
  float best, inverse;  // largest logit; 1 / temperature
  __device__ Mass mass(float logit) const {
    return static_cast<Mass>(expf((logit - best) * inverse) * kUnit + 0.5f);
  }
  // Ascends as the logit descends.
  __device__ unsigned bin(float logit) const {
    const float steps = (best - logit) * inverse * kBinsPerNat;
    return steps < kBins - 1 ? static_cast<unsigned>(steps) : kBins - 1;
  }
};

}  // namespace
}  // namespace troupe::kernels::cuda
