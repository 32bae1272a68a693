// Norms, SwiGLU, the embedding's gradient, rows and merges against plain loops in float64.
#include <algorithm>

#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

template <typename T>
void test_norm(int64_t rows, int64_t heads, int64_t size, bool residual, int groups_count, int64_t padding,
               int64_t before = 0) {
  using A = Accumulate<T>;
  const std::string what =
      label("rms_norm", name_of<T>(), {rows, heads, size, residual, groups_count, padding, before});
  const int64_t stride = heads * size + padding, shift = before * heads * size;
  auto x = Buffer<T>::random(rows * stride).shifted(before * stride),
       other = Buffer<T>::random(rows * heads * size).shifted(shift),
       weight = Buffer<T>::random(size, 0.1, 1), grad = Buffer<T>::random(rows * heads * size).shifted(shift);
  Buffer<T> y(rows * heads * size, shift), out(rows * heads * size, shift);
  Buffer<A> rstd(rows * heads);
  const Norm norm{type_of<T>(),
                  rows,
                  heads,
                  size,
                  {x.data(), stride, size},
                  {residual ? other.data() : nullptr, heads * size, size},
                  weight.data(),
                  y.data(),
                  rstd.data(),
                  1e-6};
  const Buffer<T> x_before = x;
  both_ways_early(
      what, [&] { return rms_norm(norm, nullptr); }, std::tie(other), x, y, rstd);
  Doubles sum(rows * heads * size), want(rows * heads * size), scales(rows * heads);
  for (int64_t r = 0; r < rows * heads; ++r) {
    double squares = 0;
    for (int64_t i = 0; i < size; ++i) {
      const int64_t from = r / heads * stride + r % heads * size + i;
      double value = x_before.at(from);
      if (residual) value = number(rounded<T>(value + other.at(r * size + i)));
      check(x.at(from) == value, what + ": the sum");
      sum[r * size + i] = value;
      squares += value * value;
    }
    scales[r] = 1 / std::sqrt(squares / static_cast<double>(size) + 1e-6);
    for (int64_t i = 0; i < size; ++i) want[r * size + i] = sum[r * size + i] * scales[r] * weight.at(i);
  }
  near(y, want, tolerance<T>(), what);
  near(rstd, scales, 2e-5, what + " rstd");

  Groups groups = groups_count > 0 ? random_groups(rows, groups_count) : Groups{};
  std::vector<Buffer<A>> targets;
  for (int k = 0; k < groups_count; ++k) targets.push_back(Buffer<A>::random(size));
  std::vector<Doubles> want_targets;
  for (const auto& target : targets) {
    want_targets.emplace_back();
    for (int64_t i = 0; i < size; ++i) want_targets.back().push_back(target.at(i));
  }
  for (int k = 0; k < groups_count; ++k) groups.target[k] = targets[k].data();
  int64_t longest = 0;
  for (int k = 0; k < groups_count; ++k) longest = std::max(longest, groups.offset[k + 1] - groups.offset[k]);
  const int32_t partials = norm_partials(longest * heads, rows * heads, size);
  Buffer<A> partial(std::max(groups_count, 1) * partials * size);
  const NormBackward backward{type_of<T>(),
                              rows,
                              heads,
                              size,
                              {grad.data(), heads * size, size},
                              {x.data(), stride, size},
                              {residual ? other.data() : nullptr, heads * size, size},
                              {out.data(), heads * size, size},
                              weight.data(),
                              rstd.data(),
                              groups,
                              partial.data(),
                              partials};
  run(what + ": the launch failed", [&] { return rms_norm_backward(backward, nullptr); });
  Doubles want_x(rows * heads * size);
  for (int64_t r = 0; r < rows * heads; ++r) {
    double mean = 0;
    int k = 0;
    while (k + 1 < groups_count && r / heads >= groups.offset[k + 1]) ++k;
    for (int64_t i = 0; i < size; ++i) {
      const double product = grad.at(r * size + i) * sum[r * size + i];
      mean += product * weight.at(i) / static_cast<double>(size);
      if (groups_count > 0) want_targets[k][i] += product * scales[r];
    }
    for (int64_t i = 0; i < size; ++i) {
      want_x[r * size + i] = scales[r] * (grad.at(r * size + i) * weight.at(i) -
                                          sum[r * size + i] * scales[r] * scales[r] * mean) +
                             (residual ? other.at(r * size + i) : 0);
    }
  }
  near(out, want_x, tolerance<T>(), what + " grad");
  check(partial.whole(), what + ": wrote outside the partial sums");
  for (int k = 0; k < groups_count; ++k) near(targets[k], want_targets[k], 2e-4, what + " weight gradient");
}

const Register norms("rms_norm", [] {
  for_types([](auto element) {
    using T = decltype(element);
    test_norm<T>(1, 1, 64, false, 0, 0);
    test_norm<T>(7, 1, 576, true, 1, 0);
    test_norm<T>(5, 1, 2560, true, 3, 8);
    test_norm<T>(9, 3, 64, false, 2, 24);
    test_norm<T>(6, 2, 128, false, 4, 0);
    test_norm<T>(3, 1, 33, true, 2, 3);
    test_norm<T>(4, 5, 7, false, 2, 1);
    test_norm<T>(40, 1, 1024, false, 5, 0);
  });
  // Every width of what a block holds, its edges, and one beyond; one whose rows are not those of packs.
  for (const int64_t size : {1032, 2048, 2056, 3072, 4096, 5120, 8192, 8200}) {
    test_norm<Bf16>(3, 1, size, true, 0, 0);
    test_norm<Bf16>(30, 1, size, false, 2, 8);
  }
  test_norm<Bf16>(5, 2, 1536, true, 2, 16);
  test_norm<Bf16>(4, 1, 1536, true, 1, 3);
});
const Register random_norms("rms_norm of random shapes", [] {
  for_rounds([] {
    for_types([](auto element) {
      const bool wide = between(0, 2) == 0;  // a row has a block, from 1,024 on
      const int64_t rows = one_of<int64_t>({1, between(1, 40)});
      test_norm<decltype(element)>(rows, wide ? 1 : between(1, 9),
                                   wide ? 1000 + near_edge(8, 1100) : near_edge(8, 300), between(0, 1),
                                   static_cast<int>(one_of<int64_t>({0, 1, between(2, 6), kMaxGroups})),
                                   one_of<int64_t>({0, 8, between(1, 24)}), between(0, 1));
    });
  });
});

template <typename T>
void test_swiglu(int64_t rows, int64_t size, int64_t before = 0) {
  const std::string what = label("swiglu", name_of<T>(), {rows, size, before});
  auto gate_up = Buffer<T>::random(rows * 2 * size, 2).shifted(before * 2 * size),
       grad = Buffer<T>::random(rows * size).shifted(before * size);
  Buffer<T> y(rows * size, before * size), out(rows * 2 * size, before * 2 * size);
  both_ways(
      what, [&] { return swiglu(type_of<T>(), gate_up.data(), y.data(), rows, size, nullptr); }, y);
  both_ways(
      what,
      [&] {
        return swiglu_backward(type_of<T>(), grad.data(), gate_up.data(), out.data(), rows, size, nullptr);
      },
      out);
  Doubles want(rows * size), want_grad(rows * 2 * size);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < size; ++i) {
      const int64_t gate_at = r * 2 * size + i;
      const double gate = gate_up.at(gate_at), up = gate_up.at(gate_at + size), s = 1 / (1 + std::exp(-gate)),
                   g = grad.at(r * size + i);
      want[r * size + i] = gate * s * up;
      want_grad[gate_at] = g * up * s * (1 + gate * (1 - s));
      want_grad[gate_at + size] = g * gate * s;
    }
  }
  near(y, want, tolerance<T>(), what);
  near(out, want_grad, tolerance<T>(), what + " grad");
}

const Register gates("swiglu", [] {
  for_types([](auto element) {
    using T = decltype(element);
    test_swiglu<T>(1, 8);
    test_swiglu<T>(5, 192);
    test_swiglu<T>(3, 37);
  });
});
const Register random_gates("swiglu of random shapes", [] {
  for_rounds([] {
    for_types([](auto element) {
      test_swiglu<decltype(element)>(between(1, 20), near_edge(8, 300), between(0, 1));
    });
  });
});

template <typename T>
void test_embedding(int64_t rows, int64_t size, int64_t vocabulary, int count, int64_t before = 0) {
  using A = Accumulate<T>;
  const std::string what = label("embedding_backward", name_of<T>(), {rows, size, vocabulary, count, before});
  auto grad = Buffer<T>::random(rows * size).shifted(before * size);
  Buffer<int64_t> tokens(rows);
  for (int64_t r = 0; r < rows; ++r) tokens[r] = between(0, vocabulary - 1);
  Groups groups = random_groups(rows, count);
  std::vector<Buffer<A>> targets;
  std::vector<Doubles> want;
  for (int k = 0; k < count; ++k) targets.push_back(Buffer<A>::random(vocabulary * size));
  for (int k = 0; k < count; ++k) {
    groups.target[k] = targets[k].data();
    want.emplace_back();
    for (int64_t i = 0; i < vocabulary * size; ++i) want.back().push_back(targets[k].at(i));
    for (int64_t r = groups.offset[k]; r < groups.offset[k + 1]; ++r) {
      for (int64_t i = 0; i < size; ++i) want[k][tokens[r] * size + i] += grad.at(r * size + i);
    }
  }
  run(what,
      [&] { return embedding_backward(type_of<T>(), grad.data(), tokens.data(), size, groups, nullptr); });
  for (int k = 0; k < count; ++k) near(targets[k], want[k], 2e-5, what);
}

const Register embeddings("embedding_backward", [] {
  for_types([](auto element) {
    using T = decltype(element);
    test_embedding<T>(1, 8, 3, 1);
    test_embedding<T>(300, 12, 7, 3);
    // A group of more rows than a block has threads.
    test_embedding<T>(600, 12, 7, 1);
    test_embedding<T>(64, 33, 500, 4);
  });
});
const Register random_embeddings("embedding_backward of random shapes", [] {
  for_rounds([] {
    for_types([](auto element) {
      const int64_t rows = one_of<int64_t>({1, between(1, 60), between(255, 258)});
      test_embedding<decltype(element)>(rows, near_edge(8, 40), between(1, 300),
                                        static_cast<int>(between(1, 5)), between(0, 1));
    });
  });
});

template <typename A>
void test_add_rows(const std::vector<int64_t>& ascending, int64_t rows, int64_t size, int64_t stride) {
  const auto count = static_cast<int64_t>(ascending.size());
  const std::string what = label("add_rows", name_of<A>(), {count, rows, size, stride});
  auto x = Buffer<A>::random(count * size), out = Buffer<A>::random(rows * stride);
  auto places = Buffer<int64_t>::of(ascending);
  Doubles want;
  for (int64_t i = 0; i < out.size(); ++i) want.push_back(out.at(i));
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t i = 0; i < size; ++i) want[ascending[r] * stride + i] += x.at(r * size + i);
  }
  both_ways(
      what,
      [&] {
        return add_rows(type_of<A>(), x.data(), places.data(), count, size, out.data(), stride, nullptr);
      },
      out);
  near(out, want, tolerance<A>(), what);
}

void test_gather_rows(const std::vector<int64_t>& rows, int64_t source_rows, int64_t width, int64_t before) {
  const auto count = static_cast<int64_t>(rows.size());
  const std::string what = label("gather_rows", "bf16", {count, source_rows, width, before});
  auto source = Buffer<Bf16>::random(source_rows * width).shifted(before * width);
  auto places = Buffer<int64_t>::of(rows);
  auto other = Buffer<Bf16>::random(source_rows * width);
  Buffer<Bf16> to(count * width), other_to(count * width);
  const GatherRows gather{
      {source.data(), other.data()}, {to.data(), other_to.data()}, places.data(), count, width * 2};
  both_ways(
      what, [&] { return gather_rows(gather, nullptr); }, to, other_to);
  check(to.whole() && other_to.whole(), what + ": wrote outside its results");
  for (int64_t i = 0; i < to.size(); ++i) {
    const int64_t from = rows[i / width] * width + i % width;
    check(to[i].bits == source[from].bits && other_to[i].bits == other[from].bits, what);
  }
}

std::vector<int64_t> random_rows(int64_t count, int64_t rows) {
  std::vector<int64_t> result(count);
  for (int64_t& row : result) row = between(0, rows - 1);
  return result;
}

const Register rows_test("add_rows and gather_rows", [] {
  test_add_rows<float>({0, 0, 2, 4, 4, 4}, 5, 21, 30);
  for (const int64_t width : {8, 16, 5}) test_gather_rows({8, 0, 3}, 9, width, 0);
});
const Register random_row_sets("add_rows and gather_rows of random shapes", [] {
  for_rounds([] {
    const int64_t rows = between(1, 40), size = near_edge(256, 600);
    std::vector<int64_t> ascending = random_rows(between(1, 30), rows);
    std::sort(ascending.begin(), ascending.end());
    test_add_rows<float>(ascending, rows, size, size + between(0, 9));
    test_add_rows<double>(ascending, rows, size, size + between(0, 9));
    test_gather_rows(random_rows(between(1, 30), rows), rows, near_edge(8, 300), between(0, 1));
  });
});

// First row and number of rows of each part.
using Spans = std::vector<std::pair<int64_t, int64_t>>;

template <typename T>
void test_merge(int64_t rows, int heads, int size, bool ordered, const Spans& spans, int64_t before = 0) {
  using A = Accumulate<T>;
  const std::string what = label("merge_parts", name_of<T>(),
                                 {rows, heads, size, ordered, static_cast<int64_t>(spans.size()), before});
  const int64_t width = heads * size, shift = before * width;
  auto out = Buffer<T>::random(rows * width).shifted(shift);
  auto logsumexp = Buffer<A>::random(heads * rows, 3);
  MergeParts merge{type_of<T>(), rows, heads, size, 0, out.data(), logsumexp.data(), nullptr, nullptr, {}};
  struct Part {
    Buffer<T> out;
    Buffer<A> logsumexp;
    int64_t begin, rows;
  };
  std::vector<Part> parts;
  for (const auto& [begin, count] : spans) {
    parts.push_back(
        {Buffer<T>::random(count * width).shifted(shift), Buffer<A>::random(heads * count, 3), begin, count});
    // A row that met no key, either way.
    if (count > 0)
      parts.back().logsumexp[between(0, heads * count - 1)] = parts.size() % 2 ? INFINITY : -INFINITY;
  }
  for (Part& part : parts)
    merge.parts[merge.count++] = {part.out.data(), part.logsumexp.data(), part.begin, part.rows};
  Buffer<int64_t> order(rows);
  for (int64_t r = 0; r < rows; ++r) order[r] = r;
  std::shuffle(order.data(), order.data() + rows, generator());
  Buffer<T> result(rows * width, shift);
  if (ordered) {
    merge.order = order.data();
    merge.ordered = result.data();
  }
  Doubles want(rows * heads * size), want_logsumexp(heads * rows);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      double total = std::exp(logsumexp.at(h * rows + r));
      Doubles sum(size);
      for (int64_t d = 0; d < size; ++d) sum[d] = total * out.at((r * heads + h) * size + d);
      for (const Part& part : parts) {
        if (r < part.begin || r >= part.begin + part.rows) continue;
        const int64_t inside = r - part.begin;
        const double l = part.logsumexp.at(h * part.rows + inside);
        if (!std::isfinite(l)) continue;
        total += std::exp(l);
        for (int64_t d = 0; d < size; ++d)
          sum[d] += std::exp(l) * part.out.at((inside * heads + h) * size + d);
      }
      want_logsumexp[h * rows + r] = std::log(total);
      for (int64_t d = 0; d < size; ++d)
        want[((ordered ? order[r] : r) * heads + h) * size + d] = sum[d] / total;
    }
  }
  both_ways(
      what, [&] { return merge_parts(merge, nullptr); }, out, logsumexp, result);
  near(ordered ? result : out, want, tolerance<T>(), what);
  near(logsumexp, want_logsumexp, 2e-5, what + " logsumexp");

  SumParts sum{type_of<T>(), rows, width, 0, nullptr, {}};
  Buffer<T> total(rows * width, shift);
  sum.out = total.data();
  Doubles want_total(rows * width);
  for (Part& part : parts) {
    sum.parts[sum.count++] = {part.out.data(), nullptr, part.begin, part.rows};
    for (int64_t i = 0; i < part.rows * width; ++i) want_total[part.begin * width + i] += part.out.at(i);
  }
  // Beside it a smaller sum, of an odd width: of one row alone.
  const int64_t narrow = width + 1;
  auto row = Buffer<T>::random(narrow);
  Buffer<T> alone(narrow);
  const SumParts sums[] = {sum, {sum.type, 1, narrow, 1, alone.data(), {{row.data(), nullptr, 0, 1}}}};
  for (const int count : {1, 2}) {
    both_ways(
        what, [&] { return sum_parts(sums, count, nullptr); }, total, alone);
    near(total, want_total, tolerance<T>(), what + " sum");
  }
  check(total.whole() && alone.whole(), what + ": wrote outside its sums");
  Doubles want_alone;
  for (int64_t i = 0; i < narrow; ++i) want_alone.push_back(row.at(i));
  near(alone, want_alone, tolerance<T>(), what + " sum alone");
}

Spans some_spans(int64_t rows) { return {{rows / 3, rows - rows / 3}, {rows / 2, 1}}; }
// Parts of any rows, some of none.
Spans random_spans(int64_t rows) {
  Spans spans;
  for (int64_t count = one_of<int64_t>({0, 1, between(2, 5), kMaxParts}); count > 0; --count) {
    const int64_t begin = between(0, rows);
    spans.emplace_back(begin, between(0, rows - begin));
  }
  return spans;
}

const Register merges("merge_parts", [] {
  for_types([](auto element) {
    using T = decltype(element);
    test_merge<T>(9, 3, 64, true, some_spans(9));
    test_merge<T>(4, 1, 20, false, some_spans(4));
    test_merge<T>(5, 2, 150, true, some_spans(5));  // wider than what lanes have at a time
  });
  test_merge<Bf16>(33, 5, 64, false, some_spans(33));
  test_merge<Bf16>(21, 9, 128, true, some_spans(21));
  test_merge<Bf16>(6, 2, 256, false, some_spans(6));
});
const Register random_merges("merge_parts of random shapes", [] {
  for_rounds([] {
    for_types([](auto element) {
      const int64_t rows = one_of<int64_t>({1, between(1, 40)});
      const auto size = static_cast<int>(one_of<int64_t>({64, 128, 256, near_edge(8, 256)}));
      test_merge<decltype(element)>(rows, static_cast<int>(between(1, 9)), size, between(0, 1),
                                    random_spans(rows), between(0, 1));
    });
  });
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
