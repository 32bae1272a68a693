// What stands for cuBLASLt's candidates where there is no GPU: what a test says that there is, and how long it says that they
// take.
#pragma once

#include <memory>
#include <vector>

#include "kernels/cuda/product_candidates.h"

namespace troupe::kernels::cuda::emulation {

enum class Candidate {
  kRight,
  kWrong,         // one number of the result is off by half of the results' root mean square
  kIncomplete,    // one is not written
  kRefuses,       // whatever it is asked
  kRefusesLater,  // the n-th call of a size and those after it, n being `calls`
};
struct PlantedProduct {
  Candidate kind;
  double microseconds;
  int64_t calls = 0;
};

// From now on: for every size these, in this order, beside the usual way, which takes so long. What was measured in this
// thread is forgotten. Without any, nothing is measured.
void plant_products(double usual, std::vector<PlantedProduct> products);
// How often each was called and did not refuse, of all sizes and threads.
std::vector<int64_t> planted_runs();

std::unique_ptr<ProductCandidates> planted_candidates();
// `which`: a candidate, or kUsual.
double planted_microseconds(int32_t which);
void forget_measured_products();

}  // namespace troupe::kernels::cuda::emulation
