// What every backend may rely on: the public functions check their arguments and hand over.
#include "kernels/kernels.h"

#include <algorithm>

namespace troupe::kernels {
namespace {

void check_groups(Offsets groups, Tensors accumulators, int64_t rows, const at::Tensor& like,
                  at::IntArrayRef shape) {
  if (accumulators.empty()) return;
  TORCH_CHECK(groups.size() == accumulators.size() + 1 && groups.front() >= 0 && groups.back() <= rows &&
                  std::ranges::is_sorted(groups),
              "groups must be ", accumulators.size() + 1, " ascending row offsets within ", rows, " rows");
  for (const at::Tensor& accumulator : accumulators) {
    TORCH_CHECK(accumulator.scalar_type() == wide_type(like) && accumulator.is_contiguous() &&
                    accumulator.device() == like.device() && accumulator.sizes() == shape,
                "a gradient accumulator must be contiguous ", wide_type(like), " ", shape, ", not ",
                accumulator.scalar_type(), " ", accumulator.sizes());
  }
}

void check_norm(const at::Tensor& x, const at::Tensor& weight) {
  TORCH_CHECK(x.dim() == 2 || x.dim() == 3, "expected [rows, size] or [rows, heads, size], got ", x.sizes());
  TORCH_CHECK(weight.scalar_type() == x.scalar_type() && weight.numel() == x.size(-1),
              "the norm's weight must be ", x.scalar_type(), " [", x.size(-1), "], not ",
              weight.scalar_type(), " ", weight.sizes());
}

void check_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                 const RotaryTables& tables) {
  TORCH_CHECK(layout.dim % 2 == 0, "RoPE needs an even head dimension, not ", layout.dim);
  TORCH_CHECK(qkv.dim() == 2 && qkv.size(1) == layout.width() && qkv.is_contiguous(),
              "the fused q, k and v must be contiguous [rows, ", layout.width(), "], not ", qkv.sizes());
  TORCH_CHECK(tables.cos.scalar_type() == wide_type(qkv) && tables.cos.is_contiguous() &&
                  tables.sin.is_contiguous() && tables.sin.sizes() == tables.cos.sizes() &&
                  tables.cos.size(-1) == layout.dim / 2,
              "RoPE's tables must be contiguous ", wide_type(qkv), " [positions, ", layout.dim / 2, "]");
  if (!norm.defined()) return;
  for (const at::Tensor& weight : {norm.q, norm.k}) {
    TORCH_CHECK(weight.scalar_type() == qkv.scalar_type() && weight.numel() == layout.dim,
                "the heads' norm must be ", qkv.scalar_type(), " [", layout.dim, "]");
  }
}

void check_attention(const Heads& heads, const TreePlan& plan) {
  const at::Tensor &q = heads.q, &k = heads.k, &v = heads.v;
  TORCH_CHECK(
      q.dim() == 3 && k.dim() == 3 && v.sizes() == k.sizes() && k.size(0) == q.size(0) &&
          k.size(2) == q.size(2) && k.size(1) > 0 && q.size(1) % k.size(1) == 0,
      "attention over q ", q.sizes(), ", k ", k.sizes(), " and v ", v.sizes(),
      ": expected [rows, heads, size] with equal rows and sizes and query heads a multiple of key heads");
  TORCH_CHECK(k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type(),
              "q, k and v must have one dtype");
  TORCH_CHECK(q.size(0) == plan.rows, "attention over ", q.size(0), " rows with a plan of ", plan.rows);
}

void check_projection(const at::Tensor& hidden, const at::Tensor& weight) {
  TORCH_CHECK(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) &&
                  hidden.scalar_type() == weight.scalar_type(),
              "log-probabilities need hidden [T, H] and weight [V, H] of one dtype, got ", hidden.sizes(),
              " and ", weight.sizes());
}

void check_lora(const at::Tensor& y, const at::Tensor& x, const LoraLinear& linear) {
  TORCH_CHECK(y.dim() == 2 && x.dim() == 2 && y.size(0) == x.size(0), "LoRA over x ", x.sizes(), " and y ",
              y.sizes());
  for (const LoraTerm& term : linear.terms) {
    TORCH_CHECK(term.a.dim() == 2 && term.b.dim() == 2 && term.a.size(1) == x.size(1) &&
                    term.b.size(1) == term.a.size(0) && term.begin + term.b.size(0) <= y.size(1),
                "adapter A ", term.a.sizes(), " and B ", term.b.sizes(), " at column ", term.begin,
                " do not fit x ", x.sizes(), " and y ", y.sizes());
  }
}

void check_flat(Tensors vectors) {
  TORCH_CHECK(!vectors.empty(), "no gradients were begun: there is nothing to observe");
  for (const at::Tensor& vector : vectors) {
    TORCH_CHECK(vector.dim() == 1 && vector.sizes() == vectors[0].sizes() && vector.is_contiguous() &&
                    vector.scalar_type() == vectors[0].scalar_type() &&
                    vector.device() == vectors[0].device(),
                "a flat vector must be like the others, ", vectors[0].scalar_type(), " ", vectors[0].sizes(),
                ", got ", vector.scalar_type(), " ", vector.sizes());
  }
}

// The lower triangles from the upper ones.
void mirror(std::vector<double>& products, int64_t size) {
  for (size_t base = 0; base < products.size(); base += size * size) {
    for (int64_t k = 0; k < size; ++k) {
      for (int64_t l = 0; l < k; ++l) products[base + k * size + l] = products[base + l * size + k];
    }
  }
}

}  // namespace

at::Tensor Kernels::embedding(const at::Tensor& tokens, const at::Tensor& weight) const {
  return do_embedding(tokens, weight);
}

void Kernels::embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, Offsets groups,
                                 Tensors grad_weight) const {
  if (grad_weight.empty()) return;
  check_groups(groups, grad_weight, grad.size(0), grad, grad_weight[0].sizes());
  TORCH_CHECK(grad_weight[0].dim() == 2 && grad_weight[0].size(1) == grad.size(1), "embedding gradients ",
              grad_weight[0].sizes(), " of rows ", grad.sizes());
  do_embedding_backward(grad, tokens, groups, grad_weight);
}

RmsNorm Kernels::rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) const {
  check_norm(x, weight);
  return do_rms_norm(x, {}, weight, eps);
}

RmsNorm Kernels::add_rms_norm(at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                              double eps) const {
  check_norm(x, weight);
  TORCH_CHECK(x.sizes() == residual.sizes() && x.scalar_type() == residual.scalar_type(),
              "the residual must have the shape and dtype of x: ", x.sizes(), ", not ", residual.sizes());
  return do_rms_norm(x, residual, weight, eps);
}

at::Tensor Kernels::rms_norm_backward(const RmsNormGradient& gradient) const {
  const at::Tensor& x = gradient.x;
  check_norm(x, gradient.weight);
  TORCH_CHECK(gradient.grad.sizes() == x.sizes() &&
                  (!gradient.out.defined() || gradient.out.sizes() == x.sizes()) &&
                  (!gradient.add.defined() || gradient.add.sizes() == x.sizes()),
              "the norm's gradients must have its input's shape ", x.sizes());
  check_groups(gradient.groups, gradient.grad_weight, x.size(0), x, {x.size(-1)});
  return do_rms_norm_backward(gradient);
}

at::Tensor Kernels::swiglu(const at::Tensor& gate_up) const {
  TORCH_CHECK(gate_up.dim() == 2 && gate_up.size(1) % 2 == 0, "gate and up must be [T, 2 I], not ",
              gate_up.sizes());
  return do_swiglu(gate_up);
}

at::Tensor Kernels::swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) const {
  TORCH_CHECK(gate_up.dim() == 2 && grad.dim() == 2 && gate_up.size(1) == 2 * grad.size(1) &&
                  gate_up.size(0) == grad.size(0),
              "gate and up ", gate_up.sizes(), " with a gradient ", grad.sizes());
  return do_swiglu_backward(grad, gate_up);
}

Heads Kernels::rotate_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                            const RotaryTables& tables, const TreePlan& plan) const {
  check_heads(qkv, layout, norm, tables);
  TORCH_CHECK(plan.positions_end <= tables.cos.size(0) && qkv.size(0) == plan.rows, "a plan of ", plan.rows,
              " rows and ", plan.positions_end, " positions for ", qkv.size(0), " rows and ",
              tables.cos.size(0), " rotations");
  return do_rotate_heads(qkv, layout, norm, tables, plan);
}

at::Tensor Kernels::rotate_heads_backward(HeadsGradient gradient, const at::Tensor& qkv, const Heads& forward,
                                          const HeadLayout& layout, const HeadNorm& norm,
                                          const RotaryTables& tables, const TreePlan& plan, Offsets groups,
                                          Tensors grad_q_norm, Tensors grad_k_norm) const {
  check_heads(qkv, layout, norm, tables);
  check_groups(groups, grad_q_norm, qkv.size(0), qkv, {layout.dim});
  check_groups(groups, grad_k_norm, qkv.size(0), qkv, {layout.dim});
  return do_rotate_heads_backward(gradient, qkv, forward, layout, norm, tables, plan, groups, grad_q_norm,
                                  grad_k_norm);
}

Attention Kernels::tree_attention(const Heads& heads, const TreePlan& plan, double scale) const {
  check_attention(heads, plan);
  return do_tree_attention(heads, plan, scale);
}

HeadsGradient Kernels::tree_attention_backward(const at::Tensor& grad, const Heads& heads,
                                               const Attention& forward, const TreePlan& plan,
                                               double scale) const {
  check_attention(heads, plan);
  TORCH_CHECK(grad.sizes() == heads.q.sizes() && forward.out.sizes() == heads.q.sizes(),
              "the attention's gradient must have the shape of q, ", heads.q.sizes(), ", not ", grad.sizes());
  return do_tree_attention_backward(grad, heads, forward, plan, scale);
}

TokenLogprobs Kernels::token_logprobs(const at::Tensor& hidden, const at::Tensor& weight,
                                      const LossEntries& entries) const {
  check_projection(hidden, weight);
  return do_token_logprobs(hidden, weight, entries);
}

void Kernels::token_logprobs_backward(const TokenLogprobsGradient& gradient, const TokenLogprobs& forward,
                                      const at::Tensor& hidden, const at::Tensor& weight,
                                      const LossEntries& entries) const {
  check_projection(hidden, weight);
  const at::ScalarType wide = wide_type(hidden);
  const at::Tensor& grad_hidden = gradient.grad_hidden;
  TORCH_CHECK(grad_hidden.sizes() == hidden.sizes() && grad_hidden.is_contiguous() &&
                  (grad_hidden.scalar_type() == wide || grad_hidden.scalar_type() == hidden.scalar_type()),
              "the hidden states' gradient must be contiguous [T, H] in ", wide, " or their own dtype");
  TORCH_CHECK(gradient.logprobs.scalar_type() == wide && gradient.logprobs.numel() == entries.count &&
                  (!gradient.entropy.defined() ||
                   (gradient.entropy.scalar_type() == wide && gradient.entropy.numel() == entries.count)),
              "the gradients of log-probabilities and entropies must be ", wide, " [", entries.count, "]");
  TORCH_CHECK(
      gradient.groups.size() >= 2 && gradient.groups.front() == 0 && gradient.groups.back() == hidden.size(0),
      "groups must be row offsets from 0 to ", hidden.size(0));
  check_groups(gradient.groups, gradient.grad_weight, hidden.size(0), hidden, weight.sizes());
  const at::Tensor &matrix = gradient.matrix, &projected = gradient.projected;
  TORCH_CHECK(
      !matrix.defined() || (matrix.dim() == 2 && matrix.size(0) == weight.size(0) && matrix.is_contiguous() &&
                            matrix.scalar_type() == weight.scalar_type() && projected.is_contiguous() &&
                            projected.scalar_type() == wide && projected.size(0) == hidden.size(0) &&
                            projected.size(1) == matrix.size(1)),
      "the projection of the logits' gradient must be contiguous, [V, S] ", weight.scalar_type(),
      " into [T, S] ", wide);
  if (entries.count > 0) do_token_logprobs_backward(gradient, forward, hidden, weight, entries);
}

void Kernels::accumulate_weight_gradient(Tensors accumulators, const at::Tensor& delta, const at::Tensor& x,
                                         Offsets groups) const {
  TORCH_CHECK(!accumulators.empty(), "a weight gradient needs at least one accumulator");
  TORCH_CHECK(delta.dim() == 2 && x.dim() == 2 && delta.size(0) == x.size(0), "weight gradient of delta ",
              delta.sizes(), " and x ", x.sizes());
  check_groups(groups, accumulators, delta.size(0), delta, {delta.size(1), x.size(1)});
  do_accumulate_weight_gradient(accumulators, delta, x, groups);
}

at::Tensor Kernels::lora(at::Tensor& y, const at::Tensor& x, const LoraLinear& linear) const {
  check_lora(y, x, linear);
  return do_lora(y, x, linear);
}

PackedLinear Kernels::pack_linear(at::Tensor weight, at::Tensor bias) const {
  at::Tensor packed = do_pack_linear(weight);
  return {std::move(weight), std::move(bias), std::move(packed)};
}

at::Tensor Kernels::linear(const at::Tensor& x, const PackedLinear& weight) const {
  return do_linear(x, weight);
}

PackedLinear Kernels::pack_head(at::Tensor weight, bool repack) const {
  at::Tensor packed = repack ? do_pack_head(weight) : at::Tensor();
  return {std::move(weight), {}, std::move(packed)};
}

at::Tensor Kernels::logits(const at::Tensor& hidden, const PackedLinear& head) const {
  check_projection(hidden, head.weight);
  return do_logits(hidden, head);
}

void Kernels::pack_lora(LoraLinear& linear) const { do_pack_lora(linear); }

void Kernels::add_lora(at::Tensor& y, const at::Tensor& x, std::span<const LoraRows> parts) const {
  for (const LoraRows& part : parts) {
    TORCH_CHECK(part.begin >= 0 && part.begin <= part.end && part.end <= x.size(0), "an adapter's rows ",
                part.begin, " to ", part.end, " of ", x.size(0));
    check_lora(y, x, *part.linear);
  }
  TORCH_CHECK(y.is_contiguous() && x.is_contiguous(), "an adapter's x and y must be contiguous");
  do_add_lora(y, x, parts);
}

KvStore Kernels::make_kv_store(const KvShape& shape, int64_t pages) const {
  return do_make_kv_store(shape, pages);
}

int64_t Kernels::kv_page_bytes(const KvShape& shape) const {
  return do_kv_page_elements(shape) * static_cast<int64_t>(c10::elementSize(shape.dtype));
}

void Kernels::copy_kv_pages(KvStore& store, std::span<const std::pair<int32_t, int32_t>> pages) const {
  if (!pages.empty()) do_copy_kv_pages(store, pages);
}

void Kernels::discard_kv_pages(KvStore& store, std::span<const int32_t> pages) const {
  if (!pages.empty()) do_discard_kv_pages(store, pages);
}

void Kernels::upload(RowPlan& plan, const at::Device& device) const {
  const auto rows = static_cast<size_t>(plan.rows()), draws = static_cast<size_t>(plan.draw_count());
  TORCH_CHECK(plan.positions.size() == rows && plan.slots.size() == rows && plan.tables.size() == rows &&
                  plan.sampling.size() == draws && plan.uniforms.size() == draws,
              "a plan of ", rows, " rows and ", draws, " draws has arrays of other lengths");
  plan.extra.clear();
  plan_rows(plan);
  plan.send(device);
}

at::Tensor Kernels::rotate_and_store(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                                     const RotaryTables& tables, KvStore& store, int64_t layer,
                                     const RowPlan& plan) const {
  check_heads(qkv, layout, norm, tables);
  TORCH_CHECK(qkv.size(0) == plan.rows(), "a step of ", qkv.size(0), " rows with a plan of ", plan.rows());
  return do_rotate_and_store(qkv, layout, norm, tables, store, layer, plan);
}

at::Tensor Kernels::paged_attention(const at::Tensor& q, const KvStore& store, int64_t layer,
                                    const RowPlan& plan, double scale) const {
  TORCH_CHECK(q.dim() == 3 && q.size(0) == plan.rows() && q.size(1) % store.shape.kv_heads == 0 &&
                  q.size(2) == store.shape.head_dim,
              "paged attention of q ", q.sizes(), " over ", store.shape.kv_heads, " heads of ",
              store.shape.head_dim);
  return do_paged_attention(q, store, layer, plan, scale);
}

void Kernels::sample(const at::Tensor& logits, int64_t first_output, const RowPlan& plan,
                     at::Tensor& samples) const {
  TORCH_CHECK(logits.dim() == 2 && logits.scalar_type() == wide_type(logits), "logits must be wide [n, V]");
  TORCH_CHECK(samples.size(1) == plan.draw_count() && std::ranges::is_sorted(plan.draws),
              "samples must have a column for each of the ", plan.draw_count(), " draws, which ascend");
  const auto place = [&](int64_t output) {
    return std::lower_bound(plan.draws.begin(), plan.draws.end(), output) - plan.draws.begin();
  };
  const int64_t begin = place(first_output), end = place(first_output + logits.size(0));
  if (begin == end) return;
  do_sample(logits, first_output, plan, begin, end, samples.narrow(1, begin, end - begin));
}

std::vector<double> Kernels::gram(Tensors vectors, std::span<const FlatRange> ranges) const {
  check_flat(vectors);
  std::vector<double> result = do_gram(vectors, ranges);
  mirror(result, static_cast<int64_t>(vectors.size()));
  return result;
}

std::vector<double> Kernels::optimizer_products(Tensors vectors, std::span<const double> coefficients,
                                                const at::Tensor& theta, std::span<const FlatRange> ranges,
                                                int64_t decay_size, const AdamWStep& step) const {
  check_flat(vectors);
  TORCH_CHECK(coefficients.size() == vectors.size(), "there are ", vectors.size(), " gradients but ",
              coefficients.size(), " coefficients");
  TORCH_CHECK(theta.sizes() == vectors[0].sizes() && theta.scalar_type() == vectors[0].scalar_type(),
              "the parameters must be like their gradients");
  const int64_t sizes[2] = {decay_size, theta.numel() - decay_size};
  for (const std::vector<at::Tensor>* moments : {&step.averages, &step.squares}) {
    TORCH_CHECK(moments->size() == (step.averages.empty() ? 0 : 2),
                "AdamW's moments come in two parts, with and without weight decay");
    for (size_t part = 0; part < moments->size(); ++part) {
      const at::Tensor& moment = (*moments)[part];
      TORCH_CHECK(moment.numel() == sizes[part] && moment.is_contiguous() &&
                      moment.scalar_type() == theta.scalar_type(),
                  "AdamW's moments must be like the parameters: part ", part, " has ", moment.numel());
    }
  }
  return do_optimizer_products(vectors, coefficients, theta, ranges, decay_size, step);
}

double Kernels::squared_norm(Tensors vectors) const { return vectors.empty() ? 0 : do_squared_norm(vectors); }

void Kernels::adamw(const AdamWTensors& tensors, double learning_rate, double beta1, double beta2, double eps,
                    double weight_decay) const {
  if (!tensors.parameters.empty()) do_adamw(tensors, learning_rate, beta1, beta2, eps, weight_decay);
}

}  // namespace troupe::kernels
