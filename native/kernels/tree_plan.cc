// Breadth-first order of a batch's trees and the calls of its attention.
#include <algorithm>
#include <map>

#include "kernels/plans.h"

namespace troupe::kernels {
namespace {

void check(std::span<const TreeNode> nodes, int64_t rows) {
  std::vector<bool> covered(rows, false);
  for (size_t i = 0; i < nodes.size(); ++i) {
    TORCH_CHECK(nodes[i].start >= 0 && nodes[i].start <= rows && nodes[i].length >= 0 &&
                    nodes[i].length <= rows - nodes[i].start,
                "node ", i, " covers rows ", nodes[i].start, " to ", nodes[i].start + nodes[i].length, " of ",
                rows);
    TORCH_CHECK(nodes[i].parent < static_cast<int64_t>(i), "node ", i, " must come after its parent ",
                nodes[i].parent);
    for (int64_t row = nodes[i].start; row < nodes[i].start + nodes[i].length; ++row) {
      TORCH_CHECK(!covered[row], "row ", row, " lies in two nodes");
      covered[row] = true;
    }
  }
  const int64_t count = std::ranges::count(covered, true);
  TORCH_CHECK(count == rows, "the nodes cover ", count, " of ", rows, " rows");
}

// Without the nodes that have no rows: their children continue their parents.
std::vector<TreeNode> without_empty(std::span<const TreeNode> nodes) {
  std::vector<TreeNode> result;
  std::vector<int64_t> kept;  // index in the result; of an empty node, of its nearest ancestor with rows
  for (const TreeNode& node : nodes) {
    const int64_t parent = node.parent < 0 ? -1 : kept[node.parent];
    kept.push_back(node.length > 0 ? static_cast<int64_t>(result.size()) : parent);
    if (node.length > 0) result.push_back({node.start, node.length, parent});
  }
  return result;
}

// The nodes of each level: children in the order of their parents, so that the descendants of neighbouring
// nodes are neighbours on every level.
std::vector<std::vector<int64_t>> levels_of(std::span<const TreeNode> nodes) {
  std::vector<std::vector<int64_t>> children(nodes.size());
  std::vector<std::vector<int64_t>> levels(1);
  for (size_t i = 0; i < nodes.size(); ++i) {
    const int64_t parent = nodes[i].parent;
    (parent < 0 ? levels[0] : children[parent]).push_back(static_cast<int64_t>(i));
  }
  for (;;) {
    std::vector<int64_t> next;
    for (const int64_t node : levels.back())
      next.insert(next.end(), children[node].begin(), children[node].end());
    if (next.empty()) return levels;
    levels.push_back(std::move(next));
  }
}

struct Segments {
  TreeCall call;
  Segments() { call.queries = call.keys = {0}; }
  void add(int64_t query_rows, int64_t key_rows) {
    call.queries.push_back(call.queries.back() + static_cast<int32_t>(query_rows));
    call.keys.push_back(call.keys.back() + static_cast<int32_t>(key_rows));
    call.longest_query = std::max(call.longest_query, query_rows);
    call.longest_key = std::max(call.longest_key, key_rows);
  }
};

// Every node's own rows.
TreeCall own_rows(std::span<const TreeNode> nodes, const std::vector<std::vector<int64_t>>& levels,
                  int64_t rows) {
  Segments segments;
  segments.call.causal = true;
  segments.call.query_rows = segments.call.key_rows = rows;
  for (const std::vector<int64_t>& level : levels) {
    for (const int64_t node : level) segments.add(nodes[node].length, nodes[node].length);
  }
  return std::move(segments.call);
}

// Rows of level `lower` against their ancestors on level `upper`.
TreeCall ancestors(std::span<const TreeNode> nodes, const std::vector<std::vector<int64_t>>& levels,
                   std::span<const int64_t> level_begin, size_t upper, size_t lower) {
  std::map<int64_t, int64_t> rows_below;  // of level `lower`, by node of level `upper`
  for (const int64_t node : levels[lower]) {
    int64_t ancestor = node;
    for (size_t level = lower; level > upper; --level) ancestor = nodes[ancestor].parent;
    rows_below[ancestor] += nodes[node].length;
  }
  Segments segments;
  segments.call.query_begin = level_begin[lower];
  segments.call.query_rows = level_begin[lower + 1] - level_begin[lower];
  segments.call.key_begin = level_begin[upper];
  segments.call.key_rows = level_begin[upper + 1] - level_begin[upper];
  for (const int64_t node : levels[upper]) {
    const auto found = rows_below.find(node);
    segments.add(found == rows_below.end() ? 0 : found->second, nodes[node].length);
  }
  return std::move(segments.call);
}

}  // namespace

TreePlan::TreePlan(std::span<const TreeNode> tree, std::span<const int64_t> row_tokens,
                   std::span<const int64_t> row_positions)
    : rows(static_cast<int64_t>(row_tokens.size())), host_tokens(row_tokens.begin(), row_tokens.end()) {
  check(tree, rows);
  nodes = without_empty(tree);
  TORCH_CHECK(static_cast<int64_t>(row_positions.size()) == rows, "a plan of ", rows, " rows has ",
              row_positions.size(), " positions");
  for (const int64_t position : row_positions) {
    TORCH_CHECK(position >= 0 && position < INT32_MAX, "a row's position is ", position);
    host_positions.push_back(static_cast<int32_t>(position));
    positions_end = std::max(positions_end, position + 1);
  }
  const std::vector<std::vector<int64_t>> levels = levels_of(nodes);
  std::vector<int64_t> level_begin;
  for (const std::vector<int64_t>& level : levels) {
    level_begin.push_back(static_cast<int64_t>(host_order.size()));
    for (const int64_t node : level) {
      for (int64_t i = 0; i < nodes[node].length; ++i) host_order.push_back(nodes[node].start + i);
    }
  }
  level_begin.push_back(rows);
  host_place.resize(rows);
  for (int64_t i = 0; i < rows; ++i) {
    host_place[host_order[i]] = i;
    in_order = in_order && host_order[i] == i;
  }

  calls.push_back(own_rows(nodes, levels, rows));
  for (size_t lower = 1; lower < levels.size(); ++lower) {
    for (size_t upper = 0; upper < lower; ++upper) {
      calls.push_back(ancestors(nodes, levels, level_begin, upper, lower));
    }
  }
}

void TreePlan::add_to(Upload& upload) {
  upload.add(host_tokens, tokens);
  upload.add(host_positions, positions);
  upload.add(host_order, order);
  upload.add(host_place, place);
  for (TreeCall& call : calls) {
    upload.add(call.queries, call.device_queries);
    upload.add(call.keys, call.device_keys);
  }
}

}  // namespace troupe::kernels
