#include "kernels/checks.h"

#include <algorithm>
#include <limits>

namespace troupe::kernels {
namespace {

bool within(int64_t value, int64_t end) { return value >= 0 && value < end; }

template <typename T>
bool all_within(const std::vector<T>& values, int64_t begin, int64_t end) {
  return std::ranges::all_of(values, [&](int64_t value) { return value >= begin && value < end; });
}

// Of groups that are checked: whoever has the gradient of a row's input from them has that of every row.
void check_coverage(Offsets groups, Tensors accumulators, int64_t rows) {
  TORCH_CHECK(accumulators.empty() || (groups.front() == 0 && groups.back() == rows),
              "groups must cover all ", rows, " rows");
}

void check_moments(const std::vector<at::Tensor>& moments, const at::Tensor& theta, int64_t decay_size) {
  TORCH_CHECK(moments.size() == 2, "AdamW's moments come in two parts, with and without weight decay");
  const int64_t sizes[2] = {decay_size, theta.numel() - decay_size};
  for (size_t part = 0; part < moments.size(); ++part) {
    TORCH_CHECK(moments[part].numel() == sizes[part] && moments[part].is_contiguous() &&
                    moments[part].scalar_type() == theta.scalar_type() &&
                    moments[part].device() == theta.device(),
                "AdamW's moments must be like the parameters: part ", part, " has ", moments[part].numel());
  }
}

}  // namespace

void check_on(const at::Tensor& x, const at::Tensor& like, at::ScalarType dtype, const char* what) {
  TORCH_CHECK(x.scalar_type() == dtype && x.device() == like.device(), what, " must be ", dtype, " on ",
              like.device(), ", not ", x.scalar_type(), " ", x.sizes(), " on ", x.device());
}

void check_kind(const at::Tensor& x, const char* what) {
  const at::ScalarType dtype = x.scalar_type();
  TORCH_CHECK(dtype == at::kDouble || dtype == at::kFloat || dtype == at::kBFloat16, what,
              " must be float64, float32 or bfloat16, not ", dtype);
}

void check_like(const at::Tensor& x, const at::Tensor& like, const char* what) {
  check_on(x, like, like.scalar_type(), what);
  TORCH_CHECK(x.sizes() == like.sizes(), what, " must be ", like.sizes(), ", not ", x.sizes());
}

void check_embedding(const at::Tensor& tokens, const at::Tensor& weight) {
  check_kind(weight, "the embedding");
  TORCH_CHECK(tokens.dim() == 1 && weight.dim() == 2 && tokens.device() == weight.device() &&
                  (tokens.scalar_type() == at::kLong || tokens.scalar_type() == at::kInt),
              "an embedding takes token ids [T] and weights [V, H], not ", tokens.scalar_type(), " ",
              tokens.sizes(), " and ", weight.sizes());
}

void check_groups(Offsets groups, Tensors accumulators, int64_t rows, const at::Tensor& like,
                  at::IntArrayRef shape) {
  if (accumulators.empty()) return;
  TORCH_CHECK(groups.size() == accumulators.size() + 1 && groups.front() >= 0 && groups.back() <= rows &&
                  std::ranges::is_sorted(groups),
              "groups must be ", accumulators.size() + 1, " ascending row offsets within ", rows, " rows");
  for (const at::Tensor& accumulator : accumulators) {
    check_on(accumulator, like, wide_type(like), "a gradient accumulator");
    TORCH_CHECK(accumulator.is_contiguous() && accumulator.sizes() == shape,
                "a gradient accumulator must be contiguous ", shape, ", not ", accumulator.sizes());
  }
}

void check_norm(const at::Tensor& x, const at::Tensor& weight) {
  check_kind(x, "what is normed");
  TORCH_CHECK((x.dim() == 2 || x.dim() == 3) && x.size(-1) > 0,
              "expected [rows, size] or [rows, heads, size], got ", x.sizes());
  check_on(weight, x, x.scalar_type(), "the norm's weight");
  TORCH_CHECK(weight.dim() == 1 && weight.numel() == x.size(-1), "the norm's weight must be [", x.size(-1),
              "], not ", weight.sizes());
}

void check_norm_gradient(const RmsNormGradient& gradient) {
  const at::Tensor& x = gradient.x;
  check_norm(x, gradient.weight);
  check_like(gradient.grad, x, "the gradient of a norm");
  if (gradient.out.defined()) {
    check_like(gradient.out, x, "the result of a norm's gradient");
    TORCH_CHECK(gradient.out.stride(-1) == 1, "the result of a norm's gradient must have dense rows");
  }
  if (gradient.add.defined()) check_like(gradient.add, x, "what is added to a norm's gradient");
  check_on(gradient.rstd, x, wide_type(x), "a norm's rstd");
  TORCH_CHECK(gradient.rstd.sizes() == x.sizes().slice(0, x.dim() - 1), "a norm's rstd of ", x.sizes(),
              " must not be ", gradient.rstd.sizes());
  check_groups(gradient.groups, gradient.grad_weight, x.size(0), x, {x.size(-1)});
  check_coverage(gradient.groups, gradient.grad_weight, x.size(0));
}

void check_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                 const RotaryTables& tables) {
  check_kind(qkv, "the fused q, k and v");
  constexpr int64_t kMost = 1 << 20;
  TORCH_CHECK(layout.dim > 0 && layout.dim % 2 == 0 && layout.dim < kMost,
              "RoPE needs an even head dimension, not ", layout.dim);
  TORCH_CHECK(layout.query_heads > 0 && layout.query_heads < kMost && layout.key_heads > 0 &&
                  layout.query_heads % layout.key_heads == 0,
              layout.query_heads, " query heads are not a multiple of ", layout.key_heads, " key heads");
  TORCH_CHECK(qkv.dim() == 2 && qkv.size(1) == layout.width() && (qkv.stride(1) == 1 || qkv.size(1) == 1),
              "the fused q, k and v must be contiguous rows [rows, ", layout.width(), "], not ", qkv.sizes());
  for (const at::Tensor& table : {tables.cos, tables.sin}) {
    check_on(table, qkv, wide_type(qkv), "a table of RoPE");
    TORCH_CHECK(table.is_contiguous() && table.dim() == 2 && table.sizes() == tables.cos.sizes() &&
                    table.size(1) == layout.dim / 2,
                "RoPE's tables must be contiguous [positions, ", layout.dim / 2, "], not ", table.sizes());
  }
  TORCH_CHECK(norm.q.defined() == norm.k.defined(), "the heads of q and k are normed both or neither");
  if (!norm.defined()) return;
  for (const at::Tensor& weight : {norm.q, norm.k}) {
    check_on(weight, qkv, qkv.scalar_type(), "the heads' norm");
    TORCH_CHECK(weight.dim() == 1 && weight.numel() == layout.dim, "the heads' norm must be [", layout.dim,
                "], not ", weight.sizes());
  }
}

void check_dense_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                       const RotaryTables& tables) {
  check_heads(qkv, layout, norm, tables);
  TORCH_CHECK(qkv.is_contiguous(), "the fused q, k and v must be contiguous, not a view of ", qkv.sizes());
}

void check_heads_gradient(const HeadsGradient& gradient, const at::Tensor& qkv, const HeadLayout& layout,
                          const TreePlan& plan, Offsets groups, Tensors grad_q_norm, Tensors grad_k_norm) {
  const int64_t rows = qkv.size(0);
  TORCH_CHECK(plan.rows == rows, "a plan of ", plan.rows, " rows for ", rows, " rows");
  const auto check = [&](const at::Tensor& grad, int64_t heads, const char* what) {
    check_on(grad, qkv, qkv.scalar_type(), what);
    TORCH_CHECK(grad.sizes() == at::IntArrayRef({rows, heads, layout.dim}), what, " must be [", rows, ", ",
                heads, ", ", layout.dim, "], not ", grad.sizes());
  };
  check(gradient.q, layout.query_heads, "q's gradient");
  check(gradient.k, layout.key_heads, "k's gradient");
  check(gradient.v, layout.key_heads, "v's gradient");
  TORCH_CHECK(grad_q_norm.size() == grad_k_norm.size(),
              "the norms of q's and k's heads are trained both or "
              "neither, not in ",
              grad_q_norm.size(), " and ", grad_k_norm.size(), " groups");
  for (const Tensors accumulators : {grad_q_norm, grad_k_norm}) {
    check_groups(groups, accumulators, rows, qkv, {layout.dim});
    check_coverage(groups, accumulators, rows);
  }
}

void check_attention(const Heads& heads, const TreePlan& plan) {
  const at::Tensor &q = heads.q, &k = heads.k, &v = heads.v;
  check_kind(q, "q");
  TORCH_CHECK(
      q.dim() == 3 && k.dim() == 3 && v.sizes() == k.sizes() && k.size(0) == q.size(0) &&
          k.size(2) == q.size(2) && q.size(2) > 0 && k.size(1) > 0 && q.size(1) % k.size(1) == 0,
      "attention over q ", q.sizes(), ", k ", k.sizes(), " and v ", v.sizes(),
      ": expected [rows, heads, size] with equal rows and sizes and query heads a multiple of key heads");
  check_on(k, q, q.scalar_type(), "k");
  check_on(v, q, q.scalar_type(), "v");
  TORCH_CHECK(q.size(0) == plan.rows, "attention over ", q.size(0), " rows with a plan of ", plan.rows);
}

void check_projection(const at::Tensor& hidden, const at::Tensor& weight, const LossEntries* entries) {
  check_kind(hidden, "the hidden states");
  TORCH_CHECK(
      hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) && weight.size(0) > 0,
      "log-probabilities need hidden [T, H] and weight [V, H], got ", hidden.sizes(), " and ",
      weight.sizes());
  check_on(weight, hidden, hidden.scalar_type(), "the output projection");
  if (entries == nullptr || entries->count == 0) return;
  TORCH_CHECK(
      entries->host_rows.back() < hidden.size(0) && std::ranges::max(entries->host_targets) < weight.size(0),
      "loss entries of other rows or another vocabulary than hidden ", hidden.sizes(), " and weight ",
      weight.sizes());
}

void check_logprobs_gradient(const TokenLogprobsGradient& gradient, const TokenLogprobs& forward,
                             const at::Tensor& hidden, const at::Tensor& weight, const LossEntries& entries) {
  check_projection(hidden, weight, &entries);
  const at::ScalarType wide = wide_type(hidden);
  const at::Tensor& grad_hidden = gradient.grad_hidden;
  TORCH_CHECK(grad_hidden.sizes() == hidden.sizes() && grad_hidden.is_contiguous() &&
                  grad_hidden.device() == hidden.device() &&
                  (grad_hidden.scalar_type() == wide || grad_hidden.scalar_type() == hidden.scalar_type()),
              "the hidden states' gradient must be contiguous [T, H] in ", wide, " or their own dtype");
  for (const at::Tensor& x :
       {gradient.logprobs, gradient.entropy, forward.logprobs, forward.entropy, forward.logsumexp}) {
    if (!x.defined() && &x != &gradient.logprobs) continue;
    check_on(x, hidden, wide, "a value of each loss entry");
    TORCH_CHECK(x.dim() == 1 && x.numel() == entries.count, "a value of each loss entry must be [",
                entries.count, "], not ", x.sizes());
  }
  TORCH_CHECK(gradient.groups.size() >= 2 && gradient.groups.front() == 0 &&
                  gradient.groups.back() == hidden.size(0) && std::ranges::is_sorted(gradient.groups),
              "groups must be ascending row offsets from 0 to ", hidden.size(0));
  check_groups(gradient.groups, gradient.grad_weight, hidden.size(0), hidden, weight.sizes());
  const at::Tensor &matrix = gradient.matrix, &projected = gradient.projected;
  TORCH_CHECK(matrix.defined() == projected.defined(),
              "the projection of the logits' gradient has two parts");
  if (!matrix.defined()) return;
  check_on(matrix, hidden, weight.scalar_type(), "the projection's matrix");
  check_on(projected, hidden, wide, "the projected gradient");
  TORCH_CHECK(matrix.dim() == 2 && matrix.size(0) == weight.size(0) && matrix.is_contiguous() &&
                  projected.dim() == 2 && projected.is_contiguous() && projected.size(0) == hidden.size(0) &&
                  projected.size(1) == matrix.size(1),
              "the projection of the logits' gradient must be contiguous, [V, S] into [T, S]");
}

void check_linear(const at::Tensor& x, const PackedLinear& linear) {
  const at::Tensor &weight = linear.weight, &bias = linear.bias;
  check_kind(x, "a linear layer's input");
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1), "a linear layer of ",
              weight.sizes(), " over ", x.sizes());
  check_on(weight, x, x.scalar_type(), "a linear layer's weight");
  if (!bias.defined()) return;
  check_on(bias, x, x.scalar_type(), "a linear layer's bias");
  TORCH_CHECK(bias.dim() == 1 && bias.numel() == weight.size(0), "a bias ", bias.sizes(),
              " of a linear layer ", weight.sizes());
}

void check_gate_up(const at::Tensor& gate_up) {
  TORCH_CHECK(gate_up.dim() == 2 && gate_up.size(1) % 2 == 0, "gate and up must be [T, 2 I], not ",
              gate_up.sizes());
  check_kind(gate_up, "gate and up");
}

void check_plan(const RowPlan& plan) {
  const auto rows = static_cast<size_t>(plan.rows()), draws = static_cast<size_t>(plan.draw_count());
  TORCH_CHECK(plan.positions.size() == rows && plan.slots.size() == rows && plan.tables.size() == rows &&
                  plan.sampling.size() == draws && plan.uniforms.size() == draws,
              "a plan of ", rows, " rows and ", draws, " draws has arrays of other lengths");
  TORCH_CHECK(plan.query_group > 0, "a key head has ", plan.query_group, " query heads");
  const auto pages = static_cast<int64_t>(plan.pages.size());
  TORCH_CHECK(
      plan.table_width >= 0 &&
          (plan.table_width == 0 ? pages == 0 : pages % plan.table_width == 0 && (pages > 0 || rows == 0)),
      pages, " page numbers are no tables of ", plan.table_width);
  const int64_t tables = plan.table_width == 0 ? 0 : pages / plan.table_width;
  for (size_t row = 0; row < rows; ++row) {
    TORCH_CHECK(plan.positions[row] >= 0 &&
                    (tables == 0 || (within(plan.tables[row], tables) &&
                                     within(plan.positions[row] / kPageTokens, plan.table_width))),
                "row ", row, " at position ", plan.positions[row], " lies outside table ", plan.tables[row]);
  }
  TORCH_CHECK(all_within(plan.outputs, 0, plan.rows()), "an output is no row of the plan");
  TORCH_CHECK(all_within(plan.draws, 0, static_cast<int64_t>(plan.outputs.size())) &&
                  std::ranges::is_sorted(plan.draws),
              "draws must ascend within ", plan.outputs.size(), " outputs");
  for (size_t draw = 0; draw < draws; ++draw) {
    const Sampling& one = plan.sampling[draw];
    TORCH_CHECK(one.temperature >= 0 && one.temperature <= std::numeric_limits<double>::max() &&
                    one.top_k >= 0 && one.top_p >= 0 && one.top_p <= 1 && one.min_p >= 0 && one.min_p <= 1 &&
                    plan.uniforms[draw] >= 0 && plan.uniforms[draw] < 1,
                "draw ", draw, " has sampling or a uniform number out of range");
  }
}

void check_pages(const RowPlan& plan, const KvStore& store) {
  TORCH_CHECK(all_within(plan.slots, -1, store.pages * kPageTokens), "a slot lies outside ", store.pages,
              " pages");
  TORCH_CHECK(plan.rows() == 0 || plan.table_width > 0, "a step of ", plan.rows(), " rows has no page table");
  for (int64_t row = 0; row < plan.rows(); ++row) {
    // The pages before are of the same table, whose last row's position is checked like every other.
    const int64_t begin = plan.tables[row] * plan.table_width;
    for (int64_t page = 0; page <= plan.positions[row] / kPageTokens; ++page) {
      TORCH_CHECK(within(plan.pages[begin + page], store.pages), "row ", row, " reads page ",
                  plan.pages[begin + page], " of ", store.pages);
    }
  }
}

void check_copies(PageCopies copies, const KvStore& store) {
  std::vector<int32_t> written;
  for (const auto& [from, to] : copies) {
    TORCH_CHECK(within(from, store.pages) && within(to, store.pages), "page ", from, " cannot be copied to ",
                to, " of ", store.pages, " pages");
    written.push_back(to);
  }
  std::sort(written.begin(), written.end());
  const bool twice = std::adjacent_find(written.begin(), written.end()) != written.end();
  const bool read = std::any_of(copies.begin(), copies.end(), [&](const PageCopy& copy) {
    return std::binary_search(written.begin(), written.end(), copy.from);
  });
  TORCH_CHECK(!twice && !read, "a page that is written by a copy is written or read by another");
}

void check_samples(const at::Tensor& logits, const RowPlan& plan, const at::Tensor& samples) {
  TORCH_CHECK(logits.dim() == 2 &&
                  (logits.scalar_type() == at::kFloat || logits.scalar_type() == at::kDouble) &&
                  logits.size(1) > 0,
              "logits must be float32 or float64 [n, V], not ", logits.scalar_type(), " ", logits.sizes());
  TORCH_CHECK(samples.dim() == 2 && samples.size(0) == 2 && samples.size(1) == plan.draw_count() &&
                  samples.scalar_type() == at::kInt && samples.device() == logits.device(),
              "samples must be int32 [2, ", plan.draw_count(), "], not ", samples.scalar_type(), " ",
              samples.sizes());
}

void check_flat(Tensors vectors, std::span<const FlatRange> ranges) {
  TORCH_CHECK(!vectors.empty(), "no gradients were begun: there is nothing to observe");
  TORCH_CHECK(vectors[0].scalar_type() == at::kFloat || vectors[0].scalar_type() == at::kDouble,
              "flat vectors must be float32 or float64, not ", vectors[0].scalar_type());
  for (const at::Tensor& vector : vectors) {
    check_like(vector, vectors[0], "a flat vector");
    TORCH_CHECK(vector.dim() == 1 && vector.is_contiguous(), "a flat vector must be contiguous, not ",
                vector.sizes());
  }
  const int64_t size = vectors[0].numel();
  for (const FlatRange& range : ranges) {
    TORCH_CHECK(
        range.begin >= 0 && range.begin <= size && range.size >= 0 && range.size <= size - range.begin,
        "elements ", range.begin, " and ", range.size, " behind lie outside a vector of ", size);
  }
}

void check_step(Tensors vectors, std::span<const double> coefficients, std::span<const FlatRange> ranges,
                const AdamWStep& step) {
  const at::Tensor& theta = step.theta;
  TORCH_CHECK(coefficients.size() == vectors.size(), "there are ", vectors.size(), " gradients but ",
              coefficients.size(), " coefficients");
  check_like(theta, vectors[0], "the parameters");
  TORCH_CHECK(
      theta.is_contiguous() && step.decay_size >= 0 && step.decay_size <= theta.numel() && step.step >= 1,
      "step ", step.step, " of ", theta.numel(), " parameters, of which ", step.decay_size, " decay");
  check_moments(step.averages, theta, step.decay_size);
  check_moments(step.squares, theta, step.decay_size);
  if (step.copy.defined()) {
    TORCH_CHECK(step.copy.scalar_type() == at::kBFloat16 && theta.scalar_type() == at::kFloat &&
                    step.copy.sizes() == theta.sizes() && step.copy.device() == theta.device() &&
                    step.copy.is_contiguous(),
                "a copy of float32 parameters ", theta.sizes(), " is contiguous and in bfloat16, not ",
                step.copy.scalar_type(), " ", step.copy.sizes());
  }
  int64_t end = 0;
  for (const FlatRange& range : ranges) {
    const bool inside =
        range.decays ? range.begin + range.size <= step.decay_size : range.begin >= step.decay_size;
    TORCH_CHECK(range.begin >= end && inside, "elements ", range.begin, " and ", range.size,
                " behind do not follow ", end, ", or not all of them ",
                range.decays ? "are among those that decay" : "are behind those that decay");
    end = range.begin + range.size;
  }
}

}  // namespace troupe::kernels
