// The calls of a group are sorted, so that each shares its longest prefix with the one before it: the trie's depth-first
// order falls out of one walk, and no trie is built.
#include "batch/tree_layout.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "batch/tree_levels.h"

namespace troupe {
namespace {

// How many of `count` numbers are equal before the first that are not. Blocks are compared first, many numbers at a time.
int64_t equal_numbers(const int32_t* a, const int32_t* b, int64_t count) {
  constexpr int64_t kBlock = 32;
  int64_t equal = 0;
  while (equal + kBlock <= count && std::equal(a + equal, a + equal + kBlock, b + equal)) equal += kBlock;
  return std::mismatch(a + equal, a + count, b + equal).first - a;
}

// Tokens from `at` to the end of the prompt or the response that they are in.
std::span<const int32_t> piece(const PackedCall& call, int64_t at) {
  const auto prompt = static_cast<int64_t>(call.prompt.size());
  if (at < prompt) return call.prompt.subspan(at);
  return call.response.subspan(at - prompt, call.length() - at);
}

// Tokens that both begin with; each has a response.
int64_t common_prefix(const PackedCall& a, const PackedCall& b) {
  const int64_t most = std::min(a.length(), b.length());
  int64_t common = 0;
  while (common < most) {
    const std::span<const int32_t> of_a = piece(a, common), of_b = piece(b, common);
    const auto count = static_cast<int64_t>(std::min(of_a.size(), of_b.size()));
    const int64_t equal = equal_numbers(of_a.data(), of_b.data(), count);
    common += equal;
    if (equal < count) break;
  }
  return common;
}

// A call comes before those that go on from it.
bool in_order(const PackedCall& a, const PackedCall& b) {
  const int64_t common = common_prefix(a, b);
  if (common == std::min(a.length(), b.length())) return a.length() < b.length();
  return a.token(common) < b.token(common);
}

// Prompts of the last call of a walk in order that later ones may have too.
class Prompts {
 public:
  explicit Prompts(int64_t& numbers) : numbers_(numbers) {}

  // The number of a call's prompt of `length` tokens; it shares its first tokens with the call before it.
  int64_t number(int64_t length, int64_t shared) {
    std::erase_if(open_, [&](const Open& prompt) { return prompt.length > shared; });
    const auto same = std::ranges::find(open_, length, &Open::length);
    if (same != open_.end()) return same->number;
    open_.push_back({length, numbers_++});
    return open_.back().number;
  }

 private:
  struct Open {
    int64_t length, number;
  };
  std::vector<Open> open_;
  int64_t& numbers_;
};

// In the order of prompts, of which only equal ones share: one that goes on where another ends is a tree of its own.
std::vector<TreeCall> by_prompt(std::span<const TreeCall> calls) {
  std::vector<int64_t> order(calls.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](int64_t i) { return calls[i].prompt; });
  std::vector<TreeCall> result;
  for (size_t i = 0; i < order.size(); ++i) {
    TreeCall call = calls[order[i]];
    call.shared = 0;
    if (i > 0 && result.back().prompt == call.prompt) {
      // Two share what all from the first to the second do.
      const auto between = calls.subspan(order[i - 1] + 1, order[i] - order[i - 1]);
      call.shared = std::ranges::min(between, {}, &TreeCall::shared).shared;
    }
    result.push_back(call);
  }
  return result;
}

// Everything is shared. A node ends where calls part, and not where one merely ends.
std::vector<TreePath> paths_of(std::span<const TreeCall> calls) {
  std::vector<TreePath> paths;
  for (const TreeCall& call : calls) {
    if (paths.empty() || call.shared < paths.back().length)
      paths.push_back({{}, 0, paths.empty() ? 0 : call.shared});
    paths.back().calls.push_back(call.call);
    paths.back().length = call.length;
  }
  return paths;
}

std::vector<TreePath> limited(std::vector<TreePath> paths, int64_t levels) {
  std::vector<int64_t> lengths, shared;
  for (const TreePath& path : paths) {
    lengths.push_back(path.length);
    shared.push_back(path.shared);
  }
  shared = limit_levels(lengths, shared, levels);
  for (size_t i = 0; i < paths.size(); ++i) paths[i].shared = shared[i];
  return paths;
}

}  // namespace

std::vector<std::vector<TreeCall>> tree_order(std::span<const PackedCall> calls, int64_t groups) {
  std::vector<std::vector<TreeCall>> result(groups);
  for (size_t c = 0; c < calls.size(); ++c) {
    const PackedCall& call = calls[c];
    TORCH_CHECK(call.group >= 0 && call.group < groups, "call ", c, " is of group ", call.group,
                ", but there are ", groups, " groups");
    if (call.response.empty()) continue;
    TORCH_CHECK(!call.prompt.empty(), "call ", c,
                " has an empty prompt: nothing predicts its first response token");
    result[call.group].push_back({static_cast<int64_t>(c), call.length()});
  }
  int64_t prompt_numbers = 0;
  for (std::vector<TreeCall>& group : result) {
    std::ranges::stable_sort(
        group, [&](const TreeCall& a, const TreeCall& b) { return in_order(calls[a.call], calls[b.call]); });
    Prompts prompts(prompt_numbers);
    for (size_t i = 0; i < group.size(); ++i) {
      const PackedCall& call = calls[group[i].call];
      group[i].shared = i == 0 ? 0 : common_prefix(calls[group[i - 1].call], call);
      group[i].prompt = prompts.number(static_cast<int64_t>(call.prompt.size()), group[i].shared);
    }
  }
  return result;
}

std::vector<TreePath> lay_out(std::span<const TreeCall> calls, int64_t levels) {
  if (levels == 0) return paths_of(calls);
  std::vector<TreePath> all = limited(paths_of(calls), levels);
  std::vector<TreePath> prompts = limited(paths_of(by_prompt(calls)), levels);
  return rows_of(prompts) < rows_of(all) ? prompts : all;
}

int64_t rows_of(std::span<const TreePath> paths) {
  return std::transform_reduce(paths.begin(), paths.end(), int64_t{0}, std::plus<>(),
                               [](const TreePath& path) { return path.length - path.shared; });
}

}  // namespace troupe
