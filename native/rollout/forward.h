// The transformer's forward pass for inference: one pass runs all rows of the policies that share a base, new
// prompts and decoding sequences mixed. The base's products take all rows at once, an adapter's only its own.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/kernels.h"
#include "model/policy.h"
#include "rollout/attention.h"
#include "rollout/head.h"
#include "rollout/lora.h"

namespace troupe::rollout {

// Rows [begin, end) belong to `policy`.
struct Segment {
  const Policy* policy = nullptr;
  int64_t begin = 0, end = 0;
  const PackedAdapter* adapter = nullptr;  // the engine's, for a policy that has one
};

struct Pass {
  std::vector<Segment> segments;   // of policies on one base, covering all rows in order
  std::vector<int64_t> tokens;     // [T]
  std::vector<AttentionRow> rows;  // [T]
  std::vector<int64_t> outputs;    // rows whose next token is wanted
};

// How products are computed. Fixed: in blocks of 32 rows, padded, because the sums inside a GEMM depend on
// its number of rows; a row's result then depends on nothing but the row.
enum class Products { kFast, kFixed };

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

  // Runs the layers, storing keys and values on the way; returns the outputs' rows after the final norm, [O,
  // H]. Undefined where the pass wants no output.
  at::Tensor run(const Pass& pass, const KvShape& shape) const;
  // [O, H] → logits [O, V] in fp32 (fp64).
  at::Tensor logits(const at::Tensor& hidden) const { return head_(hidden); }

 private:
  struct Linear {
    at::Tensor weight, bias;
    std::optional<kernels::PackedLinear> packed;
    at::Tensor operator()(const at::Tensor& x) const;
  };
  struct Layer {
    Linear qkv, o, gate_up, down;
  };
  Linear make_linear(const LinearWeights& weights, bool repack);
  at::Tensor linear(const Linear& base, const at::Tensor& x, const Pass& pass, int64_t layer,
                    LinearWeights LayerWeights::*which) const;
  at::Tensor attention(const at::Tensor& h, const Pass& pass, const KvShape& shape, int64_t layer,
                       const at::Tensor& positions, const at::Tensor& cos, const at::Tensor& sin) const;

  std::weak_ptr<ParameterSet> base_;
  int64_t version_;
  int64_t packed_bytes_ = 0;
  Products products_;
  std::vector<Layer> layers_;
  Head head_;
};

}  // namespace troupe::rollout
