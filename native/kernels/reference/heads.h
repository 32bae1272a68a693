// Splitting and rotating heads in ATen operators, for training and rollout alike.
#pragma once

#include "kernels/kernels.h"

namespace troupe::kernels {

// Views [T, heads, D] of a fused [T, (Hq + 2 Hkv) D].
inline Heads split_heads(const at::Tensor& qkv, const HeadLayout& layout) {
  const at::Tensor heads = qkv.unflatten(1, {layout.query_heads + 2 * layout.key_heads, layout.dim});
  return {heads.narrow(1, 0, layout.query_heads),
          heads.narrow(1, layout.query_heads, layout.key_heads),
          heads.narrow(1, layout.query_heads + layout.key_heads, layout.key_heads),
          {},
          {}};
}

// x [T, heads, D] rotated to its positions; inverse: the transposed rotation, its backward.
inline at::Tensor rotated(const at::Tensor& x, const at::Tensor& positions, const RotaryTables& tables,
                          bool inverse) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor c = tables.cos.index_select(0, positions).unsqueeze(1);
  at::Tensor s = tables.sin.index_select(0, positions).unsqueeze(1);
  if (inverse) s = s.neg();
  const at::Tensor wide = x.to(wide_type(x));
  const at::Tensor first = wide.slice(-1, 0, half), second = wide.slice(-1, half, 2 * half);
  return at::cat({first.mul(c).sub_(second.mul(s)), second.mul(c).add_(first.mul(s))}, -1)
      .to(x.scalar_type());
}

}  // namespace troupe::kernels
