// Draws that filter, by the rules of kernels/cpu/sampler.cc: a block for each, which reads the row several times.
//
// What the filters leave is a prefix of the tokens in the order of probability (equals by id), and so is what lies before
// the token that a uniform number meets: each is found by one search, over 256 equal steps of the logit first and then over
// the bits of the logits in the step that was hit.
#include "kernels/cuda/sampler_sorted.h"

namespace troupe::kernels::cuda {
namespace {

// A prefix of the tokens by descending logit: all whose bits are above `bits`, and the first `ties` ids of
// those whose bits are equal.
struct Prefix {
  uint32_t bits;
  unsigned ties;
  Mass mass;  // of the prefix
};

// The place in the order at which a running sum reaches its goal. By count: the token number `goal` (from 1);
// by mass: the first token with which the mass is more than `goal`.
struct Found {
  uint32_t bits;
  unsigned count_above;  // tokens with higher bits
  Mass mass_above;
};

// Ascends as the logit descends.
__device__ __forceinline__ unsigned bin_of(const Row& row, float logit) {
  const float steps = distance(row, logit) * kBinsPerNat;
  return steps < kBins - 1 ? static_cast<unsigned>(steps) : kBins - 1;
}

// The bin that the running sum reaches the goal in, scanned by one thread; the last one if none.
__device__ void scan_bins(Scratch& s, bool by_mass, Mass goal, bool descending) {
  __syncthreads();
  if (threadIdx.x == 0) {
    int step = 0;
    for (; step < kBins - 1; ++step) {
      const int bin = descending ? kBins - 1 - step : step;
      if (by_mass ? s.mass_above + s.mass[bin] > goal : s.count_above + s.count[bin] >= goal) break;
      s.mass_above += s.mass[bin];
      s.count_above += s.count[bin];
    }
    s.bin = static_cast<unsigned>(descending ? kBins - 1 - step : step);
  }
  __syncthreads();
}

__device__ Found search(const Row& row, Scratch& s, bool by_mass, Mass goal) {
  const auto clear = [&] {
    __syncthreads();
    for (int i = threadIdx.x; i < kBins; i += kThreads) s.mass[i] = s.count[i] = 0;
    __syncthreads();
  };
  if (threadIdx.x == 0) s.mass_above = s.count_above = 0;
  clear();
  for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
    const float logit = row.logits[i];
    const unsigned bin = bin_of(row, logit);
    if (bin == kBins - 1) continue;  // all that is left: nothing is behind it
    atomicAdd(&s.mass[bin], row.mass(logit));
    atomicAdd(&s.count[bin], 1u);
  }
  scan_bins(s, by_mass, goal, /*descending=*/false);
  const unsigned step = s.bin;
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    clear();
    for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
      const float logit = row.logits[i];
      if (bin_of(row, logit) != step) continue;
      const uint32_t bits = ordered(logit);
      if (shift < 24 && bits >> (shift + 8) != prefix >> (shift + 8)) continue;
      const uint32_t digit = bits >> shift & 255;
      atomicAdd(&s.mass[digit], row.mass(logit));
      atomicAdd(&s.count[digit], 1u);
    }
    scan_bins(s, by_mass, goal, /*descending=*/true);
    prefix |= s.bin << shift;
  }
  const Found found{prefix, s.count_above, s.mass_above};
  __syncthreads();
  return found;
}

// The shorter of two prefixes.
__device__ Prefix shorter(Prefix a, Prefix b) {
  if (a.bits != b.bits) return a.bits > b.bits ? a : b;
  return a.ties < b.ties ? a : b;
}

__device__ Prefix top_k(const Row& row, Scratch& s, int k) {
  const Found found = search(row, s, /*by_mass=*/false, static_cast<Mass>(k));
  const unsigned ties = static_cast<unsigned>(k) - found.count_above;
  return {found.bits, ties, found.mass_above + ties * row.mass(value_of(found.bits))};
}

// The tokens up to the one with which `share` of the mass is reached.
__device__ Prefix top_p(const Row& row, Scratch& s, Mass mass, double share) {
  // A token belongs to it as long as the mass before it is less than the goal: the last one makes it more
  // than goal − 1.
  const double exact = share * static_cast<double>(mass);
  Mass goal = static_cast<Mass>(exact);
  if (static_cast<double>(goal) < exact) ++goal;
  if (goal == 0) goal = 1;
  const Found found = search(row, s, /*by_mass=*/true, goal - 1);
  const Mass each = row.mass(value_of(found.bits));
  const unsigned ties = each == 0 ? 1 : static_cast<unsigned>((goal - found.mass_above + each - 1) / each);
  return {found.bits, ties < 1 ? 1 : ties, found.mass_above + ties * each};
}

// The id of the tie number `index` (from 0) among the tokens with these bits; each thread takes a run of ids.
__device__ int tie(const Row& row, Scratch& s, uint32_t bits, unsigned index) {
  const int share = (row.vocabulary + kThreads - 1) / kThreads;
  const int begin = min(static_cast<int>(threadIdx.x) * share, row.vocabulary),
            end = min(begin + share, row.vocabulary);
  Mass own = 0, all;
  for (int i = begin; i < end; ++i) own += ordered(row.logits[i]) == bits;
  if (threadIdx.x == 0) s.token = -1;
  Mass before = before_thread(own, s.run, all);
  if (index >= before && index < before + own) {
    for (int i = begin; i < end; ++i) {
      if (ordered(row.logits[i]) == bits && before++ == index) s.token = i;
    }
  }
  __syncthreads();
  return s.token;
}

__device__ int draw_filtered(const Row& row, Scratch& s, Mass total, const Draws& draws, int draw) {
  const int k = draws.top_ks[draw] < row.vocabulary ? draws.top_ks[draw] : 0;
  int count = 0;
  const float within = near_enough(row, total, k, draws.top_ps[draw], draws.min_ps[draw], count);
  if (within > 0) {
    sort_near(row, s, within, count);
    return draw_near(row, s, total, count, k, draws.top_ps[draw], draws.min_ps[draw], draws.uniforms[draw]);
  }
  Prefix kept{0, ~0u, total};
  if (k > 0) kept = top_k(row, s, k);
  if (draws.top_ps[draw] < 1) kept = shorter(kept, top_p(row, s, kept.mass, draws.top_ps[draw]));
  if (draws.min_ps[draw] > 0) {
    // The tokens that weigh at least min-p; the likeliest weighs 1. They are counted, and cut there.
    unsigned count = 0;
    for (int i = threadIdx.x; i < row.vocabulary; i += kThreads)
      count += static_cast<double>(expf((row.logits[i] - row.best) * row.inverse)) >= draws.min_ps[draw];
    count = block_sum<kWarps>(count);
    if (count > 0 && count < static_cast<unsigned>(row.vocabulary))
      kept = shorter(kept, top_k(row, s, static_cast<int>(count)));
  }
  // uniform < 1, so that the goal is less than the mass kept; rounding up to it is taken back.
  Mass goal = static_cast<Mass>(draws.uniforms[draw] * static_cast<double>(kept.mass));
  if (goal >= kept.mass) goal = kept.mass - 1;
  const Found found = search(row, s, /*by_mass=*/true, goal);
  const Mass each = row.mass(value_of(found.bits));
  const unsigned index = each == 0 ? 0 : static_cast<unsigned>((goal - found.mass_above) / each);
  return tie(row, s, found.bits, index);
}

__global__ void __launch_bounds__(kThreads, 1) filtered_kernel(Draws draws) {
  const int draw = static_cast<int>(blockIdx.x);
  if (!filters(draws, draw)) return;
  __shared__ Scratch s;
  Row row = row_of(draws, draw);
  int strange = 0;
  for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
    const float logit = row.logits[i];
    strange |= logit != logit;
    row.best = fmaxf(row.best, logit);
  }
  row.best = block_best(strange ? INFINITY : row.best, s.run);
  if (!isfinite(row.best)) return no_token(draws, draw);
  double weight = 0;
  Mass total = 0;
  for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
    weight += static_cast<double>(expf((row.logits[i] - row.best) * row.inverse));
    total += row.mass(row.logits[i]);
  }
  weight = block_sum<kWarps>(weight);
  total = block_sum<kWarps>(total);
  const int token = draw_filtered(row, s, total, draws, draw);
  if (threadIdx.x == 0) put_token(draws, draw, row, token, weight);
}

}  // namespace

int draw_filtered_tokens(const Draws& draws, Stream stream) {
  return launch(filtered_kernel, dim3(draws.count), kThreads, 0, stream, draws);
}

}  // namespace troupe::kernels::cuda
