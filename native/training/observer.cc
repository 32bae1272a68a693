#include "training/observer.h"

#include <ATen/Parallel.h>

#include <algorithm>

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

}  // namespace

std::vector<double> gram(const ParameterSet& parameters) {
  const int64_t groups = parameters.gradient_groups();
  TORCH_CHECK(groups > 0, "no gradients were begun: there is nothing to observe");
  std::vector<at::Tensor> gradients;
  for (int64_t k = 0; k < groups; ++k) gradients.push_back(parameters.gradient(k));
  std::vector<double> result;
  if (!gradients[0].is_cpu())
    result = gram_by_aten(parameters.layout(), gradients);
  else if (gradients[0].scalar_type() == at::kDouble)
    result = gram_on_cpu<double>(parameters.layout(), gradients);
  else
    result = gram_on_cpu<float>(parameters.layout(), gradients);
  mirror(result, groups);
  return result;
}

at::Tensor total_gradient(ParameterSet& parameters) {
  const int64_t groups = parameters.gradient_groups();
  TORCH_CHECK(groups > 0, "no gradients were begun: there is nothing to add up");
  const at::NoGradGuard no_grad;
  at::Tensor total = parameters.gradient(0);
  for (int64_t k = 1; k < groups; ++k) total.add_(parameters.gradient(k));
  parameters.keep_gradients(1);
  return total;
}

}  // namespace troupe::training
