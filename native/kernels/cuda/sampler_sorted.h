// The filtered sampler's memory, and its way where the filters leave few tokens: those are sorted by probability and
// their mass summed up.
#pragma once

#include "kernels/cuda/sampler_row.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kBins = 256;
constexpr float kBinsPerNat = 9.f;  // exp(−256 / 9) is less than half a unit
constexpr int kMost = 2048;         // tokens that are sorted rather than searched
constexpr int kCuts = 8;            // distances from the best, in nats: the least that is enough is taken

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
  // The likeliest tokens where few are enough: bits of the logit, then the id's complement; sums of mass up
  // to each.
  unsigned long long keys[kMost];
  Mass sums[kMost];
  unsigned found;
};

__device__ __forceinline__ float cut(int i) {
  constexpr float kDistances[kCuts] = {1, 2, 3, 4.5f, 6, 8, 11, 15};
  return kDistances[i];
}
__device__ __forceinline__ float distance(const Row& row, float logit) {
  return (row.best - logit) * row.inverse;
}

// The first of `count` for which `holds`; count if none.
template <typename F>
__device__ int first_of(Scratch& s, int count, const F& holds) {
  __syncthreads();
  if (threadIdx.x == 0) s.found = static_cast<unsigned>(count);
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += kThreads) {
    if (holds(i)) {
      atomicMin(&s.found, static_cast<unsigned>(i));
      break;
    }
  }
  __syncthreads();
  return static_cast<int>(s.found);
}

// A distance within which lie all tokens that the filters may leave, if those are at most kMost; else −1.
// Sets `count`.
__device__ float near_enough(const Row& row, Mass total, int k, double p, double min_p, int& count) {
  unsigned counts[kCuts] = {};
  Mass masses[kCuts] = {};
  for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
    const float logit = row.logits[i], away = distance(row, logit);
    const Mass mass = row.mass(logit);
#pragma unroll
    for (int c = 0; c < kCuts; ++c) {
      if (away < cut(c)) {
        ++counts[c];
        masses[c] += mass;
      }
    }
  }
  float result = -1;
#pragma unroll
  for (int c = kCuts - 1; c >= 0; --c) {
    const unsigned within = block_sum<kWarps>(counts[c]);
    const Mass mass = block_sum<kWarps>(masses[c]);
    // Each filter leaves the likeliest tokens: what is enough for one is enough. But top-p is a share of the
    // mass that top-k left, for which all k must be there.
    const bool for_k = k > 0 && within >= static_cast<unsigned>(k);
    const bool for_others = (p < 1 && static_cast<double>(mass) > p * static_cast<double>(total)) ||
                            (min_p > 0 && cut(c) > 0.01f - logf(static_cast<float>(min_p)));
    const bool enough = k > 0 && p < 1 ? for_k : for_k || for_others;
    if (enough && within <= kMost) {
      result = cut(c);
      count = static_cast<int>(within);
    }
  }
  return result;
}

// Sorts the tokens within the distance, likeliest first, and sums their mass.
__device__ void sort_near(const Row& row, Scratch& s, float within, int count) {
  int size = 32;
  while (size < count) size *= 2;
  __syncthreads();
  if (threadIdx.x == 0) s.found = 0;
  for (int i = threadIdx.x; i < size; i += kThreads) s.keys[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
    const float logit = row.logits[i];
    if (distance(row, logit) < within)
      s.keys[atomicAdd(&s.found, 1u)] =
          static_cast<unsigned long long>(ordered(logit)) << 32 | ~static_cast<uint32_t>(i);
  }
  // Bitonic, descending.
  for (int length = 2; length <= size; length *= 2) {
    for (int step = length / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < size; i += kThreads) {
        const int other = i ^ step;
        if (other < i) continue;
        const unsigned long long a = s.keys[i], b = s.keys[other];
        if ((i & length) == 0 ? a < b : a > b) {
          s.keys[i] = b;
          s.keys[other] = a;
        }
      }
    }
  }
  __syncthreads();
  constexpr int kOwn = kMost / kThreads;
  const int begin = static_cast<int>(threadIdx.x) * kOwn;
  Mass own[kOwn], sum = 0;
#pragma unroll
  for (int j = 0; j < kOwn; ++j) {
    if (begin + j < count) sum += row.mass(value_of(static_cast<uint32_t>(s.keys[begin + j] >> 32)));
    own[j] = sum;
  }
  Mass all;
  const Mass before = before_thread(sum, s.run, all);
#pragma unroll
  for (int j = 0; j < kOwn; ++j) {
    if (begin + j < count) s.sums[begin + j] = before + own[j];
  }
  __syncthreads();
}

// The draw from the sorted tokens.
__device__ int draw_near(const Row& row, Scratch& s, Mass total, int count, int k, double p, double min_p,
                         double uniform) {
  int kept = count;
  Mass mass = total;
  if (k > 0) {
    kept = min(kept, k);
    mass = s.sums[kept - 1];
  }
  if (p < 1) {
    const double goal = p * static_cast<double>(mass);
    const int last = first_of(s, kept, [&](int i) { return static_cast<double>(s.sums[i]) >= goal; });
    kept = min(kept, last + 1);
  }
  if (min_p > 0) {
    const int less = first_of(s, kept, [&](int i) {
      const float logit = value_of(static_cast<uint32_t>(s.keys[i] >> 32));
      return static_cast<double>(expf((logit - row.best) * row.inverse)) < min_p;
    });
    kept = max(less, 1);
  }
  const Mass all = s.sums[kept - 1];
  Mass goal = static_cast<Mass>(uniform * static_cast<double>(all));
  if (goal >= all) goal = all - 1;
  const int at = first_of(s, kept, [&](int i) { return s.sums[i] > goal; });
  return static_cast<int>(~static_cast<uint32_t>(s.keys[at]));
}

}  // namespace
}  // namespace troupe::kernels::cuda
