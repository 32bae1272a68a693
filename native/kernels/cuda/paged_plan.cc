#include "kernels/cuda/paged_plan.h"

#include <algorithm>

namespace troupe::kernels::cuda {
namespace {

constexpr int32_t kPartTokens = kPartPages * kPageTokens, kShortTokens = kShortPages * kPageTokens;

// A row's part: its first `tokens` positions, on `count` pages.
struct Reader {
  int32_t row;
  const int32_t* pages;
  int32_t tokens, count;
  // Beyond the pages that it has in common with the reader before it.
  int32_t shared = 0, added = 0;
};

bool before(const Reader& a, const Reader& b) {
  if (a.pages == b.pages) return a.count < b.count;  // of one table
  return std::lexicographical_compare(a.pages, a.pages + a.count, b.pages, b.pages + b.count);
}

class Planner {
 public:
  Planner(const std::vector<int32_t>& tables, const std::vector<int32_t>& positions,
          const std::vector<int32_t>& slots, const std::vector<int32_t>& pages, int64_t table_width,
          int32_t group)
      : tables_(tables), positions_(positions), pages_(pages), table_width_(table_width), group_(group) {
    for (const int32_t slot : slots) {
      if (slot < 0) continue;
      const auto page = static_cast<size_t>(slot / kPageTokens);
      if (page >= written_.size()) written_.resize(page + 1);
      written_[page] = true;
    }
  }

  PagedPlan plan(int64_t most_partials) {
    const auto rows = static_cast<int64_t>(tables_.size());
    plan_.starts.push_back(0);
    for (int64_t row = 0; row < rows; ++row)
      plan_.starts.push_back(plan_.starts.back() + (parts(row) > 1 ? parts(row) : 0));
    for (int64_t begin = 0; begin < rows;) {
      int64_t end = begin + 1;
      while (end < rows && plan_.starts[end + 1] - plan_.starts[begin] <= most_partials) ++end;
      add_chunk(begin, end);
      begin = end;
    }
    return std::move(plan_);
  }

 private:
  int32_t parts(int64_t row) const { return std::max(1, (positions_[row] + kShortTokens) / kPartTokens); }

  void add_chunk(int64_t row_begin, int64_t row_end) {
    const auto tile_begin = static_cast<int32_t>(plan_.tiles.size());
    int32_t most = 0;
    for (int64_t row = row_begin; row < row_end; ++row) most = std::max(most, parts(row));
    for (int32_t part = 0; part < most; ++part) add_part(row_begin, row_end, part);
    plan_.chunks.push_back({static_cast<int32_t>(row_begin), static_cast<int32_t>(row_end), tile_begin,
                            static_cast<int32_t>(plan_.tiles.size()), plan_.starts[row_begin],
                            plan_.starts[row_end]});
  }

  // Those who have this part, in the order of its pages: what has pages in common are neighbours, and a part follows
  // those that it continues.
  std::vector<Reader> readers_of(int64_t row_begin, int64_t row_end, int32_t part) const {
    std::vector<Reader> readers;
    for (int64_t row = row_begin; row < row_end; ++row) {
      if (parts(row) <= part) continue;
      const int32_t left = positions_[row] + 1 - part * kPartTokens;
      const int32_t tokens = part + 1 == parts(row) ? left : kPartTokens;
      readers.push_back({static_cast<int32_t>(row),
                         pages_.data() + tables_[row] * table_width_ + part * kPartPages, tokens,
                         (tokens + kPageTokens - 1) / kPageTokens});
    }
    std::stable_sort(readers.begin(), readers.end(), before);
    for (size_t i = 0; i < readers.size(); ++i) {
      Reader& reader = readers[i];
      reader.added = reader.count;
      if (i == 0) continue;
      const Reader& last = readers[i - 1];
      const int32_t most = std::min(last.count, reader.count);
      reader.shared =
          reader.pages == last.pages
              ? most
              : static_cast<int32_t>(std::mismatch(last.pages, last.pages + most, reader.pages).first -
                                     last.pages);
      reader.added -= reader.shared;
    }
    return readers;
  }

  void add_part(int64_t row_begin, int64_t row_end, int32_t part) {
    const std::vector<Reader> readers = readers_of(row_begin, row_end, part);
    const auto member_begin = static_cast<int32_t>(plan_.members.size());
    const int32_t chunk_begin = plan_.chunks.empty() ? 0 : plan_.chunks.back().partial_end;
    for (const Reader& reader : readers) {
      const int32_t partial = plan_.starts[reader.row] + part - chunk_begin;
      plan_.members.push_back({reader.row, parts(reader.row) > 1 ? partial : -1, reader.tokens});
    }
    const int32_t pairs = static_cast<int32_t>(readers.size()) * group_;
    for (int32_t begin = 0, end = 0; begin < pairs; begin = end) {
      const int32_t first = begin / group_;
      end = std::min(begin + kTileRows, end_of_tile(readers, first) * group_);
      const auto run_begin = static_cast<int32_t>(plan_.runs.size());
      add_runs(readers, first, {first, (end - 1) / group_ + 1}, 0);
      plan_.tiles.push_back({run_begin, static_cast<int32_t>(plan_.runs.size()) - run_begin,
                             member_begin + first, begin - first * group_, end - begin,
                             settled(plan_.runs[run_begin])});
    }
  }

  int32_t settled(const PagedRun& run) const {
    const int32_t most = std::min(kMostSettled, (run.tokens + kPageTokens - 1) / kPageTokens);
    int32_t count = 0;
    for (; count < most; ++count) {
      const auto page = static_cast<size_t>(pages_[run.pages + count]);
      if (page < written_.size() && written_[page]) break;
    }
    return count;
  }

  // The end of the readers, from `first` on, that a tile may have: each has more in common with the one before it than
  // it adds, and the tile is not too long.
  static int32_t end_of_tile(const std::vector<Reader>& readers, int32_t first) {
    int32_t pages = readers[first].count, end = first + 1;
    for (; end < static_cast<int32_t>(readers.size()); ++end) {
      const Reader& next = readers[end];
      if (next.added > next.shared || pages + next.added > kTilePages) break;
      pages += next.added;
    }
    return end;
  }

  struct Range {
    int32_t begin, end;
  };
  // The runs of the readers in the range, which have `depth` pages in common: what all of them read, then what some do.
  // One that ends where its follower goes on is counted with it: it sees no more than its own tokens.
  void add_runs(const std::vector<Reader>& readers, int32_t first, Range range, int32_t depth) {
    const auto goes_on = [&](int32_t i) { return readers[i].shared == readers[i - 1].count; };
    const auto common = [&](int32_t i) { return goes_on(i) ? readers[i].count : readers[i].shared; };
    int32_t end = readers[range.end - 1].count, tokens = 0;
    for (int32_t i = range.begin; i < range.end; ++i) {
      if (i > range.begin) end = std::min(end, common(i));
      tokens = std::max(tokens, readers[i].tokens);
    }
    if (end > depth) {
      const auto pages = static_cast<int32_t>(readers[range.end - 1].pages - pages_.data());
      plan_.runs.push_back(
          {pages, depth, std::min(tokens, end * kPageTokens), range.begin - first, range.end - first});
    }
    for (int32_t begin = range.begin, i = begin + 1; i <= range.end; ++i) {
      if (i < range.end && common(i) > end) continue;
      const Range some{begin, i};
      begin = i;
      if (some.end - some.begin < range.end - range.begin) add_runs(readers, first, some, end);
    }
  }

  const std::vector<int32_t>&tables_, &positions_, &pages_;
  int64_t table_width_;
  int32_t group_;
  std::vector<bool> written_;  // of each page: whether the step writes on it
  PagedPlan plan_;
};

}  // namespace

PagedPlan plan_paged(const std::vector<int32_t>& tables, const std::vector<int32_t>& positions,
                     const std::vector<int32_t>& slots, const std::vector<int32_t>& pages,
                     int64_t table_width, int32_t group, int64_t most_partials) {
  return Planner(tables, positions, slots, pages, table_width, group).plan(most_partials);
}

}  // namespace troupe::kernels::cuda
