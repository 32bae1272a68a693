// Adapters, alone and with what follows them in a decode layer, against plain loops in float64 and separate launches.
#include <algorithm>
#include <limits>
#include <numeric>

#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

// Two adapters on bf16 rows, and rows that have none before, between and behind them. `columns` are those of the terms; an
// adapter lacks some, and their ranks differ: terms of rank 0 stand for what is lacking. A row of y goes on with what its
// adapters' A made of its input, and canaries between them: columns of NaN that nobody may read or write.
struct Batch {
  std::vector<Buffer<Bf16>> weights;
  Lora lora;
  Buffer<Bf16> y;
};
Batch make_batch(int64_t rows, const std::vector<int32_t>& columns, int rank) {
  const int32_t out = std::accumulate(columns.begin(), columns.end(), 0);
  const int pitch = (rank + 7) / 8 * 8 + 8;
  const int64_t stride = out + 8 + static_cast<int64_t>(columns.size()) * pitch * 2;
  Batch batch{{}, {rows, out, stride, nullptr, 0, {}}, Buffer<Bf16>(rows * stride)};
  const auto fill = [&](int64_t row, int64_t column, int64_t count) {
    for (int64_t i = 0; i < count; ++i) batch.y[row * stride + column + i] = rounded<Bf16>(normal(1));
  };
  for (int64_t row = 0; row < rows; ++row) fill(row, 0, out);
  batch.weights.reserve(64);
  const int64_t middle = rows / 2 + 1,
                cuts[] = {0, rows / 8, rows / 2, middle, std::max(middle, rows - 1), rows};
  for (int segment = 0; segment < 5; ++segment) {
    if (cuts[segment] >= cuts[segment + 1]) continue;
    int32_t column = 0;
    for (size_t i = 0; i < columns.size(); ++i) {
      // The first adapter lacks the second term, the second the first, where there are two.
      const bool lone = columns.size() == 1, first = segment == 1 && (lone || i != 1),
                 second = segment == 3 && (lone || i != 0);
      const int32_t own = first ? rank : second ? rank / 2 / 4 * 4 + 4 : 0;
      const auto projected = static_cast<int32_t>(out + 8 + (2 * i + second) * pitch);
      batch.weights.push_back(Buffer<Bf16>::random(columns[i] * own, 0.2));
      batch.lora.terms[batch.lora.count++] = {batch.weights.back().data(),
                                              cuts[segment],
                                              cuts[segment + 1],
                                              own,
                                              column,
                                              columns[i],
                                              projected,
                                              own == 0 ? 0 : (first ? 0.7f : -0.4f) / (1 + i)};
      for (int64_t row = cuts[segment]; row < cuts[segment + 1]; ++row) fill(row, projected, own);
      column += columns[i];
    }
  }
  return batch;
}
Lora pointed(Batch& batch) {
  batch.lora.y = batch.y.data();
  return batch.lora;
}
// The batch with the adapters' part added to y, by the launch that is tested first.
Batch summed(const Batch& batch) {
  Batch copy = batch;
  const Lora lora = pointed(copy);
  run("lora", [&] { return cuda::lora(lora, nullptr); });
  return copy;
}
// Its y alone.
Buffer<Bf16> packed(const Batch& batch) {
  const auto& [rows, out, stride, y, count, terms] = batch.lora;
  Buffer<Bf16> result(rows * out);
  for (int64_t row = 0; row < rows; ++row)
    std::copy_n(batch.y.data() + row * stride, out, result.data() + row * out);
  return result;
}
bool same_bits(const Buffer<Bf16>& a, const Buffer<Bf16>& b) {
  return a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(Bf16)) == 0;
}

void test_lora(int64_t rows, const std::vector<int32_t>& columns, int rank) {
  const std::string what = label("lora", "bf16", {rows, columns[0], rank});
  Batch batch = make_batch(rows, columns, rank);
  const Batch before = batch;
  Doubles want;
  for (int64_t i = 0; i < batch.y.size(); ++i) want.push_back(batch.y.at(i));
  for (int32_t t = 0; t < batch.lora.count; ++t) {
    const AdapterTerm& term = batch.lora.terms[t];
    const Buffer<Bf16>& b = batch.weights[t];
    for (int64_t row = term.row_begin; row < term.row_end; ++row) {
      for (int64_t j = 0; j < term.columns; ++j) {
        double sum = 0;
        for (int r = 0; r < term.rank; ++r)
          sum += before.y.at(row * batch.lora.stride + term.projected + r) * b.at(j * term.rank + r);
        want[row * batch.lora.stride + term.column + j] += term.scale * sum;
      }
    }
  }
  const Lora lora = pointed(batch);
  both_ways_early(
      what, [&] { return cuda::lora(lora, nullptr); }, std::tie(), batch.y);
  check(batch.y.whole(), what + ": wrote outside");
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t begin = row * batch.lora.stride;
    check(memcmp(batch.y.data() + begin + lora.out, before.y.data() + begin + lora.out,
                 (lora.stride - lora.out) * sizeof(Bf16)) == 0,
          what + ": what lies behind y must stay as it was");
    Buffer<Bf16> own(lora.out);
    std::copy_n(batch.y.data() + begin, lora.out, own.data());
    near(own, Doubles(want.begin() + begin, want.begin() + begin + lora.out), 2 * tolerance<Bf16>(), what);
  }
}
const Register adapters("lora", [] {
  test_lora(1, {64}, 4);
  test_lora(40, {96, 32, 24}, 16);
  test_lora(20, {152}, 72);
  test_lora(50, {1000}, 40);
  test_lora(200, {160, 160}, 128);  // several tiles of 64 rows
  test_lora(160, {11264}, 8);       // many tiles of columns
  test_lora(1100, {96, 32, 24}, 64);
});

// The same rows of the same batch without the others: the bits of a row may not depend on how many there are, nor on which
// of a tile it is.
void test_fewer_rows(int64_t rows, const std::vector<int32_t>& columns, int rank) {
  const std::string what = label("lora of fewer rows", "bf16", {rows, columns[0], rank});
  const Batch batch = make_batch(rows, columns, rank), all = summed(batch);
  for (const int64_t count : {1, 7, 70}) {
    Batch part = batch;
    const int64_t begin = between(rows / 4, rows - count), end = begin + count;
    for (int32_t i = 0; i < part.lora.count; ++i) {
      AdapterTerm& term = part.lora.terms[i];
      term.row_end = std::min(term.row_end, end);
      term.row_begin = std::min(std::max(term.row_begin, begin), term.row_end);
    }
    Buffer<Bf16> y = part.y;
    const int64_t stride = part.lora.stride;
    std::copy_n(all.y.data() + begin * stride, count * stride, y.data() + begin * stride);
    check(same_bits(summed(part).y, y), what + ": " + std::to_string(count) + " rows alone differ");
  }
}
const Register fewer("lora of fewer rows", [] {
  test_fewer_rows(300, {128, 64}, 16);
  test_fewer_rows(1100, {256, 64}, 64);
  test_fewer_rows(400, {96, 6400}, 128);
});

void check_left(const Batch& batch, const Buffer<Bf16>& y, const std::string& what) {
  check(same_bits(batch.y, y), what + ": y must stay as it was");
}

void test_lora_swiglu(int64_t rows, int32_t size, int rank) {
  const std::string what = label("lora_swiglu", "bf16", {rows, size, rank});
  Batch batch = make_batch(rows, {size, size}, rank);
  Buffer<Bf16> want(rows * size), got(rows * size), sum = packed(summed(batch));
  const Buffer<Bf16> y = batch.y;
  run(what, [&] { return swiglu(Type::kBf16, sum.data(), want.data(), rows, size, nullptr); });
  const Lora lora = pointed(batch);
  both_ways_early(
      what, [&] { return cuda::lora_swiglu(lora, got.data(), nullptr); }, std::tie(batch.y), got);
  check(got.whole() && got == want, what + ": not what the two launches compute");
  check_left(batch, y, what);
}
const Register gated("lora_swiglu", [] {
  test_lora_swiglu(40, 256, 16);
  test_lora_swiglu(37, 296, 8);
  test_lora_swiglu(2, 40, 40);
  test_lora_swiglu(1100, 1000, 64);
  test_lora_swiglu(130, 256, 128);
});

void test_lora_heads(int64_t rows, int heads, int kv_heads, int size, int rank, bool normed) {
  const std::string what = label("lora_heads", "bf16", {rows, heads, kv_heads, size, rank, normed});
  Batch batch = make_batch(rows, {heads * size, kv_heads * size, kv_heads * size}, rank);
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
  const Buffer<Bf16> sum = packed(summed(batch)), y = batch.y;
  run(what, [&] { return split_heads(split(sum.data(), want), nullptr); });
  const Lora lora = pointed(batch);
  check(lora_heads_fit(lora, split(nullptr, got)), what + " must fit");
  both_ways_early(
      what, [&] { return cuda::lora_heads(lora, split(nullptr, got), nullptr); }, std::tie(batch.y), got.q,
      got.k, got.v);
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
  test_lora_heads(70, 4, 1, 256, 128, true);
});

constexpr double kEps = 0.5;  // enough to be seen

// Every row's norm, of a sum whose bits are those of separate launches.
void test_lora_norm(int64_t rows, int32_t out, int rank) {
  const std::string what = label("lora_norm", "bf16", {rows, out, rank});
  Batch batch = make_batch(rows, {out}, rank);
  const auto stream = Buffer<Bf16>::random(rows * out), weight = Buffer<Bf16>::random(out);
  Buffer<Bf16> want_x = stream, want_y(rows * out), x = stream, y(rows * out), sum = packed(summed(batch));
  Buffer<float> rstd(rows);
  const Buffer<Bf16> before = batch.y;
  run(what, [&] {
    return rms_norm({Type::kBf16,
                     rows,
                     1,
                     out,
                     {want_x.data(), out, out},
                     {sum.data(), out, out},
                     weight.data(),
                     want_y.data(),
                     rstd.data(),
                     kEps},
                    nullptr);
  });
  const Lora lora = pointed(batch);
  const LoraNorm norm{lora, x.data(), weight.data(), y.data(), kEps};
  check(lora_norm_fits(norm), what + " must fit");
  both_ways_early(
      what, [&] { return cuda::lora_norm(norm, nullptr); }, std::tie(batch.y), x, y);
  check(x.whole() && y.whole(), what + ": wrote outside its results");
  check(same_bits(x, want_x), what + ": not the stream that separate launches make");
  Doubles wanted;
  for (int64_t i = 0; i < want_y.size(); ++i) wanted.push_back(want_y.at(i));
  near(y, wanted, tolerance<Bf16>(), what);
  check_left(batch, before, what);
}
const Register normed("lora_norm", [] {
  test_lora_norm(3, 128, 4);
  test_lora_norm(9, 1024, 16);
  test_lora_norm(40, 2560, 16);
  test_lora_norm(22, 2560, 24);
  test_lora_norm(7, 2688, 32);  // two spans of a warp, of which the last has one
  test_lora_norm(5, 5120, 16);
  test_lora_norm(261, 384, 28);  // four rows of a block
  test_lora_norm(515, 128, 8);
});

// A row's bits do not depend on the others, nor on how many there are.
void test_norm_of_fewer_rows(int64_t rows, int32_t out, int rank) {
  const std::string what = label("lora_norm of fewer rows", "bf16", {rows, out, rank});
  Batch batch = make_batch(rows, {out}, rank);
  const auto stream = Buffer<Bf16>::random(rows * out), weight = Buffer<Bf16>::random(out);
  const auto normed = [&](int64_t begin, int64_t count) {
    Buffer<Bf16> x(count * out), y(count * out);
    std::copy_n(stream.data() + begin * out, count * out, x.data());
    Lora lora = pointed(batch);
    lora.rows = count;
    lora.y = batch.y.data() + begin * lora.stride;
    for (int32_t i = 0; i < lora.count; ++i) {
      lora.terms[i].row_begin -= begin;
      lora.terms[i].row_end -= begin;
    }
    run(what, [&] { return cuda::lora_norm({lora, x.data(), weight.data(), y.data(), kEps}, nullptr); });
    return y;
  };
  const Buffer<Bf16> all = normed(0, rows);
  for (const int64_t count : {1, 6, 256, 261}) {  // two rows of a block, and from 257 on four
    const int64_t begin = between(0, rows - count);
    const Buffer<Bf16> part = normed(begin, count);
    check(memcmp(part.data(), all.data() + begin * out, count * out * sizeof(Bf16)) == 0,
          what + ": " + std::to_string(count) + " rows alone differ");
  }
}
const Register normed_fewer("lora_norm of fewer rows", [] {
  test_norm_of_fewer_rows(300, 256, 16);
  test_norm_of_fewer_rows(262, 2560, 20);
  test_norm_of_fewer_rows(262, 2688, 4);
});

// What lora_norm's callers must do otherwise.
const Register unfit("lora_norm that does not fit", [] {
  const auto refused = [](const std::string& what, int32_t out, const std::function<void(Lora&)>& change) {
    Batch batch = make_batch(20, {out}, 8);
    const auto weight = Buffer<Bf16>::random(out);
    Buffer<Bf16> x(20 * out), y(20 * out);
    Lora lora = pointed(batch);
    change(lora);
    const LoraNorm norm{lora, x.data(), weight.data(), y.data(), kEps};
    check(!lora_norm_fits(norm) && cuda::lora_norm(norm, nullptr) != 0, "lora_norm of " + what);
  };
  refused("a width between multiples of 128", 192, [](Lora&) {});
  refused("a width beyond 5,120", 5248, [](Lora&) {});
  refused("a term of some columns", 256, [](Lora& lora) { lora.terms[1].columns = 128; });
  refused("a term of later columns", 256, [](Lora& lora) { lora.terms[1].column = 128; });
  refused("rows that do not ascend", 256, [](Lora& lora) { std::swap(lora.terms[1], lora.terms[2]); });
  refused("a rank of 6", 256, [](Lora& lora) { lora.terms[1].rank = 6; });
  refused("a rank beyond 32", 256, [](Lora& lora) { lora.terms[1].rank = 36; });
});

// Infinite numbers in an adapter's B and in one row reach neither a tile's other rows nor those without an adapter.
// f(batch) → the results of each row.
void test_infinite(const std::string& name, int64_t rows, const std::vector<int32_t>& columns, int rank,
                   const std::function<Buffer<Bf16>(Batch&)>& f) {
  const std::string what =
      label((name + " beside infinite numbers").c_str(), "bf16", {rows, columns[0], rank});
  Batch batch = make_batch(rows, columns, rank), broken = batch;
  const int64_t broken_row = rows / 2 - 2, first = rows / 2 + 1, last = rows - 1;  // and the second adapter's
  std::fill_n(broken.y.data() + broken_row * broken.lora.stride, broken.lora.stride,
              rounded<Bf16>(-std::numeric_limits<double>::infinity()));
  for (int32_t t = 0; t < broken.lora.count; ++t) {
    if (broken.lora.terms[t].row_begin != first) continue;
    Buffer<Bf16>& b = broken.weights[t];
    std::fill_n(b.data(), b.size(), rounded<Bf16>(std::numeric_limits<double>::infinity()));
    broken.lora.terms[t].b = b.data();
  }
  const Buffer<Bf16> want = f(batch), got = f(broken);
  const int64_t width = want.size() / rows;
  for (int64_t row = 0; row < rows; ++row) {
    const bool same = memcmp(want.data() + row * width, got.data() + row * width, width * sizeof(Bf16)) == 0;
    const bool touched = row == broken_row || (row >= first && row < last);
    check(same != touched,
          what + ": row " + std::to_string(row) + (same ? " does not see" : " sees") + " them");
  }
}
const Register infinite("lora beside infinite numbers", [] {
  for (const int64_t rows : {40, 300}) {
    test_infinite("lora", rows, {96, 32}, 20, [](const Batch& batch) { return packed(summed(batch)); });
    test_infinite("lora_swiglu", rows, {48, 48}, 20, [&](Batch& batch) {
      Buffer<Bf16> gated(rows * 48);
      const Lora lora = pointed(batch);
      run("lora_swiglu", [&] { return cuda::lora_swiglu(lora, gated.data(), nullptr); });
      return gated;
    });
    const auto stream = Buffer<Bf16>::random(rows * 256), weight = Buffer<Bf16>::random(256);
    test_infinite("lora_norm", rows, {256}, 20, [&](Batch& batch) {
      Buffer<Bf16> x = stream, y(rows * 256);
      const Lora lora = pointed(batch);
      run("lora_norm", [&] {
        return cuda::lora_norm({lora, x.data(), weight.data(), y.data(), kEps}, nullptr);
      });
      return y;
    });
  }
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
    test_lora(near_edge(64, 140), random_columns(), random_rank(128));
    test_lora_swiglu(near_edge(64, 140), static_cast<int32_t>(8 * between(1, 60)), random_rank(128));
    test_lora_norm(std::max<int64_t>(3, near_edge(256, 300)), static_cast<int32_t>(128 * between(1, 24)),
                   random_rank(kMostNormRank));
    const auto kv_heads = static_cast<int>(between(1, 3)), group = static_cast<int>(between(1, 8));
    const int size = one_of<int>({64, 128, 256});
    test_lora_heads(near_edge(64, 140), kv_heads * group, kv_heads, size, random_rank(128),
                    between(0, 1) == 1);
  };
  for_rounds(body, 5);
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
