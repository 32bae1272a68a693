// The output projection with fp32 results: logits rounded to bf16 would be off by up to 0.03.
#pragma once

#include <ATen/ATen.h>

namespace troupe::rollout {

class Head {
 public:
  Head() = default;
  // weight [V, H]. repack: keep a copy in the layout of the processor's bf16 dot products, where it has them.
  Head(at::Tensor weight, bool repack, bool fixed_rows);

  // [O, H] → [O, V] in fp32 (fp64 for fp64 weights).
  at::Tensor operator()(const at::Tensor& hidden) const;
  int64_t packed_bytes() const { return packed_.defined() ? static_cast<int64_t>(packed_.nbytes()) : 0; }

 private:
  at::Tensor block(const at::Tensor& hidden) const;

  at::Tensor weight_, packed_;
  bool fixed_rows_ = false;
};

}  // namespace troupe::rollout
