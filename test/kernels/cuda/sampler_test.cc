// The sampler against its rules in float64.
#include "sampler_problem.h"

namespace troupe::kernels::cuda::test {
namespace {

struct Want {
  int token;
  double logprob;
};
// kernels/cpu/sampler.cc in float64 over the float32 weights.
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
  if (filters(setting)) {
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
    std::vector<Draw> all;
    for (int output = 0; output < outputs; ++output) {
      for (const Setting& setting : settings) {
        for (const double uniform : {0.0, any_uniform(), 1 - 0x1p-53})
          all.push_back({output, setting, uniform});
      }
    }
    const auto [tokens, logprobs] = draw_all("draw_tokens", logits, vocabulary, all);
    const auto count = static_cast<int32_t>(all.size());
    int at_the_ends = 0;
    for (int32_t i = 0; i < count; ++i) {
      const auto& [row, setting, uniform] = all[i];
      const Want want = reference_draw(logits.data() + row * vocabulary, vocabulary, setting, uniform);
      // At the ends the last bit of a sum decides between neighbours that weigh next to nothing.
      if ((uniform > 0.999999 || uniform == 0) && tokens[i] != want.token) {
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

// What a draw may be where float32 weights decide otherwise than float64 ones: the goal lies in the token's share of what
// the filters leave, or closer to it than their difference; and they may leave one token more or less.
bool may_be(const float* logits, int vocabulary, const Setting& setting, double uniform, int token) {
  const double temperature = setting.temperature, best = *std::max_element(logits, logits + vocabulary);
  std::vector<int> order(vocabulary);
  std::iota(order.begin(), order.end(), 0);
  if (filters(setting))
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  Doubles weights, upto{0};  // of the tokens in order
  for (const int id : order) {
    weights.push_back(std::exp((logits[id] - best) / temperature));
    upto.push_back(upto.back() + weights.back());
  }
  size_t kept = order.size();
  if (setting.top_k > 0) kept = std::min<size_t>(kept, setting.top_k);
  if (setting.top_p < 1) {
    const double goal = setting.top_p * upto[kept];
    size_t count = 1;
    while (count < kept && upto[count] < goal) ++count;
    kept = count;
  }
  if (filters(setting))
    while (kept > 1 && weights[kept - 1] < setting.min_p) --kept;
  const auto at = static_cast<size_t>(std::find(order.begin(), order.end(), token) - order.begin());
  const double slack = 1e-6 * upto.back();
  for (size_t one = std::max<size_t>(1, kept - 1); one <= std::min(kept + 1, order.size()); ++one) {
    const double goal = uniform * upto[one];
    if (at < one && goal >= upto[at] - slack && goal <= upto[at + 1] + slack) return true;
  }
  return false;
}

Setting random_setting() {
  const double temperature = one_of<double>({0, 1, 0.05 + 2 * any_uniform()});
  if (between(0, 1)) return {temperature, 1, 0, 0};
  return {temperature, one_of<double>({1, 0.9, any_uniform()}), one_of<double>({0, 0, 0.3 * any_uniform()}),
          static_cast<int32_t>(one_of<int64_t>({0, between(1, 50), between(1, 4000)}))};
}

void test_draws(int vocabulary, int64_t rows, int64_t before) {
  const std::string what = label("draw_tokens", "", {vocabulary, rows, before});
  auto logits =
      Buffer<float>::random(rows * vocabulary, one_of<double>({0.1, 2, 6})).shifted(before * vocabulary);
  for (int64_t i = 0; i < logits.size(); ++i) {
    if (i % 5 == 1 && i / vocabulary % 2) logits[i] = std::round(logits[i]);
    if (i % 7 == 3 && vocabulary > 1) logits[i] = i % vocabulary == 0 ? logits[i] : -INFINITY;
  }
  std::vector<Draw> all;
  for (int32_t row = 0; row < rows; ++row) {
    for (int64_t samples = between(1, 3); samples > 0; --samples)
      all.push_back({row, random_setting(), any_uniform()});
  }
  const Drawn drawn = draw_all(what, logits, vocabulary, all, static_cast<int32_t>(between(0, 3)));
  for (size_t i = 0; i < all.size(); ++i) {
    const auto& [row, setting, uniform] = all[i];
    const float* const own = logits.data() + row * vocabulary;
    const std::string draw = what + ": draw " + std::to_string(i) + ", " + std::to_string(drawn.tokens[i]);
    const int token = drawn.tokens[i];
    check(token >= 0 && token < vocabulary, draw + ": no token");
    const Setting plain{setting.temperature, 1, 0, 0};
    Buffer<float> alone(vocabulary, between(0, 3));
    std::copy_n(own, vocabulary, alone.data());
    check(draw_all(draw, alone, vocabulary, {{0, setting, uniform}}) == Drawn{{token}, {drawn.logprobs[i]}},
          draw + ": depends on the others, or on where its row lies");
    check(setting.temperature == 0 ? token == reference_draw(own, vocabulary, plain, 0).token
                                   : may_be(own, vocabulary, setting, uniform, token),
          draw);
    const double temperature = setting.temperature > 0 ? setting.temperature : 1;
    const double best = *std::max_element(own, own + vocabulary);
    double total = 0;
    for (int j = 0; j < vocabulary; ++j) total += std::exp((own[j] - best) / temperature);
    const double logprob = (own[token] - best) / temperature - std::log(total);
    check(std::abs(drawn.logprobs[i] - logprob) < 1e-5 * (1 + std::abs(logprob)), draw + ": log-probability");
  }
}
const Register random_draws("draw_tokens of random shapes", [] {
  for_rounds([] {
    const int64_t vocabulary = one_of<int64_t>({1, near_edge(4, 60), near_edge(512, 3000)});
    test_draws(static_cast<int>(vocabulary), between(1, 4), between(0, 1));
  });
});

const Register ends("draw_tokens of uniform numbers at the ends", [] {
  const int vocabulary = 1300;
  auto logits = Buffer<float>::random(vocabulary);
  logits[0] = logits[vocabulary - 1] = -INFINITY;
  // 1 is none, but what a product with the mass may be rounded up to is as much.
  const Drawn drawn = draw_all("draw_tokens", logits, vocabulary,
                               {{0, {1, 1, 0, 0}, 0}, {0, {1, 1, 0, 0}, 1}, {0, {1, 1, 0, 0}, 1 - 0x1p-53}});
  check(drawn.tokens == std::vector<int32_t>{1, vocabulary - 2, vocabulary - 2},
        "the first and the last token that have mass");
});

const Register strange("draw_tokens of logits that are not finite", [] {
  const int vocabulary = 700;
  auto logits = Buffer<float>::random(4 * vocabulary);
  logits[5] = NAN;
  logits[vocabulary + 600] = INFINITY;
  for (int i = 0; i < vocabulary; ++i) logits[2 * vocabulary + i] = -INFINITY;
  for (const Setting& setting : std::vector<Setting>{{1, 1, 0, 0}, {0, 1, 0, 0}, {1, 0.9, 0, 0}}) {
    const Drawn drawn =
        draw_all("draw_tokens", logits, vocabulary,
                 {{0, setting, 0.5}, {1, setting, 0.5}, {2, setting, 0.5}, {3, setting, 0.5}}, 3);
    check(drawn.tokens[0] == -1 && drawn.tokens[1] == -1 && drawn.tokens[2] == -1 && drawn.tokens[3] >= 0,
          "a token from logits that are not finite");
  }
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
