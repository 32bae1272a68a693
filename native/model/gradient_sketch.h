// Sketches of the groups' gradients, for full parameters of models that are too large for one accumulator per
// group. With sign matrices P and Q of each matrix parameter (a fused product shares its Q), replicate r of
// the sketch of dW = δᵀx is S_r = (δ P_rᵀ)ᵀ (x Q_rᵀ): dW is never formed, S adds up over micro-batches, and
// ⟨S_r of group k, S_r of group l⟩ / size² is an unbiased estimate of ⟨dW_k, dW_l⟩ (Johnson & Lindenstrauss'
// signs, Achlioptas 2003). The replicates have independent signs: their spread is the error of their mean.
// Vectors (norms, biases) are small and have exact accumulators.
#pragma once

#include <ATen/ATen.h>

#include <span>
#include <vector>

namespace troupe {

struct ParameterLayout;

struct SketchOptions {
  int64_t replicates = 8, size = 16;  // S_r is [size, size]
  uint64_t seed = 0;
  int64_t width() const { return replicates * size; }
};

class GradientSketch {
 public:
  // compute: dtype of δ and x. master: options of the accumulators.
  GradientSketch(const ParameterLayout& layout, const SketchOptions& options, at::ScalarType compute,
                 const at::TensorOptions& master);

  const SketchOptions& options() const { return options_; }
  void begin(int64_t groups);  // zeroed
  // Frees what was added up. Signs stay: the next update has the same, and drawing them takes longer than a pass.
  void end();
  int64_t groups() const { return static_cast<int64_t>(sketches_.size()); }

  // `groups` below: K + 1 row offsets.
  // Of `count` adjacent matrices from `index` on: S_k += sketch of δ_kᵀ x_k. delta [T, Σ rows], x [T,
  // columns].
  void add_products(int64_t index, int64_t count, const at::Tensor& delta, const at::Tensor& x,
                    std::span<const int64_t> groups);
  // The same of an embedding: row tokens[t] of dW gets grad[t]. tokens [T], grad [T, H].
  void add_embedding(int64_t index, const at::Tensor& tokens, const at::Tensor& grad,
                     std::span<const int64_t> groups);
  // The same where δ Pᵀ [T, width] is known already: of the logits, with row_signs.
  void add_projected(int64_t index, const at::Tensor& projected, const at::Tensor& x,
                     std::span<const int64_t> groups);
  // Pᵀ of all replicates side by side [rows, width], in the compute dtype.
  const at::Tensor& row_signs(int64_t index);

  // Accumulator of group k for `count` adjacent vectors from `index` on.
  at::Tensor vector(int64_t group, int64_t index, int64_t count) const;
  // What all groups' sketches and vectors are added up in.
  std::vector<at::Tensor> sums() const;
  // flat [size of the layout] += Σ_k of the vectors.
  void add_vectors_to(at::Tensor flat) const;

  // Estimates of ⟨g_k, g_l⟩ of each replicate and parameter, fp64: [replicates, parameters, K, K] row-major.
  // Of vectors every replicate has the exact value.
  std::vector<double> gram() const;

 private:
  const at::Tensor& signs(std::vector<at::Tensor>& cache, int64_t index, int64_t dimension, uint64_t side);
  // row_signs of adjacent matrices as blocks of one, [Σ rows, count · width].
  const at::Tensor& fused_row_signs(int64_t index, int64_t count);
  void add(int64_t index, int64_t count, const at::Tensor& projected, const at::Tensor& x_projected,
           std::span<const int64_t> groups);

  const ParameterLayout& layout_;
  SketchOptions options_;
  at::TensorOptions compute_, master_;
  std::vector<at::Tensor> row_signs_, column_signs_, fused_signs_;  // by parameter; made on first use
  std::vector<int64_t> ordinals_;  // of each parameter among the matrices, or −1
  int64_t matrices_ = 0;
  std::vector<at::Tensor> sketches_, vectors_;  // by group: [matrices, replicates, size, size], flat
};

}  // namespace troupe
