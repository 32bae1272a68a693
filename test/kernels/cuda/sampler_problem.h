// Draws from rows of logits: what the tests of both samplers share.
#pragma once

#include <numeric>

#include "support.h"

namespace troupe::kernels::cuda::test {

struct Setting {
  double temperature, top_p, min_p;
  int32_t top_k;
};
inline bool filters(const Setting& setting) {
  return setting.temperature > 0 && (setting.top_k > 0 || setting.top_p < 1 || setting.min_p > 0);
}

struct Draw {
  int32_t row;
  Setting setting;
  double uniform;
};
inline double any_uniform() { return std::uniform_real_distribution<double>()(generator()); }

struct Drawn {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  bool operator==(const Drawn&) const = default;
};
inline Drawn draw_all(const std::string& what, const Buffer<float>& logits, int vocabulary,
                      const std::vector<Draw>& all, int32_t first_output = 0) {
  const auto count = static_cast<int32_t>(all.size());
  Buffer<double> temperatures(count), top_ps(count), min_ps(count), uniforms(count);
  Buffer<int32_t> top_ks(count), rows(count), tokens(count);
  Buffer<float> logprobs(count);
  bool filtered = false;
  for (int32_t i = 0; i < count; ++i) {
    const auto& [row, setting, uniform] = all[i];
    temperatures[i] = setting.temperature;
    top_ps[i] = setting.top_p;
    min_ps[i] = setting.min_p;
    top_ks[i] = setting.top_k;
    rows[i] = first_output + row;
    uniforms[i] = uniform;
    filtered |= filters(setting);
  }
  const Draws draws{logits.data(), rows.data(),   first_output,    temperatures.data(), top_ps.data(),
                    min_ps.data(), top_ks.data(), uniforms.data(), tokens.data(),       logprobs.data(),
                    count,         vocabulary,    filtered};
  const int64_t before = launch_count();
  both_ways(
      what, [&] { return draw_tokens(draws, nullptr); }, tokens, logprobs);
  check(launch_count() - before == 2 * (1 + filtered), what + ": launches");
  check(tokens.whole() && logprobs.whole(), what + ": wrote outside its results");
  return {{tokens.data(), tokens.data() + count}, {logprobs.data(), logprobs.data() + count}};
}

}  // namespace troupe::kernels::cuda::test
