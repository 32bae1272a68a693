// Log-probabilities and statistics over flat vectors against plain loops in float64.
#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

template <typename T>
void test_logprobs(int64_t count, int64_t vocabulary, bool with_entropy, int64_t before = 0) {
  using A = Accumulate<T>;
  const std::string what = label("token_logprobs", name_of<T>(), {count, vocabulary, with_entropy, before});
  auto logits = Buffer<A>::random(count * vocabulary, 4).shifted(before * vocabulary);
  Buffer<int64_t> targets(count);
  Buffer<double> temperatures(count);
  for (int64_t e = 0; e < count; ++e) {
    targets[e] = between(0, vocabulary - 1);
    temperatures[e] = e % 2 ? 0.7 : 1.0;
    if (vocabulary > 2) logits[e * vocabulary + (targets[e] + 1) % vocabulary] = -INFINITY;
  }
  Buffer<A> logprobs(count), entropy(count), logsumexp(count);
  const Type wide = type_of<A>();
  both_ways(
      what,
      [&] {
        return token_logprobs({wide, logits.data(), targets.data(), temperatures.data(), logprobs.data(),
                               entropy.data(), logsumexp.data(), count, vocabulary},
                              nullptr);
      },
      logprobs, entropy, logsumexp);
  auto grad = Buffer<A>::random(count), grad_entropy = Buffer<A>::random(count);
  Buffer<T> out(count * vocabulary, before * vocabulary);
  both_ways(
      what,
      [&] {
        return token_logprobs_backward(
            {type_of<T>(), logits.data(), targets.data(), temperatures.data(), entropy.data(),
             logsumexp.data(), grad.data(), with_entropy ? grad_entropy.data() : nullptr, out.data(), count,
             vocabulary},
            nullptr);
      },
      out);
  Doubles want_logprobs, want_entropy, want_logsumexp, want_grad;
  for (int64_t e = 0; e < count; ++e) {
    double best = -INFINITY, total = 0, h = 0;
    const auto logit = [&](int64_t j) { return logits.at(e * vocabulary + j) / temperatures[e]; };
    for (int64_t j = 0; j < vocabulary; ++j) best = std::max(best, logit(j));
    for (int64_t j = 0; j < vocabulary; ++j) total += std::exp(logit(j) - best);
    const double all = best + std::log(total);
    for (int64_t j = 0; j < vocabulary; ++j) {
      const double log_p = logit(j) - all;
      if (std::isfinite(log_p)) h -= std::exp(log_p) * log_p;
    }
    want_logprobs.push_back(logit(targets[e]) - all);
    want_entropy.push_back(h);
    want_logsumexp.push_back(all);
    for (int64_t j = 0; j < vocabulary; ++j) {
      const double log_p = logit(j) - all, p = std::exp(log_p);
      double value = grad.at(e) * ((j == targets[e]) - p);
      if (with_entropy && p > 0) value -= grad_entropy.at(e) * p * (log_p + h);
      want_grad.push_back(value / temperatures[e]);
    }
  }
  near(logprobs, want_logprobs, 1e-5, what);
  near(entropy, want_entropy, 1e-5, what + " entropy");
  near(logsumexp, want_logsumexp, 1e-5, what + " logsumexp");
  near(out, want_grad, tolerance<T>(), what + " gradient");
}

const Register logprobs("token_logprobs", [] {
  for_types([](auto element) {
    using T = decltype(element);
    test_logprobs<T>(1, 2, true);
    test_logprobs<T>(5, 1500, false);
    test_logprobs<T>(4, 999, true);
    test_logprobs<T>(2, 4104, true);  // more than what a block has
  });
});
const Register random_logprobs("token_logprobs of random shapes", [] {
  for_rounds([] {
    for_types([](auto element) {
      const int64_t vocabulary = one_of<int64_t>({1, near_edge(8, 100), near_edge(512, 2500)});
      test_logprobs<decltype(element)>(between(1, 6), vocabulary, between(0, 1), between(0, 1));
    });
  });
});

// parts: whether a group must be cut.
void test_weight_gradient(int64_t rows, int wide_size, int narrow_size, bool transposed, int count,
                          bool parts = false) {
  const std::string what = label("weight_gradient", "", {rows, wide_size, narrow_size, transposed, count});
  const int64_t wide_stride = wide_size + 24, narrow_stride = narrow_size + 8;
  auto wide = Buffer<Bf16>::random(rows * wide_stride), narrow = Buffer<Bf16>::random(rows * narrow_stride);
  WeightGradient args{wide.data(), narrow.data(), wide_stride, narrow_stride,
                      wide_size,   narrow_size,   transposed,  random_groups(rows, count),
                      nullptr,     nullptr};
  check(weight_gradient_fits(args), what + " must fit");
  const int64_t size = static_cast<int64_t>(wide_size) * narrow_size;
  auto targets = Buffer<float>::random(count * size);
  Doubles want;
  for (int64_t i = 0; i < targets.size(); ++i) want.push_back(targets.at(i));
  for (int k = 0; k < count; ++k) {
    args.groups.target[k] = targets.data() + k * size;
    for (int64_t r = args.groups.offset[k]; r < args.groups.offset[k + 1]; ++r) {
      for (int m = 0; m < wide_size; ++m) {
        for (int n = 0; n < narrow_size; ++n)
          want[k * size + (transposed ? n * wide_size + m : m * narrow_size + n)] +=
              wide.at(r * wide_stride + m) * narrow.at(r * narrow_stride + n);
      }
    }
  }
  Buffer<float> partial(weight_gradient_partial(args));
  auto counters = Buffer<uint32_t>::zeros(weight_gradient_counters(args));
  if (parts) check(counters.size() > 0, what + ": must be cut into parts");
  if (counters.size() > 0) {
    args.partial = partial.data();
    args.counters = counters.data();
  }
  // Parts are added in their order, whichever block comes last.
  both_ways(
      what, [&] { return weight_gradient(args, nullptr); }, targets, counters);
  check(partial.whole() && counters.whole(), what + ": wrote outside");
  check(counters == Buffer<uint32_t>::zeros(counters.size()), what + ": its counters must be zero again");
  near(targets, want, 1e-4, what);
}

const Register weight_gradients("weight_gradient", [] {
  test_weight_gradient(1, 8, 8, false, 1);
  test_weight_gradient(100, 136, 16, false, 3);
  test_weight_gradient(200, 256, 72, true, 4);
  test_weight_gradient(64, 40, 64, true, 2);
  test_weight_gradient(1100, 24, 16, false, 2, true);  // several parts, the last ones not full
  test_weight_gradient(530, 136, 8, true, 1, true);
  test_weight_gradient(300, 136, 32, false, 1, true);
  test_weight_gradient(700, 8, 48, true, 3, true);
  test_weight_gradient(600, 136, 136, true, 2, true);  // several tiles of columns
});
const Register random_weight_gradients("weight_gradient of random shapes", [] {
  for_rounds([] {
    const int64_t rows = one_of<int64_t>({1, between(1, 90), between(500, 1100)});
    const auto wide = static_cast<int>(8 * between(1, rows < 100 ? 36 : 18)),
               narrow = static_cast<int>(8 * between(1, rows < 100 ? 17 : 3));
    test_weight_gradient(rows, wide, narrow, between(0, 1),
                         static_cast<int>(one_of<int64_t>({1, between(2, 6)})));
  });
});

struct Flat {
  std::vector<Piece> pieces;
  std::vector<int32_t> starts;
  int64_t size = 0, decay_size = 0;
};
// Parameters of several sizes with gaps between them, cut into pieces of at most `most`.
Flat make_flat(const std::vector<int64_t>& sizes, size_t decaying, int64_t most) {
  Flat flat;
  for (size_t i = 0; i < sizes.size(); ++i) {
    flat.starts.push_back(static_cast<int32_t>(flat.pieces.size()));
    for (int64_t done = 0; done < sizes[i]; done += most)
      flat.pieces.push_back(
          {flat.size + done, std::min(most, sizes[i] - done), static_cast<int32_t>(i), i < decaying});
    flat.size += sizes[i] + 3;
    if (i + 1 == decaying) flat.decay_size = flat.size;
  }
  flat.starts.push_back(static_cast<int32_t>(flat.pieces.size()));
  return flat;
}

using Sizes = std::vector<int64_t>;

template <typename A>
void test_statistics(int count, const Sizes& sizes, int64_t most) {
  const std::string what =
      label("statistics", name_of<A>(), {count, static_cast<int64_t>(sizes.size()), most});
  const Flat flat = make_flat(sizes, 3, most);
  const auto parameters = static_cast<int32_t>(sizes.size()),
             pieces_count = static_cast<int32_t>(flat.pieces.size());
  std::vector<Buffer<A>> data;
  Vectors vectors{type_of<A>(), count, {}, {}};
  for (int j = 0; j < count; ++j) {
    data.push_back(Buffer<A>::random(flat.size));
    vectors.coefficient[j] = j % 2 ? -0.5 : 1 + 0.1 * j;
  }
  for (int j = 0; j < count; ++j) vectors.data[j] = data[j].data();
  Buffer<Piece> pieces(pieces_count);
  std::copy(flat.pieces.begin(), flat.pieces.end(), pieces.data());
  auto starts = Buffer<int32_t>::of(flat.starts);
  const auto bounds = [&](int32_t p) {
    int64_t begin = 0;
    for (int32_t i = 0; i < p; ++i) begin += sizes[i] + 3;
    return std::pair{begin, begin + sizes[p]};
  };

  Buffer<double> products(static_cast<int64_t>(pieces_count) * count * count),
      totals(static_cast<int64_t>(parameters) * count * count);
  both_ways(
      what, [&] { return gram_pieces(vectors, pieces.data(), pieces_count, products.data(), nullptr); },
      products);
  both_ways(
      what,
      [&] {
        return sum_pieces(products.data(), starts.data(), parameters, count * count, totals.data(), nullptr);
      },
      totals);
  for (int32_t p = 0; p < parameters; ++p) {
    const auto [begin, end] = bounds(p);
    for (int k = 0; k < count; ++k) {
      for (int l = k; l < count; ++l) {
        double want = 0;
        for (int64_t i = begin; i < end; ++i) want += data[k].at(i) * data[l].at(i);
        check(std::abs(totals.at((p * count + k) * count + l) - want) < 1e-9 * (1 + std::abs(want)),
              what + ": gram");
      }
    }
  }
}

// A step of `count` vectors over parameters with gaps between them, which stay as they are.
template <typename A>
void test_step(int count, bool keep_total, double eps, const Sizes& sizes, size_t decaying, int64_t most) {
  const std::string what =
      label("step", name_of<A>(),
            {count, keep_total, static_cast<int64_t>(sizes.size()), static_cast<int64_t>(decaying), most});
  const Flat flat = make_flat(sizes, decaying, most);
  const auto parameters = static_cast<int32_t>(sizes.size()),
             pieces_count = static_cast<int32_t>(flat.pieces.size());
  constexpr bool kRounds = std::is_same_v<A, float>;
  std::vector<Buffer<A>> data;
  Vectors vectors{type_of<A>(), count, {}, {}};
  for (int j = 0; j < count; ++j) {
    data.push_back(Buffer<A>::random(flat.size));
    vectors.coefficient[j] = j % 2 ? -0.5 : 1 + 0.1 * j;
  }
  for (int j = 0; j < count; ++j) vectors.data[j] = data[j].data();
  const int64_t part_sizes[] = {flat.decay_size, flat.size - flat.decay_size};
  auto theta = Buffer<A>::random(flat.size), average0 = Buffer<A>::random(part_sizes[0], 0.1),
       average1 = Buffer<A>::random(part_sizes[1], 0.1);
  Buffer<A> square0(part_sizes[0]), square1(part_sizes[1]), total(flat.size);
  for (int64_t i = 0; i < square0.size(); ++i) square0[i] = static_cast<A>(0.1 + std::abs(normal(0.1)));
  for (int64_t i = 0; i < square1.size(); ++i) square1[i] = static_cast<A>(0.1 + std::abs(normal(0.1)));
  // Elements that never had a gradient.
  for (int64_t i = 0; i < square0.size(); i += 5) {
    for (int j = 0; j < count; ++j) data[j][i] = 0;
    average0[i] = square0[i] = 0;
  }
  Buffer<Bf16> copy(flat.size);
  Buffer<Piece> pieces(pieces_count);
  std::copy(flat.pieces.begin(), flat.pieces.end(), pieces.data());
  auto starts = Buffer<int32_t>::of(flat.starts);
  const AdamWUpdate step{theta.data(),
                         kRounds ? copy.data() : nullptr,
                         keep_total ? total.data() : nullptr,
                         {average0.data(), average1.data()},
                         {square0.data(), square1.data()},
                         flat.decay_size,
                         1e-2,
                         0.9,
                         0.99,
                         eps,
                         0.1,
                         0.7,
                         1 - 0.9 * 0.9,
                         1 - 0.99 * 0.99};
  const int width = count + 3;
  Buffer<double> parts(static_cast<int64_t>(pieces_count) * width),
      sums(static_cast<int64_t>(parameters) * width);
  const Buffer<A> theta_before = theta, average0_before = average0, average1_before = average1,
                  square0_before = square0, square1_before = square1, total_before = total;
  const Buffer<Bf16> copy_before = copy;
  both_ways(
      what, [&] { return adamw_pieces(vectors, step, pieces.data(), pieces_count, parts.data(), nullptr); },
      parts, theta, average0, average1, square0, square1, total, copy);
  run(what, [&] { return sum_pieces(parts.data(), starts.data(), parameters, width, sums.data(), nullptr); });

  const auto before = [&](const Buffer<A>& all) {
    Doubles values(all.size());
    for (int64_t i = 0; i < all.size(); ++i) values[i] = all.at(i);
    return values;
  };
  Doubles want_theta = before(theta_before), want_total = before(total_before);
  Doubles want_average[] = {before(average0_before), before(average1_before)},
          want_square[] = {before(square0_before), before(square1_before)};
  const double close = kRounds ? 2e-6 : 1e-11;
  std::vector<bool> stepped(flat.size);
  int64_t begin = 0;
  for (int32_t p = 0; p < parameters; begin += sizes[p++] + 3) {
    const bool decays = p < static_cast<int32_t>(decaying);
    Doubles want(width), mass(width, 1e-3);
    for (int64_t i = begin; i < begin + sizes[p]; ++i) {
      const int64_t at = decays ? i : i - flat.decay_size;
      double &m = want_average[decays ? 0 : 1][at], &v = want_square[decays ? 0 : 1][at], whole = 0;
      for (int j = 0; j < count; ++j) whole += vectors.coefficient[j] * data[j].at(i);
      const double g = 0.7 * whole;
      v = 0.99 * v + 0.01 * g * g;
      const double root = std::sqrt(v / step.correction2) + eps;
      const double scale = root == 0 ? 0 : -1e-2 / (step.correction1 * root);
      const double momentum = scale * 0.9 * m, decay = decays ? -1e-2 * 0.1 * want_theta[i] : 0;
      const double change = scale * 0.1 * g + momentum + decay;
      const auto add = [&](int j, double value) {
        want[j] += value;
        mass[j] += std::abs(value);
      };
      for (int j = 0; j < count; ++j)
        add(j, scale * 0.1 * 0.7 * vectors.coefficient[j] * data[j].at(i) * change);
      add(count, momentum * change);
      add(count + 1, decay * change);
      add(count + 2, whole * whole);
      m = 0.9 * m + 0.1 * g;
      want_theta[i] += change;
      if (keep_total) want_total[i] = whole;
      stepped[i] = true;
    }
    for (int j = 0; j < width; ++j)
      check(std::abs(sums.at(p * width + j) - want[j]) < close * mass[j], what + ": parts of the step");
  }
  near(theta, want_theta, close, what + ": parameters");
  near(average0, want_average[0], close, what + ": averages");
  near(average1, want_average[1], close, what + ": averages without decay");
  near(square0, want_square[0], close, what + ": squares");
  near(square1, want_square[1], close, what + ": squares without decay");
  for (int64_t i = 0; i < flat.size; ++i) {
    const bool right = kRounds && stepped[i] ? copy[i].bits == rounded<Bf16>(theta.at(i)).bits
                                             : copy[i].bits == copy_before.data()[i].bits;
    check(right, what + ": the rounded parameters");
    if (!keep_total || !stepped[i])
      check(memcmp(&total[i], total_before.data() + i, sizeof(A)) == 0, what + ": a total that nobody wants");
    else
      check(std::abs(total.at(i) - want_total[i]) <= close * (1 + std::abs(want_total[i])), what + ": total");
  }
  check(copy.whole() && total.whole() && parts.whole(), what + ": wrote outside");
}

const Sizes kSizes = {700, 1, 513, 62, 9};
Sizes random_sizes() {
  Sizes sizes(between(1, 6));
  for (int64_t& size : sizes) size = one_of<int64_t>({between(1, 9), near_edge(256, 800)});
  return sizes;
}
// Vectors: those that a kernel has registers for, or any number.
int random_count() { return static_cast<int>(one_of<int64_t>({1, between(2, 9), between(10, kMaxVectors)})); }

const Register statistics("statistics", [] {
  test_statistics<float>(1, kSizes, 300);
  test_statistics<float>(4, kSizes, 300);
  test_statistics<double>(6, kSizes, 300);
  test_statistics<float>(11, kSizes, 300);
});
const Register steps("step", [] {
  test_step<float>(1, false, 1e-8, kSizes, 3, 300);
  test_step<float>(3, true, 0, kSizes, 3, 300);
  test_step<float>(8, true, 1e-8, kSizes, 3, 300);
  test_step<float>(11, false, 0, kSizes, 3, 300);
  test_step<double>(2, false, 0, kSizes, 3, 300);
  test_step<double>(9, true, 1e-8, kSizes, 3, 300);
});
const Register random_steps("statistics and step of random shapes", [] {
  for_rounds(
      [] {
        const Sizes sizes = random_sizes();
        const auto decaying = static_cast<size_t>(between(0, static_cast<int64_t>(sizes.size())));
        const double eps = one_of<double>({0, 1e-8});
        test_statistics<float>(random_count(), sizes, near_edge(4, 400));
        test_statistics<double>(random_count(), sizes, near_edge(4, 400));
        test_step<float>(random_count(), between(0, 1), eps, sizes, decaying, near_edge(4, 400));
        test_step<double>(random_count(), between(0, 1), eps, sizes, decaying, near_edge(4, 400));
      },
      /*share=*/10);
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
