// Ways to compute a product y = x Wᵀ beside ATen's: cuBLASLt's (lt_products.cc), or on the emulation what a test plants
// (emulation/planted_products.h).
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>

namespace troupe::kernels::cuda {

// For one number of rows and one size of weights.
class ProductCandidates {
 public:
  virtual ~ProductCandidates() = default;
  virtual int32_t count() const = 0;
  // Whether they take operands that lie there: all are contiguous and of the sizes they are for.
  virtual bool take(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& y) const = 0;
  // y [rows, outputs] = x [rows, inputs] weightᵀ by candidate `which`, on the current stream; recordings may hold it. False
  // where the library refuses, and then y holds anything.
  virtual bool run(int32_t which, const at::Tensor& x, const at::Tensor& weight, at::Tensor& y) const = 0;
};

// In the library's order, the fastest by its own estimate first. Null where there are none.
std::unique_ptr<ProductCandidates> product_candidates(const at::Tensor& x, const at::Tensor& weight);
// Why there are none on any device: a sentence, or "".
std::string no_product_candidates();

}  // namespace troupe::kernels::cuda
