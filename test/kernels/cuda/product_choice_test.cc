// Which of several ways to compute a product is taken: the usual one, unless another is clearly faster.
#include "kernels/cuda/product_choice.h"

#include <limits>

#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

// Each way was measured once.
int32_t choose_of(double usual, const std::vector<double>& others) {
  std::vector<std::vector<double>> times;
  for (const double time : others) times.push_back({time});
  return choose({usual}, times);
}

const Register choices("the way to compute a product", [] {
  check(choose_of(10, {}) == kUsual, "nothing else is offered");
  check(choose_of(10, {10, 9.31, 9.9}) == kUsual, "less than 7 % faster is not faster");
  check(choose_of(10, {9.35, 9.29}) == 1, "7 % are");
  check(choose_of(10, {11, 9, 8.9, 12}) == 1, "of two that are as good the one that the library prefers");
  check(choose_of(10, {9, 8.7}) == 1, "each replaces the one before");
  check(choose_of(10, {8.7, 9}) == 0, "but by none that is slower");

  check(choose({10}, {{}, {9}, {}}) == 1, "one that is not to be taken has no times");
  check(choose({10}, {{}, {}}) == kUsual, "none is to be taken");
  check(choose({10, 10, 10}, {{9, 11, 11}}) == kUsual, "a fast round is not a fast way");
  check(choose({10, 30, 10}, {{11, 11, 11}}) == kUsual, "nor is a slow one a slow way");
  check(choose({10, 11, 12}, {{30, 9, 9}}) == 0, "the median counts");
  const double none = std::numeric_limits<double>::quiet_NaN();
  check(
      choose_of(10, {none, 0, -1}) == kUsual && choose_of(none, {1}) == kUsual && choose_of(0, {1}) == kUsual,
      "what has no time is not chosen, nor is anything compared with it");

  // What an H100 took (bench/gpu/products.py, 28 November 2026).
  check(choose_of(15.8, {15.9, 13.1, 12.4, 14.0, 13.0, 14.1, 14.7, 16.0}) == 2, "o with 256 rows");
  check(choose_of(42.8, {42.6, 39.4, 39.8, 39.5, 39.8, 39.7, 40.3, 43.9}) == 1, "gate and up with 32");
  check(choose_of(17.1, {17.1, 18.2, 17.1, 16.4, 17.6, 18.2, 18.4, 18.5}) == kUsual, "q, k and v with 256");
  check(choose_of(28.4, {28.5, 30.8, 29.8, 32.4, 33.3, 32.1, 33.6, 34.2}) == kUsual, "down with 256");
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
