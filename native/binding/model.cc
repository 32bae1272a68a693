// NativePolicy and NativePackedBatch of src/engine/native.ts, and model configurations from JavaScript
// objects.
#include "binding/model.h"

#include <algorithm>
#include <array>

#include "batch/micro_batches.h"
#include "batch/packed_batch.h"
#include "binding/handle.h"
#include "binding/tensor.h"
#include "training/forward.h"

namespace troupe::binding {
namespace {

class PackedBatchHandle : public Handle<PackedBatchHandle, std::shared_ptr<const PackedBatch>> {
 public:
  using Handle::Handle;
  static constexpr const char* kName = "PackedBatch";
  static std::vector<Property> properties() {
    using Self = PackedBatchHandle;
    return {getter<&Self::rows>("rows"),
            getter<&Self::tokens_seen>("tokensSeen"),
            getter<&Self::entries>("entries"),
            getter<&Self::group_rows>("groupRows"),
            getter<&Self::call_starts>("callStarts"),
            getter<&Self::levels>("levels"),
            getter<&Self::keys>("keys"),
            getter<&Self::node_rows>("nodeRows"),
            getter<&Self::trees>("trees")};
  }
  Napi::Value rows(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(value()->tokens.size()));
  }
  Napi::Value tokens_seen(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(value()->tokens_seen));
  }
  Napi::Value entries(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(value()->rows.size()));
  }
  Napi::Value levels(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(tree_levels(*value())));
  }
  Napi::Value keys(const Napi::CallbackInfo& info) {
    int64_t keys = 0;
    for (const int64_t position : value()->positions) keys += position + 1;
    return Napi::Number::New(info.Env(), static_cast<double>(keys));
  }
  Napi::Value node_rows(const Napi::CallbackInfo& info) {
    std::vector<int64_t> rows;
    for (const kernels::TreeNode& node : value()->nodes) rows.push_back(node.length);
    return from_int64s(info.Env(), rows);
  }
  Napi::Value trees(const Napi::CallbackInfo& info) {
    const auto roots = std::ranges::count(value()->nodes, -1, &kernels::TreeNode::parent);
    return Napi::Number::New(info.Env(), static_cast<double>(roots));
  }
  Napi::Value group_rows(const Napi::CallbackInfo& info) { return from_int64s(info.Env(), value()->groups); }
  Napi::Value call_starts(const Napi::CallbackInfo& info) {
    return from_int64s(info.Env(), value()->call_starts);
  }
};

class PolicyHandle : public Handle<PolicyHandle, std::shared_ptr<Policy>> {
 public:
  using Handle::Handle;
  static constexpr const char* kName = "Policy";
  static std::vector<Property> properties() {
    return {getter<&PolicyHandle::version>("version"), getter<&PolicyHandle::slow_paths>("slowPaths"),
            getter<&PolicyHandle::tree_levels>("treeLevels"),
            method<&PolicyHandle::token_logprobs>("tokenLogprobs"),
            method<&PolicyHandle::likeliest_tokens>("likeliestTokens")};
  }
  Napi::Value slow_paths(const Napi::CallbackInfo& info) {
    const Policy& policy = *value();
    const ModelConfig& config = policy.config();
    return from_strings(info.Env(),
                        policy.backend().slow_paths({config.layers, config.kv_heads, config.head_dim,
                                                     policy.compute_dtype(), policy.device()}));
  }
  Napi::Value tree_levels(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(value()->backend().tree_levels()));
  }
  Napi::Value version(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(value()->version()));
  }
  Napi::Value token_logprobs(const Napi::CallbackInfo& info) {
    check_arguments(info, "tokenLogprobs", 3, 4);
    const auto batch = PackedBatchHandle::unwrap(info[0], "batch").value();
    const bool limited = info.Length() > 3 && !info[3].IsUndefined();
    training::CallLogprobs result = training::token_logprobs(
        value(), batch, to_double(info[1], "temperature"), to_bool(info[2], "gradients"),
        limited ? to_int64(info[3], "activationBytes") : 0);
    const Napi::Object object = Napi::Object::New(info.Env());
    object.Set("logprobs", wrap_tensor(info.Env(), std::move(result.logprobs)));
    object.Set("entropy", wrap_tensor(info.Env(), std::move(result.entropy)));
    return object;
  }
  Napi::Value likeliest_tokens(const Napi::CallbackInfo& info) {
    check_arguments(info, "likeliestTokens", 3, 3);
    training::Likeliest result =
        training::likeliest_tokens(value(), PackedBatchHandle::unwrap(info[0], "batch").value(),
                                   to_double(info[1], "temperature"), to_int64(info[2], "count"));
    const Napi::Object object = Napi::Object::New(info.Env());
    object.Set("logprobs", wrap_tensor(info.Env(), std::move(result.logprobs)));
    object.Set("ids", wrap_tensor(info.Env(), std::move(result.ids)));
    object.Set("values", wrap_tensor(info.Env(), std::move(result.values)));
    return object;
  }
};

Napi::Value create_policy(const Napi::CallbackInfo& info) {
  check_arguments(info, "createPolicy", 2, 4);
  std::shared_ptr<ParameterSet> adapter;
  AdapterOptions options;
  if (info.Length() > 2 && !info[2].IsUndefined()) {
    adapter = unwrap_parameters(info[2], "adapter");
    options = to_adapter_options(info[3], "adapterConfig");
  }
  return PolicyHandle::wrap(info.Env(),
                            std::make_shared<Policy>(to_model_config(info[0], "config"),
                                                     unwrap_parameters(info[1], "base"), adapter, options));
}

// Views of the arrays' memory.
std::vector<PackedCall> to_calls(const Napi::Value& value) {
  const Napi::Array array = to_array(value, "calls");
  std::vector<PackedCall> calls;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Fields fields(array.Get(i), "calls[" + std::to_string(i) + "]");
    calls.push_back({fields.int32s("prompt"), fields.int32s("response"), fields.integer("group"),
                     fields.has("temperature") ? fields.number("temperature") : 0});
  }
  return calls;
}

Napi::Value pack_calls(const Napi::CallbackInfo& info) {
  check_arguments(info, "pack", 3, 4);
  const bool limited = info.Length() > 3 && !info[3].IsUndefined();
  return PackedBatchHandle::wrap(
      info.Env(), std::make_shared<const PackedBatch>(pack(to_calls(info[0]), to_int64(info[1], "groups"),
                                                           to_bool(info[2], "share"),
                                                           limited ? to_int64(info[3], "levels") : 0)));
}

Napi::Value cut_calls(const Napi::CallbackInfo& info) {
  check_arguments(info, "microBatches", 3, 3);
  const std::vector<MicroBatch> batches =
      micro_batches(to_calls(info[0]), to_int64(info[1], "maxRows"), to_int64(info[2], "levels"));
  const Napi::Array result = Napi::Array::New(info.Env(), batches.size());
  for (uint32_t i = 0; i < batches.size(); ++i) {
    const Napi::Object batch = Napi::Object::New(info.Env());
    batch.Set("calls", from_int64s(info.Env(), batches[i].calls));
    batch.Set("rows", Napi::Number::New(info.Env(), static_cast<double>(batches[i].rows)));
    result.Set(i, batch);
  }
  return result;
}

void check_config(const ModelConfig& config) {
  constexpr int64_t kMostLayers = 1 << 16;  // lists of them are made before anything is allocated
  for (const int64_t size :
       {config.hidden_size, config.layers, config.heads, config.kv_heads, config.head_dim,
        config.intermediate_size, config.vocabulary_size, config.max_positions}) {
    TORCH_CHECK_VALUE(size > 0 && size <= INT32_MAX, "a model's sizes are all at least 1 and at most ",
                      INT32_MAX, ", not ", size);
  }
  TORCH_CHECK_VALUE(config.layers <= kMostLayers, "a model has at most ", kMostLayers, " layers, not ",
                    config.layers);
  TORCH_CHECK_VALUE(config.heads % config.kv_heads == 0, "heads (", config.heads,
                    ") must be a multiple of kvHeads (", config.kv_heads, ")");
  TORCH_CHECK_VALUE(config.head_dim % 2 == 0, "headDim must be even, got ", config.head_dim);
  TORCH_CHECK_VALUE(static_cast<int64_t>(config.inverse_frequencies.size()) == config.head_dim / 2,
                    "inverseFrequencies must hold headDim / 2 = ", config.head_dim / 2, " numbers, got ",
                    config.inverse_frequencies.size());
}

ModuleKind to_module_kind(const std::string& name) {
  constexpr std::array kinds{ModuleKind::kQuery, ModuleKind::kKey, ModuleKind::kValue, ModuleKind::kOutput,
                             ModuleKind::kGate,  ModuleKind::kUp,  ModuleKind::kDown};
  for (const ModuleKind kind : kinds) {
    if (name == module_kind_name(kind)) return kind;
  }
  TORCH_CHECK_VALUE(false, "adapter targets are q, k, v, o, gate, up and down, got ", name);
}

}  // namespace

ModelConfig to_model_config(const Napi::Value& value, const char* what) {
  const Fields fields(value, what);
  ModelConfig config;
  config.hidden_size = fields.integer("hiddenSize");
  config.layers = fields.integer("layers");
  config.heads = fields.integer("heads");
  config.kv_heads = fields.integer("kvHeads");
  config.head_dim = fields.integer("headDim");
  config.intermediate_size = fields.integer("intermediateSize");
  config.vocabulary_size = fields.integer("vocabularySize");
  config.max_positions = fields.integer("maxPositions");
  config.rms_norm_eps = fields.number("rmsNormEps");
  config.tied_embeddings = fields.boolean("tiedEmbeddings");
  config.qkv_bias = fields.boolean("qkvBias");
  config.output_bias = fields.boolean("outputBias");
  config.mlp_bias = fields.boolean("mlpBias");
  config.qk_norm = fields.boolean("qkNorm");
  const std::span<const double> frequencies = fields.doubles("inverseFrequencies");
  config.inverse_frequencies.assign(frequencies.begin(), frequencies.end());
  config.rope_scaling = fields.number("ropeScaling");
  check_config(config);
  return config;
}

AdapterOptions to_adapter_options(const Napi::Value& value, const char* what) {
  const Fields fields(value, what);
  AdapterOptions options;
  options.rank = fields.integer("rank");
  options.alpha = fields.number("alpha");
  for (const std::string& name : fields.strings("targets")) options.targets.push_back(to_module_kind(name));
  return options;
}

std::shared_ptr<Policy> unwrap_policy(const Napi::Value& value, const char* what) {
  return PolicyHandle::unwrap(value, what).value();
}

void init_model(Napi::Env env, Napi::Object exports) {
  PackedBatchHandle::define(env);
  PolicyHandle::define(env);
  define(exports, "createPolicy", entry<create_policy>);
  define(exports, "pack", entry<pack_calls>);
  define(exports, "microBatches", entry<cut_calls>);
}

}  // namespace troupe::binding
