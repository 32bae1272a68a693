// Heads split, normed, rotated and put in their places, and back, against plain loops in float64.
#include <algorithm>

#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

// One (row, head) of the reference: norm, then rotation. Returns rstd.
double reference_head(const double* x, const double* weight, const double* cos, const double* sin,
                      int64_t size, double* y) {
  double squares = 0;
  for (int64_t i = 0; i < size; ++i) squares += x[i] * x[i];
  const double scale = weight ? 1 / std::sqrt(squares / static_cast<double>(size) + 1e-6) : 1;
  const int64_t half = size / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double a = x[i] * scale * (weight ? weight[i] : 1),
                 b = x[half + i] * scale * (weight ? weight[half + i] : 1);
    y[i] = a * cos[i] - b * sin[i];
    y[half + i] = b * cos[i] + a * sin[i];
  }
  return scale;
}

template <typename T>
void test_heads(int64_t rows, int heads, int kv_heads, int size, bool norm, int count, bool paged,
                int64_t before = 0) {
  using A = Accumulate<T>;
  const std::string what =
      label("split_heads", name_of<T>(), {rows, heads, kv_heads, size, norm, count, paged, before});
  const int64_t all = heads + 2 * kv_heads, half = size / 2, positions_count = 40, pages = 5;
  auto qkv = Buffer<T>::random(rows * all * size).shifted(before * all * size),
       q_norm = Buffer<T>::random(size, 0.1, 1), k_norm = Buffer<T>::random(size, 0.1, 1);
  Buffer<A> cos(positions_count * half), sin(positions_count * half);
  for (int64_t i = 0; i < cos.size(); ++i) {
    const double angle = normal(3);
    cos[i] = static_cast<A>(std::cos(angle));
    sin[i] = static_cast<A>(std::sin(angle));
  }
  Buffer<int32_t> positions(rows), slots(rows);
  Buffer<int64_t> place(rows);
  std::vector<int32_t> free_slots;
  for (int32_t s = 0; s < pages * kPageTokens; ++s) free_slots.push_back(s);
  std::shuffle(free_slots.begin(), free_slots.end(), generator());
  for (int64_t r = 0; r < rows; ++r) {
    positions[r] = static_cast<int32_t>(between(0, positions_count - 1));
    place[r] = r;
    slots[r] = r % 5 == 4 ? -1 : free_slots[r];
  }
  std::shuffle(place.data(), place.data() + rows, generator());
  const int64_t stored = paged ? pages * kPageTokens : rows;
  Buffer<T> q(rows * heads * size), k(stored * kv_heads * size), v(stored * kv_heads * size);
  SplitHeads args{type_of<T>(),
                  rows,
                  heads,
                  kv_heads,
                  size,
                  qkv.data(),
                  norm ? q_norm.data() : nullptr,
                  norm ? k_norm.data() : nullptr,
                  1e-6,
                  cos.data(),
                  sin.data(),
                  positions.data(),
                  paged ? nullptr : place.data(),
                  paged ? slots.data() : nullptr,
                  q.data(),
                  k.data(),
                  v.data()};
  both_ways(
      what, [&] { return split_heads(args, nullptr); }, q, k, v);
  check(q.whole() && k.whole() && v.whole(), what + ": wrote outside its results");

  Doubles want_q(q.size(), NAN), want_k(k.size(), NAN), want_v(v.size(), NAN);
  const auto to_doubles = [](const auto& buffer, int64_t begin, int64_t length) {
    Doubles result;
    for (int64_t i = 0; i < length; ++i) result.push_back(buffer.at(begin + i));
    return result;
  };
  for (int64_t r = 0; r < rows; ++r) {
    const Doubles c = to_doubles(cos, positions[r] * half, half),
                  s = to_doubles(sin, positions[r] * half, half);
    for (int64_t h = 0; h < all; ++h) {
      const Doubles x = to_doubles(qkv, (r * all + h) * size, size);
      const Doubles weight = to_doubles(h < heads ? q_norm : k_norm, 0, size);
      const int64_t kv = h < heads ? h : (h - heads) % kv_heads;
      int64_t to = (place[r] * (h < heads ? heads : kv_heads) + kv) * size;
      if (paged && h < heads) to = (r * heads + h) * size;
      if (paged && h >= heads) {
        if (slots[r] < 0) continue;
        to = ((slots[r] / kPageTokens * kv_heads + kv) * kPageTokens + slots[r] % kPageTokens) * size;
      }
      Doubles& want = h < heads ? want_q : h < heads + kv_heads ? want_k : want_v;
      if (h < heads + kv_heads)
        reference_head(x.data(), norm ? weight.data() : nullptr, c.data(), s.data(), size, &want[to]);
      else
        std::copy(x.begin(), x.end(), want.begin() + to);
    }
  }
  const auto compare = [&](const Buffer<T>& got, const Doubles& want) {
    for (int64_t i = 0; i < got.size(); ++i) {
      if (std::isnan(want[i]))
        check(std::isnan(got.at(i)), what + ": wrote where nothing goes");
      else
        check(std::abs(got.at(i) - want[i]) <= 1.5 * tolerance<T>() * (1 + std::abs(want[i])),
              what + ": element " + std::to_string(i));
    }
  };
  compare(q, want_q);
  compare(k, want_k);
  compare(v, want_v);
  if (paged) return;

  auto dq = Buffer<T>::random(rows * heads * size), dk = Buffer<T>::random(rows * kv_heads * size),
       dv = Buffer<T>::random(rows * kv_heads * size);
  args.q = dq.data();
  args.k = dk.data();
  args.v = dv.data();
  Buffer<T> out(rows * all * size, before * all * size);
  Groups q_groups = count > 0 ? random_groups(rows, count) : Groups{};
  Groups k_groups = q_groups;
  std::vector<Buffer<A>> targets;
  std::vector<Doubles> want_targets;
  for (int i = 0; i < 2 * count; ++i) {
    targets.push_back(Buffer<A>::random(size));
    want_targets.push_back(to_doubles(targets.back(), 0, size));
  }
  for (int i = 0; i < count; ++i) {
    q_groups.target[i] = targets[i].data();
    k_groups.target[i] = targets[count + i].data();
  }
  int64_t longest = 0;
  for (int i = 0; i < count; ++i) longest = std::max(longest, q_groups.offset[i + 1] - q_groups.offset[i]);
  const int32_t partials = heads_partials(longest, rows);
  Buffer<A> partial(std::max(count, 1) * partials * 2 * size);
  const HeadsBackward backward{args, out.data(), q_groups, k_groups, partial.data(), partials};
  run(what + " backward", [&] { return split_heads_backward(backward, nullptr); });
  check(partial.whole(), what + ": wrote outside the partial sums");
  Doubles want(out.size());
  for (int64_t r = 0; r < rows; ++r) {
    int group = 0;
    while (group + 1 < count && r >= q_groups.offset[group + 1]) ++group;
    for (int64_t h = 0; h < all; ++h) {
      const Doubles x = to_doubles(qkv, (r * all + h) * size, size);
      const Buffer<T>& from = h < heads ? dq : h < heads + kv_heads ? dk : dv;
      const int64_t kv = h < heads ? h : (h - heads) % kv_heads, width = h < heads ? heads : kv_heads;
      Doubles g = to_doubles(from, (place[r] * width + kv) * size, size);
      double* const to = &want[(r * all + h) * size];
      if (h >= heads + kv_heads) {
        std::copy(g.begin(), g.end(), to);
        continue;
      }
      for (int64_t i = 0; i < half; ++i) {
        const double c = cos.at(positions[r] * half + i), s = sin.at(positions[r] * half + i), a = g[i],
                     b = g[half + i];
        g[i] = a * c + b * s;
        g[half + i] = b * c - a * s;
      }
      if (!norm) {
        std::copy(g.begin(), g.end(), to);
        continue;
      }
      const Doubles weight = to_doubles(h < heads ? q_norm : k_norm, 0, size);
      double squares = 0, mean = 0;
      for (int64_t i = 0; i < size; ++i) squares += x[i] * x[i];
      const double scale = 1 / std::sqrt(squares / size + 1e-6);
      for (int64_t i = 0; i < size; ++i) mean += g[i] * x[i] * weight[i] / size;
      for (int64_t i = 0; i < size; ++i) {
        to[i] = scale * (g[i] * weight[i] - x[i] * scale * scale * mean);
        if (count > 0) want_targets[(h < heads ? 0 : count) + group][i] += g[i] * x[i] * scale;
      }
    }
  }
  near(out, want, tolerance<T>(), what + " backward");
  for (int i = 0; i < 2 * count; ++i) near(targets[i], want_targets[i], 2e-4, what + " weight gradient");
}

const Register heads_test("split_heads", [] {
  for_types([](auto element) {
    using T = decltype(element);
    test_heads<T>(1, 4, 2, 64, true, 1, false);
    test_heads<T>(7, 3, 1, 128, true, 3, false);
    test_heads<T>(6, 4, 4, 64, false, 0, false);
    test_heads<T>(5, 2, 1, 256, true, 0, false);
    test_heads<T>(9, 5, 5, 20, true, 2, false);
    test_heads<T>(11, 6, 2, 64, true, 0, true);
    test_heads<T>(6, 2, 1, 36, false, 0, true);
  });
});
const Register random_heads("split_heads of random shapes", [] {
  for_rounds([] {
    for_types([](auto element) {
      const auto kv_heads = static_cast<int>(between(1, 5)), group = static_cast<int>(between(1, 8)),
                 size = static_cast<int>(one_of<int64_t>({64, 128, 256, 2 * between(1, 128)}));
      const int64_t rows = one_of<int64_t>({1, between(1, std::clamp(4000 / (size * group), 2, 80))});
      const bool paged = between(0, 1);
      const int64_t groups = paged ? 0 : one_of<int64_t>({0, 1, between(2, 6)});
      test_heads<decltype(element)>(rows, kv_heads * group, kv_heads, size, between(0, 1),
                                    static_cast<int>(groups), paged, between(0, 1));
    });
  });
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
