// Attention of rows over the pages of the KV cache. Prefill and decode are the same thing here: a row attends
// along its path through the tree up to its own position. Neighbouring rows that share a page read it once.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <span>
#include <vector>

#include "rollout/kv_pages.h"

namespace troupe::rollout {

using PageTable = std::vector<KvPage*>;  // by absolute page index

struct AttentionRow {
  std::shared_ptr<const PageTable> table;  // of the node that the row belongs to
  int64_t position = 0;
  bool write = true;  // false: keys and values of this position are in the cache already
};

// Stores k and v [T, Hkv, D] of one layer at each row's position.
void write_keys_values(const at::Tensor& k, const at::Tensor& v, std::span<const AttentionRow> rows,
                       const KvShape& shape, int64_t layer);

// q [T, Hq, D] (last dimension contiguous) → [T, Hq · D]: softmax(q kᵀ scale) v over positions 0 … own, in
// fp32 (fp64). Online softmax, page after page (arXiv 2205.14135), so a row's result does not depend on the
// other rows.
at::Tensor paged_attention(const at::Tensor& q, std::span<const AttentionRow> rows, const KvShape& shape,
                           int64_t layer, double scale);

// The same from ATen operators: for devices other than the CPU, and the tests' twin.
at::Tensor paged_attention_plain(const at::Tensor& q, std::span<const AttentionRow> rows,
                                 const KvShape& shape, int64_t layer, double scale);

}  // namespace troupe::rollout
