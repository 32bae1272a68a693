#include "training/forward.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

#include "memory/device_memory.h"
#include "training/layer.h"

namespace troupe::training {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// One forward pass and, if gradients were asked for, everything that its backward needs.
class TrainingPass {
 public:
  TrainingPass(std::shared_ptr<const Policy> policy, std::shared_ptr<const PackedBatch> batch,
               double temperature, bool gradients, int64_t activation_bytes);

  CallLogprobs forward();
  Likeliest likeliest(double temperature, int64_t count);
  // Gradients of forward()'s results, either of which may be undefined.
  void backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy);

 private:
  void check_accumulators() const;
  at::Tensor run_layers();
  at::Tensor in_entry_order(const at::Tensor& grad) const;
  // Gradient of the residual stream after the last layer.
  at::Tensor head_backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy,
                           const GradientSink& sink);
  void layers_backward(at::Tensor grad, const GradientSink& sink);
  void rerun_layer(int64_t i);

  std::shared_ptr<const Policy> policy_;
  std::shared_ptr<const PackedBatch> batch_;
  bool gradients_, recompute_ = false;
  int64_t version_;
  kernels::TreePlan plan_;
  kernels::LossEntries entries_;
  at::Tensor entry_order_;  // [E] int64: the entry of each response token, in the order of the calls
  PassInputs inputs_;
  std::vector<LayerActivations> layers_;
  at::Tensor last_, last_rstd_;    // residual stream after the last layer [T, H]
  kernels::TokenLogprobs result_;  // in entry order
};

std::vector<double> temperatures_of(const PackedBatch& batch, double otherwise) {
  std::vector<double> result = batch.temperatures;
  std::replace(result.begin(), result.end(), 0.0, otherwise);
  return result;
}

void check_tokens(const PackedBatch& batch, int64_t vocabulary) {
  for (const int64_t token : batch.tokens) {
    TORCH_CHECK(token >= 0 && token < vocabulary, "token id ", token, " lies outside the vocabulary of ",
                vocabulary, " tokens");
  }
}

TrainingPass::TrainingPass(std::shared_ptr<const Policy> policy, std::shared_ptr<const PackedBatch> batch,
                           double temperature, bool gradients, int64_t activation_bytes)
    : policy_(std::move(policy)),
      batch_(std::move(batch)),
      gradients_(gradients),
      version_(policy_->version()),
      plan_(batch_->nodes, batch_->tokens, batch_->positions),
      entries_(batch_->rows, batch_->targets, temperatures_of(*batch_, temperature), plan_.rows,
               policy_->config().vocabulary_size),
      inputs_{*policy_, policy_->backend(), plan_, {}} {
  TORCH_CHECK(temperature > 0, "the temperature of log-probabilities must be above 0, got ", temperature);
  check_tokens(*batch_, policy_->config().vocabulary_size);
  const at::Device device = policy_->device();
  kernels::Upload upload;
  plan_.add_to(upload);
  entries_.add_to(upload);
  upload.add(batch_->entries, entry_order_);
  upload.send(device);
  if (!gradients_) return;
  check_accumulators();
  if (activation_bytes <= 0) activation_bytes = device_memory(device).free / 2;
  recompute_ = policy_->config().layers * layer_bytes(*policy_, plan_.rows) > activation_bytes;
}

void TrainingPass::check_accumulators() const {
  const ParameterSet& trained = policy_->trained();
  const auto groups = static_cast<int64_t>(batch_->groups.size()) - 1;
  TORCH_CHECK(trained.trainable(), "the policy's parameters are frozen: they take no gradients");
  const int64_t begun = trained.sketch() ? trained.sketch()->groups() : trained.gradient_groups();
  TORCH_CHECK(begun == groups, "the batch has ", groups, " gradient groups, but gradients were begun for ",
              begun);
}

// The residual stream after the last layer.
at::Tensor TrainingPass::run_layers() {
  const int64_t layers = policy_->config().layers;
  const double eps = policy_->config().rms_norm_eps;
  const kernels::Kernels& backend = inputs_.backend;
  inputs_.tables = policy_->rotary_tables(plan_.positions_end);
  Stream stream{backend.embedding(plan_.tokens, policy_->embedding()), {}};
  if (layers > 0) stream.normed = backend.rms_norm(stream.x, policy_->layer(0).input_norm, eps);
  if (gradients_) layers_.resize(layers);
  for (int64_t i = 0; i < layers; ++i) {
    LayerActivations activations;
    at::Tensor output = layer_forward(inputs_, i, stream, activations);
    const at::Tensor& next_norm = i + 1 < layers ? policy_->layer(i + 1).input_norm : policy_->final_norm();
    stream.normed = backend.add_rms_norm(output, activations.middle, next_norm, eps);
    stream.x = std::move(output);
    if (!gradients_) continue;
    if (recompute_) activations.keep_input_only();
    layers_[i] = std::move(activations);
  }
  last_ = std::move(stream.x);
  last_rstd_ = std::move(stream.normed.rstd);
  return std::move(stream.normed.y);
}

CallLogprobs TrainingPass::forward() {
  if (entries_.count == 0) {
    const auto options =
        at::TensorOptions().dtype(kernels::wide_type(policy_->compute_dtype())).device(policy_->device());
    return {at::empty({0}, options), at::empty({0}, options)};
  }
  const at::Tensor hidden = run_layers();
  result_ = inputs_.backend.token_logprobs(hidden, policy_->head(), entries_);
  return {result_.logprobs.index_select(0, entry_order_), result_.entropy.index_select(0, entry_order_)};
}

Likeliest TrainingPass::likeliest(double temperature, int64_t count) {
  const int64_t vocabulary = policy_->config().vocabulary_size;
  TORCH_CHECK(count >= 0 && count <= vocabulary, "there are ", vocabulary, " tokens, not ", count);
  const kernels::Kernels& backend = inputs_.backend;
  const at::Tensor hidden = entries_.count == 0 ? at::Tensor() : run_layers();
  const kernels::PackedLinear head = backend.pack_head(policy_->head(), false);
  const auto options =
      at::TensorOptions().dtype(kernels::wide_type(policy_->compute_dtype())).device(policy_->device());
  Likeliest result{at::empty({entries_.count}, options),
                   at::empty({entries_.count, count}, options.dtype(at::kLong)),
                   at::empty({entries_.count, count}, options)};
  for (int64_t begin = 0; begin < entries_.count; begin += backend.logit_rows()) {
    const int64_t size = std::min(backend.logit_rows(), entries_.count - begin);
    const at::Tensor logits =
        backend.logits(hidden.index_select(0, entries_.rows.narrow(0, begin, size)), head);
    const at::Tensor logprobs =
        at::log_softmax(logits.div_(entries_.temperatures.narrow(0, begin, size).unsqueeze(1)), 1);
    const auto [values, ids] = logprobs.topk(count, 1);
    result.logprobs.narrow(0, begin, size)
        .copy_(logprobs.gather(1, entries_.targets.narrow(0, begin, size).unsqueeze(1)).squeeze(1));
    result.ids.narrow(0, begin, size).copy_(ids);
    result.values.narrow(0, begin, size).copy_(values);
  }
  return {result.logprobs.index_select(0, entry_order_), result.ids.index_select(0, entry_order_),
          result.values.index_select(0, entry_order_)};
}

at::Tensor TrainingPass::in_entry_order(const at::Tensor& grad) const {
  if (!grad.defined()) return {};
  return at::empty_like(result_.logprobs)
      .index_copy_(0, entry_order_, grad.to(result_.logprobs.scalar_type()));
}

at::Tensor TrainingPass::head_backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy,
                                       const GradientSink& sink) {
  const kernels::Kernels& backend = inputs_.backend;
  const at::Tensor hidden = backend.rms_norm(last_, policy_->final_norm(), policy_->config().rms_norm_eps).y;
  at::Tensor grad = at::zeros(hidden.sizes(), result_.logprobs.options());
  at::Tensor sorted_logprobs = in_entry_order(grad_logprobs);
  if (!sorted_logprobs.defined()) sorted_logprobs = at::zeros_like(result_.logprobs);
  const int64_t index = policy_->head_index();
  const Accumulators into = sink.trains_base() ? sink.products(index, 1) : Accumulators{};
  kernels::TokenLogprobsGradient gradient{
      sorted_logprobs, in_entry_order(grad_entropy), sink.accumulated(), into.sums, into.fresh, grad, {}, {}};
  GradientSketch* const sketch = sink.trains_base() ? sink.sketch() : nullptr;
  if (sketch) {
    gradient.matrix = sketch->row_signs(index);
    gradient.projected = at::zeros({hidden.size(0), gradient.matrix.size(1)}, result_.logprobs.options());
  }
  backend.token_logprobs_backward(gradient, result_, hidden, policy_->head(), entries_);
  if (sink.trains_base()) sink.written(index, 1);
  if (sketch) sketch->add_projected(index, gradient.projected, hidden, sink.groups());
  const std::vector<at::Tensor> norm = sink.base_vector(policy_->final_norm_index());
  grad = backend.rms_norm_backward(
      {grad.to(hidden.scalar_type()), last_, policy_->final_norm(), last_rstd_, sink.groups(), norm, {}, {}});
  last_.reset();
  return grad;
}

void TrainingPass::rerun_layer(int64_t i) {
  LayerActivations& activations = layers_[i];
  Stream stream{activations.input, {}};
  stream.normed =
      inputs_.backend.rms_norm(stream.x, policy_->layer(i).input_norm, policy_->config().rms_norm_eps);
  layer_forward(inputs_, i, stream, activations);
}

void TrainingPass::layers_backward(at::Tensor grad, const GradientSink& sink) {
  for (int64_t i = policy_->config().layers - 1; i >= 0; --i) {
    if (layers_[i].input_only()) rerun_layer(i);
    grad = layer_backward(inputs_, i, layers_[i], std::move(grad), sink);
    layers_.pop_back();
  }
  if (sink.trains_base()) {
    const int64_t index = policy_->embedding_index();
    inputs_.backend.embedding_backward(grad, plan_.tokens, sink.accumulated(), sink.base_matrix(index));
    if (sink.sketch()) sink.sketch()->add_embedding(index, plan_.tokens, grad, sink.groups());
  }
}

void TrainingPass::backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy) {
  if (entries_.count == 0) return;
  TORCH_CHECK(last_.defined(),
              "backward has already run through these log-probabilities; compute them again");
  TORCH_CHECK(policy_->version() == version_,
              "the policy's parameters changed between the forward and the backward pass");
  check_accumulators();
  const GradientSink sink(*policy_, batch_->groups);
  layers_backward(head_backward(grad_logprobs, grad_entropy, sink), sink);
}

struct PassHolder : torch::CustomClassHolder {
  explicit PassHolder(std::shared_ptr<TrainingPass> held) : pass(std::move(held)) {}
  std::shared_ptr<TrainingPass> pass;
};

// The autograd node. The parameters are no autograd leaves (their gradients go to the accumulators), so a
// scalar that requires a gradient stands for them and gets none.
class TokenLogprobsFunction : public torch::autograd::Function<TokenLogprobsFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& anchor,
                               const std::shared_ptr<TrainingPass>& pass) {
    CallLogprobs result = pass->forward();
    context->saved_data["pass"] = c10::IValue::make_capsule(c10::make_intrusive<PassHolder>(pass));
    return {std::move(result.logprobs), std::move(result.entropy)};
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto holder =
        c10::dynamic_intrusive_pointer_cast<PassHolder>(context->saved_data["pass"].toCapsule());
    holder->pass->backward(gradients[0], gradients[1]);
    return {at::Tensor(), at::Tensor()};
  }
};

}  // namespace

CallLogprobs token_logprobs(std::shared_ptr<const Policy> policy, std::shared_ptr<const PackedBatch> batch,
                            double temperature, bool gradients, int64_t activation_bytes) {
  auto pass = std::make_shared<TrainingPass>(std::move(policy), std::move(batch), temperature, gradients,
                                             activation_bytes);
  if (!gradients) {
    const at::NoGradGuard no_grad;
    return pass->forward();
  }
  const at::AutoGradMode with_gradients(true);
  variable_list results = TokenLogprobsFunction::apply(at::zeros({}).requires_grad_(true), pass);
  return {std::move(results[0]), std::move(results[1])};
}

Likeliest likeliest_tokens(std::shared_ptr<const Policy> policy, std::shared_ptr<const PackedBatch> batch,
                           double temperature, int64_t count) {
  const at::NoGradGuard no_grad;
  return TrainingPass(std::move(policy), std::move(batch), temperature, false, 0)
      .likeliest(temperature, count);
}

}  // namespace troupe::training
