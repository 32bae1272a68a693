// The transformer's forward pass for inference: one pass runs all rows of the policies that share a base, new
// prompts and decoding sequences mixed. The base's products take all rows at once, an adapter's only its own.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "kernels/kernels.h"
#include "model/policy.h"

namespace troupe::rollout {

// A version of an adapter on one base at one scale, packed for few rows; on a GPU its A lie behind the base's weights, where
// there is room for them.
class PackedAdapter {
 public:
  explicit PackedAdapter(const Policy& policy);
  bool holds(const Policy& policy) const;
  bool stale() const;
  const kernels::LoraLinear& linear(int64_t layer, LinearWeights LayerWeights::*which) const;

 private:
  struct Layer {
    kernels::LoraLinear qkv, o, gate_up, down;
  };
  void stack(const Policy& policy);
  std::weak_ptr<ParameterSet> base_, adapter_;
  double scale_;
  int64_t version_;
  std::vector<Layer> layers_;
};

// Rows [begin, end) belong to `policy`.
struct Segment {
  const Policy* policy = nullptr;
  int64_t begin = 0, end = 0;
  const PackedAdapter* adapter = nullptr;  // the engine's, for a policy that has one
};

struct Sequence;

struct Pass {
  std::vector<Segment> segments;  // of policies on one base, covering all rows in order
  kernels::RowPlan rows;
  std::vector<Sequence*> drawing;  // whose token each draw of `rows` is; null: nobody's
};

// How products are computed. Fixed: in blocks of 32 rows, padded, because the sums inside a GEMM depend on
// its number of rows; a row's result then depends on nothing but the row. Measured: those of a step that recurs by the way that
// was measured to be the fastest.
enum class Products { kFast, kMeasured, kFixed };

// A base's weights, repacked for small batches if asked. Belongs to one version of the base.
class PackedBase {
 public:
  PackedBase(const Policy& policy, bool repack, Products products);

  bool holds(const Policy& policy) const;
  // The base is gone or has a newer version.
  bool stale() const;
  bool trainable() const;
  // Bytes of the copies.
  int64_t packed_bytes() const { return packed_bytes_; }
  static int64_t weight_bytes(const Policy& policy);

  const kernels::Kernels& kernels() const { return kernels_; }
  bool fixed() const { return products_ == Products::kFixed; }
  // Makes the work items of the pass's plan, which is then ready to be sent.
  void plan(Pass& pass) const;
  // Sends it to the device (into `buffer`, as of RowPlan::send), with its tokens that the step before draws: `drawn`, the
  // samples of that.
  void send(Pass& pass, const at::Device& device, const at::Tensor& drawn,
            const at::Tensor& buffer = {}) const;
  // Runs the layers over a plan that was sent, storing keys and values on the way. Returns the drawn tokens as
  // Kernels::sample does, int32 [2, D] on the device; undefined where the pass draws nothing.
  at::Tensor compute(const Pass& pass, kernels::KvStore& store) const;

 private:
  struct Linear {
    kernels::PackedLinear own;
    at::Tensor with_adapters, bias_with_adapters;  // as in LinearWeights
  };
  struct Layer {
    Linear qkv, o, gate_up, down;
  };
  // A product of the base, and what segments' adapters have to add to it.
  struct Product {
    at::Tensor y;  // [T, out]
    std::vector<kernels::LoraRows> parts;
    at::Tensor x, projected;
    kernels::Adapters adapters() const { return {x, parts, projected}; }
  };
  Linear make_linear(const LinearWeights& weights, bool repack);
  at::Tensor multiply(const kernels::PackedLinear& weight, const at::Tensor& x,
                      const kernels::AlikeWeights& alike) const;
  Product product(const at::Tensor& x, const Pass& pass, int64_t layer,
                  LinearWeights LayerWeights::*which) const;
  Product attention(const at::Tensor& h, const Pass& pass, kernels::KvStore& store, int64_t layer,
                    const kernels::RotaryTables& tables) const;
  at::Tensor run_layers(const Pass& pass, kernels::KvStore& store) const;
  at::Tensor draw(const at::Tensor& hidden, const Pass& pass) const;

  std::weak_ptr<ParameterSet> base_;
  const kernels::Kernels& kernels_;
  int64_t version_;
  int64_t packed_bytes_ = 0;
  Products products_;
  std::vector<Layer> layers_;
  kernels::PackedLinear head_;
};

}  // namespace troupe::rollout
