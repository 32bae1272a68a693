#include "training/forward.h"

#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "model/kernels.h"
#include "training/layer.h"
#include "training/memory.h"

namespace troupe::training {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A batch's index tensors on the policy's device.
struct Indices {
  at::Tensor tokens, rows, targets, entries;
};

// One forward pass and, if gradients were asked for, everything that its backward needs.
class TrainingPass {
 public:
  TrainingPass(std::shared_ptr<const Policy> policy, std::shared_ptr<const PackedBatch> batch,
               double temperature, bool gradients, int64_t activation_bytes);

  CallLogprobs forward();
  // Gradients of forward()'s results, either of which may be undefined.
  void backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy);

 private:
  void check_inputs() const;
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
  double temperature_;
  bool gradients_, recompute_ = false;
  int64_t version_;
  Indices indices_;
  PassInputs inputs_;
  std::vector<LayerActivations> layers_;
  at::Tensor last_, last_rstd_;    // residual stream after the last layer [T, H]
  kernels::TokenLogprobs result_;  // in entry order
};

TrainingPass::TrainingPass(std::shared_ptr<const Policy> policy, std::shared_ptr<const PackedBatch> batch,
                           double temperature, bool gradients, int64_t activation_bytes)
    : policy_(std::move(policy)),
      batch_(std::move(batch)),
      temperature_(temperature),
      gradients_(gradients),
      version_(policy_->version()),
      inputs_{*policy_, *batch_, {}, {}, {}} {
  check_inputs();
  const at::Device device = policy_->device();
  indices_ = {batch_->tokens.to(device), batch_->rows.to(device), batch_->targets.to(device),
              batch_->entries.to(device)};
  inputs_.positions = batch_->positions.to(device);
  if (!gradients_) return;
  check_accumulators();
  if (activation_bytes <= 0) activation_bytes = available_memory() / 2;
  recompute_ = policy_->config().layers * layer_bytes(*policy_, batch_->tokens.size(0)) > activation_bytes;
}

void TrainingPass::check_inputs() const {
  TORCH_CHECK(temperature_ > 0, "the temperature of log-probabilities must be above 0, got ", temperature_);
  const int64_t vocabulary = policy_->config().vocabulary_size;
  for (const at::Tensor& ids : {batch_->tokens, batch_->targets}) {
    if (ids.numel() == 0) continue;
    const int64_t least = ids.min().item<int64_t>(), most = ids.max().item<int64_t>();
    TORCH_CHECK(least >= 0 && most < vocabulary, "token id ", least < 0 ? least : most,
                " lies outside the vocabulary of ", vocabulary, " tokens");
  }
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
  policy_->rope_tables(batch_->positions.max().item<int64_t>() + 1, inputs_.cos, inputs_.sin);
  Stream stream{kernels::embedding(indices_.tokens, policy_->embedding()), {}};
  if (layers > 0) stream.normed = kernels::rms_norm(stream.x, policy_->layer(0).input_norm, eps);
  if (gradients_) layers_.resize(layers);
  for (int64_t i = 0; i < layers; ++i) {
    LayerActivations activations;
    at::Tensor output = layer_forward(inputs_, i, stream, activations);
    const at::Tensor& next_norm = i + 1 < layers ? policy_->layer(i + 1).input_norm : policy_->final_norm();
    stream.normed = kernels::add_rms_norm(output, activations.middle, next_norm, eps);
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
  if (indices_.rows.numel() == 0) {
    const auto options = at::TensorOptions()
                             .dtype(policy_->compute_dtype() == at::kDouble ? at::kDouble : at::kFloat)
                             .device(policy_->device());
    return {at::empty({0}, options), at::empty({0}, options)};
  }
  const at::Tensor hidden = run_layers();
  result_ = kernels::token_logprobs(hidden, policy_->head(), indices_.rows, indices_.targets, temperature_);
  return {result_.logprobs.index_select(0, indices_.entries),
          result_.entropy.index_select(0, indices_.entries)};
}

at::Tensor TrainingPass::in_entry_order(const at::Tensor& grad) const {
  if (!grad.defined()) return {};
  return at::empty_like(result_.logprobs)
      .index_copy_(0, indices_.entries, grad.to(result_.logprobs.scalar_type()));
}

at::Tensor TrainingPass::head_backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy,
                                       const GradientSink& sink) {
  const at::Tensor hidden = kernels::rms_norm(last_, policy_->final_norm(), policy_->config().rms_norm_eps).y;
  at::Tensor grad = at::zeros(hidden.sizes(), result_.logprobs.options());
  at::Tensor sorted_logprobs = in_entry_order(grad_logprobs);
  if (!sorted_logprobs.defined()) sorted_logprobs = at::zeros_like(result_.logprobs);
  kernels::LogitProjection projection;
  GradientSketch* const sketch = sink.trains_base() ? sink.sketch() : nullptr;
  if (sketch) {
    projection.matrix = sketch->row_signs(policy_->head_index());
    projection.out = at::zeros({hidden.size(0), projection.matrix.size(1)}, result_.logprobs.options());
  }
  kernels::token_logprobs_backward(sorted_logprobs, in_entry_order(grad_entropy), result_, hidden,
                                   policy_->head(), indices_.rows, indices_.targets, temperature_,
                                   sink.accumulated(), grad, sink.base_matrix(policy_->head_index()),
                                   projection);
  if (sketch) sketch->add_projected(policy_->head_index(), projection.out, hidden, sink.groups());
  grad = kernels::rms_norm_backward(grad.to(hidden.scalar_type()), last_, policy_->final_norm(), last_rstd_,
                                    sink.groups(), sink.base_vector(policy_->final_norm_index()));
  last_.reset();
  return grad;
}

void TrainingPass::rerun_layer(int64_t i) {
  LayerActivations& activations = layers_[i];
  Stream stream{activations.input, {}};
  stream.normed = kernels::rms_norm(stream.x, policy_->layer(i).input_norm, policy_->config().rms_norm_eps);
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
    kernels::embedding_backward(grad, indices_.tokens, sink.accumulated(), sink.base_matrix(index));
    if (sink.sketch()) sink.sketch()->add_embedding(index, indices_.tokens, grad, sink.groups());
  }
}

void TrainingPass::backward(const at::Tensor& grad_logprobs, const at::Tensor& grad_entropy) {
  if (indices_.rows.numel() == 0) return;
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

}  // namespace troupe::training
