// A (fused) linear layer with its LoRA adapters, forward and backward, and the one place where weight
// gradients are split by group: dW_k = δ_kᵀ x_k over group k's rows.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "model/policy.h"

namespace troupe::training {

struct Accumulators {
  std::vector<at::Tensor> sums;
  std::vector<bool> fresh;  // of each: whether what it holds is to be overwritten
};

// Where a backward pass puts the gradients of a policy's trained parameters.
class GradientSink {
 public:
  // groups: K + 1 row offsets, one group per accumulator of the trained parameters, or per sketch.
  GradientSink(const Policy& policy, std::span<const int64_t> groups)
      : policy_(policy), groups_(groups), whole_{0, groups.back()} {}

  std::span<const int64_t> groups() const { return groups_; }
  // The rows that go to one accumulator: the groups', or all of them where the groups are sketched.
  std::span<const int64_t> accumulated() const { return sketch() ? std::span(whole_) : groups_; }
  GradientSketch* sketch() const { return policy_.trained().sketch(); }
  // Full parameters: the base's weights, norms, biases and embeddings have gradients.
  bool trains_base() const { return policy_.adapter() == nullptr; }
  // Every group's accumulator of a vector of the base; empty if the base is frozen.
  std::vector<at::Tensor> base_vector(int64_t index) const;
  // One accumulator of a matrix of the base for each part of `accumulated`; empty if the base is frozen. One without
  // rows is to be left alone.
  std::vector<at::Tensor> base_matrix(int64_t index) const;
  // The accumulators of `count` adjacent trained matrices for products that cover them, which overwrite the fresh ones:
  // then written() is called.
  Accumulators products(int64_t index, int64_t count) const;
  void written(int64_t index, int64_t count) const;
  // accumulators of `count` adjacent trained parameters from `index` on += δ_kᵀ x_k.
  void add_products(int64_t index, int64_t count, const at::Tensor& delta, const at::Tensor& x) const;
  // accumulators of `count` adjacent trained vectors from `index` on += Σ rows of δ_k.
  void add_sums(int64_t index, int64_t count, const at::Tensor& delta) const;

 private:
  bool has_rows(size_t part) const { return accumulated()[part] < accumulated()[part + 1]; }

  const Policy& policy_;
  std::span<const int64_t> groups_;
  std::array<int64_t, 2> whole_;
  mutable at::Tensor counters_;  // of accumulate_weight_gradient, for the whole pass
};

// y = x Wᵀ + b + scale · (x Aᵀ) Bᵀ; `projected` is undefined without adapters.
kernels::AdaptedLinear linear(const kernels::Kernels& backend, const LinearWeights& weights,
                              const at::Tensor& x);

// Adds the trained weights' gradients to the sink. delta [T, out] is the gradient of y, x the forward's
// input. Returns the gradient of x, or an undefined tensor unless `needs_input`.
at::Tensor linear_backward(const kernels::Kernels& backend, const LinearWeights& weights,
                           const at::Tensor& delta, const at::Tensor& x, const at::Tensor& projected,
                           const GradientSink& sink, bool needs_input);

}  // namespace troupe::training
