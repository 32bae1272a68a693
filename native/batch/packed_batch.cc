// Makes the rows of calls that tree_layout.cc laid out as prefix trees. What attention does with the nodes is for
// native/kernels.
#include "batch/packed_batch.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "batch/tree_layout.h"

namespace troupe {
namespace {

struct Entry {
  int64_t row, target;
  double temperature;
};

class Packer {
 public:
  explicit Packer(std::span<const PackedCall> calls) : calls_(calls), entries_(calls.size()) {}

  // Rows of one group.
  void add_group(std::span<const TreePath> paths);
  PackedBatch finish(std::vector<int64_t> groups);
  int64_t rows() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  // Rows and nodes of the path from where it leaves the one before it, with node ends at `cuts` (ascending) and at its own
  // end.
  void add_rows(const TreePath& path, const std::vector<int64_t>& cuts);
  void add_entries(int64_t call);

  struct PathNode {
    int64_t end;  // depth
    int64_t node;
  };
  std::span<const PackedCall> calls_;
  std::vector<int64_t> tokens_, positions_;
  std::vector<kernels::TreeNode> nodes_;
  std::vector<std::vector<Entry>> entries_;  // by call
  // The last path: the row at each depth, and its nodes.
  std::vector<int64_t> path_rows_;
  std::vector<PathNode> path_nodes_;
};

// Depths inside the rows of path i's own where later ones branch off.
std::vector<int64_t> branch_depths(std::span<const TreePath> paths, size_t i) {
  std::vector<int64_t> depths;
  int64_t common = paths[i].length;
  for (size_t j = i + 1; j < paths.size() && paths[j].shared > paths[i].shared; ++j) {
    if (paths[j].shared < common) depths.push_back(common = paths[j].shared);
  }
  std::ranges::reverse(depths);
  return depths;
}

void Packer::add_group(std::span<const TreePath> paths) {
  for (size_t i = 0; i < paths.size(); ++i) {
    add_rows(paths[i], branch_depths(paths, i));
    for (const int64_t call : paths[i].calls) add_entries(call);
  }
}

void Packer::add_rows(const TreePath& path, const std::vector<int64_t>& cuts) {
  const PackedCall& longest = calls_[path.calls.back()];
  path_rows_.resize(path.shared);
  while (!path_nodes_.empty() && path_nodes_.back().end > path.shared) path_nodes_.pop_back();
  int64_t begin = path.shared;
  const auto add_node = [&](int64_t end) {
    if (end == begin) return;
    const int64_t parent = path_nodes_.empty() ? -1 : path_nodes_.back().node;
    path_nodes_.push_back({end, static_cast<int64_t>(nodes_.size())});
    nodes_.push_back({rows(), end - begin, parent});
    for (; begin < end; ++begin) {
      path_rows_.push_back(rows());
      tokens_.push_back(longest.token(begin));
      positions_.push_back(begin);
    }
  };
  for (const int64_t cut : cuts) add_node(cut);
  add_node(path.length);
}

void Packer::add_entries(int64_t index) {
  const PackedCall& call = calls_[index];
  const auto first = static_cast<int64_t>(call.prompt.size()) - 1;
  std::vector<Entry>& entries = entries_[index];
  for (size_t j = 0; j < call.response.size(); ++j) {
    entries.push_back({path_rows_[first + static_cast<int64_t>(j)], call.response[j], call.temperature});
  }
}

PackedBatch Packer::finish(std::vector<int64_t> groups) {
  PackedBatch batch;
  std::vector<Entry> entries;
  batch.call_starts.push_back(0);
  for (const std::vector<Entry>& of_call : entries_) {
    entries.insert(entries.end(), of_call.begin(), of_call.end());
    batch.call_starts.push_back(static_cast<int64_t>(entries.size()));
  }
  const auto count = static_cast<int64_t>(entries.size());
  std::vector<int64_t> order(count);
  batch.entries.resize(count);
  std::iota(order.begin(), order.end(), 0);
  // Of one row those of one temperature are neighbours, so that they share its logits.
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return std::pair(entries[a].row, entries[a].temperature) <
           std::pair(entries[b].row, entries[b].temperature);
  });
  for (int64_t e = 0; e < count; ++e) {
    const Entry& entry = entries[order[e]];
    batch.rows.push_back(entry.row);
    batch.targets.push_back(entry.target);
    batch.temperatures.push_back(entry.temperature);
    batch.entries[order[e]] = e;
  }
  batch.tokens = std::move(tokens_);
  batch.positions = std::move(positions_);
  batch.nodes = std::move(nodes_);
  batch.groups = std::move(groups);
  for (const PackedCall& call : calls_) {
    batch.tokens_seen += static_cast<int64_t>(call.prompt.size() + call.response.size());
  }
  return batch;
}

// A tree for each call.
std::vector<TreePath> chains(std::span<const TreeCall> calls) {
  std::vector<TreePath> paths;
  for (const TreeCall& call : calls) paths.push_back({{call.call}, call.length, 0});
  return paths;
}

}  // namespace

PackedBatch pack(std::span<const PackedCall> calls, int64_t groups, bool share, int64_t levels) {
  TORCH_CHECK(groups > 0, "a batch needs at least one gradient group, got ", groups);
  Packer packer(calls);
  std::vector<int64_t> offsets{0};
  for (const std::vector<TreeCall>& group : tree_order(calls, groups)) {
    packer.add_group(share ? lay_out(group, levels) : chains(group));
    offsets.push_back(packer.rows());
  }
  return packer.finish(std::move(offsets));
}

int64_t tree_levels(const PackedBatch& batch) {
  std::vector<int64_t> levels;  // of each node; parents come first
  for (const kernels::TreeNode& node : batch.nodes)
    levels.push_back(node.parent < 0 ? 1 : levels[node.parent] + 1);
  return levels.empty() ? 0 : *std::ranges::max_element(levels);
}

}  // namespace troupe
