// Tree attention, see table.h. Both passes cut every node into blocks of at most 64 rows; a query block
// attends to the blocks of its node before it, to itself causally and to all blocks of its node's ancestors.
#pragma once

#include <vector>

#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

constexpr int64_t kBlock = 64;

struct Block {
  int64_t start = 0, count = 0, node = 0;
};

struct Blocks {
  std::vector<Block> blocks;
  std::vector<int64_t> first;  // node n has blocks [first[n], first[n + 1])
};

inline Blocks cut(std::span<const Node> nodes) {
  Blocks result;
  for (size_t n = 0; n < nodes.size(); ++n) {
    result.first.push_back(static_cast<int64_t>(result.blocks.size()));
    for (int64_t offset = 0; offset < nodes[n].length; offset += kBlock) {
      const int64_t left = nodes[n].length - offset;
      result.blocks.push_back(
          {nodes[n].start + offset, left < kBlock ? left : kBlock, static_cast<int64_t>(n)});
    }
  }
  result.first.push_back(static_cast<int64_t>(result.blocks.size()));
  return result;
}

// Key blocks that query block `query` attends to, itself last.
inline void attended(const Blocks& blocks, std::span<const Node> nodes, int64_t query,
                     std::vector<int64_t>& keys) {
  keys.clear();
  const int64_t node = blocks.blocks[query].node;
  for (int64_t n = nodes[node].parent; n >= 0; n = nodes[n].parent) {
    for (int64_t b = blocks.first[n]; b < blocks.first[n + 1]; ++b) keys.push_back(b);
  }
  for (int64_t b = blocks.first[node]; b <= query; ++b) keys.push_back(b);
}

void attention(const AttentionShape& shape, View q, View k, View v, void* out, void* logsumexp);
void attention_backward(const AttentionShape& shape, View q, View k, View v, View grad, View out,
                        const void* logsumexp, View grad_q, View grad_k, View grad_v);

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
