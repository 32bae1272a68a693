// Paged attention over page trees against plain loops in float64.
#include <algorithm>
#include <numeric>

#include "kernels/cuda/paged_plan.h"
#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

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

// Parts of a row at this position, and the tokens that it has of one of them: the slow way of paged_plan.h.
int32_t parts_of(int32_t position) {
  int32_t parts = 1;
  for (int32_t left = position + 1; left > kLongest; left -= kPart) ++parts;
  return parts;
}
int32_t tokens_of(int32_t position, int32_t part) {
  return part + 1 < parts_of(position) ? kPart : position + 1 - part * kPart;
}

// Prompts of several lengths around the edges of pages and parts, samples at depths up to 4, prefill and
// decode.
Rows make_rows(Pages& pages) {
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

struct Problem {
  Rows rows;
  std::vector<int32_t> pages;
  int64_t width = 0;
  int32_t page_count = 0;
};
Problem make_problem() {
  Problem problem;
  Pages pages;
  problem.rows = make_rows(pages);
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

template <typename T>
Doubles reference(const Problem& problem, const Buffer<T>& q, const Buffer<T>& k, const Buffer<T>& v,
                  int heads, int kv_heads, int size, double scale) {
  Doubles out;
  for (size_t r = 0; r < problem.rows.tables.size(); ++r) {
    for (int h = 0; h < heads; ++h) {
      const int kv = h / (heads / kv_heads), count = problem.rows.positions[r] + 1;
      Doubles scores(count), sum(size);
      double best = -INFINITY, total = 0;
      const auto at = [&](int position) {
        const int64_t page = problem.pages[problem.rows.tables[r] * problem.width + position / kPageTokens];
        return ((page * kv_heads + kv) * kPageTokens + position % kPageTokens) * size;
      };
      for (int p = 0; p < count; ++p) {
        for (int d = 0; d < size; ++d)
          scores[p] += scale * q.at((static_cast<int64_t>(r) * heads + h) * size + d) * k.at(at(p) + d);
        best = std::max(best, scores[p]);
      }
      for (int p = 0; p < count; ++p) {
        const double weight = std::exp(scores[p] - best);
        total += weight;
        for (int d = 0; d < size; ++d) sum[d] += weight * v.at(at(p) + d);
      }
      for (int d = 0; d < size; ++d) out.push_back(sum[d] / total);
    }
  }
  return out;
}

// All chunks of a plan through the tensor-core kernel.
Buffer<Bf16> tiled(const Problem& problem, const Rows& rows, Buffer<Bf16>& q, Buffer<Bf16>& k,
                   Buffer<Bf16>& v, int heads, int kv_heads, int size, int64_t most_partials) {
  const PagedPlan plan =
      plan_paged(rows.tables, rows.positions, problem.pages, problem.width, heads / kv_heads, most_partials);
  const auto count = static_cast<int64_t>(rows.tables.size());
  auto pages = Buffer<int32_t>::of(problem.pages), starts = Buffer<int32_t>::of(plan.starts);
  auto tiles = Buffer<PagedTile>(static_cast<int64_t>(plan.tiles.size()));
  std::copy(plan.tiles.begin(), plan.tiles.end(), tiles.data());
  auto runs = Buffer<PagedRun>(static_cast<int64_t>(plan.runs.size()));
  std::copy(plan.runs.begin(), plan.runs.end(), runs.data());
  auto members = Buffer<PagedMember>(static_cast<int64_t>(plan.members.size()));
  std::copy(plan.members.begin(), plan.members.end(), members.data());
  Buffer<Bf16> out(count * heads * size);
  for (const PagedPlan::Chunk& chunk : plan.chunks) {
    const int64_t partials = chunk.partial_end - chunk.partial_begin;
    Buffer<float> partial(partials * heads * size), logsumexp(partials * heads);
    const PagedAttention args{Type::kBf16,
                              heads,
                              kv_heads,
                              size,
                              static_cast<int64_t>(heads) * size,
                              q.data(),
                              k.data(),
                              v.data(),
                              pages.data(),
                              tiles.data() + chunk.tile_begin,
                              runs.data(),
                              members.data(),
                              chunk.tile_end - chunk.tile_begin,
                              partial.data(),
                              logsumexp.data(),
                              out.data(),
                              1 / std::sqrt(size)};
    both_ways(
        "paged_attention", [&] { return paged_attention(args, nullptr); }, partial, logsumexp, out);
    check(partial.whole() && logsumexp.whole(), "paged_attention: wrote outside its results");
    for (int64_t i = 0; i < partial.size(); ++i)
      check(std::isfinite(partial.at(i)), "paged_attention: left a partial result out");
    run("merge_paged", [&] {
      return merge_paged(Type::kBf16, partial.data(), logsumexp.data(), starts.data(), chunk.partial_begin,
                         chunk.row_begin, chunk.row_end, heads, size, out.data(), nullptr);
    });
  }
  return out;
}

void test_tiles(int heads, int kv_heads, int size) {
  const std::string what = "paged_attention " + std::to_string(heads) + " " + std::to_string(kv_heads) + " " +
                           std::to_string(size);
  bool fits = false;
  check(paged_attention_fits(Type::kBf16, size, fits) == 0 && fits, what + " must fit");
  const Problem problem = make_problem();
  const auto rows = static_cast<int64_t>(problem.rows.tables.size());
  auto q = Buffer<Bf16>::random(rows * heads * size), k = stored<Bf16>(problem, kv_heads, size),
       v = stored<Bf16>(problem, kv_heads, size);
  const Doubles want = reference(problem, q, k, v, heads, kv_heads, size, 1 / std::sqrt(size));
  const Buffer<Bf16> all = tiled(problem, problem.rows, q, k, v, heads, kv_heads, size, 1 << 20);
  near(all, want, 2e-2, what);
  check(all == tiled(problem, problem.rows, q, k, v, heads, kv_heads, size, 7),
        what + ": depends on the chunks");
  // Each row alone: the same bits.
  for (int64_t r = 0; r < rows; r += 3) {
    Buffer<Bf16> alone(heads * size);
    std::copy_n(q.data() + r * heads * size, heads * size, alone.data());
    const Buffer<Bf16> got = tiled(problem, {{problem.rows.tables[r]}, {problem.rows.positions[r]}}, alone, k,
                                   v, heads, kv_heads, size, 1 << 20);
    check(memcmp(got.data(), all.data() + r * heads * size, heads * size * 2) == 0,
          what + ": row " + std::to_string(r) + " depends on the others");
  }
}

const Register tiles("paged_attention", [] {
  test_tiles(4, 2, 64);
  test_tiles(8, 2, 128);
  test_tiles(5, 1, 64);
  test_tiles(3, 3, 64);
});
const Register wide_tiles("paged_attention of the widest heads", [] { test_tiles(2, 1, 256); });

// Pages that a plan's tiles read, each once for a tile.
int32_t pages_read(const PagedPlan& plan) {
  int32_t count = 0;
  for (const PagedRun& run : plan.runs) count += (run.tokens + kPageTokens - 1) / kPageTokens - run.begin;
  return count;
}

// That every part of every row is met once, over the row's own pages in their order.
void check_plan(const Problem& problem, int32_t group) {
  const Rows& rows = problem.rows;
  const PagedPlan plan =
      plan_paged(rows.tables, rows.positions, problem.pages, problem.width, group, 1 << 20);
  std::vector<std::vector<int>> met;
  for (const int32_t position : rows.positions) met.emplace_back(parts_of(position) * group);
  int32_t runs = 0;
  for (const PagedTile& tile : plan.tiles) {
    check(tile.row_count > 0 && tile.row_count <= kTileRows && tile.run_count > 0, "a tile's sizes");
    check(tile.run_begin == runs, "a run of two tiles, or of none");
    runs += tile.run_count;
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
  return plan_paged(problem.rows.tables, problem.rows.positions, problem.pages, problem.width, group,
                    1 << 20);
}

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

template <typename T>
void test_rows(int heads, int kv_heads, int size) {
  const std::string what = std::string("paged_attention_rows ") + name_of<T>() + " " + std::to_string(heads) +
                           " " + std::to_string(size);
  const Problem problem = make_problem();
  const auto rows = static_cast<int64_t>(problem.rows.tables.size());
  auto q = Buffer<T>::random(rows * heads * size), k = stored<T>(problem, kv_heads, size),
       v = stored<T>(problem, kv_heads, size);
  auto pages = Buffer<int32_t>::of(problem.pages), tables = Buffer<int32_t>::of(problem.rows.tables),
       positions = Buffer<int32_t>::of(problem.rows.positions);
  Buffer<T> out(rows * heads * size);
  const PagedRows args{type_of<T>(),  rows,          heads,
                       kv_heads,      size,          static_cast<int64_t>(heads) * size,
                       q.data(),      k.data(),      v.data(),
                       pages.data(),  tables.data(), positions.data(),
                       problem.width, out.data(),    1 / std::sqrt(size)};
  both_ways(
      what, [&] { return paged_attention_rows(args, nullptr); }, out);
  near(out, reference(problem, q, k, v, heads, kv_heads, size, 1 / std::sqrt(size)), tolerance<T>(), what);
}
const Register rows_test("paged_attention_rows", [] {
  for_types([](auto element) { test_rows<decltype(element)>(3, 1, 20); });
  test_rows<float>(2, 2, 64);
  test_rows<Bf16>(4, 2, 96);
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
