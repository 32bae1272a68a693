// The launchers of the CUDA kernels: plain functions over pointers and a stream, no ATen, so that a .cu file
// compiles in seconds and runs on the CPU too (emulation/emulation.h). Each returns a cudaError_t, 0 for
// success. They launch and return; nothing here allocates, copies to the host or waits.
//
// T rows, H hidden size, D head dimension, V vocabulary, E loss entries, K groups. "of the type" means
// elements of `type`, "accumulate" float (double for kDouble). Strides count elements. Pointers that may be
// null say so.
#pragma once

#include <cstdint>

namespace troupe::kernels::cuda {

using Stream = void*;  // cudaStream_t

enum class Type : int32_t { kBf16, kFloat, kDouble };

// Kernels that this process has launched, for the tests that bound them.
int64_t launch_count();
// What a launcher's result says.
const char* error_text(int error);

constexpr int kMaxGroups = 64;
// Rows of gradient groups, and where each group's sums go. Passed by value: nothing is uploaded.
struct Groups {
  int32_t count = 0;
  int64_t offset[kMaxGroups + 1] = {};  // group k owns rows [offset[k], offset[k + 1])
  void* target[kMaxGroups] = {};        // accumulate [size]
};

// A [rows, heads, size] tensor whose last dimension is contiguous.
struct Rows {
  void* data = nullptr;
  int64_t row_stride = 0, head_stride = 0;
};

// norm.cu: y = x · rstd · weight over the last dimension; x += residual first where there is one.
struct Norm {
  Type type;
  int64_t rows, heads, size;
  Rows x, residual;    // residual.data may be null
  const void* weight;  // of the type [size]
  void* y;             // of the type, contiguous
  void* rstd;          // accumulate [rows, heads]
  double eps;
};
int rms_norm(const Norm& norm, Stream stream);

// grad_x = rstd (w g − x rstd² mean(w g x)) + add, and the weight's gradient by group.
struct NormBackward {
  Type type;
  int64_t rows, heads, size;
  Rows grad, x, add, out;  // add.data may be null; out may be grad
  const void* weight;
  const void* rstd;
  Groups groups;     // count 0: the weight is frozen
  void* partial;     // accumulate [groups.count, partials, size]
  int32_t partials;  // norm_partials(…)
};
// Rows of partial sums that each group needs, of `rows` rows · heads in all, `longest` of them in the largest group.
int32_t norm_partials(int64_t longest, int64_t rows, int64_t size);
// Adds the weights' gradients to the groups' targets: two launches, else one.
int rms_norm_backward(const NormBackward& norm, Stream stream);

// elementwise.cu
int swiglu(Type type, const void* gate_up, void* y, int64_t rows, int64_t size, Stream stream);
int swiglu_backward(Type type, const void* grad, const void* gate_up, void* grad_gate_up, int64_t rows,
                    int64_t size, Stream stream);
// targets[k] [V, size] += rows of grad at their tokens; the first row of a token in its group sums all of
// them, in order.
int embedding_backward(Type type, const void* grad, const int64_t* tokens, int64_t size, const Groups& groups,
                       Stream stream);
// out[rows[i]] += x[i] for ascending rows, equal ones summed in order. x accumulate [count, size].
int add_rows(Type type, const void* x, const int64_t* rows, int64_t count, int64_t size, void* out,
             int64_t out_stride, Stream stream);
// out[k][i] = x[k][rows[i]] of both tensors, for rows of `bytes` bytes, a multiple of 2.
struct GatherRows {
  const void* x[2];
  void* out[2];
  const int64_t* rows;  // [count]
  int64_t count, bytes;
};
int gather_rows(const GatherRows& gather, Stream stream);
// tokens[i] = max(ids[−1 − tokens[i]], 0) for each of `count` tokens below 0, none of which is below −draws.
int take_drawn(const int32_t* ids, int32_t draws, int32_t* tokens, int32_t count, Stream stream);

// Pages of a store of keys and values are copied onto others, in every part (a layer's keys, or its values).
struct CopyPages {
  void* data;            // [parts, pages] pages of `bytes` bytes, a multiple of 16 as the address is
  const int32_t* pairs;  // [count, 2]: from, to
  int32_t count, parts;
  int64_t pages, bytes;
};
int copy_pages(const CopyPages& copies, Stream stream);

// heads.cu: one pass between the fused q, k, v product and attention: RMS norm of the heads of q and k where
// the model has it, RoPE, and each row at its place.
struct SplitHeads {
  Type type;
  int64_t rows;
  int32_t heads, kv_heads, size;
  const void* qkv;              // of the type [rows, (heads + 2 kv_heads) size]
  const void *q_norm, *k_norm;  // of the type [size], or null
  double eps;
  const void *cos, *sin;     // accumulate [positions, size / 2]
  const int32_t* positions;  // [rows]
  const int64_t* place;      // [rows]: the row of q, k and v; null: the same
  const int32_t* slots;      // [rows]: page · 16 + place in it, where k and v go; below 0: nowhere
  void *q, *k, *v;           // of the type [rows, heads, size], [rows, kv_heads, size]; with slots k and v
                             // are pages [pages, kv_heads, 16, size]
};
int split_heads(const SplitHeads& heads, Stream stream);

// Gradients of q, k and v, at each row's place → the gradient of the fused product; the norms' weights by
// group.
struct HeadsBackward {
  SplitHeads forward;         // q, k and v: their gradients, not changed
  void* grad_qkv;             // of the type [rows, (heads + 2 kv_heads) size]
  Groups q_groups, k_groups;  // count 0: frozen
  void* partial;              // accumulate [groups, partials, 2, size]
  int32_t partials;           // heads_partials(…)
};
// As norm_partials, of rows.
int32_t heads_partials(int64_t longest, int64_t rows);
int split_heads_backward(const HeadsBackward& heads, Stream stream);

// merge.cu: attention's parts. Part i are the rows [begin, begin + rows) of `out` and `logsumexp`.
constexpr int kMaxParts = 16;
struct AttentionPart {
  const void* out;        // of the type [rows, heads, size]
  const void* logsumexp;  // accumulate [heads, rows], natural logarithm
  int64_t begin, rows;
};
struct MergeParts {
  Type type;
  int64_t rows;
  int32_t heads, size, count;
  void* out;             // of the type [rows, heads, size]: in the part of all rows, out the merged one
  void* logsumexp;       // accumulate [heads, rows], likewise
  const int64_t* order;  // null, or the row of `ordered` that each row goes to
  void* ordered;         // of the type [rows, heads, size]: where the result goes instead of `out`
  AttentionPart parts[kMaxParts];
};
int merge_parts(const MergeParts& merge, Stream stream);
// out [rows, width] (accumulate) = Σ of the parts, whose logsumexp is not read and whose rows are `width`
// wide.
struct SumParts {
  Type type;
  int64_t rows, width;
  int32_t count;
  void* out;
  AttentionPart parts[kMaxParts];
};
// Of at most three results of one type, in one launch.
constexpr int kMaxSums = 3;
int sum_parts(const SumParts* sums, int count, Stream stream);

// paged_attention.cu: attention of query rows over pages of 16 positions, in the parts that paged_plan.h cuts a row's
// positions into. Parts of a row that has several are merged root first.
constexpr int kPageTokens = 16;
constexpr int kTileRows = 16;
constexpr int kMostSettled =
    8;                // pages of a tile that can be read before the step's own keys and values are written
struct PagedTile {    // rows that read pages together
  int32_t run_begin;  // first run in `runs`
  int32_t run_count;
  int32_t member_begin;  // first member in `members`
  int32_t row_begin;     // first of (member, query head of the KV head) pairs, counted from member_begin
  int32_t row_count;     // at most kTileRows; 0: the tile is padding
  int32_t
      settled;  // pages of the first run, from its first on, that the step does not write; at most kMostSettled
};
// Pages `begin` and on of the part, which some neighbouring members of the tile have in common.
struct PagedRun {
  int32_t pages;  // index in `pages` of the part's first page
  int32_t begin;
  int32_t tokens;                    // of the part, up to the last one of the run that a member sees
  int32_t member_begin, member_end;  // counted from the tile's first
};
struct PagedMember {
  int32_t row;
  int32_t partial;  // which partial result this is; −1: the row has no other part, and this is its result
  int32_t seen;     // tokens of the part that the row sees
};
struct PagedAttention {
  Type type;
  int32_t heads, kv_heads, size;
  int64_t q_row_stride;
  const void* q;         // of the type [rows, heads, size]
  const void *k, *v;     // of the type [pages, kv_heads, 16, size]
  const int32_t* pages;  // page numbers
  const PagedTile* tiles;
  const PagedRun* runs;
  const PagedMember* members;
  int32_t tile_count;
  float* partial;            // [partials, heads, size]
  float* partial_logsumexp;  // [partials, heads], base 2
  void* out;                 // of the type [rows, heads, size]: rows of one part
  double scale;
};
// Whether the tensor-core kernel takes this type and head size, and the current device has the shared memory for it.
int paged_attention_fits(Type type, int32_t size, bool& fits);
int paged_attention(const PagedAttention& args, Stream stream);
// The rows row_begin … row_end − 1 of out [rows, heads, size] from the partials starts[row] … starts[row + 1] − 1, less
// `partial_base`; rows without partials stay as they are.
int merge_paged(Type type, const float* partial, const float* partial_logsumexp, const int32_t* starts,
                int32_t partial_base, int64_t row_begin, int64_t row_end, int32_t heads, int32_t size,
                void* out, Stream stream);
// The same for any type and head size up to 256, row by row from its page table: the tests' twin, and the way
// of float32 and float64.
struct PagedRows {
  Type type;
  int64_t rows;
  int32_t heads, kv_heads, size;
  int64_t q_row_stride;
  const void *q, *k, *v;
  const int32_t* pages;   // [tables, table_width]
  const int32_t* tables;  // [rows]
  const int32_t* positions;
  int64_t table_width;
  void* out;  // of the type [rows, heads, size]
  double scale;
};
int paged_attention_rows(const PagedRows& args, Stream stream);

// lora.cu: y[row, column + j] += scale Σ_r p[row, r] B[j, r] for several adapters in one batch, where p, an adapter's
// x Aᵀ, lies behind y's columns in the same rows: one product computed both. All of bf16.
constexpr int kMaxTerms = 48;
constexpr int kMostFusedRank = 128;  // of a term that a launch can take
struct AdapterTerm {
  const void* b;  // [columns, rank]
  int64_t row_begin, row_end;
  int32_t rank, column, columns;  // of rank 0: nothing is added, see below
  int32_t projected;              // first column of p, counted like y's
  float scale;
};
struct Lora {
  int64_t rows, out, stride;  // of y, and from one row to the next
  void* y;                    // [rows, out]
  int32_t count;
  AdapterTerm terms[kMaxTerms];
};
// Whether columns, ranks and addresses are whole vectors, and ranks no larger than kMostFusedRank.
bool lora_fits(const Lora& lora);
int lora(const Lora& lora, Stream stream);
// lora_norm.cu: x += the sum, which is not written, and y = x · rstd · weight of each row, whether it has an adapter or not.
// Terms have all columns, and rows that ascend.
struct LoraNorm {
  Lora lora;
  void* x;             // bf16 [rows, out]
  const void* weight;  // bf16 [out]
  void* y;             // bf16 [rows, out]
  double eps;
};
// A block reads all of B: of more ranks it takes longer than lora and the norm, which an H100 showed with 64 of 2,560 columns
// (bench/gpu/kernel_times.sh).
constexpr int kMostNormRank = 32;
// Whether lora_fits, ranks are at most kMostNormRank, and rows are multiples of 128 columns, 5,120 at most.
bool lora_norm_fits(const LoraNorm& norm);
int lora_norm(const LoraNorm& norm, Stream stream);
// What follows the sum, without writing it: y is only read. Terms then cover every column of the rows that they have, of
// rank 0 where there is nothing to add.
// gated [rows, out / 2] = silu(first half of y) · second half: the terms are gate's and up's in turn.
int lora_swiglu(const Lora& lora, void* gated, Stream stream);
// split_heads of y, which takes the place of heads.qkv, to slots; a term has q, k or v, whole. Heads of 64, 128 or 256.
bool lora_heads_fit(const Lora& lora, const SplitHeads& heads);
int lora_heads(const Lora& lora, const SplitHeads& heads, Stream stream);

// weight_gradient.cu: target_k [wide_size, narrow_size] (or its transpose) += Σ over group k's rows of wide
// rowᵀ · narrow row, for bf16 rows into float targets: an adapter's gradients, whose one side is its rank, of
// all groups at once.
struct WeightGradient {
  const void *wide, *narrow;  // bf16 [rows, wide_size] and [rows, narrow_size]
  int64_t wide_stride, narrow_stride;
  int32_t wide_size, narrow_size;
  bool transposed;  // targets are [narrow_size, wide_size]
  Groups groups;
  float* partial;      // [weight_gradient_partial(…)], of 16 bytes' alignment
  uint32_t* counters;  // [weight_gradient_counters(…)] zeros, which are zero again afterwards
};
// Sizes and strides are multiples of 8, addresses of 16 bytes.
bool weight_gradient_fits(const WeightGradient& args);
// Elements of both, known once sizes and groups are: 0 where no group is cut into parts.
int64_t weight_gradient_partial(const WeightGradient& args);
int64_t weight_gradient_counters(const WeightGradient& args);
int weight_gradient(const WeightGradient& args, Stream stream);

// logprobs.cu: entries' log-probabilities from rows of raw logits, accumulate [count, V].
struct Logprobs {
  Type type;  // kFloat or kDouble: of logits and results
  const void* logits;
  const int64_t* targets;                // [count]
  const double* temperatures;            // [count]
  void *logprobs, *entropy, *logsumexp;  // [count]; logsumexp of logits / temperature
  int64_t count, vocabulary;
};
int token_logprobs(const Logprobs& args, Stream stream);
// dl[e, j] = (g ([j = t] − p_j) − h p_j (log p_j + entropy)) / temperature
struct LogprobsBackward {
  Type type;  // of `grad_logits`: kBf16 and kFloat read float, kDouble reads double
  const void* logits;
  const int64_t* targets;
  const double* temperatures;
  const void *entropy, *logsumexp;           // of the forward pass
  const void *grad_logprobs, *grad_entropy;  // grad_entropy may be null
  void* grad_logits;                         // of the type [count, V]; may be `logits` where the types agree
  int64_t count, vocabulary;
};
int token_logprobs_backward(const LogprobsBackward& args, Stream stream);

// sampler.cu: one token from a row of logits for each draw, by the rules of kernels/cpu/sampler.cc. One launch, or two where
// draws filter.
struct Draws {
  const float* logits;     // [outputs, V]
  const int32_t* outputs;  // [count]: the row that each draw reads
  int32_t first_output;    // of the rows of `logits`
  const double *temperatures, *top_ps, *min_ps;
  const int32_t* top_ks;
  const double* uniforms;
  int32_t* tokens;  // [count]; −1: the logits are not finite
  float* logprobs;  // [count]
  int32_t count, vocabulary;
  bool filtered;  // whether there may be a draw with a temperature that has top-k, top-p or min-p
};
int draw_tokens(const Draws& draws, Stream stream);

// statistics.cu: sums over flat vectors, by parameter, in float64. A piece lies in one parameter.
constexpr int kPieceElements = 1 << 16;
struct Piece {
  int64_t begin, length;  // elements
  int32_t parameter, decays;
};
constexpr int kMaxVectors = 32;
struct Vectors {
  Type type;  // kFloat or kDouble
  int32_t count;
  const void* data[kMaxVectors];
  double coefficient[kMaxVectors];
};
// products[piece][k][l] = ⟨v_k, v_l⟩, all pairs of `count` vectors; only k ≤ l is written.
int gram_pieces(const Vectors& vectors, const Piece* pieces, int32_t count, double* products, Stream stream);
// totals[parameter][j] = Σ of the parameter's pieces in order; starts [parameters + 1] offsets into the
// pieces.
int sum_pieces(const double* pieces, const int32_t* starts, int32_t parameters, int32_t width, double* totals,
               Stream stream);
// One AdamW step, in place; see kernels/kernels.h. Elements are of the vectors' type.
struct AdamWUpdate {
  void* theta;                     // flat
  void* copy;                      // bf16, flat; null: none
  void* total;                     // flat, where Σ_j a_j g_j goes; null: nowhere. May be one of the vectors
  void *averages[2], *squares[2];  // of parameters with and without decay
  int64_t decay_size;              // elements of the first range
  double learning_rate, beta1, beta2, eps, weight_decay, clip, correction1, correction2;
};
// products[piece][j] for each vector, then momentum, then decay, then Σ of the total's squares.
int adamw_pieces(const Vectors& vectors, const AdamWUpdate& step, const Piece* pieces, int32_t count,
                 double* products, Stream stream);
}  // namespace troupe::kernels::cuda
