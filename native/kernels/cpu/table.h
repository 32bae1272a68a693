// The CPU kernels as plain functions over pointers. Everything in native/kernels/cpu is compiled once for
// each instruction set (CMakeLists.txt), in a namespace of its name; cpu_kernels.cc allocates and calls the
// best set that the machine has. No at::Tensor here: inline code of shared headers, compiled for AVX-512,
// could otherwise be the copy that the linker keeps for everyone.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>

#include <cstdint>
#include <span>

namespace troupe::kernels::cpu {

// A [rows, heads, size] tensor with contiguous last dimension; strides in elements.
struct View {
  void* data = nullptr;
  int64_t row_stride = 0, head_stride = 0;
};

struct WeightGradientGroup {
  int64_t begin, end;  // rows
  float* accumulator;
};

struct NormShape {
  c10::ScalarType dtype;
  int64_t rows, heads, size;
};

struct Node {
  int64_t start = 0, length = 0, parent = -1;
};

struct AttentionShape {
  c10::ScalarType dtype;
  int64_t query_heads, key_heads, size;
  double scale;
  std::span<const Node> nodes;
};

// The output projection: logits = hidden · weightᵀ.
struct Projection {
  c10::ScalarType dtype;
  int64_t vocabulary, size;
  const void* weight;  // [vocabulary, size], contiguous
};

// Lines of the projection: line i is the hidden state at hidden + rows[i] · stride, its logits are over
// temperatures[i], and it has the entries [starts[i], starts[i + 1]), one at least. A row may have several
// lines, of different temperatures; they are neighbours.
struct LogprobRows {
  int64_t count;
  const void* hidden;
  int64_t stride;
  const int64_t* rows;         // [count]
  const int64_t* starts;       // [count + 1]
  const double* temperatures;  // [count]
  const int64_t* targets;      // [entries]
};

struct LogprobGradient {
  const void* logprobs;             // accumulate [entries]
  const void* entropy;              // accumulate [entries] or null
  const void* forward_entropy;      // of the forward pass, accumulate [entries]
  const void* forward_logsumexp;    // likewise
  std::span<const int64_t> groups;  // K + 1 offsets into the rows (of LogprobRows)
  void* hidden;                     // += ; accumulate if wide_hidden, else of the dtype
  int64_t hidden_stride;
  bool wide_hidden;
  std::span<void* const> weights;  // += ; accumulate [vocabulary, size] for each group, or empty
  // Another right factor of the logits' gradient: [vocabulary, extra_size] of the dtype, or null …
  const void* extra = nullptr;
  int64_t extra_size = 0;
  void* extra_out = nullptr;  // += ; accumulate [rows of hidden, extra_size]
};

// One layer of the KV cache: page p's block of key head h lies at data + p · page_size + h · block(), keys
// transposed [size, 16] (16 scores are one vector), then values [16, value_size].
struct Pages {
  c10::ScalarType dtype;
  void* data;         // of the layer
  int64_t page_size;  // elements from page to page
  int64_t key_heads, size;
  int64_t value_size() const { return (size + 15) / 16 * 16; }
  int64_t block() const { return 16 * (size + value_size()); }
};

// Rows of a step: row i is at positions[i] of the sequence whose page numbers are tables[i] · width onwards.
struct PagedRows {
  int64_t count;
  const int32_t *positions, *tables, *pages;
  int64_t width;
  const int32_t* slots;  // page · 16 + place where a row's keys go, or −1
};

// An adapter's part of one linear layer: y[:, begin : begin + outputs] += scale · (x Aᵀ) Bᵀ.
struct AdapterTerm {
  const void *a, *b_transposed;  // [rank, inputs], [rank, outputs]
  int64_t begin, rank, outputs;
};
struct AdapterRows {
  std::span<const AdapterTerm> terms;
  double scale;
  int64_t begin, end;  // rows
};

struct SampleOptions {
  double temperature;  // 0: greedy
  int64_t top_k;       // 0: off
  double top_p, min_p;
  double uniform;
};
struct DrawnToken {
  int32_t token = -1;  // −1: the logits are not finite
  double logprob = 0;
};

// Elements [begin, begin + size) of flat vectors.
struct Range {
  int64_t begin, size;
  bool decays;
};
struct AdamW {
  double learning_rate, beta1, beta2, eps, weight_decay, clip;
  int64_t step;
  // Of the parameters that decay and of the others, which begin at decay_size; null: zeros.
  const void *averages[2], *squares[2];
  int64_t decay_size;
};

// Linear layers of few rows in float32 with the weight in panels, [outputs / columns, inputs, columns], zeros behind its
// outputs. An output's sum does not depend on the rows beside it.
struct FloatPanels {
  int64_t columns = 0;
  bool large_weights = false;  // whether those that are not small (kSmallWeight) are faster in panels as well
  // y [rows, outputs] = x weightᵀ + bias (or null); null: nothing is packed
  void (*linear)(int64_t rows, int64_t inputs, int64_t outputs, const float* x, const float* panels,
                 const float* bias, float* y) = nullptr;
};

// Element types: "accumulate" means float, or double where dtype is double.
struct Table {
  // x (+= residual, if given); y = x · rstd · weight; rstd is accumulate [rows, heads], y contiguous.
  void (*rms_norm)(const NormShape&, View x, View residual, const void* weight, void* y, void* rstd,
                   double eps);
  // grad_weight[k] (accumulate [size]) += group k's part; may be empty. `add` may be null. out may be grad.
  void (*rms_norm_backward)(const NormShape&, View grad, View x, const void* weight, const void* rstd,
                            View add, View out, std::span<const int64_t> groups,
                            std::span<void* const> grad_weight);
  // cos and sin are accumulate [positions, size / 2].
  void (*rope)(const NormShape&, View x, const int32_t* positions, const void* cos, const void* sin,
               bool inverse);
  // gate_up rows are 2 · size wide, contiguous.
  void (*swiglu)(c10::ScalarType, int64_t rows, int64_t size, const void* gate_up, void* out);
  void (*swiglu_backward)(c10::ScalarType, int64_t rows, int64_t size, const void* grad, const void* gate_up,
                          void* out);
  // accumulator (accumulate [vocabulary, size]) row tokens[i] += grad row i.
  void (*embedding_backward)(c10::ScalarType, int64_t rows, int64_t size, const void* grad,
                             const int64_t* tokens, void* accumulator);
  // to [rows, columns] = from + bias (bfloat16, or null), rounded.
  void (*narrow_rows)(int64_t rows, int64_t columns, const float* from, int64_t from_stride,
                      const c10::BFloat16* bias, c10::BFloat16* to, int64_t to_stride);
  FloatPanels float_panels;
  // Tree attention: out contiguous [rows, query_heads, size], logsumexp accumulate [rows, query_heads].
  void (*attention)(const AttentionShape&, View q, View k, View v, void* out, void* logsumexp);
  void (*attention_backward)(const AttentionShape&, View q, View k, View v, View grad, View out,
                             const void* logsumexp, View grad_q, View grad_k, View grad_v);
  // Results are accumulate [entries].
  void (*token_logprobs)(const Projection&, const LogprobRows&, void* logprobs, void* entropy,
                         void* logsumexp);
  void (*token_logprobs_backward)(const Projection&, const LogprobRows&, const LogprobGradient&);
  // Each group's accumulator [outputs, inputs] += deltaᵀ x over its rows, bfloat16 to float; only where
  // has_tile_gemm().
  void (*weight_gradient)(int64_t outputs, int64_t inputs, View delta, View x,
                          std::span<const WeightGradientGroup> groups);
  // Writes k and v [rows, key heads, size] to the rows' slots.
  void (*store_keys_values)(const Pages&, const PagedRows&, View k, View v);
  // out contiguous [rows, query_heads, size].
  void (*paged_attention)(const Pages&, const PagedRows&, int64_t query_heads, double scale, View q,
                          void* out);
  // x [rows, inputs], y [rows, outputs] contiguous.
  void (*add_adapters)(c10::ScalarType, std::span<const AdapterRows> parts, int64_t inputs, int64_t outputs,
                       const void* x, void* y);
  // logits accumulate [vocabulary].
  DrawnToken (*sample)(c10::ScalarType accumulate, const void* logits, int64_t vocabulary,
                       const SampleOptions&);
  // Flat vectors of one accumulate type; out [ranges, N, N], upper triangles.
  void (*gram)(c10::ScalarType, std::span<const void* const> vectors, std::span<const Range> ranges,
               double* out);
  // out [ranges, N + 2].
  void (*step_products)(c10::ScalarType, std::span<const void* const> vectors,
                        std::span<const double> coefficients, const void* theta,
                        std::span<const Range> ranges, const AdamW&, double* out);
  double (*squared_norm)(c10::ScalarType, const void* vector, int64_t size);
};

}  // namespace troupe::kernels::cpu
