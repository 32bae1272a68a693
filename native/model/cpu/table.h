// The CPU kernels as plain functions over pointers. Everything in native/model/cpu is compiled once for each
// instruction set (CMakeLists.txt), in a namespace of its name; kernels.cc checks shapes, allocates and calls
// the best set that the machine has. No at::Tensor here: inline code of shared headers, compiled for AVX-512,
// could otherwise be the copy that the linker keeps for everyone.
#pragma once

#include <c10/core/ScalarType.h>

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
  int64_t rows, query_heads, key_heads, size;
  double scale;
  std::span<const Node> nodes;
};

// The output projection: logits = hidden · weightᵀ, over temperature.
struct Projection {
  c10::ScalarType dtype;
  int64_t vocabulary, size;
  const void* weight;  // [vocabulary, size], contiguous
  double temperature;
};

// Rows of hidden states without repetition; row i lies at hidden + rows[i] · stride and has the entries
// [starts[i], starts[i + 1]), one at least.
struct LogprobRows {
  int64_t count;
  const void* hidden;
  int64_t stride;
  const int64_t* rows;     // [count]
  const int64_t* starts;   // [count + 1]
  const int64_t* targets;  // [entries]
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
  void (*rope)(const NormShape&, View x, const int64_t* positions, const void* cos, const void* sin,
               bool inverse);
  // gate_up rows are 2 · size wide, contiguous.
  void (*swiglu)(c10::ScalarType, int64_t rows, int64_t size, const void* gate_up, void* out);
  void (*swiglu_backward)(c10::ScalarType, int64_t rows, int64_t size, const void* grad, const void* gate_up,
                          void* out);
  // accumulator (accumulate [vocabulary, size]) row tokens[i] += grad row i.
  void (*embedding_backward)(c10::ScalarType, int64_t rows, int64_t size, const void* grad,
                             const int64_t* tokens, void* accumulator);
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
};

}  // namespace troupe::kernels::cpu
