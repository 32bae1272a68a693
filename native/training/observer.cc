#include "training/observer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "training/memory.h"

namespace troupe::training {
namespace {

// Elements of each group that are widened and multiplied at a time: all groups' parts stay in the cache.
constexpr int64_t kChunk = 1024;
// Sums that run side by side, so that the additions do not wait for each other. Fixed, so that the result
// does not depend on the instruction set.
constexpr int64_t kLanes = 16;

// One copy for each instruction set, chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TROUPE_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TROUPE_CLONES
#endif

TROUPE_CLONES void widen(const float* from, int64_t length, double* to) {
  for (int64_t i = 0; i < length; ++i) to[i] = static_cast<double>(from[i]);
}
void widen(const double* from, int64_t length, double* to) { std::copy_n(from, length, to); }

// Both of kChunk elements.
TROUPE_CLONES double inner_product(const double* a, const double* b) {
  double lanes[kLanes] = {};
  for (int64_t i = 0; i < kChunk; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

// Adds the upper triangle of one chunk's products to out [K, K]. wide: room for K chunks.
template <typename T>
void add_products(const std::vector<const T*>& gradients, int64_t begin, int64_t length,
                  std::vector<double>& wide, double* out) {
  const auto groups = static_cast<int64_t>(gradients.size());
  for (int64_t k = 0; k < groups; ++k) {
    double* const part = &wide[k * kChunk];
    widen(gradients[k] + begin, length, part);
    std::fill(part + length, part + kChunk, 0.0);
  }
  for (int64_t k = 0; k < groups; ++k) {
    for (int64_t l = k; l < groups; ++l)
      out[k * groups + l] += inner_product(&wide[k * kChunk], &wide[l * kChunk]);
  }
}

struct Piece {
  int64_t parameter, begin, length;
};

// Pieces of about equal size, none across two parameters: each has partial sums of its own, added in order
// afterwards, so that the result does not depend on which thread took which.
std::vector<Piece> pieces_of(const ParameterLayout& layout) {
  constexpr int64_t kPiece = 1 << 20;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < layout.parameters.size(); ++i) {
    const ParameterSpec& spec = layout.parameters[i];
    for (int64_t done = 0; done < spec.size; done += kPiece) {
      pieces.push_back({static_cast<int64_t>(i), spec.offset + done, std::min(kPiece, spec.size - done)});
    }
  }
  return pieces;
}

template <typename T>
std::vector<double> gram_on_cpu(const ParameterLayout& layout, const std::vector<at::Tensor>& gradients) {
  const auto groups = static_cast<int64_t>(gradients.size()), size = groups * groups;
  std::vector<const T*> data;
  for (const at::Tensor& gradient : gradients) data.push_back(gradient.const_data_ptr<T>());
  const std::vector<Piece> pieces = pieces_of(layout);
  std::vector<double> partial(pieces.size() * size, 0.0);
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t first, int64_t last) {
    std::vector<double> wide(groups * kChunk);
    for (int64_t p = first; p < last; ++p) {
      const Piece& piece = pieces[p];
      for (int64_t done = 0; done < piece.length; done += kChunk) {
        add_products(data, piece.begin + done, std::min(kChunk, piece.length - done), wide,
                     &partial[p * size]);
      }
    }
  });
  std::vector<double> result(layout.parameters.size() * size, 0.0);
  for (size_t p = 0; p < pieces.size(); ++p) {
    for (int64_t i = 0; i < size; ++i) result[pieces[p].parameter * size + i] += partial[p * size + i];
  }
  return result;
}

// On other devices: one product per parameter and pair, summed in fp64.
std::vector<double> gram_by_aten(const ParameterLayout& layout, const std::vector<at::Tensor>& gradients) {
  const auto groups = static_cast<int64_t>(gradients.size()), size = groups * groups;
  std::vector<double> result(layout.parameters.size() * size, 0.0);
  for (size_t i = 0; i < layout.parameters.size(); ++i) {
    const ParameterSpec& spec = layout.parameters[i];
    std::vector<at::Tensor> rows;
    for (const at::Tensor& gradient : gradients) rows.push_back(gradient.narrow(0, spec.offset, spec.size));
    const at::Tensor all = at::stack(rows).to(at::kDouble);
    const at::Tensor products = at::mm(all, all.t()).cpu().contiguous();
    std::copy_n(products.const_data_ptr<double>(), size, &result[i * size]);
  }
  return result;
}

// The lower triangles from the upper ones.
void mirror(std::vector<double>& products, int64_t groups) {
  for (size_t base = 0; base < products.size(); base += groups * groups) {
    for (int64_t k = 0; k < groups; ++k) {
      for (int64_t l = 0; l < k; ++l) products[base + k * groups + l] = products[base + l * groups + k];
    }
  }
}

// The accumulators and then the extras; checks that they are alike.
std::vector<at::Tensor> all_vectors(const ParameterSet& parameters, const std::vector<at::Tensor>& extras) {
  const int64_t groups = parameters.gradient_groups();
  TORCH_CHECK(groups > 0, "no gradients were begun: there is nothing to observe");
  std::vector<at::Tensor> vectors;
  for (int64_t k = 0; k < groups; ++k) vectors.push_back(parameters.gradient(k));
  for (const at::Tensor& extra : extras) {
    TORCH_CHECK(extra.sizes() == vectors[0].sizes() && extra.scalar_type() == vectors[0].scalar_type() &&
                    extra.is_contiguous(),
                "an extra vector must be like the gradients, ", vectors[0].scalar_type(), " ",
                vectors[0].sizes(), ", got ", extra.scalar_type(), " ", extra.sizes());
    vectors.push_back(extra);
  }
  return vectors;
}

void check_coefficients(std::span<const double> coefficients, size_t vectors) {
  TORCH_CHECK(coefficients.size() == vectors, "there are ", vectors, " gradients but ", coefficients.size(),
              " coefficients");
}

// One chunk of the AdamW step. In: w [kChunk] the combined gradient, not clipped. Out: w, whose products with
// a_j g_j are those of u_j with Δθ; returns the products of momentum and decay.
struct CarriedProducts {
  double momentum = 0, decay = 0;
};
TROUPE_CLONES CarriedProducts weigh_chunk(const AdamWStep& step, double weight_decay, int64_t length,
                                          const double* average, const double* square, const double* theta,
                                          double* w) {
  const double correction1 = 1 - std::pow(step.beta1, static_cast<double>(step.step));
  const double correction2 = 1 - std::pow(step.beta2, static_cast<double>(step.step));
  CarriedProducts carried;
  for (int64_t i = 0; i < length; ++i) {
    const double g = step.clip * w[i];
    const double v = (step.beta2 * square[i] + (1 - step.beta2) * g * g) / correction2;
    const double scale = -step.learning_rate / (correction1 * (std::sqrt(v) + step.eps));
    const double momentum = scale * step.beta1 * average[i];
    const double decay = -step.learning_rate * weight_decay * theta[i];
    const double change = scale * (1 - step.beta1) * g + momentum + decay;
    carried.momentum += momentum * change;
    carried.decay += decay * change;
    // Where ε is 0 and there is no gradient, nothing moves: 0 · ∞ would say otherwise.
    w[i] = std::isfinite(scale) ? scale * (1 - step.beta1) * step.clip * change : 0;
  }
  return carried;
}

// Sources of one parameter set's AdamW step as plain pointers; a null moment is zero.
template <typename T>
struct StepPointers {
  std::vector<const T*> vectors;
  const T* theta;
  const T* averages[2] = {};
  const T* squares[2] = {};
};

template <typename T>
void step_piece(const StepPointers<T>& from, const ParameterLayout& layout, const Piece& piece,
                std::span<const double> coefficients, const AdamWStep& step, std::vector<double>& space,
                double* out) {
  const size_t vectors = from.vectors.size();
  double *const w = &space[vectors * kChunk], *const average = w + kChunk, *const square = average + kChunk,
                *const theta = square + kChunk;
  const bool decays = layout.parameters[piece.parameter].decay;
  const int64_t range = decays ? 0 : 1, origin = decays ? 0 : layout.decay_size;
  const auto load = [](const T* from, int64_t begin, int64_t length, double* to) {
    if (from)
      widen(from + begin, length, to);
    else
      std::fill_n(to, length, 0.0);
    std::fill(to + length, to + kChunk, 0.0);
  };
  for (int64_t done = 0; done < piece.length; done += kChunk) {
    const int64_t begin = piece.begin + done, length = std::min(kChunk, piece.length - done);
    std::fill_n(w, kChunk, 0.0);
    for (size_t j = 0; j < vectors; ++j) {
      double* const part = &space[j * kChunk];
      load(from.vectors[j], begin, length, part);
      for (int64_t i = 0; i < kChunk; ++i) w[i] += coefficients[j] * part[i];
    }
    load(from.averages[range], begin - origin, length, average);
    load(from.squares[range], begin - origin, length, square);
    load(from.theta, begin, length, theta);
    const CarriedProducts carried =
        weigh_chunk(step, decays ? step.weight_decay : 0, length, average, square, theta, w);
    for (size_t j = 0; j < vectors; ++j) out[j] += coefficients[j] * inner_product(&space[j * kChunk], w);
    out[vectors] += carried.momentum;
    out[vectors + 1] += carried.decay;
  }
}

template <typename T>
std::vector<double> step_products(const ParameterSet& parameters, const std::vector<at::Tensor>& vectors,
                                  std::span<const double> coefficients, const AdamWStep& step) {
  const ParameterLayout& layout = parameters.layout();
  StepPointers<T> from{{}, parameters.master().const_data_ptr<T>()};
  for (const at::Tensor& vector : vectors) from.vectors.push_back(vector.const_data_ptr<T>());
  for (size_t range = 0; range < step.averages.size(); ++range) {
    from.averages[range] = step.averages[range].const_data_ptr<T>();
    from.squares[range] = step.squares[range].const_data_ptr<T>();
  }
  const std::vector<Piece> pieces = pieces_of(layout);
  const size_t width = vectors.size() + 2;
  std::vector<double> partial(pieces.size() * width, 0.0);
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t first, int64_t last) {
    std::vector<double> space((vectors.size() + 4) * kChunk);
    for (int64_t p = first; p < last; ++p)
      step_piece(from, layout, pieces[p], coefficients, step, space, &partial[p * width]);
  });
  std::vector<double> result(layout.parameters.size() * width, 0.0);
  for (size_t p = 0; p < pieces.size(); ++p) {
    for (size_t i = 0; i < width; ++i) result[pieces[p].parameter * width + i] += partial[p * width + i];
  }
  return result;
}

void check_moments(const ParameterSet& parameters, const AdamWStep& step) {
  if (step.averages.empty() && step.squares.empty()) return;
  const int64_t decayed = parameters.layout().decay_size, all = parameters.layout().size;
  TORCH_CHECK(step.averages.size() == 2 && step.squares.size() == 2,
              "AdamW's moments come in two parts, with and without weight decay");
  for (const std::vector<at::Tensor>* moments : {&step.averages, &step.squares}) {
    for (size_t range = 0; range < 2; ++range) {
      const at::Tensor& moment = moments->at(range);
      TORCH_CHECK(moment.numel() == (range == 0 ? decayed : all - decayed) && moment.is_contiguous() &&
                      moment.scalar_type() == parameters.master().scalar_type(),
                  "AdamW's moments must be like the parameters: part ", range, " has ", moment.numel());
    }
  }
}

}  // namespace

std::vector<double> gram(const ParameterSet& parameters, const std::vector<at::Tensor>& extras) {
  const std::vector<at::Tensor> gradients = all_vectors(parameters, extras);
  std::vector<double> result;
  if (!gradients[0].is_cpu())
    result = gram_by_aten(parameters.layout(), gradients);
  else if (gradients[0].scalar_type() == at::kDouble)
    result = gram_on_cpu<double>(parameters.layout(), gradients);
  else
    result = gram_on_cpu<float>(parameters.layout(), gradients);
  mirror(result, static_cast<int64_t>(gradients.size()));
  return result;
}

at::Tensor total_gradient(ParameterSet& parameters, std::span<const double> coefficients,
                          const std::vector<at::Tensor>& extras) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> vectors = all_vectors(parameters, extras);
  const std::vector<double> ones(vectors.size(), 1.0);
  if (coefficients.empty()) coefficients = ones;
  check_coefficients(coefficients, vectors.size());
  at::Tensor total = vectors[0];
  if (parameters.sketch()) parameters.sketch()->add_vectors_to(total);
  if (coefficients[0] != 1) total.mul_(coefficients[0]);
  for (size_t k = 1; k < vectors.size(); ++k) total.add_(vectors[k], coefficients[k]);
  const int64_t bytes = total.numel() * static_cast<int64_t>(total.element_size());
  parameters.keep_first_gradient(total_memory() / 16 / std::max<int64_t>(1, bytes));
  return total;
}

void add_gradients(const ParameterSet& parameters, at::Tensor target, double decay,
                   std::span<const double> coefficients) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> vectors = all_vectors(parameters, {target});
  check_coefficients(coefficients, vectors.size() - 1);
  if (decay == 0)
    target.zero_();
  else if (decay != 1)
    target.mul_(decay);
  for (size_t k = 0; k + 1 < vectors.size(); ++k) {
    if (coefficients[k] != 0) target.add_(vectors[k], coefficients[k]);
  }
}

std::vector<double> optimizer_products(const ParameterSet& parameters, std::span<const double> coefficients,
                                       const std::vector<at::Tensor>& extras, const AdamWStep& step) {
  const std::vector<at::Tensor> vectors = all_vectors(parameters, extras);
  check_coefficients(coefficients, vectors.size());
  check_moments(parameters, step);
  TORCH_CHECK(vectors[0].is_cpu(), "shares of the optimizer's step are computed on the CPU only");
  return vectors[0].scalar_type() == at::kDouble
             ? step_products<double>(parameters, vectors, coefficients, step)
             : step_products<float>(parameters, vectors, coefficients, step);
}

}  // namespace troupe::training
