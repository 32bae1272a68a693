// Norms, SwiGLU, the embedding's gradient, rows and merges against plain loops in float64.
#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

template <typename T>
void test_norm(int64_t rows, int64_t heads, int64_t size, bool residual, int groups_count, int64_t padding) {
  using A = Accumulate<T>;
  const std::string what =
      label("rms_norm", name_of<T>(), {rows, heads, size, residual, groups_count, padding});
  const int64_t stride = heads * size + padding;
  auto x = Buffer<T>::random(rows * stride), other = Buffer<T>::random(rows * heads * size),
       weight = Buffer<T>::random(size, 0.1, 1), grad = Buffer<T>::random(rows * heads * size);
  Buffer<T> y(rows * heads * size), out(rows * heads * size);
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
  const Buffer<T> before = x;
  both_ways(
      what, [&] { return rms_norm(norm, nullptr); }, x, y, rstd);
  Doubles sum(rows * heads * size), want(rows * heads * size), scales(rows * heads);
  for (int64_t r = 0; r < rows * heads; ++r) {
    double squares = 0;
    for (int64_t i = 0; i < size; ++i) {
      const int64_t from = r / heads * stride + r % heads * size + i;
      double value = before.at(from);
      if (residual)
        value = static_cast<double>(widen(narrow<T>(static_cast<A>(value + other.at(r * size + i)))));
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
  Buffer<A> partial(std::max(groups_count, 1) * norm_partials(longest * heads, size) * size);
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
                              partial.data()};
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
});

template <typename T>
void test_swiglu(int64_t rows, int64_t size) {
  const std::string what = label("swiglu", name_of<T>(), {rows, size});
  auto gate_up = Buffer<T>::random(rows * 2 * size, 2), grad = Buffer<T>::random(rows * size);
  Buffer<T> y(rows * size), out(rows * 2 * size);
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

template <typename T>
void test_embedding(int64_t rows, int64_t size, int64_t vocabulary, int count) {
  using A = Accumulate<T>;
  const std::string what = label("embedding_backward", name_of<T>(), {rows, size, vocabulary, count});
  auto grad = Buffer<T>::random(rows * size);
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
    test_embedding<T>(64, 33, 500, 4);
  });
});

const Register rows_test("add_rows and gather_rows", [] {
  const int64_t size = 21, stride = 30;
  auto x = Buffer<float>::random(6 * size), out = Buffer<float>::random(5 * stride);
  auto rows = Buffer<int64_t>::of({0, 0, 2, 4, 4, 4});
  Doubles want;
  for (int64_t i = 0; i < out.size(); ++i) want.push_back(out.at(i));
  for (int64_t r = 0; r < 6; ++r) {
    for (int64_t i = 0; i < size; ++i) want[rows[r] * stride + i] += x.at(r * size + i);
  }
  both_ways(
      "add_rows",
      [&] { return add_rows(Type::kFloat, x.data(), rows.data(), 6, size, out.data(), stride, nullptr); },
      out);
  near(out, want, 1e-5, "add_rows");
  for (const int64_t width : {8, 16, 5}) {
    auto source = Buffer<Bf16>::random(9 * width);
    auto places = Buffer<int64_t>::of({8, 0, 3});
    Buffer<Bf16> to(3 * width);
    both_ways(
        "gather_rows",
        [&] { return gather_rows(source.data(), places.data(), 3, width * 2, to.data(), nullptr); }, to);
    for (int64_t i = 0; i < 3 * width; ++i)
      check(to[i].bits == source[places[i / width] * width + i % width].bits, "gather_rows");
  }
});

template <typename T>
void test_merge(int64_t rows, int heads, int size, bool ordered) {
  using A = Accumulate<T>;
  const std::string what = label("merge_parts", name_of<T>(), {rows, heads, size, ordered});
  auto out = Buffer<T>::random(rows * heads * size);
  auto logsumexp = Buffer<A>::random(heads * rows, 3);
  MergeParts merge{type_of<T>(), rows, heads, size, 0, out.data(), logsumexp.data(), nullptr, nullptr, {}};
  struct Part {
    Buffer<T> out;
    Buffer<A> logsumexp;
    int64_t begin, rows;
  };
  std::vector<Part> parts;
  for (const auto& [begin, count] :
       std::vector<std::pair<int64_t, int64_t>>{{rows / 3, rows - rows / 3}, {rows / 2, 1}}) {
    parts.push_back(
        {Buffer<T>::random(count * heads * size), Buffer<A>::random(heads * count, 3), begin, count});
  }
  parts[0].logsumexp[0] = INFINITY;  // rows that met no key, either way
  parts[1].logsumexp[0] = -INFINITY;
  for (Part& part : parts)
    merge.parts[merge.count++] = {part.out.data(), part.logsumexp.data(), part.begin, part.rows};
  Buffer<int64_t> order(rows);
  for (int64_t r = 0; r < rows; ++r) order[r] = rows - 1 - r;
  Buffer<T> result(rows * heads * size);
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
        want[((ordered ? rows - 1 - r : r) * heads + h) * size + d] = sum[d] / total;
    }
  }
  both_ways(
      what, [&] { return merge_parts(merge, nullptr); }, out, logsumexp, result);
  near(ordered ? result : out, want, tolerance<T>(), what);
  near(logsumexp, want_logsumexp, 2e-5, what + " logsumexp");

  const int64_t width = heads * size;
  SumParts sum{type_of<T>(), rows, width, 0, nullptr, {}};
  Buffer<T> total(rows * width);
  sum.out = total.data();
  Doubles want_total(rows * width);
  for (Part& part : parts) {
    sum.parts[sum.count++] = {part.out.data(), nullptr, part.begin, part.rows};
    for (int64_t i = 0; i < part.rows * width; ++i) want_total[part.begin * width + i] += part.out.at(i);
  }
  both_ways(
      what, [&] { return sum_parts(sum, nullptr); }, total);
  near(total, want_total, tolerance<T>(), what + " sum");
}

const Register merges("merge_parts", [] {
  for_types([](auto element) {
    using T = decltype(element);
    test_merge<T>(9, 3, 64, true);
    test_merge<T>(4, 1, 20, false);
    test_merge<T>(5, 2, 150, true);  // wider than what lanes have at a time
  });
  test_merge<Bf16>(33, 5, 64, false);
  test_merge<Bf16>(21, 9, 128, true);
  test_merge<Bf16>(6, 2, 256, false);
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
