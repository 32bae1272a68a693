// Attention of rows along their pages. Prefill and decode are the same thing here: a row attends up to its
// own position, neighbouring rows that share a page read it once. Online softmax, page after page (arXiv
// 2205.14135), so a row's result does not depend on the other rows.
#include "kernels/cpu/paged_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "kernels/cpu/sixteen.h"
#include "kernels/scratch.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

// Multiply-adds from which waking another thread pays; small models stay below it.
constexpr int64_t kParallelWork = 100'000;

// Queries whose scores are formed at once, as many as leave the running sums in registers. The result of one
// does not depend on it.
template <typename A>
constexpr int kQueries = Sixteen<A>::kParts == 1 ? 4 : 2;

// Queries of one KV head and some neighbouring rows, with their running softmax.
template <typename A>
struct Tile {
  Scratch<A> q;           // [queries, size], scaled
  Scratch<A> out;         // [queries, value_size]
  Scratch<A> highest;     // [queries]
  Scratch<A> normaliser;  // [queries, 16]: one partial sum a lane
  Scratch<A> keys;        // [size, 16]: one page, widened
  Scratch<A> values;      // [16, value_size]
};

// Scores of N queries against the 16 keys of a page. Even and odd dimensions are summed apart: two chains
// hide the latency of the multiply-add, and every query is summed in the same order whatever N is.
template <typename A, int N>
void page_scores(const A* q, const A* keys, int64_t size, Sixteen<A>* scores) {
  Sixteen<A> even[N], odd[N];
  for (int64_t d = 0; d < size; d += 2) {
    const auto k0 = Sixteen<A>::load(keys + d * kSixteen), k1 = Sixteen<A>::load(keys + (d + 1) * kSixteen);
    for (int n = 0; n < N; ++n) {
      even[n] = multiply_add(k0, Sixteen<A>(q[n * size + d]), even[n]);
      odd[n] = multiply_add(k1, Sixteen<A>(q[n * size + d + 1]), odd[n]);
    }
  }
  for (int n = 0; n < N; ++n) scores[n] = even[n] + odd[n];
}

// out = out · alpha + Σ_t p[t] v[t], for N queries.
template <typename A, int N>
void page_values(A* out, const A* values, int64_t size, int64_t count, const A (*p)[kSixteen],
                 const A* alpha) {
  for (int64_t d = 0; d < size; d += kSixteen) {
    Sixteen<A> sums[N];
    for (int n = 0; n < N; ++n) sums[n] = Sixteen<A>::load(out + n * size + d) * Sixteen<A>(alpha[n]);
    for (int64_t t = 0; t < count; ++t) {
      const auto v = Sixteen<A>::load(values + t * size + d);
      for (int n = 0; n < N; ++n) sums[n] = multiply_add(v, Sixteen<A>(p[n][t]), sums[n]);
    }
    for (int n = 0; n < N; ++n) sums[n].store(out + n * size + d);
  }
}

// N queries of the tile, from `first` on, meet one page; limits[n] of its positions are theirs to see.
template <typename A, int N>
void meet_page(Tile<A>& tile, int64_t first, const int64_t* limits, int64_t count, int64_t size,
               int64_t value_size) {
  Sixteen<A> scores[N];
  A alpha[N];
  alignas(64) A weights[N][kSixteen];
  page_scores<A, N>(tile.q.data() + first * size, tile.keys.data(), size, scores);
  for (int n = 0; n < N; ++n) {
    const Sixteen<A> seen = scores[n].first(limits[n], -std::numeric_limits<A>::infinity());
    A& running = tile.highest[first + n];
    const A next = std::max(running, largest(seen));
    alpha[n] = running == next ? A(1) : std::exp(running - next);
    running = next;
    const Sixteen<A> weight = falling_exponential(seen - Sixteen<A>(next));
    weight.store(weights[n]);
    A* normaliser = tile.normaliser.data() + (first + n) * kSixteen;
    multiply_add(Sixteen<A>::load(normaliser), Sixteen<A>(alpha[n]), weight).store(normaliser);
  }
  page_values<A, N>(tile.out.data() + first * value_size, tile.values.data(), value_size, count, weights,
                    alpha);
}

template <typename T>
struct Attend {
  using A = Accumulate<T>;

  const Pages& pages;
  const PagedRows& rows;
  int64_t query_heads, group;
  double scale;
  View q;
  T* out;

  int64_t page_of(int64_t row, int64_t index) const {
    return rows.positions[row] < index * kSixteen ? -1 : rows.pages[rows.tables[row] * rows.width + index];
  }

  void widen(const T* from, A* to, int64_t count) const {
    for (int64_t i = 0; i < count; i += kSixteen) load_sixteen(from + i).store(to + i);
  }

  void begin_tile(Tile<A>& tile, int64_t head, int64_t begin, int64_t end) const {
    const int64_t size = pages.size, value_size = pages.value_size(), queries = (end - begin) * group;
    tile.q.resize(queries * size);
    tile.out.resize(queries * value_size);
    tile.highest.resize(queries);
    tile.normaliser.resize(queries * kSixteen);
    tile.keys.resize(size * kSixteen);
    tile.values.resize(kSixteen * value_size);
    std::fill_n(tile.out.data(), queries * value_size, A(0));
    std::fill_n(tile.highest.data(), queries, -std::numeric_limits<A>::infinity());
    std::fill_n(tile.normaliser.data(), queries * kSixteen, A(0));
    const auto factor = static_cast<A>(scale);
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t g = 0; g < group; ++g) {
        const T* from =
            static_cast<const T*>(q.data) + row * q.row_stride + (head * group + g) * q.head_stride;
        A* to = tile.q.data() + ((row - begin) * group + g) * size;
        for (int64_t d = 0; d < size; ++d) to[d] = static_cast<A>(from[d]) * factor;
      }
    }
  }

  // Rows [row, stop) of the tile that begins at row `begin` meet the page that they share.
  void meet(Tile<A>& tile, const T* block, int64_t index, int64_t begin, int64_t row, int64_t stop) const {
    const int64_t size = pages.size, value_size = pages.value_size();
    const auto limit_of = [&](int64_t query) {
      const int64_t position = rows.positions[begin + query / group];
      return std::min(kSixteen, position - index * kSixteen + 1);
    };
    int64_t count = 0;
    for (int64_t r = row; r < stop; ++r) count = std::max(count, limit_of((r - begin) * group));
    widen(block, tile.keys.data(), size * kSixteen);
    widen(block + size * kSixteen, tile.values.data(), count * value_size);
    const int64_t last = (stop - begin) * group;
    for (int64_t query = (row - begin) * group; query < last;) {
      int64_t limits[4];
      const int64_t here = std::min<int64_t>(kQueries<A>, last - query);
      for (int64_t n = 0; n < here; ++n) limits[n] = limit_of(query + n);
      if (here == 4) meet_page<A, 4>(tile, query, limits, count, size, value_size);
      if (here == 3) meet_page<A, 3>(tile, query, limits, count, size, value_size);
      if (here == 2) meet_page<A, 2>(tile, query, limits, count, size, value_size);
      if (here == 1) meet_page<A, 1>(tile, query, limits, count, size, value_size);
      query += here;
    }
  }

  void end_tile(Tile<A>& tile, int64_t head, int64_t begin, int64_t end) const {
    const int64_t size = pages.size, value_size = pages.value_size();
    for (int64_t query = 0; query < (end - begin) * group; ++query) {
      const A factor = A(1) / sum(Sixteen<A>::load(tile.normaliser.data() + query * kSixteen));
      T* to = out + ((begin + query / group) * query_heads + head * group + query % group) * size;
      const A* from = tile.out.data() + query * value_size;
      for (int64_t d = 0; d < size; ++d) to[d] = static_cast<T>(from[d] * factor);
    }
  }

  // Attention of KV head `head` for rows [begin, end).
  void attend(Tile<A>& tile, int64_t head, int64_t begin, int64_t end) const {
    begin_tile(tile, head, begin, end);
    int64_t last_page = 0;
    for (int64_t row = begin; row < end; ++row)
      last_page = std::max<int64_t>(last_page, rows.positions[row] / kSixteen);
    const T* layer = static_cast<const T*>(pages.data) + head * pages.block();
    for (int64_t index = 0; index <= last_page; ++index) {
      for (int64_t row = begin; row < end;) {
        const int64_t page = page_of(row, index);
        int64_t stop = row + 1;
        while (stop < end && page_of(stop, index) == page) ++stop;
        if (page >= 0) meet(tile, layer + page * pages.page_size, index, begin, row, stop);
        row = stop;
      }
    }
    end_tile(tile, head, begin, end);
  }

  void run() const {
    // About 32 queries a task: enough to share a page's loads, few enough to balance the threads.
    const int64_t chunks = (rows.count * group + 31) / 32, tasks = chunks * pages.key_heads;
    int64_t keys = 0;
    for (int64_t row = 0; row < rows.count; ++row) keys += rows.positions[row] + 1;
    const bool worth_threads = keys * query_heads * pages.size > kParallelWork;
    const int64_t threads = worth_threads ? std::min<int64_t>(tasks, at::get_num_threads()) : 1;
    std::atomic<int64_t> next = 0;
    at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
      static thread_local Tile<A> tile;
      for (int64_t task = next++; task < tasks; task = next++) {
        const int64_t chunk = task / pages.key_heads;
        attend(tile, task % pages.key_heads, chunk * rows.count / chunks, (chunk + 1) * rows.count / chunks);
      }
    });
  }
};

template <typename T>
void store_rows(const Pages& pages, const PagedRows& rows, View k, View v) {
  const int64_t size = pages.size, value_size = pages.value_size();
  const auto at_head = [](const View& view, int64_t row, int64_t head) {
    return static_cast<const T*>(view.data) + row * view.row_stride + head * view.head_stride;
  };
  const int64_t grain = 1 + 16'384 / (pages.key_heads * size);
  at::parallel_for(0, rows.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (rows.slots[row] < 0) continue;
      const int64_t page = rows.slots[row] / kSixteen, place = rows.slots[row] % kSixteen;
      for (int64_t head = 0; head < pages.key_heads; ++head) {
        T* block = static_cast<T*>(pages.data) + page * pages.page_size + head * pages.block();
        const T *key = at_head(k, row, head), *value = at_head(v, row, head);
        for (int64_t d = 0; d < size; ++d) block[d * kSixteen + place] = key[d];
        std::copy(value, value + size, block + size * kSixteen + place * value_size);
      }
    }
  });
}

}  // namespace

void store_keys_values(const Pages& pages, const PagedRows& rows, View k, View v) {
  with_type(pages.dtype, [&](auto tag) { store_rows<decltype(tag)>(pages, rows, k, v); });
}

void paged_attention(const Pages& pages, const PagedRows& rows, int64_t query_heads, double scale, View q,
                     void* out) {
  with_type(pages.dtype, [&](auto tag) {
    using T = decltype(tag);
    Attend<T>{pages, rows, query_heads, query_heads / pages.key_heads, scale, q, static_cast<T*>(out)}.run();
  });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
