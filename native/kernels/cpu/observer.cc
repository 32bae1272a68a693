// Every vector's part is widened to fp64 and multiplied while it lies in the cache. Pieces have partial sums
// of their own, added in order afterwards, so that the result does not depend on which thread took which;
// sums run over sixteen lanes on every instruction set.
#include "kernels/cpu/observer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/sixteen.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

// Elements of each vector that are widened and multiplied at a time: all vectors' parts stay in the cache.
constexpr int64_t kChunk = 1024;
constexpr int64_t kPiece = 1 << 20;

// length elements from `from`, zeros up to kChunk; null: zeros.
template <typename T>
void widen(const T* from, int64_t length, double* to) {
  if (!from) length = 0;
  for (int64_t i = 0; i < length; ++i) to[i] = static_cast<double>(from[i]);
  std::fill(to + length, to + kChunk, 0.0);
}

// Both of kChunk elements.
double inner_product(const double* a, const double* b) {
  Sixteen<double> lanes;
  for (int64_t i = 0; i < kChunk; i += kSixteen)
    lanes = multiply_add(Sixteen<double>::load(a + i), Sixteen<double>::load(b + i), lanes);
  return sum(lanes);
}

struct Piece {
  int64_t range, begin, length;
};

// Pieces of about equal size, none across two ranges.
std::vector<Piece> pieces_of(std::span<const Range> ranges) {
  std::vector<Piece> pieces;
  for (size_t r = 0; r < ranges.size(); ++r) {
    for (int64_t done = 0; done < ranges[r].size; done += kPiece)
      pieces.push_back(
          {static_cast<int64_t>(r), ranges[r].begin + done, std::min(kPiece, ranges[r].size - done)});
  }
  return pieces;
}

// f(piece, space, sums) for every piece, `width` sums each, `space` doubles of room; then added up in `out`,
// range by range.
template <typename F>
void sum_pieces(std::span<const Range> ranges, int64_t width, int64_t space, double* out, const F& f) {
  const std::vector<Piece> pieces = pieces_of(ranges);
  std::vector<double> partial(pieces.size() * width, 0.0);
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t first, int64_t last) {
    std::vector<double> room(space);
    for (int64_t p = first; p < last; ++p) f(pieces[p], room.data(), &partial[p * width]);
  });
  std::fill_n(out, static_cast<int64_t>(ranges.size()) * width, 0.0);
  for (size_t p = 0; p < pieces.size(); ++p) {
    for (int64_t i = 0; i < width; ++i) out[pieces[p].range * width + i] += partial[p * width + i];
  }
}

template <typename T>
void gram_of(std::span<const void* const> vectors, std::span<const Range> ranges, double* out) {
  const auto count = static_cast<int64_t>(vectors.size());
  sum_pieces(ranges, count * count, count * kChunk, out, [&](const Piece& piece, double* wide, double* sums) {
    for (int64_t done = 0; done < piece.length; done += kChunk) {
      const int64_t length = std::min(kChunk, piece.length - done);
      for (int64_t k = 0; k < count; ++k)
        widen(static_cast<const T*>(vectors[k]) + piece.begin + done, length, wide + k * kChunk);
      for (int64_t k = 0; k < count; ++k) {
        for (int64_t l = k; l < count; ++l)
          sums[k * count + l] += inner_product(wide + k * kChunk, wide + l * kChunk);
      }
    }
  });
}

// One chunk of the AdamW step. In: w [kChunk] the combined gradient, not clipped. Out: w, whose products with
// a_j g_j are those of u_j with Δθ; returns the products of momentum and decay.
struct CarriedProducts {
  double momentum = 0, decay = 0;
};
CarriedProducts weigh_chunk(const AdamW& step, double weight_decay, int64_t length, const double* average,
                            const double* square, const double* theta, double* w) {
  const double correction1 = 1 - std::pow(step.beta1, static_cast<double>(step.step));
  const double correction2 = 1 - std::pow(step.beta2, static_cast<double>(step.step));
  CarriedProducts carried;
  for (int64_t i = 0; i < length; ++i) {
    const double g = step.clip * w[i];
    const double v = (step.beta2 * square[i] + (1 - step.beta2) * g * g) / correction2;
    const double factor = -step.learning_rate / (correction1 * (std::sqrt(v) + step.eps));
    // Where ε is 0 and there is no gradient, nothing moves: 0 · ∞ would say otherwise.
    const double scale = std::isfinite(factor) ? factor : 0;
    const double momentum = scale * step.beta1 * average[i];
    const double decay = -step.learning_rate * weight_decay * theta[i];
    const double change = scale * (1 - step.beta1) * g + momentum + decay;
    carried.momentum += momentum * change;
    carried.decay += decay * change;
    w[i] = scale * (1 - step.beta1) * step.clip * change;
  }
  return carried;
}

template <typename T>
void step_products_of(std::span<const void* const> vectors, std::span<const double> coefficients,
                      const void* theta, std::span<const Range> ranges, const AdamW& step, double* out) {
  const auto count = static_cast<int64_t>(vectors.size());
  sum_pieces(ranges, count + 2, (count + 4) * kChunk, out,
             [&](const Piece& piece, double* room, double* sums) {
               double *const w = room + count * kChunk, *const average = w + kChunk,
                             *const square = average + kChunk, *const weights = square + kChunk;
               const bool decays = ranges[piece.range].decays;
               const auto moment = [&](const void* const* parts, int64_t begin) {
                 const auto* const from = static_cast<const T*>(parts[decays ? 0 : 1]);
                 return from ? from + begin - (decays ? 0 : step.decay_size) : nullptr;
               };
               for (int64_t done = 0; done < piece.length; done += kChunk) {
                 const int64_t begin = piece.begin + done, length = std::min(kChunk, piece.length - done);
                 std::fill_n(w, kChunk, 0.0);
                 for (int64_t j = 0; j < count; ++j) {
                   double* const part = room + j * kChunk;
                   widen(static_cast<const T*>(vectors[j]) + begin, length, part);
                   for (int64_t i = 0; i < kChunk; ++i) w[i] += coefficients[j] * part[i];
                 }
                 widen(moment(step.averages, begin), length, average);
                 widen(moment(step.squares, begin), length, square);
                 widen(static_cast<const T*>(theta) + begin, length, weights);
                 const CarriedProducts carried =
                     weigh_chunk(step, decays ? step.weight_decay : 0, length, average, square, weights, w);
                 for (int64_t j = 0; j < count; ++j)
                   sums[j] += coefficients[j] * inner_product(room + j * kChunk, w);
                 sums[count] += carried.momentum;
                 sums[count + 1] += carried.decay;
               }
             });
}

}  // namespace

void gram(c10::ScalarType dtype, std::span<const void* const> vectors, std::span<const Range> ranges,
          double* out) {
  if (dtype == c10::ScalarType::Double)
    gram_of<double>(vectors, ranges, out);
  else
    gram_of<float>(vectors, ranges, out);
}

void step_products(c10::ScalarType dtype, std::span<const void* const> vectors,
                   std::span<const double> coefficients, const void* theta, std::span<const Range> ranges,
                   const AdamW& step, double* out) {
  if (dtype == c10::ScalarType::Double)
    step_products_of<double>(vectors, coefficients, theta, ranges, step, out);
  else
    step_products_of<float>(vectors, coefficients, theta, ranges, step, out);
}

double squared_norm(c10::ScalarType dtype, const void* vector, int64_t size) {
  const Range whole[] = {{0, size, false}};
  const void* const vectors[] = {vector};
  double result = 0;
  gram(dtype, vectors, whole, &result);
  return result;
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
