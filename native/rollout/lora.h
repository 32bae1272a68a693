// Adapters' part of a product for few rows: y += scale · (x Aᵀ) Bᵀ, fused, for all adapters of a batch at
// once. As separate ATen calls it costs more than the base's products, since it is many tiny ones.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <span>
#include <vector>

#include "model/policy.h"

namespace troupe::rollout {

struct LoraTerm {
  int64_t begin = 0;        // first column of y
  at::Tensor a;             // [rank, in]
  at::Tensor b_transposed;  // [rank, rows]
};

// What one adapter adds to one linear layer.
struct LoraLinear {
  std::vector<LoraTerm> terms;
  double scale = 0;
};

// A version of an adapter, B transposed so that its rows are vectors.
class PackedAdapter {
 public:
  explicit PackedAdapter(const Policy& policy);
  bool holds(const Policy& policy) const;
  bool stale() const;
  const LoraLinear& linear(int64_t layer, LinearWeights LayerWeights::*which) const;

 private:
  struct Layer {
    LoraLinear qkv, o, gate_up, down;
  };
  std::weak_ptr<ParameterSet> adapter_;
  int64_t version_;
  std::vector<Layer> layers_;
};

// Rows [begin, end) of x and y.
struct LoraRows {
  const LoraLinear* linear = nullptr;
  int64_t begin = 0, end = 0;
};

// x [T, in], y [T, out] contiguous. Sums in fp32 (fp64); a row's result does not depend on the other rows.
void add_lora(at::Tensor& y, const at::Tensor& x, std::span<const LoraRows> parts);
// The same from ATen operators: for other devices, for many rows, and the tests' twin.
void add_lora_plain(at::Tensor& y, const at::Tensor& x, const LoraRows& part);

}  // namespace troupe::rollout
