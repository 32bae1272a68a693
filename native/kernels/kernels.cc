// What every backend may rely on: the public functions check their arguments and hand over.
#include "kernels/kernels.h"

#include <algorithm>

#include "kernels/checks.h"

namespace troupe::kernels {
namespace {

bool within_positions(const RowPlan& plan, int64_t end) {
  return std::ranges::all_of(plan.positions, [&](int64_t position) { return position < end; });
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
  check_embedding(tokens, weight);
  return do_embedding(tokens, weight);
}

void Kernels::embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, Offsets groups,
                                 Tensors grad_weight) const {
  if (grad_weight.empty()) return;
  check_kind(grad, "the gradient of an embedding");
  TORCH_CHECK(grad.dim() == 2 && grad_weight[0].dim() == 2 && grad_weight[0].size(1) == grad.size(1) &&
                  tokens.dim() == 1 && tokens.size(0) == grad.size(0) && tokens.device() == grad.device() &&
                  (tokens.scalar_type() == at::kLong || tokens.scalar_type() == at::kInt),
              "embedding gradients ", grad_weight[0].sizes(), " of rows ", grad.sizes(), " at tokens ",
              tokens.scalar_type(), " ", tokens.sizes());
  check_groups(groups, grad_weight, grad.size(0), grad, grad_weight[0].sizes());
  do_embedding_backward(grad, tokens, groups, grad_weight);
}

RmsNorm Kernels::rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) const {
  check_norm(x, weight);
  return do_rms_norm(x, {}, weight, eps);
}

RmsNorm Kernels::add_rms_norm(at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                              double eps) const {
  check_norm(x, weight);
  check_like(residual, x, "the residual");
  return do_rms_norm(x, residual, weight, eps);
}

at::Tensor Kernels::rms_norm_backward(const RmsNormGradient& gradient) const {
  check_norm_gradient(gradient);
  return do_rms_norm_backward(gradient);
}

at::Tensor Kernels::swiglu(const at::Tensor& gate_up) const {
  check_gate_up(gate_up);
  return do_swiglu(gate_up);
}

at::Tensor Kernels::swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) const {
  TORCH_CHECK(gate_up.dim() == 2 && grad.dim() == 2 && gate_up.size(1) == 2 * grad.size(1) &&
                  gate_up.size(0) == grad.size(0) && grad.scalar_type() == gate_up.scalar_type() &&
                  grad.device() == gate_up.device(),
              "gate and up ", gate_up.scalar_type(), " ", gate_up.sizes(), " with a gradient ",
              grad.scalar_type(), " ", grad.sizes());
  check_kind(gate_up, "gate and up");
  return do_swiglu_backward(grad, gate_up);
}

Heads Kernels::rotate_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                            const RotaryTables& tables, const TreePlan& plan) const {
  check_dense_heads(qkv, layout, norm, tables);
  TORCH_CHECK(plan.positions_end <= tables.cos.size(0) && qkv.size(0) == plan.rows, "a plan of ", plan.rows,
              " rows and ", plan.positions_end, " positions for ", qkv.size(0), " rows and ",
              tables.cos.size(0), " rotations");
  return do_rotate_heads(qkv, layout, norm, tables, plan);
}

at::Tensor Kernels::rotate_heads_backward(HeadsGradient gradient, const at::Tensor& qkv, const Heads& forward,
                                          const HeadLayout& layout, const HeadNorm& norm,
                                          const RotaryTables& tables, const TreePlan& plan, Offsets groups,
                                          Tensors grad_q_norm, Tensors grad_k_norm) const {
  check_dense_heads(qkv, layout, norm, tables);
  check_heads_gradient(gradient, qkv, layout, plan, groups, grad_q_norm, grad_k_norm);
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
  check_like(grad, heads.q, "the attention's gradient");
  check_like(forward.out, heads.q, "the attention's result");
  return do_tree_attention_backward(grad, heads, forward, plan, scale);
}

TokenLogprobs Kernels::token_logprobs(const at::Tensor& hidden, const at::Tensor& weight,
                                      const LossEntries& entries) const {
  check_projection(hidden, weight, &entries);
  return do_token_logprobs(hidden, weight, entries);
}

void Kernels::token_logprobs_backward(const TokenLogprobsGradient& gradient, const TokenLogprobs& forward,
                                      const at::Tensor& hidden, const at::Tensor& weight,
                                      const LossEntries& entries) const {
  check_logprobs_gradient(gradient, forward, hidden, weight, entries);
  TokenLogprobsGradient added = gradient;
  if (!gradient.grad_weight.empty())
    added.fresh = cleared(gradient.grad_weight, entries.entry_offsets(gradient.groups), gradient.fresh);
  if (entries.count > 0) do_token_logprobs_backward(added, forward, hidden, weight, entries);
}

// Which accumulators the backend's products are to overwrite: of the fresh ones those that have rows. The others are
// cleared.
std::vector<bool> Kernels::cleared(Tensors accumulators, Offsets rows, std::vector<bool> fresh) const {
  TORCH_CHECK(fresh.empty() || fresh.size() == accumulators.size(), "there are ", accumulators.size(),
              " accumulators, but of ", fresh.size(), " it is said whether they are fresh");
  fresh.resize(accumulators.size());
  for (size_t k = 0; k < accumulators.size(); ++k) {
    if (!fresh[k] || (overwrites() && rows[k] < rows[k + 1])) continue;
    accumulators[k].zero_();
    fresh[k] = false;
  }
  return fresh;
}

void Kernels::accumulate_weight_gradient(Tensors accumulators, const at::Tensor& delta, const at::Tensor& x,
                                         Offsets groups, const std::vector<bool>& fresh,
                                         at::Tensor& counters) const {
  TORCH_CHECK(!accumulators.empty(), "a weight gradient needs at least one accumulator");
  check_kind(delta, "the gradient of a linear layer");
  TORCH_CHECK(delta.dim() == 2 && x.dim() == 2 && delta.size(0) == x.size(0) &&
                  x.scalar_type() == delta.scalar_type() && x.device() == delta.device(),
              "weight gradient of delta ", delta.scalar_type(), " ", delta.sizes(), " and x ",
              x.scalar_type(), " ", x.sizes());
  check_groups(groups, accumulators, delta.size(0), delta, {delta.size(1), x.size(1)});
  if (accumulators[0].numel() == 0) return;
  do_accumulate_weight_gradient(accumulators, delta, x, groups, cleared(accumulators, groups, fresh),
                                counters);
}

AdaptedLinear Kernels::adapted_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                      const LoraLinear& linear) const {
  check_linear(x, {weight, bias, {}});
  check_adapter_of(weight, linear);
  return do_adapted_linear(x, weight, bias, linear);
}

at::Tensor Kernels::adapted_linear_backward(const at::Tensor& delta, const at::Tensor& projected_grad,
                                            const at::Tensor& weight, const LoraLinear& linear) const {
  check_adapter_of(weight, linear);
  check_adapted_gradient(delta, projected_grad, weight, linear);
  return do_adapted_linear_backward(delta, projected_grad, weight, linear);
}

PackedLinear Kernels::pack_linear(at::Tensor weight, at::Tensor bias) const {
  TORCH_CHECK(weight.dim() == 2, "a linear layer's weight is [outputs, inputs], not ", weight.sizes());
  at::Tensor packed = do_pack_linear(weight);
  return {std::move(weight), std::move(bias), std::move(packed)};
}

at::Tensor Kernels::linear(const at::Tensor& x, const PackedLinear& weight) const {
  check_linear(x, weight);
  return do_linear(x, weight);
}

at::Tensor Kernels::recurring_linear(const at::Tensor& x, const PackedLinear& weight,
                                     const AlikeWeights& alike) const {
  check_linear(x, weight);
  return do_recurring_linear(x, weight, alike);
}

int64_t Kernels::packed_bytes(at::ScalarType, int64_t, int64_t, bool) const { return 0; }

PackedLinear Kernels::pack_head(at::Tensor weight, bool repack) const {
  TORCH_CHECK(weight.dim() == 2, "an output projection is [vocabulary, inputs], not ", weight.sizes());
  at::Tensor packed = repack ? do_pack_head(weight) : at::Tensor();
  return {std::move(weight), {}, std::move(packed)};
}

at::Tensor Kernels::logits(const at::Tensor& hidden, const PackedLinear& head) const {
  check_projection(hidden, head.weight);
  if (hidden.size(0) == 0) return hidden.new_empty({0, head.weight.size(0)}, wide_type(hidden));
  return do_logits(hidden, head);
}

bool is_projected(const LoraRows& part, const Adapters& adapters) {
  return adapters.projected.defined() &&
         std::ranges::all_of(part.linear->terms, [](const LoraTerm& term) { return term.projected >= 0; });
}

void Kernels::pack_lora(LoraLinear& linear) const { do_pack_lora(linear); }

void Kernels::add_lora(at::Tensor& y, const Adapters& adapters) const {
  check_adapters(y, adapters);
  do_add_lora(y, adapters);
}

at::Tensor Kernels::add_rms_norm(at::Tensor& x, at::Tensor& y, const Adapters& adapters,
                                 const at::Tensor& weight, double eps) const {
  if (adapters.parts.empty()) return add_rms_norm(x, y, weight, eps).y;
  check_norm(x, weight);
  check_like(y, x, "the residual");
  check_adapters(y, adapters);
  return do_adapted_rms_norm(x, y, adapters, weight, eps);
}

at::Tensor Kernels::swiglu(at::Tensor& gate_up, const Adapters& adapters) const {
  if (adapters.parts.empty()) return swiglu(gate_up);
  check_gate_up(gate_up);
  check_adapters(gate_up, adapters);
  return do_adapted_swiglu(gate_up, adapters);
}

KvStore Kernels::make_kv_store(const KvShape& shape, int64_t pages) const {
  TORCH_CHECK(shape.layers > 0 && shape.kv_heads > 0 && shape.head_dim > 0 && shape.kv_heads < (1 << 20) &&
                  shape.head_dim < (1 << 20) && pages >= 0 && pages <= INT32_MAX / kPageTokens,
              "no cache has ", pages, " pages of ", shape.layers, " layers with ", shape.kv_heads,
              " heads of ", shape.head_dim);
  return do_make_kv_store(shape, pages);
}

int64_t Kernels::kv_page_bytes(const KvShape& shape) const {
  return do_kv_page_elements(shape) * static_cast<int64_t>(c10::elementSize(shape.dtype));
}

void Kernels::copy_kv_pages(KvStore& store, PageCopies copies) const {
  if (copies.empty()) return;
  check_copies(copies, store);
  do_copy_kv_pages(store, copies);
}

void Kernels::discard_kv_pages(KvStore& store, std::span<const int32_t> pages) const {
  if (!pages.empty()) do_discard_kv_pages(store, pages);
}

std::unique_ptr<Recording> Kernels::record(const at::Device&, std::function<void()>) const {
  TORCH_CHECK(false, "the kernels ", name(), " record no launches");
}

void Kernels::plan_work(RowPlan& plan) const {
  check_plan(plan);
  plan.extra.clear();
  plan.launch.clear();
  plan_rows(plan);
}

at::Tensor Kernels::rotate_and_store(at::Tensor& qkv, const Adapters& adapters, const HeadLayout& layout,
                                     const HeadNorm& norm, const RotaryTables& tables, KvStore& store,
                                     int64_t layer, const RowPlan& plan) const {
  check_heads(qkv, layout, norm, tables);
  TORCH_CHECK(qkv.size(0) == plan.rows(), "a step of ", qkv.size(0), " rows with a plan of ", plan.rows());
  TORCH_CHECK(layout.key_heads == store.shape.kv_heads && layout.dim == store.shape.head_dim &&
                  qkv.scalar_type() == store.shape.dtype && qkv.device() == store.shape.device,
              "a step of ", qkv.scalar_type(), " does not fit the cache");
  TORCH_CHECK(within_positions(plan, tables.cos.size(0)), "a position lies behind the last of ",
              tables.cos.size(0), " rotations");
  TORCH_CHECK(layer >= 0 && layer < store.shape.layers, "layer ", layer, " of ", store.shape.layers);
  if (adapters.parts.empty())
    return do_rotate_and_store(qkv.contiguous(), layout, norm, tables, store, layer, plan);
  check_adapters(qkv, adapters);
  return do_adapted_rotate_and_store(qkv, adapters, layout, norm, tables, store, layer, plan);
}

at::Tensor Kernels::paged_attention(const at::Tensor& q, const KvStore& store, int64_t layer,
                                    const RowPlan& plan, double scale) const {
  TORCH_CHECK(q.dim() == 3 && q.size(0) == plan.rows() && q.size(1) % store.shape.kv_heads == 0 &&
                  q.size(2) == store.shape.head_dim,
              "paged attention of q ", q.sizes(), " over ", store.shape.kv_heads, " heads of ",
              store.shape.head_dim);
  TORCH_CHECK(q.scalar_type() == store.shape.dtype, "q is ", q.scalar_type(), " and the cache is ",
              store.shape.dtype);
  return do_paged_attention(q, store, layer, plan, scale);
}

void Kernels::sample(const at::Tensor& logits, int64_t first_output, const RowPlan& plan,
                     at::Tensor& samples) const {
  check_samples(logits, plan, samples);
  const auto place = [&](int64_t output) {
    return std::lower_bound(plan.draws.begin(), plan.draws.end(), output) - plan.draws.begin();
  };
  const int64_t begin = place(first_output), end = place(first_output + logits.size(0));
  if (begin == end) return;
  do_sample(logits, first_output, plan, begin, end, samples.narrow(1, begin, end - begin));
}

void Kernels::take_drawn(const at::Tensor& samples, at::Tensor tokens) const {
  TORCH_CHECK(samples.dim() == 2 && samples.size(0) == 2 && samples.size(1) > 0 && tokens.dim() == 1 &&
                  samples.scalar_type() == at::kInt && tokens.scalar_type() == at::kInt &&
                  samples.device() == tokens.device() && samples.is_contiguous() && tokens.is_contiguous(),
              "drawn tokens are contiguous int32 [2, D] for int32 [T], not ", samples.scalar_type(), " ",
              samples.sizes(), " and ", tokens.scalar_type(), " ", tokens.sizes());
  do_take_drawn(samples.select(0, 0), std::move(tokens));
}

std::vector<double> Kernels::gram(Tensors vectors, std::span<const FlatRange> ranges) const {
  check_flat(vectors, ranges);
  std::vector<double> result = do_gram(vectors, ranges);
  mirror(result, static_cast<int64_t>(vectors.size()));
  return result;
}

AdamWChange Kernels::adamw_step(Tensors vectors, std::span<const double> coefficients,
                                std::span<const FlatRange> ranges, const AdamWStep& step) const {
  check_flat(vectors, ranges);
  check_step(vectors, coefficients, ranges, step);
  if (!ranges.empty()) return do_adamw_step(vectors, coefficients, ranges, step);
  step.before_change();
  return {};
}

double Kernels::squared_norm(Tensors vectors) const { return vectors.empty() ? 0 : do_squared_norm(vectors); }

void Kernels::adamw(const AdamWTensors& tensors, double learning_rate, double beta1, double beta2, double eps,
                    double weight_decay) const {
  if (!tensors.parameters.empty()) do_adamw(tensors, learning_rate, beta1, beta2, eps, weight_decay);
}

}  // namespace troupe::kernels
