// Products whose rows do not depend on each other: the number of rows decides how a GEMM sums, so
// `deterministic` runs cut and pad every product to blocks of the same number of rows.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

namespace troupe::rollout {

constexpr int64_t kFixedRows = 32;

// f: [32, in] → [32, out], row by row; x [T, in] → [T, out].
template <typename Function>
at::Tensor in_fixed_rows(const at::Tensor& x, const Function& f) {
  std::vector<at::Tensor> blocks;
  const int64_t rows = x.size(0);
  for (int64_t begin = 0; begin < rows; begin += kFixedRows) {
    const int64_t count = std::min(kFixedRows, rows - begin);
    auto block = x.narrow(0, begin, count);
    if (count < kFixedRows) block = at::constant_pad_nd(block, {0, 0, 0, kFixedRows - count});
    blocks.push_back(f(block.contiguous()).narrow(0, 0, count));
  }
  return blocks.size() == 1 ? blocks[0].contiguous() : at::cat(blocks);
}

}  // namespace troupe::rollout
