// Draws that filter, by the rules of kernels/cpu/sampler.cc: a block for each, which reads the row once in chunks, as draws
// without filters do.
//
// Where top-k or min-p bounds what may be left, those tokens alone are looked at from then on: the best of k chunks are k
// tokens, so that the k likeliest are no less likely than the least of them, and lie in chunks whose best is not. Else, or
// where those tokens are too many, the row is read once more for a histogram by distance from the best, and again, where its
// chunks reach it, for each bin that a place lies in.
#include "kernels/cuda/sampler_search.h"

namespace troupe::kernels::cuda {
namespace {

// The least float, as ordered bits, for which `holds` is true, as it is for all from there to the row's best.
template <typename F>
__device__ uint32_t least(const Row& row, const F& holds) {
  uint32_t low = ordered(-INFINITY), high = ordered(row.best);
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (holds(value_of(middle))) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The logit's bin of s.row; the last one has all whose mass is nothing.
__device__ __forceinline__ unsigned bin_of(const Row& row, float logit) {
  const float steps = row.distance(logit) * kBinsPerNat;
  return steps < kBins - 1 ? static_cast<unsigned>(steps) : kBins - 1;
}

__device__ void measure(const Tokens& tokens, Scratch& s) {
  const Row& row = tokens.row;
  unsigned rest = 0;
  s.row.clear();
  tokens.each(-INFINITY, [&](float logit, int id) {
    const unsigned bin = bin_of(row, logit);
    if (bin < kBins - 1) {
      s.row.add(bin, row.mass(logit));
    } else {
      rest += id < row.vocabulary;
    }
  });
  atomicAdd(&s.row.count[kBins - 1], rest);
  __syncthreads();
}

// What a draw chooses from: the row's tokens, or as many of the likeliest as are listed.
struct Candidates {
  Tokens tokens;
  Scratch& s;
  unsigned listed;  // 0: all of the row, which s.row measures
  Key last;         // of the listed in order, or behind it

  __device__ Key first() const { return key_of(tokens.row.best, 0); }

  __device__ void start_in_row(Goal goal) const {
    const Row& row = tokens.row;
    const auto bound = [&](unsigned bin) {
      return last_key(least(row, [&](float logit) { return bin_of(row, logit) <= bin; }));
    };
    locate(s.row, s, goal, [&](const Hit& hit) {
      const Key high = hit.bin == 0 ? first() : bound(hit.bin - 1) - 1;
      s.place = {bound(hit.bin), high, hit.count, hit.goal, hit.mass};
    });
  }
  __device__ Found find(Goal goal) const {
    unsigned count = listed;
    if (listed > 0) {
      start_at(s, {last, first(), listed, goal, 0});
    } else {
      start_in_row(goal);
      while (s.place.count > kMost) narrow(tokens.row, s, tokens);
      count = list(tokens, s, s.place.low, s.place.high);
    }
    return token_at_place(tokens.row, s, List{s.keys, count});
  }
  // Of the candidates whose keys are not less.
  __device__ Mass mass_from(Key low) const {
    Mass mass = 0;
    const auto add = [&](Key key) { mass += tokens.row.mass(logit_of(key)); };
    if (listed > 0) {
      List{s.keys, listed}.within(low, first(), add);
    } else {
      tokens.within(low, first(), add);
    }
    return block_sum<kWarps>(mass);
  }
  __device__ Mass mass() const { return listed > 0 ? mass_from(last) : block_sum<kWarps>(own_mass(s.row)); }
};

__device__ Key last_of_min_p(const Row& row, double min_p) {
  return last_key(least(row, [&](float logit) { return static_cast<double>(row.weight(logit)) >= min_p; }));
}

// top-p is a share of what top-k leaves, so that it needs all of that; alone it bounds nothing before masses are known.
__device__ Candidates candidates_of(const Tokens& tokens, Scratch& s, int k, double p, double min_p) {
  const Row& row = tokens.row;
  Candidates all{tokens, s, 0, 0};
  if (k > 0 && k <= tokens.count) {
    const Goal goal{false, static_cast<Mass>(k - 1)};
    start_at(s, {last_key(ordered(-INFINITY)), all.first(), static_cast<unsigned>(tokens.count), goal, 0});
    all.last = token_at_place(row, s, Bests{tokens.chunks, tokens.count}).key & ~kIdMask;
  } else if (k == 0 && p >= 1 && min_p > 0) {
    all.last = last_of_min_p(row, min_p);
  }
  if (all.last > 0) all.listed = list(tokens, s, all.last, all.first());
  if (all.listed == 0 || all.listed > kMost) {
    all.listed = 0;
    measure(tokens, s);
  }
  return all;
}

// The mass that top-p's last token exceeds, when those before it have less than p's share.
__device__ Mass before_share(double p, Mass mass) {
  const double exact = p * static_cast<double>(mass);
  const Mass whole = static_cast<Mass>(exact);
  return whole > 0 && static_cast<double>(whole) == exact ? whole - 1 : whole;
}

__device__ int draw_filtered(const Candidates& all, const Draws& draws, int draw, int k) {
  constexpr int kTopK = 0, kTopP = 1, kDraw = 2;
  Found last{0, all.mass()};  // of the tokens that are left
#pragma unroll 1              // find is long, and there is one copy of it
  for (int step = kTopK; step <= kDraw; ++step) {
    if ((step == kTopK && k == 0) || (step == kTopP && draws.top_ps[draw] >= 1)) continue;
    if (step == kDraw && draws.min_ps[draw] > 0) {
      const Key bound = last_of_min_p(all.tokens.row, draws.min_ps[draw]);
      if (bound > last.key) last = {bound, all.mass_from(bound)};
    }
    const Mass mass = step == kTopP
                          ? before_share(draws.top_ps[draw], last.mass)
                          : static_cast<Mass>(draws.uniforms[draw] * static_cast<double>(last.mass));
    // Less than all, though a product may be rounded up to it.
    last = all.find(step == kTopK ? Goal{false, static_cast<Mass>(k - 1)}
                                  : Goal{true, min(mass, last.mass - 1)});
  }
  return token_of(last.key);
}

__global__ void __launch_bounds__(kThreads, 2) filtered_kernel(Draws draws, int count) {
  const int draw = static_cast<int>(blockIdx.x);
  if (!filters(draws, draw)) return;
  Scratch& s = *reinterpret_cast<Scratch*>(dynamic_shared());
  Chunk* const chunks = reinterpret_cast<Chunk*>(&s + 1);
  Row row = row_of(draws, draw);
  row.best = read_chunks(row, chunks, count, s.places);
  if (!isfinite(row.best)) return no_token(draws, draw);
  const int k = draws.top_ks[draw] < row.vocabulary ? draws.top_ks[draw] : 0;
  const Candidates all = candidates_of({row, chunks, count}, s, k, draws.top_ps[draw], draws.min_ps[draw]);
  const int token = draw_filtered(all, draws, draw, k);
  Mass total = 0;
  for (int c = static_cast<int>(threadIdx.x); c < count; c += kThreads)
    total += share_of(row, 1 / draws.temperatures[draw], chunks[c]);
  total = block_sum<kWarps>(total);
  if (threadIdx.x == 0)
    put_token(draws, draw, row, token, static_cast<double>(total) / static_cast<double>(kUnit));
}

}  // namespace

int draw_filtered_tokens(const Draws& draws, Stream stream) {
  if (draws.vocabulary > 1 << kIdBits) return kInvalidValue;
  const int count = chunks_of(draws.vocabulary);
  return launch(filtered_kernel, dim3(draws.count), kThreads, sizeof(Scratch) + count * sizeof(Chunk), stream,
                draws, count);
}

}  // namespace troupe::kernels::cuda
