#include "model/gradient_sketch.h"

#include <ATen/core/PhiloxRNGEngine.h>

#include <algorithm>

#include "kernels/kernels.h"
#include "kernels/waits.h"
#include "model/parameters.h"

namespace troupe {
namespace {

// ±1 from a counter: 128 signs to a block of philox.
at::Tensor random_signs(int64_t rows, int64_t columns, uint64_t seed, uint64_t stream) {
  at::Tensor signs = at::empty({rows, columns}, at::kFloat);
  float* data = signs.data_ptr<float>();
  const int64_t count = rows * columns;
  for (int64_t begin = 0; begin < count; begin += 128) {
    at::Philox4_32 generator(seed, stream, static_cast<uint64_t>(begin / 128));
    for (int64_t word = begin; word < std::min(begin + 128, count); word += 32) {
      const uint32_t bits = generator();
      for (int64_t i = word; i < std::min(word + 32, count); ++i)
        data[i] = (bits >> (i - word)) & 1 ? 1.0f : -1.0f;
    }
  }
  return signs;
}

bool is_matrix(const ParameterSpec& spec) { return spec.shape.size() == 2; }

}  // namespace

GradientSketch::GradientSketch(const ParameterLayout& layout, const SketchOptions& options,
                               at::ScalarType compute, const at::TensorOptions& master)
    : layout_(layout),
      options_(options),
      compute_(master.dtype(compute)),
      master_(master),
      row_signs_(layout.parameters.size()),
      column_signs_(layout.parameters.size()),
      fused_signs_(layout.parameters.size()) {
  TORCH_CHECK(options.replicates >= 2 && options.size >= 1,
              "a sketch needs two replicates at least and a size of 1 at least, got ", options.replicates,
              " and ", options.size);
  for (const ParameterSpec& spec : layout.parameters) {
    TORCH_INTERNAL_ASSERT(is_matrix(spec) == spec.decay, "vectors must follow the matrices");
    ordinals_.push_back(is_matrix(spec) ? matrices_++ : -1);
  }
}

void GradientSketch::begin(int64_t groups) {
  TORCH_CHECK(groups > 0, "sketches need at least one group, got ", groups);
  const int64_t size = options_.size;
  sketches_.resize(groups);
  vectors_.resize(groups);
  for (int64_t k = 0; k < groups; ++k) {
    sketches_[k] = at::zeros({matrices_, options_.replicates, size, size}, master_);
    vectors_[k] = at::zeros({layout_.size - layout_.decay_size}, master_);
  }
}

void GradientSketch::end() {
  sketches_.clear();
  vectors_.clear();
}

const at::Tensor& GradientSketch::signs(std::vector<at::Tensor>& cache, int64_t index, int64_t dimension,
                                        uint64_t side) {
  at::Tensor& found = cache.at(index);
  if (!found.defined()) {
    const uint64_t stream = 2 * static_cast<uint64_t>(index) + side;
    found = random_signs(layout_.parameters.at(index).shape.at(dimension), options_.width(), options_.seed,
                         stream)
                .to(compute_);
  }
  return found;
}

const at::Tensor& GradientSketch::row_signs(int64_t index) { return signs(row_signs_, index, 0, 0); }

const at::Tensor& GradientSketch::fused_row_signs(int64_t index, int64_t count) {
  if (count == 1) return row_signs(index);
  at::Tensor& found = fused_signs_.at(index);
  if (found.defined()) return found;
  std::vector<at::Tensor> blocks;
  for (int64_t i = index; i < index + count; ++i) blocks.push_back(row_signs(i));
  return found = at::block_diag(blocks);
}

void GradientSketch::add_products(int64_t index, int64_t count, const at::Tensor& delta, const at::Tensor& x,
                                  std::span<const int64_t> groups) {
  // One product reads delta once, and as it lies in memory: that is what the time goes into.
  add(index, count, at::mm(delta, fused_row_signs(index, count)),
      at::mm(x, signs(column_signs_, index, 1, 1)), groups);
}

void GradientSketch::add_embedding(int64_t index, const at::Tensor& tokens, const at::Tensor& grad,
                                   std::span<const int64_t> groups) {
  add_projected(index, row_signs(index).index_select(0, tokens), grad, groups);
}

void GradientSketch::add_projected(int64_t index, const at::Tensor& projected, const at::Tensor& x,
                                   std::span<const int64_t> groups) {
  const at::Tensor& columns = signs(column_signs_, index, 1, 1);
  add(index, 1, projected, at::mm(x.to(columns.scalar_type()), columns), groups);
}

void GradientSketch::add(int64_t index, int64_t count, const at::Tensor& projected,
                         const at::Tensor& x_projected, std::span<const int64_t> groups) {
  TORCH_CHECK(groups.size() == sketches_.size() + 1, "the batch has ", groups.size() - 1,
              " gradient groups, but sketches were begun for ", sketches_.size());
  const at::ScalarType type = c10::typeMetaToScalarType(master_.dtype());
  const int64_t replicates = options_.replicates, size = options_.size;
  const at::Tensor left = projected.to(type), right = x_projected.to(type);
  for (size_t k = 0; k + 1 < groups.size(); ++k) {
    if (groups[k] == groups[k + 1]) continue;
    const at::Tensor deltas = left.slice(0, groups[k], groups[k + 1]);
    const at::Tensor inputs = right.slice(0, groups[k], groups[k + 1]);
    // Every replicate of P with every one of Q in one product: those of the same number are the sketches.
    const at::Tensor products =
        at::mm(deltas.t(), inputs).view({count, replicates, size, replicates, size}).diagonal(0, 1, 3);
    sketches_[k].narrow(0, ordinals_.at(index), count).add_(products.permute({0, 3, 1, 2}));
  }
}

at::Tensor GradientSketch::vector(int64_t group, int64_t index, int64_t count) const {
  const ParameterSpec& first = layout_.parameters.at(index);
  TORCH_INTERNAL_ASSERT(!is_matrix(first), first.name, " is no vector");
  int64_t size = 0;
  for (int64_t i = index; i < index + count; ++i) size += layout_.parameters.at(i).size;
  return vectors_.at(group).narrow(0, first.offset - layout_.decay_size, size);
}

std::vector<at::Tensor> GradientSketch::sums() const {
  std::vector<at::Tensor> sums = sketches_;
  sums.insert(sums.end(), vectors_.begin(), vectors_.end());
  return sums;
}

void GradientSketch::add_vectors_to(at::Tensor flat) const {
  at::Tensor tail = flat.narrow(0, layout_.decay_size, layout_.size - layout_.decay_size);
  for (const at::Tensor& vector : vectors_) tail.add_(vector);
}

std::vector<double> GradientSketch::gram() const {
  const int64_t k = groups(), r = options_.replicates, square = options_.size * options_.size;
  const auto parameters = static_cast<int64_t>(layout_.parameters.size());
  // [R, matrices, K, size²] · its transpose
  const at::Tensor all = at::stack(sketches_).view({k, matrices_, r, square}).permute({2, 1, 0, 3});
  const at::Tensor wide = all.to(at::kDouble).reshape({r * matrices_, k, square});
  const at::Tensor products =
      kernels::to_host(at::bmm(wide, wide.transpose(1, 2)).div_(static_cast<double>(square)));
  const double* source = products.const_data_ptr<double>();
  // All vectors in one pass.
  std::vector<kernels::FlatRange> ranges;
  for (const ParameterSpec& spec : layout_.parameters) {
    if (!is_matrix(spec)) ranges.push_back({spec.offset - layout_.decay_size, spec.size, false});
  }
  const std::vector<double> exact = kernels::kernels_for(vectors_[0]).gram(vectors_, ranges);
  std::vector<double> result(r * parameters * k * k);
  for (int64_t p = 0, next = 0; p < parameters; ++p) {
    const double* of_vector = ordinals_[p] < 0 ? &exact[next++ * k * k] : nullptr;
    for (int64_t replicate = 0; replicate < r; ++replicate) {
      const double* from = of_vector ? of_vector : source + (replicate * matrices_ + ordinals_[p]) * k * k;
      std::copy_n(from, k * k, &result[(replicate * parameters + p) * k * k]);
    }
  }
  return result;
}

}  // namespace troupe
