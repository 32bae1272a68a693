#include "kernels/cuda/emulation/planted_products.h"

#include <map>

#include "kernels/cuda/product_choice.h"

namespace troupe::kernels::cuda::emulation {
namespace {

struct Plant {
  double usual = 0;
  std::vector<PlantedProduct> products;
  std::vector<int64_t> runs;
};

Plant& plant() {
  static Plant planted;
  return planted;
}

class PlantedCandidates : public ProductCandidates {
 public:
  int32_t count() const override { return static_cast<int32_t>(plant().products.size()); }
  bool take(const at::Tensor&, const at::Tensor&, const at::Tensor&) const override { return true; }
  bool run(int32_t which, const at::Tensor& x, const at::Tensor& weight, at::Tensor& y) const override {
    const PlantedProduct& product = plant().products.at(which);
    if (product.kind == Candidate::kRefuses) return false;
    if (product.kind == Candidate::kRefusesLater && ++calls_[which] >= product.calls) return false;
    ++plant().runs.at(which);
    at::Tensor last = y.select(0, -1).select(0, -1);
    const at::Tensor before = last.clone();
    at::mm_out(y, x, weight.t());
    if (product.kind == Candidate::kWrong) last.add_(y.to(at::kFloat).square().mean().sqrt().mul(0.5));
    if (product.kind == Candidate::kIncomplete) last.copy_(before);
    return true;
  }

 private:
  mutable std::map<int32_t, int64_t> calls_;
};

}  // namespace

void plant_products(double usual, std::vector<PlantedProduct> products) {
  forget_measured_products();
  const size_t count = products.size();
  plant() = {usual, std::move(products), std::vector<int64_t>(count)};
}

std::vector<int64_t> planted_runs() { return plant().runs; }

std::unique_ptr<ProductCandidates> planted_candidates() {
  if (plant().products.empty()) return nullptr;
  return std::make_unique<PlantedCandidates>();
}

double planted_microseconds(int32_t which) {
  return which == kUsual ? plant().usual : plant().products.at(which).microseconds;
}

}  // namespace troupe::kernels::cuda::emulation
