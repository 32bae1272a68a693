// Lays calls out as prefix trees. The calls of a group are sorted, so that each shares its longest prefix
// with the one before it: the trie's depth-first order falls out of one walk, and no trie is built. What
// attention does with the nodes is for native/kernels.
#include "batch/packed_batch.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "batch/tree_levels.h"

namespace troupe {
namespace {

struct CallPlace {
  int64_t call = 0;
  int64_t prompt = 0;  // tokens
};

// A call's rows: prompt and response without the last token, which predicts nothing. Calls that others go on from, as a
// conversation's turns do, have no rows of their own: they are among the calls of the longest.
struct Sequence {
  std::vector<CallPlace> calls;  // the longest last
  std::vector<int32_t> tokens;
};

struct Entry {
  int64_t row, target;
  double temperature;
};

class Packer {
 public:
  explicit Packer(std::span<const PackedCall> calls) : calls_(calls), entries_(calls.size()) {}

  // Rows of one group: sequence i shares shared[i] tokens with the one before it.
  void add_group(const std::vector<Sequence>& sequences, const std::vector<int64_t>& shared);
  PackedBatch finish(std::vector<int64_t> groups);
  int64_t rows() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  // Rows and nodes of `sequence` from depth `shared` on, with node ends at `cuts` (ascending) and at its own
  // end.
  void add_rows(const Sequence& sequence, int64_t shared, const std::vector<int64_t>& cuts);
  void add_entries(const CallPlace& place);

  struct PathNode {
    int64_t end;  // depth
    int64_t node;
  };
  std::span<const PackedCall> calls_;
  std::vector<int64_t> tokens_, positions_;
  std::vector<kernels::TreeNode> nodes_;
  std::vector<std::vector<Entry>> entries_;  // by call
  // The path of the last sequence: the row at each depth, and its nodes.
  std::vector<int64_t> path_rows_;
  std::vector<PathNode> path_nodes_;
};

int64_t common_prefix(const Sequence& a, const Sequence& b) {
  const auto [end, unused] =
      std::mismatch(a.tokens.begin(), a.tokens.end(), b.tokens.begin(), b.tokens.end());
  return end - a.tokens.begin();
}

// Depths inside sequence i's own rows where later sequences branch off. shared[j] is the length of the prefix
// that sequence j has in common with j − 1.
std::vector<int64_t> branch_depths(const std::vector<int64_t>& shared, size_t i, int64_t length) {
  std::vector<int64_t> depths;
  int64_t common = length;
  for (size_t j = i + 1; j < shared.size() && shared[j] > shared[i]; ++j) {
    if (shared[j] < common) depths.push_back(common = shared[j]);
  }
  std::reverse(depths.begin(), depths.end());
  return depths;
}

void Packer::add_group(const std::vector<Sequence>& sequences, const std::vector<int64_t>& shared) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto length = static_cast<int64_t>(sequences[i].tokens.size());
    add_rows(sequences[i], shared[i], branch_depths(shared, i, length));
    for (const CallPlace& place : sequences[i].calls) add_entries(place);
  }
}

void Packer::add_rows(const Sequence& sequence, int64_t shared, const std::vector<int64_t>& cuts) {
  const auto length = static_cast<int64_t>(sequence.tokens.size());
  path_rows_.resize(shared);
  while (!path_nodes_.empty() && path_nodes_.back().end > shared) path_nodes_.pop_back();
  int64_t begin = shared;
  const auto add_node = [&](int64_t end) {
    if (end == begin) return;
    const int64_t parent = path_nodes_.empty() ? -1 : path_nodes_.back().node;
    path_nodes_.push_back({end, static_cast<int64_t>(nodes_.size())});
    nodes_.push_back({rows(), end - begin, parent});
    for (; begin < end; ++begin) {
      path_rows_.push_back(rows());
      tokens_.push_back(sequence.tokens[begin]);
      positions_.push_back(begin);
    }
  };
  for (const int64_t cut : cuts) add_node(cut);
  add_node(length);
}

void Packer::add_entries(const CallPlace& place) {
  const PackedCall& call = calls_[place.call];
  std::vector<Entry>& entries = entries_[place.call];
  for (size_t j = 0; j < call.response.size(); ++j) {
    entries.push_back(
        {path_rows_[place.prompt - 1 + static_cast<int64_t>(j)], call.response[j], call.temperature});
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

// The sequences of each group; calls without a response have no loss and so no rows.
std::vector<std::vector<Sequence>> by_group(std::span<const PackedCall> calls, int64_t groups) {
  std::vector<std::vector<Sequence>> result(groups);
  for (size_t c = 0; c < calls.size(); ++c) {
    const PackedCall& call = calls[c];
    TORCH_CHECK(call.group >= 0 && call.group < groups, "call ", c, " is of group ", call.group,
                ", but there are ", groups, " groups");
    if (call.response.empty()) continue;
    TORCH_CHECK(!call.prompt.empty(), "call ", c,
                " has an empty prompt: nothing predicts its first response token");
    Sequence sequence{{{static_cast<int64_t>(c), static_cast<int64_t>(call.prompt.size())}}, {}};
    sequence.tokens.assign(call.prompt.begin(), call.prompt.end());
    sequence.tokens.insert(sequence.tokens.end(), call.response.begin(), call.response.end() - 1);
    result[call.group].push_back(std::move(sequence));
  }
  return result;
}

// Sequences in an order, and how many tokens each shares with the one before it.
struct Layout {
  std::vector<Sequence> sequences;
  std::vector<int64_t> shared;

  int64_t rows() const {
    int64_t rows = 0;
    for (size_t i = 0; i < sequences.size(); ++i)
      rows += static_cast<int64_t>(sequences[i].tokens.size()) - shared[i];
    return rows;
  }
};

Layout limited(Layout layout, int64_t levels) {
  std::vector<int64_t> lengths;
  for (const Sequence& sequence : layout.sequences)
    lengths.push_back(static_cast<int64_t>(sequence.tokens.size()));
  layout.shared = limit_levels(lengths, layout.shared, levels);
  return layout;
}

// Of sorted sequences those that no other goes on from (where `may` allows it), with the calls of those that they go on
// from: a node ends where sequences part, and not where one merely ends.
template <typename May>
std::vector<Sequence> longest(std::vector<Sequence> sequences, const May& may) {
  std::vector<Sequence> result;
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence& sequence = sequences[i];
    Sequence* next = i + 1 < sequences.size() ? &sequences[i + 1] : nullptr;
    if (next && common_prefix(sequence, *next) == static_cast<int64_t>(sequence.tokens.size()) &&
        may(sequence, *next)) {
      next->calls.insert(next->calls.begin(), sequence.calls.begin(), sequence.calls.end());
    } else {
      result.push_back(std::move(sequence));
    }
  }
  return result;
}

// Everything that they begin alike with is shared.
Layout sharing_all(std::vector<Sequence> sequences) {
  std::ranges::stable_sort(sequences, {}, &Sequence::tokens);
  sequences = longest(std::move(sequences), [](const Sequence&, const Sequence&) { return true; });
  std::vector<int64_t> shared;
  for (size_t i = 0; i < sequences.size(); ++i)
    shared.push_back(i == 0 ? 0 : common_prefix(sequences[i - 1], sequences[i]));
  return {std::move(sequences), std::move(shared)};
}

// Only sequences of one prompt share: a prompt that goes on where another ends is a tree of its own.
Layout sharing_prompts(std::vector<Sequence> sequences) {
  const auto prompt = [](const Sequence& sequence) {
    return std::span(sequence.tokens).first(sequence.calls.back().prompt);
  };
  const auto same = [&](const Sequence& a, const Sequence& b) {
    return std::ranges::equal(prompt(a), prompt(b));
  };
  std::ranges::stable_sort(sequences, {}, &Sequence::tokens);
  std::ranges::stable_sort(sequences, [&](const Sequence& a, const Sequence& b) {
    return std::ranges::lexicographical_compare(prompt(a), prompt(b));
  });
  sequences = longest(std::move(sequences), same);
  std::vector<int64_t> shared;
  for (size_t i = 0; i < sequences.size(); ++i) {
    shared.push_back(
        i > 0 && same(sequences[i - 1], sequences[i]) ? common_prefix(sequences[i - 1], sequences[i]) : 0);
  }
  return {std::move(sequences), std::move(shared)};
}

// With at most `levels` levels that of both which takes fewer rows; 0: any number of levels.
Layout lay_out(std::vector<Sequence> sequences, int64_t levels) {
  if (levels == 0) return sharing_all(std::move(sequences));
  Layout all = limited(sharing_all(sequences), levels);
  Layout prompts = limited(sharing_prompts(std::move(sequences)), levels);
  return prompts.rows() < all.rows() ? std::move(prompts) : std::move(all);
}

}  // namespace

PackedBatch pack(std::span<const PackedCall> calls, int64_t groups, bool share, int64_t levels) {
  TORCH_CHECK(groups > 0, "a batch needs at least one gradient group, got ", groups);
  Packer packer(calls);
  std::vector<int64_t> offsets{0};
  for (std::vector<Sequence>& sequences : by_group(calls, groups)) {
    std::vector<int64_t> none(sequences.size(), 0);
    const Layout layout =
        share ? lay_out(std::move(sequences), levels) : Layout{std::move(sequences), std::move(none)};
    packer.add_group(layout.sequences, layout.shared);
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
