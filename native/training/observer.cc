#include "training/observer.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace troupe::training {
namespace {

// Elements of one partial sum: one group's part stays in the first-level cache while it meets the others.
constexpr int64_t kChunk = 2048;
// Sums that run side by side, so that the additions do not wait for each other.
constexpr int64_t kLanes = 16;

template <typename T>
double inner_product(const T* a, const T* b, int64_t length) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= length; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j)
      lanes[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  }
  double sum = 0;
  for (; i < length; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (const double lane : lanes) sum += lane;
  return sum;
}

// Adds the upper triangle of one chunk's products to out [K, K].
template <typename T>
void add_products(const std::vector<const T*>& gradients, int64_t begin, int64_t length, double* out) {
  const auto groups = static_cast<int64_t>(gradients.size());
  for (int64_t k = 0; k < groups; ++k) {
    for (int64_t l = k; l < groups; ++l) {
      out[k * groups + l] += inner_product(gradients[k] + begin, gradients[l] + begin, length);
    }
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
    for (int64_t p = first; p < last; ++p) {
      const Piece& piece = pieces[p];
      for (int64_t done = 0; done < piece.length; done += kChunk) {
        add_products(data, piece.begin + done, std::min(kChunk, piece.length - done), &partial[p * size]);
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
