// The filtering sampler against its rules over the same weights, summed as integers. On a CPU the tokens are exactly those; a
// GPU's exponentials may differ in their last bits.
#include <cmath>

#include "sampler_problem.h"

namespace troupe::kernels::cuda::test {
namespace {

using Mass = unsigned long long;

// A row's tokens, likeliest first, and their mass.
struct Order {
  Order(const float* logits, int vocabulary, double temperature) : ids(vocabulary) {
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    const auto inverse = static_cast<float>(1 / temperature);
    for (const int id : ids) {
      weights.push_back(std::exp((logits[id] - logits[ids[0]]) * inverse));
      upto.push_back((upto.empty() ? 0 : upto.back()) + static_cast<Mass>(weights.back() * 0x1p40f + 0.5f));
    }
  }
  // The place of the token that is drawn.
  int64_t draw(const Setting& setting, double uniform) const {
    auto kept = upto.end();
    if (setting.top_k > 0 && setting.top_k < upto.end() - upto.begin()) kept = upto.begin() + setting.top_k;
    if (setting.top_p < 1) {
      // long double holds every integer of 64 bits.
      const long double goal = setting.top_p * static_cast<double>(kept[-1]);
      const auto reaches = [&](Mass mass) { return static_cast<long double>(mass) >= goal; };
      kept = std::find_if(upto.begin(), kept - 1, reaches) + 1;
    }
    while (kept - upto.begin() > 1 && static_cast<double>(weights[kept - upto.begin() - 1]) < setting.min_p)
      --kept;
    const Mass goal = std::min(static_cast<Mass>(uniform * static_cast<double>(kept[-1])), kept[-1] - 1);
    return std::upper_bound(upto.begin(), kept, goal) - upto.begin();
  }
  // Whether last bits may decide between two places: nothing lies between them, or next to nothing.
  bool beside(int64_t a, int64_t b) const {
    const auto [first, last] = std::minmax(a, b);
    return last - first <= 1 ||
           static_cast<double>(upto[last - 1] - upto[first]) < 1e-6 * static_cast<double>(upto.back());
  }

  std::vector<int> ids;
  std::vector<float> weights;
  std::vector<Mass> upto;
};

void test_filters(const std::string& what, const Buffer<float>& logits, int vocabulary,
                  const std::vector<Draw>& all) {
  const Drawn drawn = draw_all(what, logits, vocabulary, all);
  for (size_t i = 0; i < all.size(); ++i) {
    const auto& [row, setting, uniform] = all[i];
    const Order order(logits.data() + static_cast<int64_t>(row) * vocabulary, vocabulary,
                      setting.temperature);
    const int64_t want = order.draw(setting, uniform),
                  got = std::find(order.ids.begin(), order.ids.end(), drawn.tokens[i]) - order.ids.begin();
#ifdef __CUDACC__
    const bool right = got < vocabulary && order.beside(got, want);
#else
    const bool right = got == want;
#endif
    check(right, what + ": row " + std::to_string(row) + ", temperature " +
                     std::to_string(setting.temperature) + ", top-k " + std::to_string(setting.top_k) +
                     ", top-p " + std::to_string(setting.top_p) + ", min-p " + std::to_string(setting.min_p) +
                     ", uniform " + std::to_string(uniform) + ": " + std::to_string(drawn.tokens[i]) +
                     ", not " + std::to_string(order.ids[want]));
  }
}

double any_between(double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(generator());
}

// Rows of all kinds, by the id and the vocabulary.
using Logit = std::function<double(int, int)>;
std::vector<Logit> kinds() {
  const double none = -INFINITY;
  return {
      [](int, int) { return any_between(-1, 1); },
      // As models write them: a few are likely.
      [](int i, int) { return i % 997 == 5 ? any_between(-3, 0) : any_between(-20, -8); },
      [](int, int) { return 0.25; },
      [](int i, int size) { return i == size / 2 ? 30 : any_between(-1, 1); },
      // Equal ones at every cut.
      [](int, int) { return std::round(any_between(-4, 4)); },
      [=](int i, int) { return i % 3 == 1 ? none : any_between(-5, 5); },
      [=](int i, int size) { return i == size - 1 ? -3 : none; },
      // The likeliest all in one chunk, the first or the last.
      [](int i, int size) { return 8. * i / size; },
      [](int i, int size) { return -8. * i / size; },
      // Few values, one beside the other.
      [](int, int) { return std::round(any_between(0, 4)) * 0x1p-23 + 1; },
      [](int i, int) { return i % 2 ? 0. : -0.; },
  };
}
Buffer<float> rows_of(const std::vector<Logit>& kinds, int vocabulary, int64_t shift) {
  Buffer<float> logits(static_cast<int64_t>(kinds.size()) * vocabulary, shift);
  for (size_t row = 0; row < kinds.size(); ++row) {
    for (int i = 0; i < vocabulary; ++i)
      logits[static_cast<int64_t>(row) * vocabulary + i] = static_cast<float>(kinds[row](i, vocabulary));
  }
  return logits;
}

std::vector<Setting> settings_of(int vocabulary) {
  const int chunks = (vocabulary + 511) / 512;
  return {{1, 0.95, 0, 50},
          {1, 1, 0, chunks},
          {1, 1, 0, chunks + 1},
          {1, 1, 0, 1},
          {1, 1, 0, 9},
          {1, 0.9, 0, 400},
          {2, 0.9, 0.01, 3000},
          {1, 1, 0, vocabulary - 1},
          {1, 1, 0, vocabulary + 1},
          {1, 0.95, 0, 0},
          {1, 1e-9, 0, 0},
          {1, 0.999999, 0, 0},
          {1, 1 - 0x1p-53, 0, 0},
          {1, 1, 1, 0},
          {1, 1, 0.3, 0},
          {1, 1, 1e-9, 0},
          {1, 0.9, 0.2, 0},
          {1, 0.9, 0.2, 60},
          {1e-3, 0.95, 0, 50},
          {1e-3, 0.95, 0, 0},
          {0.05, 0.99, 1e-4, 400},
          {1e4, 0.95, 0, 50},
          {1e4, 0.95, 0, 0},
          {1e4, 1, 0.5, 0}};
}

// shift: where the rows begin; those of 5003 logits begin at every place within a pack.
void test_kinds(int vocabulary, int64_t shift) {
  const auto all = kinds();
  std::vector<Draw> draws;
  for (int32_t row = 0; row < static_cast<int32_t>(all.size()); ++row) {
    int32_t turn = row;
    for (const Setting& setting : settings_of(vocabulary)) {
      // 1 is none, but what a product with the mass may be rounded up to is as much.
      const double uniforms[] = {0, any_uniform(), 1 - 0x1p-53, 1};
      if (filters(setting)) draws.push_back({row, setting, uniforms[turn++ % 4]});
    }
  }
  test_filters(label("draw_tokens", "with filters", {vocabulary, shift}), rows_of(all, vocabulary, shift),
               vocabulary, draws);
}
const Register filters_of_all("draw_tokens with filters", [] {
  for (const int vocabulary : {1, 511, 2049, 5003}) test_kinds(vocabulary, 0);
  test_kinds(5120, 1);
});

// At temperature 4 a bin of the flat row has more tokens than fit into shared memory.
const Register long_rows("draw_tokens with filters of long rows", [] {
  const int vocabulary = 160000;
  const auto all = kinds();
  std::vector<Draw> draws;
  for (int32_t row = 0; row < static_cast<int32_t>(all.size()); ++row) {
    for (const Setting& setting : std::vector<Setting>{{1, 0.95, 0, 50}, {1, 0.95, 0, 0}, {4, 0.9, 0, 5000}})
      draws.push_back({row, setting, any_uniform()});
  }
  test_filters("draw_tokens with filters of long rows", rows_of(all, vocabulary, 0), vocabulary, draws);
});

const Register too_long("draw_tokens with filters of a vocabulary beyond 2^23", [] {
  Draws draws{};
  draws.vocabulary = (1 << 23) + 1;
  draws.filtered = true;
  check(draw_tokens(draws, nullptr) == kInvalidValue, "ids of more than 23 bits");
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
