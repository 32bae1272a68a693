// The fused operations for test/kernels and bench/kernels.mjs: `kernels(name)` on the addon gives the implementation of that
// name ("cpu", "reference", …). Nothing else uses them from JavaScript.
#include "kernels/kernels.h"

#include <optional>

#include "binding/convert.h"
#include "binding/guard.h"
#include "binding/handle.h"
#include "binding/kernel_arguments.h"
#include "binding/kernels.h"
#include "binding/tensor.h"
#include "cuda/library.h"
#include "kernels/checks.h"
#include "kernels/waits.h"

namespace troupe::binding {
namespace {

using kernels::Kernels;

// Rows in the order that the backend's tree attention wants, and back.
at::Tensor in_order(const Kernels& backend, const at::Tensor& x, const kernels::TreePlan& plan) {
  return backend.breadth_first() ? x.index_select(0, plan.order) : x;
}
at::Tensor in_batch_order(const Kernels& backend, const at::Tensor& x, const kernels::TreePlan& plan) {
  return backend.breadth_first() ? x.index_select(0, plan.place) : x;
}

Napi::Value object_of(Napi::Env env, std::initializer_list<std::pair<const char*, at::Tensor>> tensors) {
  const Napi::Object object = Napi::Object::New(env);
  for (const auto& [name, tensor] : tensors) {
    if (tensor.defined()) object.Set(name, wrap_tensor(env, tensor));
  }
  return object;
}

using Info = Napi::CallbackInfo;

// Numbers that are 0 or not.
std::vector<bool> to_flags(const Napi::Value& value, const char* what) {
  const std::vector<int64_t> numbers = to_int64s(value, what);
  return {numbers.begin(), numbers.end()};
}

class KernelsHandle : public Handle<KernelsHandle, const Kernels*> {
 public:
  using Handle::Handle;
  static constexpr const char* kName = "Kernels";
  static std::vector<Property> properties();

 private:
  const Kernels& backend() { return *value(); }

  Napi::Value launches(const Info& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(backend().launches()));
  }
  // Of the process, on whatever kernels.
  Napi::Value waits(const Info& info) {
    const cuda::Library* const library = cuda::library();
    const int64_t apart = library && library->waits ? library->waits() : 0;
    return Napi::Number::New(info.Env(), static_cast<double>(kernels::waits() + apart));
  }
  Napi::Value uploads(const Info& info) {
    const cuda::Library* const library = cuda::library();
    const int64_t apart = library && library->uploads ? library->uploads() : 0;
    return Napi::Number::New(info.Env(), static_cast<double>(kernels::uploads() + apart));
  }
  Napi::Value name(const Info& info) { return Napi::String::New(info.Env(), backend().name()); }

  // (tokens, weight)
  Napi::Value embedding(const Info& info) {
    const at::Tensor weight = unwrap_tensor(info[1], "weight");
    TORCH_CHECK_VALUE(weight.dim() == 2, "an embedding's weight must be [V, H], not ", weight.sizes());
    return wrap_tensor(info.Env(), backend().embedding(to_tokens(info[0], weight.size(0)), weight));
  }

  // (grad, tokens, groups, gradWeight[])
  Napi::Value embedding_backward(const Info& info) {
    const std::vector<at::Tensor> grad_weight = unwrap_tensors(info[3], "gradWeight");
    const bool whole = !grad_weight.empty() && grad_weight[0].dim() == 2;
    TORCH_CHECK_VALUE(grad_weight.empty() || whole, "an embedding's gradient must be [V, H]");
    backend().embedding_backward(unwrap_tensor(info[0], "grad"),
                                 to_tokens(info[1], whole ? grad_weight[0].size(0) : INT64_MAX),
                                 to_int64s(info[2], "groups"), grad_weight);
    return info.Env().Undefined();
  }

  // (x, weight, eps) → {y, rstd}
  Napi::Value rms_norm(const Info& info) {
    const auto result = backend().rms_norm(unwrap_tensor(info[0], "x"), unwrap_tensor(info[1], "weight"),
                                           to_double(info[2], "eps"));
    return object_of(info.Env(), {{"y", result.y}, {"rstd", result.rstd}});
  }

  // (x, residual, weight, eps) → {y, rstd}; x changes
  Napi::Value add_rms_norm(const Info& info) {
    at::Tensor x = unwrap_tensor(info[0], "x");
    const auto result = backend().add_rms_norm(x, unwrap_tensor(info[1], "residual"),
                                               unwrap_tensor(info[2], "weight"), to_double(info[3], "eps"));
    return object_of(info.Env(), {{"y", result.y}, {"rstd", result.rstd}});
  }

  // (grad, x, weight, rstd, groups, gradWeight[], add?, out?)
  Napi::Value rms_norm_backward(const Info& info) {
    const std::vector<int64_t> groups = to_int64s(info[4], "groups");
    const std::vector<at::Tensor> grad_weight = unwrap_tensors(info[5], "gradWeight");
    return wrap_tensor(info.Env(),
                       backend().rms_norm_backward(
                           {unwrap_tensor(info[0], "grad"), unwrap_tensor(info[1], "x"),
                            unwrap_tensor(info[2], "weight"), unwrap_tensor(info[3], "rstd"), groups,
                            grad_weight, optional_tensor(info[6], "add"), optional_tensor(info[7], "out")}));
  }

  // (gateUp)
  Napi::Value swiglu(const Info& info) {
    return wrap_tensor(info.Env(), backend().swiglu(unwrap_tensor(info[0], "gateUp")));
  }

  // (grad, gateUp)
  Napi::Value swiglu_backward(const Info& info) {
    return wrap_tensor(info.Env(), backend().swiglu_backward(unwrap_tensor(info[0], "grad"),
                                                             unwrap_tensor(info[1], "gateUp")));
  }

  // ({qkv, layout, qNorm?, kNorm?, cos, sin, nodes, positions, scale, grad?, groups?, gradQNorm?,
  // gradKNorm?}) → {out, qkv?}: a layer's attention from the raw product on, and with `grad` back to it.
  Napi::Value attention(const Info& info) {
    const Fields fields(info[0], "attention");
    const at::Tensor qkv = unwrap_tensor(fields.get("qkv"), "qkv");
    const kernels::HeadLayout layout = to_layout(fields.get("layout"));
    const kernels::HeadNorm norm = to_norm(fields);
    const kernels::RotaryTables tables{unwrap_tensor(fields.get("cos"), "cos"),
                                       unwrap_tensor(fields.get("sin"), "sin")};
    const kernels::TreePlan plan =
        to_plan(fields.get("nodes"), fields.get("positions"), qkv.size(0), qkv.device());
    const double scale = fields.number("scale");
    const kernels::Heads heads = backend().rotate_heads(qkv, layout, norm, tables, plan);
    const kernels::Attention forward = backend().tree_attention(heads, plan, scale);
    const at::Tensor grad = optional_tensor(fields, "grad");
    at::Tensor grad_qkv;
    if (grad.defined()) {
      const std::vector<int64_t> groups = fields.integers("groups");
      grad_qkv = backend().rotate_heads_backward(
          backend().tree_attention_backward(grad, heads, forward, plan, scale), qkv, heads, layout, norm,
          tables, plan, groups, optional_tensors(fields, "gradQNorm"), optional_tensors(fields, "gradKNorm"));
    }
    return object_of(info.Env(), {{"out", forward.out}, {"qkv", grad_qkv}});
  }

  // (q, k, v, nodes, scale, grad?) → {out, q?, k?, v?}: q, k and v in the batch's order.
  Napi::Value tree_attention(const Info& info) {
    const at::Tensor q = unwrap_tensor(info[0], "q");
    const kernels::TreePlan plan = to_plan(info[3], info.Env().Undefined(), q.size(0), q.device());
    const double scale = to_double(info[4], "scale");
    const auto ordered = [&](const at::Tensor& x) { return in_order(backend(), x, plan); };
    const kernels::Heads heads{
        ordered(q), ordered(unwrap_tensor(info[1], "k")), ordered(unwrap_tensor(info[2], "v")), {}, {}};
    const kernels::Attention forward = backend().tree_attention(heads, plan, scale);
    const at::Tensor grad = optional_tensor(info[5], "grad");
    if (!grad.defined()) return object_of(info.Env(), {{"out", forward.out}});
    const kernels::HeadsGradient gradient =
        backend().tree_attention_backward(grad, heads, forward, plan, scale);
    const auto back = [&](const at::Tensor& x) { return in_batch_order(backend(), x, plan); };
    return object_of(
        info.Env(),
        {{"out", forward.out}, {"q", back(gradient.q)}, {"k", back(gradient.k)}, {"v", back(gradient.v)}});
  }

  // (hidden, weight, entries) → {logprobs, entropy, logsumexp}
  Napi::Value token_logprobs(const Info& info) {
    const at::Tensor hidden = unwrap_tensor(info[0], "hidden"), weight = unwrap_tensor(info[1], "weight");
    const auto result = backend().token_logprobs(hidden, weight, to_entries(info[2], hidden, weight));
    return object_of(
        info.Env(),
        {{"logprobs", result.logprobs}, {"entropy", result.entropy}, {"logsumexp", result.logsumexp}});
  }

  // ({gradLogprobs, gradEntropy?, logprobs, entropy, logsumexp, hidden, weight, entries, groups, gradHidden,
  // gradWeight[], fresh?, matrix?, projected?})
  Napi::Value token_logprobs_backward(const Info& info) {
    const Fields fields(info[0], "gradient");
    const auto tensor = [&](const char* name) { return unwrap_tensor(fields.get(name), name); };
    const at::Tensor hidden = tensor("hidden"), weight = tensor("weight");
    const kernels::TokenLogprobs forward{tensor("logprobs"), tensor("entropy"), tensor("logsumexp")};
    const std::vector<int64_t> groups = fields.integers("groups");
    const std::vector<at::Tensor> grad_weight = optional_tensors(fields, "gradWeight");
    const std::vector<bool> fresh =
        fields.has("fresh") ? to_flags(fields.get("fresh"), "fresh") : std::vector<bool>();
    backend().token_logprobs_backward(
        {tensor("gradLogprobs"), optional_tensor(fields, "gradEntropy"), groups, grad_weight, fresh,
         tensor("gradHidden"), optional_tensor(fields, "matrix"), optional_tensor(fields, "projected")},
        forward, hidden, weight, to_entries(fields.get("entries"), hidden, weight));
    return info.Env().Undefined();
  }

  // (accumulators, delta, x, groups, fresh?); the accumulators change
  Napi::Value accumulate_weight_gradient(const Info& info) {
    const std::vector<bool> fresh = info[4].IsUndefined() ? std::vector<bool>() : to_flags(info[4], "fresh");
    at::Tensor counters;
    backend().accumulate_weight_gradient(unwrap_tensors(info[0], "accumulators"),
                                         unwrap_tensor(info[1], "delta"), unwrap_tensor(info[2], "x"),
                                         to_int64s(info[3], "groups"), fresh, counters);
    return info.Env().Undefined();
  }

  // (x, weight, adapter, bias?) → {y, projected}
  Napi::Value adapted_linear(const Info& info) {
    const auto result =
        backend().adapted_linear(unwrap_tensor(info[0], "x"), unwrap_tensor(info[1], "weight"),
                                 optional_tensor(info[3], "bias"), to_lora(info[2]));
    return object_of(info.Env(), {{"y", result.y}, {"projected", result.projected}});
  }

  // (delta, projectedGrad, weight, adapter) → the gradient of x
  Napi::Value adapted_linear_backward(const Info& info) {
    return wrap_tensor(info.Env(),
                       backend().adapted_linear_backward(unwrap_tensor(info[0], "delta"),
                                                         unwrap_tensor(info[1], "projectedGrad"),
                                                         unwrap_tensor(info[2], "weight"), to_lora(info[3])));
  }

  // (y, x, adapters, begins and ends of their rows); y changes
  Napi::Value add_lora(const Info& info) {
    at::Tensor y = unwrap_tensor(info[0], "y");
    const at::Tensor x = unwrap_tensor(info[1], "x");
    AdapterParts parts(backend(), info[2], info[3]);
    at::Tensor sum = y;
    const kernels::Adapters adapters = parts.of(backend(), sum, x);
    backend().add_lora(sum, adapters);
    y.copy_(sum);
    return info.Env().Undefined();
  }

  // (stream, y, x, adapters, begins and ends of their rows, weight, eps); the stream changes, what y held is gone
  Napi::Value adapted_rms_norm(const Info& info) {
    at::Tensor stream = unwrap_tensor(info[0], "stream"), y = unwrap_tensor(info[1], "y");
    const at::Tensor x = unwrap_tensor(info[2], "x");
    AdapterParts parts(backend(), info[3], info[4]);
    const kernels::Adapters adapters = parts.of(backend(), y, x);
    return wrap_tensor(info.Env(),
                       backend().add_rms_norm(stream, y, adapters, unwrap_tensor(info[5], "weight"),
                                              to_double(info[6], "eps")));
  }

  // (gateUp, x, adapters, begins and ends of their rows); what gateUp held is gone
  Napi::Value adapted_swiglu(const Info& info) {
    at::Tensor gate_up = unwrap_tensor(info[0], "gateUp");
    const at::Tensor x = unwrap_tensor(info[1], "x");
    AdapterParts parts(backend(), info[2], info[3]);
    const kernels::Adapters adapters = parts.of(backend(), gate_up, x);
    return wrap_tensor(info.Env(), backend().swiglu(gate_up, adapters));
  }

  // (x, weight, bias?)
  Napi::Value linear(const Info& info) {
    const kernels::PackedLinear packed =
        backend().pack_linear(unwrap_tensor(info[1], "weight"), optional_tensor(info[2], "bias"));
    return wrap_tensor(info.Env(), backend().linear(unwrap_tensor(info[0], "x"), packed));
  }

  // (x, weight, weights of the same sizes)
  Napi::Value recurring_linear(const Info& info) {
    const std::vector<at::Tensor> alike = unwrap_tensors(info[2], "alike");
    const kernels::PackedLinear packed{unwrap_tensor(info[1], "weight"), {}, {}};
    return wrap_tensor(info.Env(), backend().recurring_linear(unwrap_tensor(info[0], "x"), packed,
                                                              [&alike] { return alike; }));
  }

  // → [{inputs, outputs, rows, offered, refused, wrong, chosen, usual, taken}]
  Napi::Value measured_products(const Info& info) {
    const std::vector<kernels::MeasuredProduct> products = backend().measured_products();
    const Napi::Array result = Napi::Array::New(info.Env(), products.size());
    for (size_t i = 0; i < products.size(); ++i) {
      const kernels::MeasuredProduct& product = products[i];
      const Napi::Object one = Napi::Object::New(info.Env());
      one.Set("inputs", static_cast<double>(product.inputs));
      one.Set("outputs", static_cast<double>(product.outputs));
      one.Set("rows", static_cast<double>(product.rows));
      one.Set("offered", product.offered);
      one.Set("refused", product.refused);
      one.Set("wrong", product.wrong);
      one.Set("chosen", product.chosen);
      one.Set("usual", product.usual);
      one.Set("taken", product.taken);
      result.Set(static_cast<uint32_t>(i), one);
    }
    return result;
  }

  // (hidden, weight, repack)
  Napi::Value logits(const Info& info) {
    const kernels::PackedLinear head =
        backend().pack_head(unwrap_tensor(info[1], "weight"), to_bool(info[2], "repack"));
    return wrap_tensor(info.Env(), backend().logits(unwrap_tensor(info[0], "hidden"), head));
  }

  // ({qkvs, layout, qNorm?, kNorm?, cos, sin, plans, pages, scale, xs?, adapters?, adapterRows?}) → out of the last step:
  // one layer's cache is written and read by one step after another. adapterRows: of all steps, one behind the other.
  // A plan's `copies`: pages that are copied before its step, from and to in turn.
  Napi::Value paged_attention(const Info& info) {
    const Fields fields(info[0], "steps");
    const std::vector<at::Tensor> qkvs = unwrap_tensors(fields.get("qkvs"), "qkvs");
    const Napi::Array plans = to_array(fields.get("plans"), "plans");
    const kernels::HeadLayout layout = to_layout(fields.get("layout"));
    const kernels::HeadNorm norm = to_norm(fields);
    const kernels::RotaryTables tables{unwrap_tensor(fields.get("cos"), "cos"),
                                       unwrap_tensor(fields.get("sin"), "sin")};
    TORCH_CHECK_VALUE(!qkvs.empty() && plans.Length() == qkvs.size(), "there are ", qkvs.size(),
                      " products and ", plans.Length(), " plans; one each, and one at least");
    const at::Device device = qkvs[0].device();
    kernels::KvStore store = backend().make_kv_store(
        {2, layout.key_heads, layout.dim, qkvs[0].scalar_type(), device}, fields.integer("pages"));
    const bool adapted = fields.has("adapters");
    const std::vector<at::Tensor> xs = optional_tensors(fields, "xs");
    const std::vector<int64_t> rows = adapted ? fields.integers("adapterRows") : std::vector<int64_t>();
    TORCH_CHECK_VALUE(xs.size() == (adapted ? qkvs.size() : 0) && rows.size() % qkvs.size() == 0,
                      "there are ", qkvs.size(), " products, ", xs.size(), " inputs of adapters and ",
                      rows.size(), " ends of their rows");
    const size_t ends = rows.size() / qkvs.size();
    at::Tensor out;
    for (uint32_t i = 0; i < plans.Length(); ++i) {
      const kernels::RowPlan plan = to_row_plan(backend(), plans.Get(i), device);
      kernels::check_pages(plan, store);
      backend().copy_kv_pages(store, to_copies(plans.Get(i)));
      at::Tensor qkv = qkvs[i].clone();
      std::optional<AdapterParts> parts;
      if (adapted) parts.emplace(backend(), fields.get("adapters"), std::span(rows).subspan(i * ends, ends));
      const kernels::Adapters adapters = parts ? parts->of(backend(), qkv, xs[i]) : kernels::Adapters{};
      const at::Tensor q = backend().rotate_and_store(qkv, adapters, layout, norm, tables, store, 1, plan);
      out = backend().paged_attention(q, store, 1, plan, fields.number("scale"));
    }
    return wrap_tensor(info.Env(), out);
  }

  // (logits, plan) → int32 [2, D]: ids, bits of the log-probabilities
  Napi::Value sample(const Info& info) {
    const at::Tensor logits = unwrap_tensor(info[0], "logits");
    const kernels::RowPlan plan = to_row_plan(backend(), info[1], logits.device());
    at::Tensor samples = at::empty({2, plan.draw_count()}, logits.options().dtype(at::kInt));
    backend().sample(logits, 0, plan, samples);
    return wrap_tensor(info.Env(), samples);
  }

  // (samples, tokens): tokens in place
  Napi::Value take_drawn(const Info& info) {
    backend().take_drawn(unwrap_tensor(info[0], "samples"), unwrap_tensor(info[1], "tokens"));
    return info.Env().Undefined();
  }

  // (plan) → whether a step of it may be recorded, where that was asked for
  Napi::Value repeatable(const Info& info) {
    return Napi::Boolean::New(info.Env(), to_row_plan(backend(), info[0], at::kCPU).repeatable);
  }

  // (vectors, ranges)
  Napi::Value gram(const Info& info) {
    return from_doubles(info.Env(), backend().gram(unwrap_tensors(info[0], "vectors"), to_ranges(info[1])));
  }

  // (vectors, coefficients, ranges, step: the fields of an AdamWStep) → {products, squaredNorm}
  Napi::Value adamw_step(const Info& info) {
    const Fields fields(info[3], "step");
    const kernels::AdamWStep step{.theta = unwrap_tensor(fields.get("theta"), "theta"),
                                  .copy = optional_tensor(fields, "copy"),
                                  .averages = unwrap_tensors(fields.get("averages"), "averages"),
                                  .squares = unwrap_tensors(fields.get("squares"), "squares"),
                                  .decay_size = fields.integer("decaySize"),
                                  .learning_rate = fields.number("learningRate"),
                                  .beta1 = fields.number("beta1"),
                                  .beta2 = fields.number("beta2"),
                                  .eps = fields.number("eps"),
                                  .weight_decay = fields.number("weightDecay"),
                                  .clip = fields.number("clip"),
                                  .step = fields.integer("step"),
                                  .measure = fields.boolean("measure"),
                                  .keep_total = fields.boolean("keepTotal")};
    const kernels::AdamWChange change = backend().adamw_step(
        unwrap_tensors(info[0], "vectors"), to_doubles(info[1], "coefficients"), to_ranges(info[2]), step);
    const Napi::Object result = Napi::Object::New(info.Env());
    result.Set("products", from_doubles(info.Env(), change.products));
    result.Set("squaredNorm", change.squared_norm);
    return result;
  }

  // (vectors)
  Napi::Value squared_norm(const Info& info) {
    return Napi::Number::New(info.Env(), backend().squared_norm(unwrap_tensors(info[0], "vectors")));
  }
};

std::vector<KernelsHandle::Property> KernelsHandle::properties() {
  using Self = KernelsHandle;
  return {getter<&Self::name>("name"),
          getter<&Self::launches>("launches"),
          getter<&Self::waits>("waits"),
          getter<&Self::uploads>("uploads"),
          method<&Self::embedding>("embedding"),
          method<&Self::embedding_backward>("embeddingBackward"),
          method<&Self::rms_norm>("rmsNorm"),
          method<&Self::add_rms_norm>("addRmsNorm"),
          method<&Self::rms_norm_backward>("rmsNormBackward"),
          method<&Self::swiglu>("swiglu"),
          method<&Self::swiglu_backward>("swigluBackward"),
          method<&Self::attention>("attention"),
          method<&Self::tree_attention>("treeAttention"),
          method<&Self::token_logprobs>("tokenLogprobs"),
          method<&Self::token_logprobs_backward>("tokenLogprobsBackward"),
          method<&Self::accumulate_weight_gradient>("accumulateWeightGradient"),
          method<&Self::adapted_linear>("adaptedLinear"),
          method<&Self::adapted_linear_backward>("adaptedLinearBackward"),
          method<&Self::add_lora>("addLora"),
          method<&Self::adapted_rms_norm>("adaptedRmsNorm"),
          method<&Self::adapted_swiglu>("adaptedSwiglu"),
          method<&Self::linear>("linear"),
          method<&Self::recurring_linear>("recurringLinear"),
          method<&Self::measured_products>("measuredProducts"),
          method<&Self::logits>("logits"),
          method<&Self::paged_attention>("pagedAttention"),
          method<&Self::sample>("sample"),
          method<&Self::take_drawn>("takeDrawn"),
          method<&Self::repeatable>("repeatable"),
          method<&Self::gram>("gram"),
          method<&Self::adamw_step>("adamwStep"),
          method<&Self::squared_norm>("squaredNorm")};
}

Napi::Value kernels_of(const Info& info) {
  check_arguments(info, "kernels", 1, 1);
  return KernelsHandle::wrap(info.Env(), &kernels::kernels_named(to_string(info[0], "name")));
}

}  // namespace

void init_kernels(Napi::Env env, Napi::Object exports) {
  KernelsHandle::define(env);
  define(exports, "kernels", entry<kernels_of>);
}

}  // namespace troupe::binding
