// Which of several ways to compute a product is taken, by what they took. No ATen: tested by itself
// (test/kernels/cuda/product_choice_test.cc).
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <vector>

namespace troupe::kernels::cuda {

// What a choice is made for, and kept: a product [rows, inputs] × [inputs, outputs] on a device.
struct ProductShape {
  int64_t device, inputs, outputs, rows;
  friend auto operator<=>(const ProductShape&, const ProductShape&) = default;
};

// The way that is taken where nothing was measured: ATen's, which is what cuBLAS names first. Others are numbered from 0.
constexpr int32_t kUsual = -1;

// Most rows for which it is worth while: steps that decode have no more. With more a product is bound by arithmetic, and
// its rows are those of prompts, of which no two steps have as many.
constexpr int64_t kMostMeasuredRows = 1024;

// By so much another way must be faster than the usual one. What gained 4 % by itself on an H100 made a step no faster: the
// kernels beside it took longer (docs/cuda-measurements.md).
constexpr double kGain = 0.07;
// By so much one of the others must be faster than one before it: less is what two measurements of one kernel differ by, and
// processes would choose differently.
constexpr double kNearly = 0.03;

// The middle one; 0 of none.
inline double median(std::vector<double> times) {
  if (times.empty()) return 0;
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

// The number of the way to take. `usual` and each of `others`, which are in the library's own order: times of one way; none
// of one that is not to be taken. In turn, each replaces the usual one if it is faster by kGain, or one before it by kNearly.
inline int32_t choose(const std::vector<double>& usual, const std::vector<std::vector<double>>& others) {
  int32_t chosen = kUsual;
  double best = median(usual);
  for (size_t which = 0; which < others.size(); ++which) {
    const double time = median(others[which]);
    if (!(time > 0 && time <= (1 - (chosen == kUsual ? kGain : kNearly)) * best)) continue;
    chosen = static_cast<int32_t>(which);
    best = time;
  }
  return chosen;
}

}  // namespace troupe::kernels::cuda
