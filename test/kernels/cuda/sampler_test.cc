// The sampler against its rules in float64.
#include <algorithm>
#include <numeric>

#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

struct Setting {
  double temperature, top_p, min_p;
  int32_t top_k;
};
struct Want {
  int token;
  double logprob;
};
// rollout/sampler.h in float64 over the float32 weights.
Want reference_draw(const float* logits, int vocabulary, const Setting& setting, double uniform) {
  const double temperature = setting.temperature > 0 ? setting.temperature : 1;
  const double best = *std::max_element(logits, logits + vocabulary);
  std::vector<int> order(vocabulary);
  std::iota(order.begin(), order.end(), 0);
  Doubles weight(vocabulary);
  double total = 0;
  for (int i = 0; i < vocabulary; ++i) total += weight[i] = std::exp((logits[i] - best) / temperature);
  const auto result = [&](int token) {
    return Want{token, (logits[token] - best) / temperature - std::log(total)};
  };
  if (setting.temperature == 0)
    return result(static_cast<int>(std::max_element(logits, logits + vocabulary) - logits));
  size_t kept = order.size();
  if (setting.top_k > 0 || setting.top_p < 1 || setting.min_p > 0) {
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    const auto mass = [&](size_t count) {
      double sum = 0;
      for (size_t i = 0; i < count; ++i) sum += weight[order[i]];
      return sum;
    };
    if (setting.top_k > 0) kept = std::min<size_t>(kept, setting.top_k);
    if (setting.top_p < 1) {
      const double goal = setting.top_p * mass(kept);
      size_t count = 0;
      double sum = 0;
      while (count < kept && (count == 0 || sum < goal)) sum += weight[order[count++]];
      kept = count;
    }
    while (kept > 1 && weight[order[kept - 1]] < setting.min_p) --kept;
  }
  double goal = 0;
  for (size_t i = 0; i < kept; ++i) goal += weight[order[i]];
  goal *= uniform;
  for (size_t i = 0; i < kept; ++i) {
    goal -= weight[order[i]];
    if (goal < 0) return result(order[i]);
  }
  return result(order[kept - 1]);
}

const Register sampler("draw_tokens", [] {
  for (const int vocabulary : {3, 512, 5000}) {
    const std::vector<Setting> settings = {
        {1, 1, 0, 0},
        {0.7, 1, 0, 0},
        {0, 1, 0, 0},
        {1, 0.9, 0, 0},
        {0.8, 0.5, 0, 0},
        {1, 1, 0, 1},
        {1, 1, 0, 20},
        {1.5, 0.9, 0, 7},
        {1, 1, 0.05, 0},
        {0.6, 0.95, 0.1, 50},
        {0.05, 0.99, 0, 0},
        {5, 0.999, 0, 0},
        {1, 1, 0, 100000},
        {1, 1, 1, 0},
        // min-p keeps fewer than top-k, whose mass top-p is still a share of.
        {1, 0.6, 0.3, 400},
        {0.9, 0.9, 0.02, 50},
        {1, 0.5, 0.1, 2000}};
    const int outputs = 4;
    auto logits = Buffer<float>::random(outputs * vocabulary, 3);
    for (int i = 0; i < vocabulary; ++i) {
      // Equal logits: the smaller id comes first. And some that are out of the question.
      logits[vocabulary + i] = std::round(logits[vocabulary + i]);
      if (i % 3 == 1) logits[2 * vocabulary + i] = -INFINITY;
      logits[3 * vocabulary + i] = i == vocabulary / 2 ? 30.f : logits[3 * vocabulary + i];
    }
    std::vector<double> temperatures, top_ps, min_ps;
    std::vector<int32_t> top_ks, rows;
    std::vector<double> uniforms;
    for (int output = 0; output < outputs; ++output) {
      for (const Setting& setting : settings) {
        for (const double uniform :
             {0.0, std::uniform_real_distribution<double>()(generator()), 1 - 0x1p-53}) {
          temperatures.push_back(setting.temperature);
          top_ps.push_back(setting.top_p);
          min_ps.push_back(setting.min_p);
          top_ks.push_back(setting.top_k);
          rows.push_back(output);
          uniforms.push_back(uniform);
        }
      }
    }
    const auto count = static_cast<int32_t>(rows.size());
    auto t = Buffer<double>::of(temperatures), p = Buffer<double>::of(top_ps), m = Buffer<double>::of(min_ps);
    auto k = Buffer<int32_t>::of(top_ks), which = Buffer<int32_t>::of(rows);
    auto u = Buffer<double>::of(uniforms);
    Buffer<int32_t> tokens(count);
    Buffer<float> logprobs(count);
    const Draws draws{logits.data(), which.data(),    0,        t.data(),
                      p.data(),      m.data(),        k.data(), u.data(),
                      tokens.data(), logprobs.data(), count,    vocabulary};
    both_ways(
        "draw_tokens", [&] { return draw_tokens(draws, nullptr); }, tokens, logprobs);
    check(tokens.whole() && logprobs.whole(), "draw_tokens: wrote outside its results");
    int at_the_ends = 0;
    for (int32_t i = 0; i < count; ++i) {
      const Setting setting{temperatures[i], top_ps[i], min_ps[i], top_ks[i]};
      const Want want =
          reference_draw(logits.data() + rows[i] * vocabulary, vocabulary, setting, uniforms[i]);
      // At the ends the last bit of a sum decides between neighbours that weigh next to nothing.
      if ((uniforms[i] > 0.999999 || uniforms[i] == 0) && tokens[i] != want.token) {
        check(want.logprob < -10, "draw_tokens: another token at an end");
        ++at_the_ends;
        continue;
      }
      check(tokens[i] == want.token, "draw_tokens: draw " + std::to_string(i) + " of " +
                                         std::to_string(vocabulary) + " is " + std::to_string(tokens[i]) +
                                         ", not " + std::to_string(want.token));
      check(std::abs(logprobs.at(i) - want.logprob) < 1e-5 * (1 + std::abs(want.logprob)),
            "draw_tokens: log-probability");
    }
    check(at_the_ends * 8 <= count, "draw_tokens: too many differ at the ends");
  }
});

const Register strange("draw_tokens of logits that are not finite", [] {
  const int vocabulary = 700;
  auto logits = Buffer<float>::random(4 * vocabulary);
  logits[5] = NAN;
  logits[vocabulary + 600] = INFINITY;
  for (int i = 0; i < vocabulary; ++i) logits[2 * vocabulary + i] = -INFINITY;
  auto rows = Buffer<int32_t>::of({3, 4, 5, 6}), k = Buffer<int32_t>::of({0, 0, 0, 0});
  auto one = Buffer<double>::of({1, 1, 1, 1}), zero = Buffer<double>::of({0, 0, 0, 0});
  auto u = Buffer<double>::of({0.5, 0.5, 0.5, 0.5});
  Buffer<int32_t> tokens(4);
  Buffer<float> logprobs(4);
  const Draws draws{logits.data(), rows.data(),     3,        one.data(),
                    one.data(),    zero.data(),     k.data(), u.data(),
                    tokens.data(), logprobs.data(), 4,        vocabulary};
  run("draw_tokens", [&] { return draw_tokens(draws, nullptr); });
  check(tokens[0] == -1 && tokens[1] == -1 && tokens[2] == -1 && tokens[3] >= 0,
        "a token from logits that are not finite");
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
