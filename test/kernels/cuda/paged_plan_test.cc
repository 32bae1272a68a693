// How paged attention cuts rows into parts and tiles: every part once, and what rows have in common read once.
#include <set>

#include "paged_problem.h"

namespace troupe::kernels::cuda::test {
namespace {

// Parts of a row at this position, and the tokens that it has of one of them: the slow way of paged_plan.h.
int32_t parts_of(int32_t position) {
  int32_t parts = 1;
  for (int32_t left = position + 1; left > kLongest; left -= kPart) ++parts;
  return parts;
}
int32_t tokens_of(int32_t position, int32_t part) {
  return part + 1 < parts_of(position) ? kPart : position + 1 - part * kPart;
}

// Pages that a plan's tiles read, each once for a tile.
int32_t pages_read(const PagedPlan& plan) {
  int32_t count = 0;
  for (const PagedRun& run : plan.runs) count += (run.tokens + kPageTokens - 1) / kPageTokens - run.begin;
  return count;
}

// That every part of every row is met once, over the row's own pages in their order.
void check_plan(const Problem& problem, int32_t group) {
  const Rows& rows = problem.rows;
  // Every fifth is of a cached prompt, or padding: it writes nothing.
  std::vector<int32_t> slots = slots_of(problem, rows);
  for (size_t row = 4; row < slots.size(); row += 5) slots[row] = -1;
  const PagedPlan plan =
      plan_paged(rows.tables, rows.positions, slots, problem.pages, problem.width, group, 1 << 20);
  std::set<int32_t> written;
  for (const int32_t slot : slots) {
    if (slot >= 0) written.insert(slot / kPageTokens);
  }
  std::vector<std::vector<int>> met;
  for (const int32_t position : rows.positions) met.emplace_back(parts_of(position) * group);
  int32_t runs = 0;
  for (const PagedTile& tile : plan.tiles) {
    check(tile.row_count > 0 && tile.row_count <= kTileRows && tile.run_count > 0, "a tile's sizes");
    check(tile.run_begin == runs, "a run of two tiles, or of none");
    runs += tile.run_count;
    const PagedRun& first = plan.runs[tile.run_begin];
    int32_t settled = 0;
    for (; settled < kMostSettled && settled * kPageTokens < first.tokens; ++settled) {
      if (written.contains(problem.pages[first.pages + settled])) break;
    }
    check(tile.settled == settled, "pages that the step does not write");
    int32_t pages = 0;
    for (int32_t i = 0; i < tile.run_count; ++i) {
      const PagedRun& run = plan.runs[tile.run_begin + i];
      check(run.begin * kPageTokens < run.tokens && run.member_begin < run.member_end, "a run's sizes");
      pages += (run.tokens + kPageTokens - 1) / kPageTokens - run.begin;
    }
    for (int32_t pair = tile.row_begin; pair < tile.row_begin + tile.row_count; ++pair) {
      const int32_t place = pair / group;
      const PagedMember& member = plan.members[tile.member_begin + place];
      const int32_t position = rows.positions[member.row], parts = parts_of(position);
      check((member.partial < 0) == (parts == 1), "only a row of one part is written at once");
      const int32_t part = member.partial < 0 ? 0 : member.partial - plan.starts[member.row];
      check(part < parts && member.seen == tokens_of(position, part), "the tokens of a member");
      ++met[member.row][part * group + pair % group];
      int32_t next = 0;
      for (int32_t i = 0; i < tile.run_count; ++i) {
        const PagedRun& run = plan.runs[tile.run_begin + i];
        if (place < run.member_begin || place >= run.member_end) continue;
        for (int32_t p = run.begin; p * kPageTokens < std::min(run.tokens, member.seen); ++p) {
          check(p == next++, "a row's pages in their order, each once");
          check(problem.pages[run.pages + p] ==
                    problem.pages[rows.tables[member.row] * problem.width + part * kPartPages + p],
                "a tile with pages of another row");
        }
      }
      check(next * kPageTokens >= member.seen, "a tile without pages that its row needs");
    }
    check(pages <= kTilePages, "a tile that is too long");
  }
  check(runs == static_cast<int32_t>(plan.runs.size()), "a run of no tile");
  for (const std::vector<int>& times : met)
    check(std::all_of(times.begin(), times.end(), [](int once) { return once == 1; }),
          "a part of a row was left out or met twice");
}

// Rows after a prompt that they share, of so many tokens, each with its own after it.
PagedPlan plan_of_samples(int32_t prompt, const std::vector<int32_t>& own, int32_t group) {
  Problem problem;
  Pages pages;
  const int32_t root = pages.root(prompt);
  for (const int32_t tokens : own) {
    problem.rows.tables.push_back(pages.branch(root, prompt, prompt + tokens) - 1);
    problem.rows.positions.push_back(prompt + tokens - 1);
    problem.width = std::max<int64_t>(problem.width, (prompt + tokens + kPageTokens - 1) / kPageTokens);
  }
  for (size_t table = 1; table < pages.tables.size(); ++table) {
    pages.tables[table].resize(problem.width, -1);
    problem.pages.insert(problem.pages.end(), pages.tables[table].begin(), pages.tables[table].end());
  }
  check_plan(problem, group);
  return plan_paged(problem.rows.tables, problem.rows.positions, slots_of(problem, problem.rows),
                    problem.pages, problem.width, group, 1 << 20);
}

const Register random_plans("paged_attention's plan of random trees", [] {
  for_rounds([] {
    const Problem problem = make_problem(random_rows);
    for (const int32_t group : {1, 2, 3, 5, 8, 16, 20}) check_plan(problem, group);
  });
});

const Register plans("paged_attention's plan", [] {
  const Problem problem = make_problem();
  for (const int32_t group : {1, 3, 4, 16, 20}) check_plan(problem, group);

  const auto alone = [](int32_t tokens) { return plan_of_samples(0, {tokens}, 4); };
  for (const int32_t tokens : {1, 255, 256, 257, kLongest}) {
    const PagedPlan plan = alone(tokens);
    check(plan.tiles.size() == 1 && plan.starts.back() == 0,
          "a short row is one part, and nothing is merged");
  }
  check(alone(kLongest + 1).tiles.size() == 2 && alone(kLongest + 1).starts.back() == 2,
        "a row of two parts");
  check(alone(kPart + kLongest).starts.back() == 2 && alone(kPart + kLongest + 1).starts.back() == 3,
        "a row of three parts");
  // Eight samples, four of them a tile: the prompt's sixteen pages twice, three of its own for each.
  const PagedPlan samples = plan_of_samples(256, std::vector<int32_t>(8, 34), 4);
  check(samples.tiles.size() == 2 && pages_read(samples) == 2 * 16 + 8 * 3,
        "samples read their prompt together");
  // Seven pages of their own: two fill a tile.
  const PagedPlan longer = plan_of_samples(256, std::vector<int32_t>(8, 100), 4);
  check(longer.tiles.size() == 4 && pages_read(longer) == 4 * 16 + 8 * 7,
        "a tile is no longer than kTilePages");
  // One page in common, and sixteen that are not: each by itself.
  check(plan_of_samples(16, std::vector<int32_t>(4, 250), 4).tiles.size() == 4,
        "a page in common is too little");
  // Both sides of an edge: the whole part is read once for all four, and the others' ends with it.
  const PagedPlan both = plan_of_samples(256, {10, 20, 200, 210}, 4);
  check(both.tiles.size() == 3 && pages_read(both) == 16 + 1 + 2 + 13 + 14, "rows on both sides of an edge");
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
