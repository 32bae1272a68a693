// Products of steps that recur: what ATen takes, which is what cuBLAS's heuristic names first, or another of its candidates
// where that was measured to be faster. Measured once for each size, when it is first met outside of a recording, with
// weights that no cache holds. A candidate counts only where it gives ATen's result; whatever fails leaves the product to ATen.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/product_candidates.h"
#include "kernels/cuda/product_choice.h"
#include "kernels/waits.h"
#ifdef TROUPE_CUDA
#include <ATen/cuda/Sleep.h>
#else
#include "kernels/cuda/emulation/planted_products.h"
#endif

namespace troupe::kernels::cuda {
namespace {

// A rollout of 1,024 sequences meets some 30 numbers of rows, with four products each, for every width of adapters.
constexpr size_t kMostShapes = 1024;
// Of weights that are read in turn before one is read again: more than the largest cache holds, 126 MB.
constexpr size_t kColdBytes = 160 << 20;
constexpr int kRounds = 3;
// By so much of its own size, and of the results' root mean square, a candidate's result may differ: rounding to bf16 is
// 2^-8 of a number, and ATen's own may round the parts of a sum besides.
constexpr double kRounding = 1.0 / 64;

struct Found {
  std::unique_ptr<ProductCandidates> candidates;
  MeasuredProduct seen;
};

std::map<ProductShape, Found>& found_products() {
  thread_local std::map<ProductShape, Found> found;
  return found;
}

// One that is measured. A product of each of the weights, so that none is in a cache; false: it refused one.
struct Contender {
  int32_t which;
  std::function<bool()> run;
  bool refused = false;
};

#ifdef TROUPE_CUDA
// The host is ahead of the device from here on, by as many launches: what the device takes for them is not what the host does.
void keep_busy(size_t launches) {
  constexpr int64_t kCycles = 20'000;  // some 11 µs, where ATen's product takes the host 8
  at::cuda::sleep(static_cast<int64_t>(launches) * kCycles);
}
#endif

// Microseconds of one product by each contender, in several rounds in which they take turns: the device's speed may change. By
// launches, as a step that is not recorded makes them: with graphs, which are gone afterwards, an H100 took 0.4 to 0.8 µs more
// between any two kernels of the steps that were recorded later.
std::vector<std::vector<double>> measured_times(std::vector<Contender>& contenders, size_t products,
                                                [[maybe_unused]] const at::Device& device) {
  const auto run_all = [&](const auto& after) {
    for (Contender& one : contenders) {
      if (!one.run()) one.refused = true;
      after();
    }
  };
  run_all([] {});  // what comes first takes longer
  std::vector<std::vector<double>> times(contenders.size());
#ifdef TROUPE_CUDA
  DeviceClock clock(device);
  for (int round = 0; round < kRounds; ++round) {
    keep_busy(products * contenders.size());
    clock.mark();
    run_all([&] { clock.mark(); });
  }
  // Behind a round's times is that of keeping the device busy before the next one.
  const std::vector<double> milliseconds = clock.wait();
  for (size_t i = 0; i < milliseconds.size(); ++i) {
    const size_t which = i % (contenders.size() + 1);
    if (which < contenders.size())
      times[which].push_back(1000 * milliseconds[i] / static_cast<double>(products));
  }
#else
  for (size_t i = 0; i < contenders.size(); ++i)
    times[i] = {emulation::planted_microseconds(contenders[i].which)};
#endif
  return times;
}

class Measuring {
 public:
  Measuring(const CudaKernels& kernels, const ProductCandidates& candidates, const at::Tensor& x,
            const PackedLinear& weight)
      : kernels_(kernels), candidates_(candidates), x_(x), weight_(weight) {}

  // seen.chosen, and what there is to know of the rest.
  void run(const AlikeWeights& alike, MeasuredProduct& seen) {
    usual_ = kernels_.linear(x_, weight_);
    seen.offered = candidates_.count();
    const std::vector<int32_t> right = right_ones(seen);
    if (right.empty()) return;
    const std::vector<at::Tensor> weights = enough_of(alike());
    std::vector<Contender> contenders;
    contenders.push_back(contender(kUsual, weights));
    for (const int32_t which : right) contenders.push_back(contender(which, weights));
    const auto times = measured_times(contenders, weights.size(), x_.device());
    std::vector<std::vector<double>> others(static_cast<size_t>(seen.offered));
    for (size_t i = 1; i < contenders.size(); ++i) {
      if (contenders[i].refused)
        ++seen.refused;
      else
        others[contenders[i].which] = times[i];
    }
    seen.chosen = choose(times[0], others);
    seen.usual = median(times[0]);
    seen.taken = seen.chosen == kUsual ? seen.usual : median(others[seen.chosen]);
  }

 private:
  // Those that run and give the usual result. One copy to the host for all.
  std::vector<int32_t> right_ones(MeasuredProduct& seen) {
    const at::Tensor allowed = usual_.abs().mul_(kRounding);
    const double share = kRounding / std::sqrt(static_cast<double>(usual_.numel()));
    std::vector<at::Tensor> worst{at::linalg_vector_norm(usual_, 2, {}, false, at::kFloat).mul_(share)};
    std::vector<int32_t> ran;
    y_ = at::empty_like(usual_);
    for (int32_t which = 0; which < seen.offered; ++which) {
      y_.fill_(std::numeric_limits<float>::quiet_NaN());  // what is not written is wrong
      if (!candidates_.take(x_, weight_.weight, y_) || !candidates_.run(which, x_, weight_.weight, y_)) {
        ++seen.refused;
        continue;
      }
      ran.push_back(which);
      worst.push_back((y_ - usual_).abs_().sub_(allowed).max().to(at::kFloat));
    }
    const at::Tensor host = to_host(at::stack(worst));
    const float* const values = host.const_data_ptr<float>();
    // A model that has diverged: nothing can be compared.
    if (!std::isfinite(values[0])) return {};
    std::vector<int32_t> right;
    for (size_t i = 0; i < ran.size(); ++i) {
      if (values[i + 1] <= values[0]) right.push_back(ran[i]);
    }
    seen.wrong = static_cast<int32_t>(ran.size() - right.size());
    if (seen.wrong > 0) {
      TORCH_WARN_ONCE("a product [", seen.rows, ", ", seen.inputs, "] x [", seen.inputs, ", ", seen.outputs,
                      "] by one of cuBLASLt's candidates is not ATen's: such candidates are not used");
    }
    return right;
  }

  static std::vector<at::Tensor> enough_of(std::vector<at::Tensor> weights) {
    const size_t enough = kColdBytes / weights.front().nbytes() + 1;
    if (weights.size() > enough) weights.resize(enough);
    return weights;
  }

  // No longer than the weights.
  Contender contender(int32_t which, const std::vector<at::Tensor>& weights) {
    if (which != kUsual) {
      return {which, [this, which, &weights] {
                return std::ranges::all_of(weights, [&](const at::Tensor& weight) {
                  return candidates_.take(x_, weight, y_) && candidates_.run(which, x_, weight, y_);
                });
              }};
    }
    // What linear calls, with a result that is there.
    return {which, [this, &weights] {
              for (const at::Tensor& weight : weights) at::mm_out(y_, x_, weight.t());
              return true;
            }};
  }

  const CudaKernels& kernels_;
  const ProductCandidates& candidates_;
  const at::Tensor& x_;
  const PackedLinear& weight_;
  at::Tensor usual_, y_;
};

Found measure(const CudaKernels& kernels, const at::Tensor& x, const PackedLinear& weight,
              const AlikeWeights& alike) {
  Found found{nullptr, {x.size(1), weight.weight.size(0), x.size(0)}};
  try {
    found.candidates = product_candidates(x, weight.weight);
    if (found.candidates) Measuring(kernels, *found.candidates, x, weight).run(alike, found.seen);
  } catch (const c10::Error& error) {
    // Of memory that is short, or of the library. A device that has failed says so again at its next launch.
    found.seen.chosen = kUsual;
    TORCH_WARN_ONCE("cuBLASLt's candidates for a product could not be measured, ATen's is used: ",
                    error.what_without_backtrace());
  }
  return found;
}

}  // namespace

at::Tensor CudaKernels::do_recurring_linear(const at::Tensor& x, const PackedLinear& weight,
                                            const AlikeWeights& alike) const {
  // A bias is for ATen, whose product adds it on the way.
  if (x.scalar_type() != at::kBFloat16 || weight.bias.defined() || x.size(0) > kMostMeasuredRows)
    return do_linear(x, weight);
  const On on(x);
  std::map<ProductShape, Found>& products = found_products();
  const ProductShape shape{x.device().index(), x.size(1), weight.weight.size(0), x.size(0)};
  auto known = products.find(shape);
  if (known == products.end()) {
    if (recording_now() || products.size() >= kMostShapes) return do_linear(x, weight);
    known = products.emplace(shape, measure(*this, x, weight, alike)).first;
  }
  Found& found = known->second;
  if (found.seen.chosen == kUsual) return do_linear(x, weight);
  at::Tensor y = at::empty({shape.rows, shape.outputs}, x.options());
  if (!found.candidates->take(x, weight.weight, y)) return do_linear(x, weight);
  if (found.candidates->run(found.seen.chosen, x, weight.weight, y)) return y;
  found.seen.chosen = kUsual;
  found.seen.taken = found.seen.usual;
  TORCH_WARN_ONCE("cuBLASLt refuses a product that it computed before: ATen's is used from now on");
  return do_linear(x, weight);
}

std::vector<MeasuredProduct> CudaKernels::measured_products() const {
  std::vector<MeasuredProduct> products;
  for (const auto& [shape, found] : found_products()) products.push_back(found.seen);
  return products;
}

#ifndef TROUPE_CUDA
void emulation::forget_measured_products() { found_products().clear(); }
#endif

}  // namespace troupe::kernels::cuda
