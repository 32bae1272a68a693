#include "kernels/cuda/paged_plan.h"

#include <algorithm>

namespace troupe::kernels::cuda {
namespace {

// One table's rows in one split: the pages [begin, end) of `pages`, as far as its last row needs them.
struct Run {
  const int32_t *begin, *end;
  std::vector<int32_t> rows;
};

bool starts_with(const Run& longer, const Run& shorter) {
  return longer.end - longer.begin >= shorter.end - shorter.begin &&
         std::equal(shorter.begin, shorter.end, longer.begin);
}

class Planner {
 public:
  Planner(const std::vector<int32_t>& tables, const std::vector<int32_t>& positions,
          const std::vector<int32_t>& pages, int64_t table_width, int32_t group)
      : tables_(tables), positions_(positions), pages_(pages), table_width_(table_width), group_(group) {}

  PagedPlan plan(int64_t most_partials) {
    const auto rows = static_cast<int64_t>(tables_.size());
    plan_.starts.push_back(0);
    for (int64_t row = 0; row < rows; ++row) plan_.starts.push_back(plan_.starts.back() + splits(row));
    for (int64_t begin = 0; begin < rows;) {
      int64_t end = begin + 1;
      while (end < rows && plan_.starts[end + 1] - plan_.starts[begin] <= most_partials) ++end;
      add_chunk(begin, end);
      begin = end;
    }
    return std::move(plan_);
  }

 private:
  static constexpr int32_t kSplitTokens = kSplitPages * kPageTokens;

  int32_t splits(int64_t row) const { return positions_[row] / kSplitTokens + 1; }

  void add_chunk(int64_t row_begin, int64_t row_end) {
    const auto tile_begin = static_cast<int32_t>(plan_.tiles.size());
    int32_t most = 0;
    for (int64_t row = row_begin; row < row_end; ++row) most = std::max(most, splits(row));
    for (int32_t split = 0; split < most; ++split) add_split(row_begin, row_end, split);
    plan_.chunks.push_back({static_cast<int32_t>(row_begin), static_cast<int32_t>(row_end), tile_begin,
                            static_cast<int32_t>(plan_.tiles.size()), plan_.starts[row_begin],
                            plan_.starts[row_end]});
  }

  // The runs of the split, one for each table, in the order of their pages: a run then follows those that it
  // continues.
  std::vector<Run> runs_of(int64_t row_begin, int64_t row_end, int32_t split) const {
    std::vector<Run> runs;
    std::vector<int32_t> run_of(pages_.size() / static_cast<size_t>(std::max<int64_t>(table_width_, 1)) + 1,
                                -1);
    for (int64_t row = row_begin; row < row_end; ++row) {
      if (splits(row) <= split) continue;
      const int32_t table = tables_[row];
      const int32_t* const first = pages_.data() + table * table_width_ + split * kSplitPages;
      if (run_of[table] < 0) {
        run_of[table] = static_cast<int32_t>(runs.size());
        runs.push_back({first, first, {}});
      }
      Run& run = runs[run_of[table]];
      const int32_t count = std::min(positions_[row] / kPageTokens + 1 - split * kSplitPages, kSplitPages);
      run.end = std::max(run.end, first + count);
      run.rows.push_back(static_cast<int32_t>(row));
    }
    std::stable_sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) {
      return std::lexicographical_compare(a.begin, a.end, b.begin, b.end);
    });
    return runs;
  }

  void add_split(int64_t row_begin, int64_t row_end, int32_t split) {
    const std::vector<Run> runs = runs_of(row_begin, row_end, split);
    for (size_t i = 0; i < runs.size();) {
      std::vector<int32_t> rows = runs[i].rows;
      size_t longest = i, next = i + 1;
      for (; next < runs.size() && starts_with(runs[next], runs[longest]); longest = next++)
        rows.insert(rows.end(), runs[next].rows.begin(), runs[next].rows.end());
      std::sort(rows.begin(), rows.end());
      add_tiles(runs[longest], rows, split);
      i = next;
    }
  }

  void add_tiles(const Run& run, const std::vector<int32_t>& rows, int32_t split) {
    const auto member_begin = static_cast<int32_t>(plan_.members.size());
    int32_t chunk_begin = plan_.chunks.empty() ? 0 : plan_.chunks.back().partial_end;
    for (const int32_t row : rows) plan_.members.push_back({row, plan_.starts[row] + split - chunk_begin});
    const int32_t pairs = static_cast<int32_t>(rows.size()) * group_;
    for (int32_t begin = 0; begin < pairs; begin += kTileRows) {
      const int32_t count = std::min(kTileRows, pairs - begin);
      // No more pages than the tile's own rows need.
      int32_t last = 0;
      for (int32_t pair = begin; pair < begin + count; ++pair)
        last = std::max(last, positions_[rows[pair / group_]]);
      const int32_t needed = std::min(last / kPageTokens + 1 - split * kSplitPages, kSplitPages);
      plan_.tiles.push_back({static_cast<int32_t>(run.begin - pages_.data()), needed, member_begin, begin,
                             count, split * kSplitTokens});
    }
  }

  const std::vector<int32_t>&tables_, &positions_, &pages_;
  int64_t table_width_;
  int32_t group_;
  PagedPlan plan_;
};

}  // namespace

PagedPlan plan_paged(const std::vector<int32_t>& tables, const std::vector<int32_t>& positions,
                     const std::vector<int32_t>& pages, int64_t table_width, int32_t group,
                     int64_t most_partials) {
  return Planner(tables, positions, pages, table_width, group).plan(most_partials);
}

}  // namespace troupe::kernels::cuda
