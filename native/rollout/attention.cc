#include "rollout/attention.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include "rollout/vector16.h"

namespace troupe::rollout {

namespace {

// Multiply-adds from which waking another thread pays; small models stay below it.
constexpr int64_t kParallelWork = 100'000;

template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

// One layer's problem, as plain pointers.
template <typename T>
struct Problem {
  const T* q;
  int64_t q_row, q_head;  // strides
  T* out;                 // [rows, query_heads, head_dim]
  std::span<const AttentionRow> rows;
  KvShape shape;
  int64_t layer, query_heads, group;
  double scale;
};

// Queries of one KV head and some neighbouring rows, with their running softmax.
template <typename A>
struct Tile {
  std::vector<A> q;           // [queries, head_dim], scaled
  std::vector<A> out;         // [queries, value_dim]
  std::vector<A> maximum;     // [queries]
  std::vector<A> normaliser;  // [queries, 16]: one partial sum a lane
  std::vector<A> keys;        // [head_dim, 16]: one page, widened
  std::vector<A> values;      // [16, value_dim]
};

// Scores of N queries against the 16 keys of a page. Even and odd dimensions are summed apart: two chains
// hide the latency of the multiply-add, and every query is summed in the same order whatever N is.
template <typename A, int N>
TROUPE_INLINE void page_scores(const A* q, const A* keys, int64_t dim, Vector<A>* scores) {
  Vector<A> even[N] = {}, odd[N] = {};
  for (int64_t d = 0; d < dim; d += 2) {
    const Vector<A> k0 = load(keys + d * kLanes), k1 = load(keys + (d + 1) * kLanes);
    for (int n = 0; n < N; ++n) {
      even[n] += k0 * q[n * dim + d];
      odd[n] += k1 * q[n * dim + d + 1];
    }
  }
  for (int n = 0; n < N; ++n) scores[n] = even[n] + odd[n];
}

// out = out · alpha + Σ_t p[t] v[t], for N queries.
template <typename A, int N>
TROUPE_INLINE void page_values(A* out, const A* values, int64_t dim, int64_t count, const Vector<A>* p,
                               const A* alpha) {
  for (int64_t d = 0; d < dim; d += kLanes) {
    Vector<A> sum[N];
    for (int n = 0; n < N; ++n) sum[n] = load(out + n * dim + d) * alpha[n];
    for (int64_t t = 0; t < count; ++t) {
      const Vector<A> v = load(values + t * dim + d);
      for (int n = 0; n < N; ++n) sum[n] += v * reinterpret_cast<const A*>(p + n)[t];
    }
    for (int n = 0; n < N; ++n) store(out + n * dim + d, sum[n]);
  }
}

// N queries of the tile, from `first` on, meet one page; limits[n] of its positions are theirs to see.
template <typename A, int N>
TROUPE_INLINE void meet_page(Tile<A>& tile, int64_t first, const int64_t* limits, int64_t count, int64_t dim,
                             int64_t value_dim) {
  Vector<A> scores[N];
  A alpha[N];
  page_scores<A, N>(&tile.q[first * dim], tile.keys.data(), dim, scores);
  const Mask<A> lane{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int n = 0; n < N; ++n) {
    const auto limit = static_cast<std::remove_reference_t<decltype(lane[0])>>(limits[n]);
    const Vector<A> seen = lane < limit ? scores[n] : splat<A>(-std::numeric_limits<A>::infinity());
    A& running = tile.maximum[first + n];
    const A next = std::max(running, maximum<A>(seen));
    alpha[n] = running == next ? A(1) : std::exp(running - next);
    running = next;
    scores[n] = exponential(seen - next);
    A* normaliser = &tile.normaliser[(first + n) * kLanes];
    store(normaliser, load(normaliser) * alpha[n] + scores[n]);
  }
  page_values<A, N>(&tile.out[first * value_dim], tile.values.data(), value_dim, count, scores, alpha);
}

template <typename T, typename A>
TROUPE_INLINE void widen(const T* from, A* to, int64_t size) {
  for (int64_t i = 0; i < size; i += kLanes) store(to + i, load(from + i));
}

// Attention of KV head `head` for rows [begin, end).
template <typename T>
TROUPE_INLINE void attend(const Problem<T>& problem, int64_t head, int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  const KvShape& shape = problem.shape;
  const int64_t dim = shape.head_dim, value_dim = shape.value_dim(), group = problem.group;
  const int64_t queries = (end - begin) * group;
  static thread_local Tile<A> tile;
  tile.q.resize(queries * dim);
  tile.out.assign(queries * value_dim, A(0));
  tile.maximum.assign(queries, -std::numeric_limits<A>::infinity());
  tile.normaliser.assign(queries * kLanes, A(0));
  tile.keys.resize(dim * kLanes);
  tile.values.resize(kPageTokens * value_dim);

  int64_t last_page = 0;
  for (int64_t row = begin; row < end; ++row) {
    last_page = std::max(last_page, problem.rows[row].position / kPageTokens);
    for (int64_t g = 0; g < group; ++g) {
      const T* from = problem.q + row * problem.q_row + (head * group + g) * problem.q_head;
      A* to = &tile.q[((row - begin) * group + g) * dim];
      for (int64_t d = 0; d < dim; ++d) to[d] = static_cast<A>(from[d]) * static_cast<A>(problem.scale);
    }
  }

  const int64_t offset = (problem.layer * shape.kv_heads + head) * shape.block();
  for (int64_t index = 0; index <= last_page; ++index) {
    const auto page_of = [&](int64_t row) -> KvPage* {
      const AttentionRow& r = problem.rows[row];
      return r.position < index * kPageTokens ? nullptr : (*r.table)[index];
    };
    for (int64_t row = begin; row < end;) {
      KvPage* page = page_of(row);
      int64_t stop = row + 1;
      while (stop < end && page_of(stop) == page) ++stop;
      if (page) {
        const auto limit_of = [&](int64_t query) {
          const int64_t position = problem.rows[begin + query / group].position;
          return std::min(kPageTokens, position - index * kPageTokens + 1);
        };
        int64_t count = 0;
        for (int64_t r = row; r < stop; ++r) count = std::max(count, limit_of((r - begin) * group));
        const T* keys = static_cast<const T*>(page->address) + offset;
        widen(keys, tile.keys.data(), dim * kLanes);
        widen(keys + dim * kLanes, tile.values.data(), count * value_dim);
        const int64_t end_query = (stop - begin) * group;
        for (int64_t query = (row - begin) * group; query < end_query;) {
          const int64_t left = end_query - query;
          int64_t limits[4];
          for (int64_t n = 0; n < std::min<int64_t>(left, 4); ++n) limits[n] = limit_of(query + n);
          if (left >= 4) {
            meet_page<A, 4>(tile, query, limits, count, dim, value_dim);
            query += 4;
          } else if (left == 3) {
            meet_page<A, 3>(tile, query, limits, count, dim, value_dim);
            query += 3;
          } else if (left == 2) {
            meet_page<A, 2>(tile, query, limits, count, dim, value_dim);
            query += 2;
          } else {
            meet_page<A, 1>(tile, query, limits, count, dim, value_dim);
            query += 1;
          }
        }
      }
      row = stop;
    }
  }

  for (int64_t query = 0; query < queries; ++query) {
    const A scale = A(1) / sum<A>(load(&tile.normaliser[query * kLanes]));
    T* to =
        problem.out + ((begin + query / group) * problem.query_heads + head * group + query % group) * dim;
    for (int64_t d = 0; d < dim; ++d) to[d] = static_cast<T>(tile.out[query * value_dim + d] * scale);
  }
}

template <typename T>
TROUPE_TARGET_AVX512 void attend_avx512(const Problem<T>& problem, int64_t head, int64_t begin, int64_t end) {
  attend(problem, head, begin, end);
}
template <typename T>
TROUPE_TARGET_AVX2 void attend_avx2(const Problem<T>& problem, int64_t head, int64_t begin, int64_t end) {
  attend(problem, head, begin, end);
}
template <typename T>
void attend_plain(const Problem<T>& problem, int64_t head, int64_t begin, int64_t end) {
  attend(problem, head, begin, end);
}

template <typename T>
void attend_all(const Problem<T>& problem) {
  const auto work = instruction_set() == InstructionSet::kAvx512 ? attend_avx512<T>
                    : instruction_set() == InstructionSet::kAvx2 ? attend_avx2<T>
                                                                 : attend_plain<T>;
  // About 32 queries a task: enough to share a page's loads, few enough to balance the threads.
  const int64_t total = static_cast<int64_t>(problem.rows.size());
  const int64_t chunks = (total * problem.group + 31) / 32;
  const int64_t tasks = chunks * problem.shape.kv_heads;
  std::atomic<int64_t> next = 0;
  int64_t keys = 0;
  for (const AttentionRow& row : problem.rows) keys += row.position + 1;
  const bool worth_threads = keys * problem.query_heads * problem.shape.head_dim > kParallelWork;
  const int64_t threads = worth_threads ? std::min<int64_t>(tasks, at::get_num_threads()) : 1;
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t task = next++; task < tasks; task = next++) {
      const int64_t chunk = task / problem.shape.kv_heads;
      work(problem, task % problem.shape.kv_heads, chunk * total / chunks, (chunk + 1) * total / chunks);
    }
  });
}

template <typename T>
void write_cpu(const at::Tensor& k, const at::Tensor& v, std::span<const AttentionRow> rows,
               const KvShape& shape, int64_t layer) {
  const int64_t dim = shape.head_dim, value_dim = shape.value_dim(), heads = shape.kv_heads;
  const int64_t grain = 1 + 16'384 / (heads * dim);
  at::parallel_for(0, static_cast<int64_t>(rows.size()), grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (!rows[row].write) continue;
      const int64_t slot = rows[row].position % kPageTokens;
      KvPage* page = (*rows[row].table)[rows[row].position / kPageTokens];
      for (int64_t head = 0; head < heads; ++head) {
        T* block = static_cast<T*>(page->address) + (layer * heads + head) * shape.block();
        const T* key = k.const_data_ptr<T>() + row * k.stride(0) + head * k.stride(1);
        const T* value = v.const_data_ptr<T>() + row * v.stride(0) + head * v.stride(1);
        for (int64_t d = 0; d < dim; ++d) block[d * kPageTokens + slot] = key[d];
        std::copy(value, value + dim, block + dim * kPageTokens + slot * value_dim);
      }
    }
  });
}

}  // namespace

void write_keys_values(const at::Tensor& k, const at::Tensor& v, std::span<const AttentionRow> rows,
                       const KvShape& shape, int64_t layer) {
  if (k.is_cpu()) {
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, k.scalar_type(), "write_keys_values",
                                   [&] { write_cpu<scalar_t>(k, v, rows, shape, layer); });
    return;
  }
  for (size_t row = 0; row < rows.size(); ++row) {
    if (!rows[row].write) continue;
    const int64_t slot = rows[row].position % kPageTokens, dim = shape.head_dim;
    const auto block = (*rows[row].table)[rows[row].position / kPageTokens]->data.select(0, layer);
    const auto keys = block.narrow(1, 0, dim * kPageTokens).view({shape.kv_heads, dim, kPageTokens});
    const auto values = block.narrow(1, dim * kPageTokens, shape.value_dim() * kPageTokens)
                            .view({shape.kv_heads, kPageTokens, shape.value_dim()});
    keys.select(2, slot).copy_(k[static_cast<int64_t>(row)]);
    values.select(1, slot).narrow(1, 0, dim).copy_(v[static_cast<int64_t>(row)]);
  }
}

at::Tensor paged_attention(const at::Tensor& q, std::span<const AttentionRow> rows, const KvShape& shape,
                           int64_t layer, double scale) {
  if (!q.is_cpu()) return paged_attention_plain(q, rows, shape, layer, scale);
  const int64_t heads = q.size(1), dim = q.size(2);
  auto out = at::empty({q.size(0), heads * dim}, q.options());
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, q.scalar_type(), "paged_attention", [&] {
    attend_all(Problem<scalar_t>{q.const_data_ptr<scalar_t>(), q.stride(0), q.stride(1),
                                 out.mutable_data_ptr<scalar_t>(), rows, shape, layer, heads,
                                 heads / shape.kv_heads, scale});
  });
  return out;
}

at::Tensor paged_attention_plain(const at::Tensor& q, std::span<const AttentionRow> rows,
                                 const KvShape& shape, int64_t layer, double scale) {
  const int64_t heads = q.size(1), dim = q.size(2), group = heads / shape.kv_heads;
  const auto wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  auto out = at::empty({q.size(0), heads * dim}, q.options());
  for (size_t begin = 0; begin < rows.size();) {
    // Rows of one node share their table; each sees the positions up to its own.
    size_t end = begin + 1;
    while (end < rows.size() && rows[end].table == rows[begin].table) ++end;
    int64_t length = 0;
    std::vector<int64_t> positions;
    for (size_t row = begin; row < end; ++row) {
      positions.push_back(rows[row].position);
      length = std::max(length, rows[row].position + 1);
    }
    std::vector<at::Tensor> blocks;
    for (int64_t page = 0; page * kPageTokens < length; ++page) {
      blocks.push_back((*rows[begin].table)[page]->data.select(0, layer));
    }
    const auto stacked = at::stack(blocks);  // [pages, kv_heads, block]
    const int64_t pages = stacked.size(0);
    const auto keys = stacked.narrow(2, 0, dim * kPageTokens)
                          .reshape({pages, shape.kv_heads, dim, kPageTokens})
                          .permute({1, 2, 0, 3})
                          .reshape({shape.kv_heads, dim, pages * kPageTokens})
                          .narrow(2, 0, length)
                          .to(wide)
                          .repeat_interleave(group, 0);
    const auto values = stacked.narrow(2, dim * kPageTokens, shape.value_dim() * kPageTokens)
                            .reshape({pages, shape.kv_heads, kPageTokens, shape.value_dim()})
                            .permute({1, 0, 2, 3})
                            .reshape({shape.kv_heads, pages * kPageTokens, shape.value_dim()})
                            .narrow(1, 0, length)
                            .narrow(2, 0, dim)
                            .to(wide)
                            .repeat_interleave(group, 0);
    const int64_t count = static_cast<int64_t>(end - begin);
    const auto mine =
        q.narrow(0, static_cast<int64_t>(begin), count).transpose(0, 1).to(wide);  // [Hq, rows, D]
    const auto own = at::tensor(positions, at::kLong).to(q.device()).unsqueeze(1);
    const auto hidden = at::arange(length, own.options()).unsqueeze(0) > own;
    const auto scores = at::matmul(mine, keys).mul(scale).masked_fill(hidden, -INFINITY);
    const auto result = at::matmul(at::softmax(scores, -1), values).transpose(0, 1);
    out.narrow(0, static_cast<int64_t>(begin), count).copy_(result.reshape({count, heads * dim}));
    begin = end;
  }
  return out;
}

}  // namespace troupe::rollout
