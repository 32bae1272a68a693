// Draws a token from a row of logits by the rules of rollout/sampler.h: a block for each draw.
//
// Probability mass is counted in 64-bit integers, so that sums do not depend on the order of additions. What
// the filters leave is a prefix of the tokens in the order of probability (equals by id), and so is what lies
// before the token that a uniform number meets: each is found by one search, over 256 equal steps of the
// logit first and then over the bits of the logits in the step that was hit.
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
    const unsigned bin = row.bin(logit);
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
      if (row.bin(logit) != step) continue;
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

// The id of the tie number `index` (from 0) among the tokens with these bits; each warp takes a run of ids.
__device__ int tie(const Row& row, Scratch& s, uint32_t bits, unsigned index) {
  const int share = (row.vocabulary + kThreads - 1) / kThreads;
  const int begin = min(static_cast<int>(threadIdx.x) * share, row.vocabulary),
            end = min(begin + share, row.vocabulary);
  unsigned own = 0;
  for (int i = begin; i < end; ++i) own += ordered(row.logits[i]) == bits;
  unsigned before = own;
  for (int offset = 1; offset < 32; offset <<= 1) {
    const unsigned other = __shfl_up_sync(0xffffffffu, before, offset);
    if (static_cast<int>(threadIdx.x % 32) >= offset) before += other;
  }
  if (threadIdx.x % 32 == 31) s.run[threadIdx.x / 32] = before;
  if (threadIdx.x == 0) s.token = -1;
  __syncthreads();
  before -= own;
  for (unsigned w = 0; w < threadIdx.x / 32; ++w) before += static_cast<unsigned>(s.run[w]);
  if (index >= before && index < before + own) {
    for (int i = begin; i < end; ++i) {
      if (ordered(row.logits[i]) == bits && before++ == index) s.token = i;
    }
  }
  __syncthreads();
  return s.token;
}

// Inverse of the cumulative distribution in the order of the ids.
__device__ int walk(const Row& row, Scratch& s, double uniform) {
  const int share = (row.vocabulary + kThreads - 1) / kThreads;
  const int begin = min(static_cast<int>(threadIdx.x) * share, row.vocabulary),
            end = min(begin + share, row.vocabulary);
  Mass own = 0;
  for (int i = begin; i < end; ++i) own += row.mass(row.logits[i]);
  Mass before = own;
  for (int offset = 1; offset < 32; offset <<= 1) {
    const Mass other = __shfl_up_sync(0xffffffffu, before, offset);
    if (static_cast<int>(threadIdx.x % 32) >= offset) before += other;
  }
  if (threadIdx.x % 32 == 31) s.run[threadIdx.x / 32] = before;
  if (threadIdx.x == 0) s.token = -1;
  __syncthreads();
  before -= own;
  Mass total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < static_cast<int>(threadIdx.x / 32)) before += s.run[w];
    total += s.run[w];
  }
  const Mass goal = static_cast<Mass>(uniform * static_cast<double>(total));
  if (goal >= before && goal < before + own) {
    Mass at = before;
    for (int i = begin; i < end; ++i) {
      at += row.mass(row.logits[i]);
      if (goal < at) {
        s.token = i;
        break;
      }
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

__global__ void __launch_bounds__(kThreads, 1) draw_kernel(Draws draws) {
  __shared__ Scratch s;
  const int draw = static_cast<int>(blockIdx.x);
  const bool greedy = draws.temperatures[draw] == 0;
  Row row{draws.logits + static_cast<int64_t>(draws.outputs[draw] - draws.first_output) * draws.vocabulary,
          draws.vocabulary, -INFINITY, greedy ? 1.f : static_cast<float>(1 / draws.temperatures[draw])};
  int strange = 0, first = draws.vocabulary;
  for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
    const float logit = row.logits[i];
    strange |= logit != logit;
    if (logit > row.best) {
      row.best = logit;
      first = i;
    }
  }
  const float own_best = row.best;
  row.best = lane_max(row.best);
  if (threadIdx.x % 32 == 0) s.run[threadIdx.x / 32] = ordered(row.best);
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) row.best = fmaxf(row.best, value_of(static_cast<uint32_t>(s.run[w])));
  first = own_best == row.best ? first : draws.vocabulary;
  for (int offset = 16; offset > 0; offset >>= 1)
    first = min(first, __shfl_xor_sync(0xffffffffu, first, offset));
  if (threadIdx.x % 32 == 0) s.first[threadIdx.x / 32] = first;
  strange = block_sum<kWarps>(strange);
  if (strange > 0 || !isfinite(row.best)) {
    if (threadIdx.x == 0) {
      draws.tokens[draw] = -1;
      draws.logprobs[draw] = 0;
    }
    return;
  }
  for (int w = 0; w < kWarps; ++w) first = min(first, s.first[w]);
  double weight = 0;
  Mass total = 0;
  for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
    weight += static_cast<double>(expf((row.logits[i] - row.best) * row.inverse));
    total += row.mass(row.logits[i]);
  }
  weight = block_sum<kWarps>(weight);
  total = block_sum<kWarps>(total);
  int token = first;
  if (!greedy) {
    const bool filtered = draws.top_ks[draw] > 0 || draws.top_ps[draw] < 1 || draws.min_ps[draw] > 0;
    token = filtered ? draw_filtered(row, s, total, draws, draw) : walk(row, s, draws.uniforms[draw]);
  }
  if (threadIdx.x == 0) {
    draws.tokens[draw] = token;
    const double distance = static_cast<double>(row.logits[token]) - static_cast<double>(row.best);
    draws.logprobs[draw] =
        static_cast<float>((greedy ? distance : distance / draws.temperatures[draw]) - log(weight));
  }
}

}  // namespace

int draw_tokens(const Draws& draws, Stream stream) {
  return launch(draw_kernel, dim3(draws.count), kThreads, 0, stream, draws);
}

}  // namespace troupe::kernels::cuda
