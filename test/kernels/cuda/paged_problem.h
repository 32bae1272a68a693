// Rows that attend over trees of page tables: what tests of paged attention and of its plan have in common.
#pragma once

#include <algorithm>
#include <numeric>

#include "kernels/cuda/paged_plan.h"
#include "support.h"

namespace troupe::kernels::cuda::test {

// Rows of a tree of page tables: a table shares its parent's whole pages before the branch, and copies the
// page that it branches in.
struct Pages {
  std::vector<std::vector<int32_t>> tables;
  int32_t count = 0;
  int32_t root(int32_t length) {
    tables.emplace_back();
    return extend(static_cast<int32_t>(tables.size()) - 1, length);
  }
  int32_t branch(int32_t parent, int32_t at, int32_t length) {
    tables.emplace_back(tables[parent].begin(), tables[parent].begin() + at / kPageTokens);
    return extend(static_cast<int32_t>(tables.size()) - 1, length);
  }
  int32_t extend(int32_t table, int32_t length) {
    while (static_cast<int32_t>(tables[table].size()) * kPageTokens < length)
      tables[table].push_back(count++);
    return table;
  }
};

struct Rows {
  std::vector<int32_t> tables, positions;
};

constexpr int32_t kPart = kPartPages * kPageTokens;
constexpr int32_t kLongest = kPart + kShortPages * kPageTokens;  // tokens of a part, at most

// Prompts of several lengths around the edges of pages and parts, samples at depths up to 4, prefill and
// decode.
inline Rows make_rows(Pages& pages) {
  Rows rows;
  const auto decode = [&](int32_t table, int32_t position) {
    rows.tables.push_back(table);
    rows.positions.push_back(position);
  };
  const int32_t prompt = pages.root(530);
  for (int sample = 0; sample < 5; ++sample)
    decode(pages.branch(prompt, 512 + sample, 540 + 9 * sample), 539 + 9 * sample);
  const int32_t first = pages.branch(prompt, 300, 700), second = pages.branch(first, 640, 830),
                third = pages.branch(second, 769, 1030);
  decode(first, 699);
  decode(second, 829);
  decode(third, 1029);
  decode(third, 1023);
  decode(third, 1024);
  const int32_t prefill = pages.root(37);
  for (int32_t p = 14; p < 37; ++p) decode(prefill, p);
  const int32_t edge = pages.root(256);
  decode(edge, 255);
  decode(pages.branch(edge, 256, 257), 256);
  decode(pages.root(1), 0);
  // Alone on both sides of where parts begin: the last positions of one part, and the first of two.
  for (const int32_t last : {kLongest - 1, kLongest, 511, 512, kPart + kLongest - 1, kPart + kLongest})
    decode(pages.root(last + 1), last);
  // Samples of one prompt on both sides: some read it as a whole part and go on in another, some end in it. Two share
  // more than the prompt, and one is where the other ends.
  const int32_t both = pages.root(256);
  for (const int32_t last : {260, 300, kLongest - 1, kLongest, 420})
    decode(pages.branch(both, 256, last + 1), last);
  const int32_t longer = pages.branch(both, 256, 350);
  decode(longer, 349);
  decode(longer, 289);
  decode(pages.branch(longer, 330, 380), 379);
  return rows;
}

// Trees of depth up to 4 whose tables branch and end at the edges of pages and parts or beside them, decoded, and
// prefilled up to there.
inline Rows random_rows(Pages& pages) {
  struct Node {
    int32_t table, length, depth;
  };
  const auto length = [] { return static_cast<int32_t>(one_of({near_edge(16, 100), near_edge(128, 800)})); };
  std::vector<Node> nodes;
  for (int64_t trees = between(1, 2); trees > 0; --trees) {
    const int32_t whole = length();
    nodes.push_back({pages.root(whole), whole, 1});
  }
  for (int64_t branches = between(0, 7); branches > 0; --branches) {
    const Node parent = nodes[between(0, static_cast<int64_t>(nodes.size()) - 1)];
    if (parent.depth == 4) continue;
    const auto at = static_cast<int32_t>(one_of({near_edge(16, parent.length), int64_t{parent.length}})),
               whole = at + static_cast<int32_t>(near_edge(16, 150));
    nodes.push_back({pages.branch(parent.table, at, whole), whole, parent.depth + 1});
  }
  Rows rows;
  for (const Node& node : nodes) {
    const auto count = static_cast<int32_t>(one_of<int64_t>({1, 1, between(1, 6)}));
    for (int32_t position = std::max(0, node.length - count); position < node.length; ++position) {
      rows.tables.push_back(node.table);
      rows.positions.push_back(position);
    }
  }
  return rows;
}

struct Problem {
  Rows rows;
  std::vector<int32_t> pages;
  int64_t width = 0;
  int32_t page_count = 0;
};
inline Problem make_problem(Rows (*rows)(Pages&) = make_rows) {
  Problem problem;
  Pages pages;
  problem.rows = rows(pages);
  // Pages lie anywhere.
  std::vector<int32_t> numbers(pages.count + 3);
  std::iota(numbers.begin(), numbers.end(), 0);
  std::shuffle(numbers.begin(), numbers.end(), generator());
  problem.page_count = static_cast<int32_t>(numbers.size());
  for (const auto& table : pages.tables)
    problem.width = std::max(problem.width, static_cast<int64_t>(table.size()));
  for (const auto& table : pages.tables) {
    for (int64_t i = 0; i < problem.width; ++i)
      problem.pages.push_back(i < static_cast<int64_t>(table.size()) ? numbers[table[i]] : -1);
  }
  return problem;
}

// Where a step of some of the problem's rows writes: each its own position.
inline std::vector<int32_t> slots_of(const Problem& problem, const Rows& rows) {
  std::vector<int32_t> slots;
  for (size_t row = 0; row < rows.tables.size(); ++row) {
    const int32_t position = rows.positions[row];
    const int32_t page = problem.pages[rows.tables[row] * problem.width + position / kPageTokens];
    slots.push_back(page * kPageTokens + position % kPageTokens);
  }
  return slots;
}

// Keys or values of the store: NaN wherever no row of the problem sees them.
template <typename T>
Buffer<T> stored(const Problem& problem, int kv_heads, int size) {
  const int64_t head = static_cast<int64_t>(kPageTokens) * size, page = kv_heads * head;
  auto written = Buffer<T>::random(problem.page_count * page);
  Buffer<T> result(written.size());
  for (size_t r = 0; r < problem.rows.tables.size(); ++r) {
    for (int position = 0; position <= problem.rows.positions[r]; ++position) {
      const int64_t at =
          problem.pages[problem.rows.tables[r] * problem.width + position / kPageTokens] * page +
          position % kPageTokens * size;
      for (int h = 0; h < kv_heads; ++h)
        std::copy_n(written.data() + at + h * head, size, result.data() + at + h * head);
    }
  }
  return result;
}

}  // namespace troupe::kernels::cuda::test
