// Paged attention over page trees against plain loops in float64.
#include "paged_problem.h"

namespace troupe::kernels::cuda::test {
namespace {

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
  const std::vector<int32_t> slots = slots_of(problem, rows);
  const PagedPlan plan = plan_paged(rows.tables, rows.positions, slots, problem.pages, problem.width,
                                    heads / kv_heads, most_partials);
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
    both_ways_early(
        "paged_attention", [&] { return paged_attention(args, nullptr); },
        [&] {
          spoil_all(std::tie(q));
          for (const int64_t slot : slots) {
            const int64_t page = slot / kPageTokens;
            for (int head = 0; head < kv_heads; ++head) {
              const int64_t at = ((page * kv_heads + head) * kPageTokens + slot % kPageTokens) * size;
              spoil(k, at, size);
              spoil(v, at, size);
            }
          }
        },
        std::tie(q, k, v), partial, logsumexp, out);
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

void test_tiles(const Problem& problem, int heads, int kv_heads, int size) {
  const std::string what = "paged_attention " + std::to_string(heads) + " " + std::to_string(kv_heads) + " " +
                           std::to_string(size);
  bool fits = false;
  check(paged_attention_fits(Type::kBf16, size, fits) == 0 && fits, what + " must fit");
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
  test_tiles(make_problem(), 4, 2, 64);
  test_tiles(make_problem(), 8, 2, 128);
  test_tiles(make_problem(), 5, 1, 64);
  test_tiles(make_problem(), 3, 3, 64);
});
// One row: the page that it writes is each of the first in turn, for which one of the warps must wait.
const Register own_page("paged_attention of a row's own page", [] {
  const Problem problem = make_problem();
  const auto longest = std::ranges::max_element(problem.rows.positions) - problem.rows.positions.begin();
  const int32_t table = problem.rows.tables[longest];
  check(problem.rows.positions[longest] >= 9 * kPageTokens, "a row of nine pages");
  auto k = stored<Bf16>(problem, 1, 64), v = stored<Bf16>(problem, 1, 64);
  for (int32_t page = 0; page < 9; ++page) {
    auto q = Buffer<Bf16>::random(64);
    tiled(problem, {{table}, {page * kPageTokens + 3}}, q, k, v, 1, 1, 64, 1 << 20);
  }
});
const Register wide_tiles("paged_attention of the widest heads",
                          [] { test_tiles(make_problem(), 2, 1, 256); });
const Register random_tiles("paged_attention of random shapes", [] {
  for_rounds(
      [] {
        const auto size = static_cast<int>(one_of<int64_t>({64, 64, 128, 256})),
                   group = static_cast<int>(between(1, 8)),
                   kv_heads = static_cast<int>(between(1, std::max(1, 512 / (size * group))));
        test_tiles(make_problem(random_rows), kv_heads * group, kv_heads, size);
      },
      /*share=*/10);
});

template <typename T>
void test_rows(const Problem& problem, int heads, int kv_heads, int size) {
  const std::string what = std::string("paged_attention_rows ") + name_of<T>() + " " + std::to_string(heads) +
                           " " + std::to_string(size);
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
const Register drawn_tokens("take_drawn", [] {
  auto ids = Buffer<int32_t>::of({7, -1, 9});
  for (const int32_t count : {1, 6, 255, 256, 300}) {
    Buffer<int32_t> tokens(count);
    for (int32_t i = 0; i < count; ++i) tokens[i] = i % 7 - 3;
    both_ways(
        "take_drawn", [&] { return take_drawn(ids.data(), 3, tokens.data(), count, nullptr); }, tokens);
    check(tokens.whole(), "take_drawn wrote outside the tokens");
    const int32_t want[] = {9, 0, 7, 0, 1, 2, 3};
    for (int32_t i = 0; i < count; ++i) check(tokens[i] == want[i % 7], "take_drawn");
  }
});

// Parts of pages of `bytes` bytes, of which some are copied onto others.
void test_copies(int32_t parts, int64_t pages, int64_t bytes, const std::vector<int32_t>& pairs) {
  const std::string what = label("copy_pages", "", {parts, pages, bytes});
  Buffer<int32_t> data(parts * pages * bytes / 4);
  for (int64_t i = 0; i < data.size(); ++i) data[i] = static_cast<int32_t>(i);
  auto numbers = Buffer<int32_t>::of(pairs);
  both_ways(
      what,
      [&] {
        return copy_pages(
            {data.data(), numbers.data(), static_cast<int32_t>(pairs.size() / 2), parts, pages, bytes},
            nullptr);
      },
      data);
  check(data.whole(), what + ": wrote outside the pages");
  std::vector<int64_t> source(pages);  // of each page
  for (int64_t page = 0; page < pages; ++page) source[page] = page;
  for (size_t i = 0; i < pairs.size(); i += 2) source[pairs[i + 1]] = pairs[i];
  const int64_t words = bytes / 4;
  for (int64_t i = 0; i < data.size(); ++i) {
    const int64_t part = i / (pages * words), page = i / words % pages;
    check(data[i] == (part * pages + source[page]) * words + i % words, what);
  }
}
const Register copied_pages("copy_pages", [] {
  test_copies(1, 2, 16, {1, 0});
  test_copies(4, 9, 4096 - 16, {8, 0, 3, 5, 8, 1, 4, 7});
  test_copies(2, 5, 2 * 16 * 20 * 4, {0, 4});
  int32_t pair[] = {0, 1};
  alignas(16) int32_t pages[16] = {};
  check(copy_pages({pages, pair, 1, 1, 2, 24}, nullptr) != 0, "copy_pages took pages of 24 bytes");
  check(copy_pages({pages + 1, pair, 1, 1, 2, 16}, nullptr) != 0, "copy_pages took an address of 4 bytes");
});

const Register rows_test("paged_attention_rows", [] {
  for_types([](auto element) { test_rows<decltype(element)>(make_problem(), 3, 1, 20); });
  test_rows<float>(make_problem(), 2, 2, 64);
  test_rows<Bf16>(make_problem(), 4, 2, 96);
});
const Register random_rows_test("paged_attention_rows of random shapes", [] {
  for_rounds(
      [] {
        for_types([](auto element) {
          const auto size = static_cast<int>(one_of<int64_t>({near_edge(32, 256), between(1, 40)})),
                     group = static_cast<int>(between(1, 8)),
                     kv_heads = static_cast<int>(between(1, std::max(1, 200 / (size * group))));
          test_rows<decltype(element)>(make_problem(random_rows), kv_heads * group, kv_heads, size);
        });
      },
      /*share=*/5);
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
