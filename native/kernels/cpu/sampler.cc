// Draws one token from a row of logits. Filters apply in the order of transformers and vLLM: temperature,
// top-k, top-p (of what top-k left, renormalised; the token that crosses p belongs to it), min-p (relative to
// the likeliest token). Among equal probabilities the smaller id comes first.
#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/sixteen.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

constexpr int64_t kBlock = 256;  // sums within a block in the logits' type, over blocks in fp64

template <typename A>
struct Weights {
  std::vector<A> each;  // exp((logit − maximum) / temperature)
  std::vector<double> block_sums;
  std::vector<A> block_maxima;
  double total = 0;
  double maximum = 0;  // of the logits
};

template <typename A>
A highest_of(const A* logits, int64_t size) {
  Sixteen<A> best(-std::numeric_limits<A>::infinity());
  int64_t i = 0;
  for (; i + kSixteen <= size; i += kSixteen) best = maximum(best, Sixteen<A>::load(logits + i));
  A result = largest(best);
  for (; i < size; ++i) result = logits[i] > result ? logits[i] : result;
  return result;
}

template <typename A>
void exponentials(const A* logits, int64_t size, double temperature, Weights<A>& weights) {
  const A highest = highest_of(logits, size);
  const A inverse = static_cast<A>(1 / temperature);
  weights.maximum = highest;
  weights.total = 0;
  weights.each.resize(size);
  weights.block_sums.clear();
  weights.block_maxima.clear();
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, size);
    Sixteen<A> lanes, peaks;
    int64_t i = begin;
    for (; i + kSixteen <= end; i += kSixteen) {
      const Sixteen<A> e =
          falling_exponential((Sixteen<A>::load(logits + i) - Sixteen<A>(highest)) * Sixteen<A>(inverse));
      e.store(weights.each.data() + i);
      lanes = lanes + e;
      peaks = maximum(peaks, e);
    }
    double total = sum(lanes);
    A peak = largest(peaks);
    for (; i < end; ++i) {
      weights.each[i] = std::exp((logits[i] - highest) * inverse);
      total += weights.each[i];
      peak = std::max(peak, weights.each[i]);
    }
    weights.block_maxima.push_back(peak);
    weights.block_sums.push_back(total);
    weights.total += total;
  }
}

template <typename A>
int32_t draw(const Weights<A>& weights, double uniform) {
  double target = uniform * weights.total;
  size_t block = 0;
  while (block + 1 < weights.block_sums.size() && target >= weights.block_sums[block]) {
    target -= weights.block_sums[block++];
  }
  const int64_t begin = static_cast<int64_t>(block) * kBlock;
  const int64_t end = std::min<int64_t>(begin + kBlock, static_cast<int64_t>(weights.each.size()));
  // Rounding may leave a remainder behind the last token: the last possible one takes it.
  int64_t last = -1;
  for (int64_t i = begin; i < end; ++i) {
    if (weights.each[i] == 0) continue;
    last = i;
    target -= static_cast<double>(weights.each[i]);
    if (target < 0) return static_cast<int32_t>(i);
  }
  for (int64_t i = begin; last < 0 && --i >= 0;) {
    if (weights.each[i] > 0) last = i;
  }
  return static_cast<int32_t>(last);
}

// The ids that weigh at least `floor` (and more than nothing).
template <typename A>
std::vector<int32_t> at_least(const Weights<A>& weights, double floor) {
  std::vector<int32_t> ids;
  const auto size = static_cast<int64_t>(weights.each.size());
  for (size_t block = 0; block < weights.block_maxima.size(); ++block) {
    if (static_cast<double>(weights.block_maxima[block]) < floor) continue;
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    for (int64_t i = begin; i < std::min(begin + kBlock, size); ++i) {
      if (static_cast<double>(weights.each[i]) >= floor && weights.each[i] > 0)
        ids.push_back(static_cast<int32_t>(i));
    }
  }
  return ids;
}

template <typename A>
double mass_of(const Weights<A>& weights, const std::vector<int32_t>& ids) {
  double mass = 0;
  for (const int32_t id : ids) mass += static_cast<double>(weights.each[id]);
  return mass;
}

// A superset of what the filters leave, as small as is cheap to find: sorting a whole vocabulary costs more
// than the model's last layer.
template <typename A>
std::vector<int32_t> candidates(const Weights<A>& weights, const SampleOptions& options) {
  if (options.top_k > 0) {
    // The k-th largest of the blocks' maxima is at most the k-th largest of all.
    auto maxima = weights.block_maxima;
    const auto k = static_cast<size_t>(options.top_k);
    if (k > maxima.size()) return at_least(weights, 0);
    std::nth_element(maxima.begin(), maxima.begin() + (options.top_k - 1), maxima.end(),
                     [](A a, A b) { return a > b; });
    return at_least(weights, static_cast<double>(maxima[k - 1]));
  }
  if (options.top_p == 1) return at_least(weights, options.min_p);  // the likeliest token weighs 1
  // Tokens below this bound together weigh no more than top-p leaves out.
  const double lowest = (1 - options.top_p) * weights.total / static_cast<double>(weights.each.size());
  for (double floor = 1.0 / 64; floor > lowest; floor /= 16) {
    auto ids = at_least(weights, floor);
    if (mass_of(weights, ids) > options.top_p * weights.total) return ids;
  }
  return at_least(weights, lowest * (1 - 1e-6));
}

// The ids that the filters leave, likeliest first.
template <typename A>
std::vector<int32_t> filter(const Weights<A>& weights, const SampleOptions& options) {
  const auto& each = weights.each;
  auto ids = candidates(weights, options);
  std::sort(ids.begin(), ids.end(),
            [&](int32_t a, int32_t b) { return each[a] != each[b] ? each[a] > each[b] : a < b; });
  double mass = weights.total;
  if (options.top_k > 0) {
    ids.resize(std::min<size_t>(ids.size(), options.top_k));
    mass = mass_of(weights, ids);
  }
  if (options.top_p < 1) {
    double kept = 0;
    size_t count = 0;
    while (count < ids.size() && (count == 0 || kept < options.top_p * mass)) {
      kept += static_cast<double>(each[ids[count++]]);
    }
    ids.resize(count);
  }
  while (ids.size() > 1 && static_cast<double>(each[ids.back()]) < options.min_p) ids.pop_back();
  return ids;
}

template <typename A>
int32_t draw_filtered(const Weights<A>& weights, const SampleOptions& options) {
  const auto ids = filter(weights, options);
  double target = options.uniform * mass_of(weights, ids);
  for (const int32_t id : ids) {
    target -= static_cast<double>(weights.each[id]);
    if (target < 0) return id;
  }
  return ids.back();
}

template <typename A>
DrawnToken draw_token(const A* logits, int64_t vocabulary, const SampleOptions& options) {
  static thread_local Weights<A> weights;
  const bool greedy = options.temperature == 0;
  const double temperature = greedy ? 1 : options.temperature;
  exponentials(logits, vocabulary, temperature, weights);
  if (!std::isfinite(weights.total) || !std::isfinite(weights.maximum) || weights.total <= 0) return {};
  DrawnToken result;
  if (greedy) {
    result.token = static_cast<int32_t>(
        std::find(logits, logits + vocabulary, static_cast<A>(weights.maximum)) - logits);
  } else if (options.top_k > 0 || options.top_p < 1 || options.min_p > 0) {
    result.token = draw_filtered(weights, options);
  } else {
    result.token = draw(weights, options.uniform);
  }
  result.logprob =
      (static_cast<double>(logits[result.token]) - weights.maximum) / temperature - std::log(weights.total);
  return result;
}

}  // namespace

DrawnToken sample(c10::ScalarType accumulate, const void* logits, int64_t vocabulary,
                  const SampleOptions& options) {
  return accumulate == c10::ScalarType::Double
             ? draw_token(static_cast<const double*>(logits), vocabulary, options)
             : draw_token(static_cast<const float*>(logits), vocabulary, options);
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
