// Adapters, alone and with what follows them in a decode layer, against plain loops in float64 and separate launches.
#include <algorithm>
#include <numeric>

#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

// `columns` of the terms that each adapter has.
template <typename T>
void test_lora(int64_t rows, int64_t in, int rank, const std::vector<int32_t>& columns = {152}) {
  using A = Accumulate<T>;
  const std::string what = std::string("lora ") + name_of<T>() + " " + std::to_string(rows) + " " +
                           std::to_string(in) + " " + std::to_string(rank);
  const int64_t out = std::accumulate(columns.begin(), columns.end(), 0);
  auto x = Buffer<T>::random(rows * in), y = Buffer<T>::random(rows * out);
  Lora lora{type_of<T>(), rows, in, out, x.data(), y.data(), nullptr, 0, 0, {}};
  std::vector<Buffer<T>> weights;
  weights.reserve(12);
  Doubles want;
  for (int64_t i = 0; i < y.size(); ++i) want.push_back(y.at(i));
  // Two adapters of different rank, a row of nobody between them.
  const int64_t cut = rows / 3;
  for (int adapter = 0; adapter < 2; ++adapter) {
    const int own_rank = adapter == 0 ? rank : rank % 8 == 0 ? rank / 2 : rank / 2 + 1;
    const int64_t begin = adapter == 0 ? 0 : cut + 1, end = adapter == 0 ? cut : rows;
    int projected = 0, column = 0;
    for (const int32_t count : columns) {
      weights.push_back(Buffer<T>::random(own_rank * in, 2 / std::sqrt(in)));
      weights.push_back(Buffer<T>::random(count * own_rank, 0.2));
      const Buffer<T>&a = weights[weights.size() - 2], &b = weights.back();
      lora.terms[lora.count++] = {a.data(), b.data(),  begin, std::max(begin, end), own_rank, column,
                                  count,    projected, 0.5};
      projected += own_rank;
      for (int64_t r = begin; r < end; ++r) {
        for (int k = 0; k < own_rank; ++k) {
          double u = 0;
          for (int64_t i = 0; i < in; ++i) u += x.at(r * in + i) * a.at(k * in + i);
          for (int j = 0; j < count; ++j)
            want[r * out + column + j] += 0.5 * u * b.at(static_cast<int64_t>(j) * own_rank + k);
        }
      }
      column += count;
    }
    lora.projected_width = std::max(lora.projected_width, projected);
  }
  Buffer<A> projected(lora_splits(lora) * rows * lora.projected_width);
  auto counters = Buffer<uint32_t>::zeros(lora_counters(lora));
  check(counters.size() <= most_lora_counters(rows), what + ": more counters than a plan has");
  lora.projected = projected.data();
  lora.counters = counters.data();
  both_ways(
      what, [&] { return cuda::lora(lora, nullptr); }, projected, y);
  check(projected.whole(), what + ": wrote outside");
  check(counters == Buffer<uint32_t>::zeros(counters.size()), what + ": its counters must be zero again");
  near(y, want, 2 * tolerance<T>(), what);
}
const Register adapters("lora", [] {
  for_types([](auto element) {
    using T = decltype(element);
    test_lora<T>(1, 64, 4);
    test_lora<T>(40, 96, 16, {96, 32, 24});
    test_lora<T>(9, 37, 5, {96, 32, 24});
  });
  test_lora<Bf16>(20, 256, 70);
  test_lora<Bf16>(40, 1400, 24, {96, 32, 24});  // two splits of the inputs, the second not full
  test_lora<Bf16>(50, 328, 40);
  test_lora<Bf16>(200, 160, 128);        // several tiles of 64 rows
  test_lora<Bf16>(6, 64, 132);           // more ranks than one launch takes
  test_lora<Bf16>(160, 64, 8, {11264});  // so many columns that a block has several tiles of them
  test_lora<Bf16>(1100, 96, 64,
                  {96, 32, 24});  // so many rows that items of the first product are the large ones
  test_lora<Bf16>(90, 2600, 32, {96, 32, 24});  // three splits
});

// A batch of two adapters on bf16 rows, and rows that have none before, between and behind them. `columns` are those of
// the terms; an adapter lacks some, and their ranks differ. `whole`: terms of rank 0 stand for what is lacking.
struct Batch {
  std::vector<Buffer<Bf16>> weights;
  Lora lora;
  Buffer<Bf16> x, y;
  Buffer<float> projected;
  Buffer<uint32_t> counters;
};
Batch make_batch(int64_t rows, int64_t in, const std::vector<int32_t>& columns, int rank) {
  const int32_t out = std::accumulate(columns.begin(), columns.end(), 0);
  const int64_t width = static_cast<int64_t>(columns.size()) * rank;
  Batch batch{
      {},
      {Type::kBf16, rows, in, out, nullptr, nullptr, nullptr, nullptr, static_cast<int32_t>(width), 0, {}},
      Buffer<Bf16>::random(rows * in),
      Buffer<Bf16>::random(rows * out),
      Buffer<float>((in / 1280 + 1) * rows * width),
      Buffer<uint32_t>::zeros(most_lora_counters(rows))};
  batch.weights.reserve(64);
  const int64_t cuts[] = {0, rows / 8, rows / 2, rows / 2 + 1, rows - 1, rows};
  for (int segment = 0; segment < 5; ++segment) {
    if (cuts[segment] == cuts[segment + 1]) continue;
    int32_t column = 0, projected = 0;
    for (size_t i = 0; i < columns.size(); ++i) {
      // The first adapter lacks the second term, the second the first.
      const int32_t own = segment == 1 && i != 1 ? rank : segment == 3 && i != 0 ? rank / 2 / 4 * 4 + 4 : 0;
      batch.weights.push_back(Buffer<Bf16>::random(own * in, 0.2));
      batch.weights.push_back(Buffer<Bf16>::random(columns[i] * own, 0.2));
      batch.lora.terms[batch.lora.count++] = {batch.weights[batch.weights.size() - 2].data(),
                                              batch.weights.back().data(),
                                              cuts[segment],
                                              cuts[segment + 1],
                                              own,
                                              column,
                                              columns[i],
                                              projected,
                                              0.5};
      column += columns[i];
      projected += own;
    }
  }
  return batch;
}
Lora pointed(Batch& batch) {
  batch.lora.x = batch.x.data();
  batch.lora.y = batch.y.data();
  batch.lora.projected = batch.projected.data();
  batch.lora.counters = batch.counters.data();
  check(lora_splits(batch.lora) * batch.lora.rows * batch.lora.projected_width == batch.projected.size(),
        "lora: the size of what is projected");
  check(lora_counters(batch.lora) <= batch.counters.size(), "lora: the counters");
  return batch.lora;
}
// The batch with the adapters' part added to y, by the launch that is tested above.
Batch summed(const Batch& batch) {
  Batch copy = batch;
  const Lora lora = pointed(copy);
  run("lora", [&] { return cuda::lora(lora, nullptr); });
  return copy;
}
// The same rows of the same batch without the others: the bits of a row may not depend on how many there are, nor on which
// of a tile it is. Rounding hides most of what the first product could do otherwise, so its sums are compared as well.
void test_fewer_rows(int64_t rows, int64_t in, const std::vector<int32_t>& columns, int rank) {
  const std::string what = label("lora of fewer rows", "bf16", {rows, in, columns[0], rank});
  const Batch batch = make_batch(rows, in, columns, rank), all = summed(batch);
  for (const int64_t count : {1, 7, 70}) {
    Batch part = batch;
    const int64_t begin = between(rows / 4, rows - count), end = begin + count;
    for (int32_t i = 0; i < part.lora.count; ++i) {
      AdapterTerm& term = part.lora.terms[i];
      term.row_end = std::min(term.row_end, end);
      term.row_begin = std::min(std::max(term.row_begin, begin), term.row_end);
    }
    Buffer<Bf16> y = part.y;
    Buffer<float> projected = part.projected;
    const auto take = [&](auto& to, const auto& from, int64_t row, int64_t width) {
      std::copy_n(from.data() + row * width, count * width, to.data() + row * width);
    };
    take(y, all.y, begin, part.lora.out);
    for (int64_t first = 0; first < projected.size() / part.lora.projected_width; first += rows)
      take(projected, all.projected, first + begin, part.lora.projected_width);
    const Batch got = summed(part);
    check(got.y == y && got.projected == projected,
          what + ": " + std::to_string(count) + " rows alone differ");
  }
}
const Register fewer("lora of fewer rows", [] {
  test_fewer_rows(300, 1400, {128, 64}, 16);
  test_fewer_rows(1100, 3000, {256, 64}, 64);  // the larger items of the first product against the smaller
  test_fewer_rows(400, 1288, {96, 6400}, 128);
});

void check_left(const Batch& batch, const Buffer<Bf16>& y, const std::string& what) {
  check(batch.projected.whole() && batch.counters == Buffer<uint32_t>::zeros(batch.counters.size()),
        what + ": its counters must be zero again");
  check(batch.y == y, what + ": y must stay as it was");
}

void test_lora_swiglu(int64_t rows, int64_t in, int32_t size, int rank) {
  const std::string what = label("lora_swiglu", "bf16", {rows, in, size, rank});
  Batch batch = make_batch(rows, in, {size, size}, rank);
  Buffer<Bf16> want(rows * size), got(rows * size), sum = summed(batch).y;
  const Buffer<Bf16> y = batch.y;
  run(what, [&] { return swiglu(Type::kBf16, sum.data(), want.data(), rows, size, nullptr); });
  const Lora lora = pointed(batch);
  both_ways(
      what, [&] { return cuda::lora_swiglu(lora, got.data(), nullptr); }, got, batch.projected);
  check(got.whole() && got == want, what + ": not what the two launches compute");
  check_left(batch, y, what);
}
const Register gated("lora_swiglu", [] {
  test_lora_swiglu(40, 96, 256, 16);
  test_lora_swiglu(37, 1400, 296, 8);
  test_lora_swiglu(2, 64, 40, 40);
  test_lora_swiglu(1100, 72, 1000, 64);
  test_lora_swiglu(130, 200, 256, 128);
});

void test_lora_heads(int64_t rows, int heads, int kv_heads, int size, int rank, bool normed) {
  const std::string what = label("lora_heads", "bf16", {rows, heads, kv_heads, size, rank, normed});
  Batch batch = make_batch(rows, 104, {heads * size, kv_heads * size, kv_heads * size}, rank);
  auto q_norm = Buffer<Bf16>::random(size), k_norm = Buffer<Bf16>::random(size);
  constexpr int kPositions = 50;
  auto cos = Buffer<float>::random(kPositions * size / 2), sin = Buffer<float>::random(kPositions * size / 2);
  Buffer<int32_t> positions(rows), slots(rows);
  const int64_t pages = rows / kPageTokens + 2;
  for (int64_t r = 0; r < rows; ++r) {
    positions[r] = static_cast<int32_t>(between(0, kPositions - 1));
    slots[r] = r % 7 == 3 ? -1 : static_cast<int32_t>(pages * kPageTokens - 1 - r);
  }
  struct Out {
    Buffer<Bf16> q, k, v;
  };
  const auto make = [&] {
    return Out{Buffer<Bf16>(rows * heads * size), Buffer<Bf16>(pages * kv_heads * kPageTokens * size),
               Buffer<Bf16>(pages * kv_heads * kPageTokens * size)};
  };
  Out want = make(), got = make();
  const auto split = [&](const void* qkv, Out& out) {
    return SplitHeads{Type::kBf16,
                      rows,
                      heads,
                      kv_heads,
                      size,
                      qkv,
                      normed ? q_norm.data() : nullptr,
                      normed ? k_norm.data() : nullptr,
                      1e-6,
                      cos.data(),
                      sin.data(),
                      positions.data(),
                      nullptr,
                      slots.data(),
                      out.q.data(),
                      out.k.data(),
                      out.v.data()};
  };
  const Buffer<Bf16> sum = summed(batch).y, y = batch.y;
  run(what, [&] { return split_heads(split(sum.data(), want), nullptr); });
  const Lora lora = pointed(batch);
  check(lora_heads_fit(lora, split(nullptr, got)), what + " must fit");
  both_ways(
      what, [&] { return cuda::lora_heads(lora, split(nullptr, got), nullptr); }, got.q, got.k, got.v,
      batch.projected);
  check(got.q.whole() && got.k.whole() && got.v.whole(), what + ": wrote outside its results");
  check(got.q == want.q && got.k == want.k && got.v == want.v, what + ": not what the two launches compute");
  check_left(batch, y, what);
}
const Register split("lora_heads", [] {
  test_lora_heads(40, 4, 2, 64, 16, true);
  test_lora_heads(35, 9, 3, 64, 40, false);
  test_lora_heads(20, 8, 2, 128, 16, true);
  test_lora_heads(5, 3, 1, 128, 4, false);
  test_lora_heads(18, 2, 1, 256, 16, true);
  test_lora_heads(1100, 8, 2, 64, 64, true);
  test_lora_heads(150, 6, 2, 128, 128, true);
  test_lora_heads(70, 4, 1, 256, 64, true);
});

// Sizes and ranks that the tensor cores take, or any.
std::vector<int32_t> random_columns() {
  std::vector<int32_t> columns;
  for (int64_t count = between(1, 3); count > 0; --count)
    columns.push_back(static_cast<int32_t>(8 * between(1, 40)));
  return columns;
}
const auto random_rank = [](int64_t most) { return static_cast<int>(4 * between(1, most / 4)); };
const Register random_adapters("adapters of random shapes", [] {
  const auto body = [] {
    for_types([](auto element) {
      test_lora<decltype(element)>(near_edge(16, 80), near_edge(8, 200), static_cast<int>(between(1, 40)),
                                   random_columns());
    });
    test_lora<Bf16>(near_edge(64, 140), 8 * between(1, 200), random_rank(128), random_columns());
    test_lora_swiglu(near_edge(64, 140), 8 * between(1, 60), static_cast<int32_t>(8 * between(1, 60)),
                     random_rank(128));
    const auto kv_heads = static_cast<int>(between(1, 3)), group = static_cast<int>(between(1, 8));
    const int size = one_of<int>({64, 128, 256});
    test_lora_heads(near_edge(64, 140), kv_heads * group, kv_heads, size, random_rank(size == 256 ? 64 : 128),
                    between(0, 1) == 1);
  };
  for_rounds(body, 5);
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
