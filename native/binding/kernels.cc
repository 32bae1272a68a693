// The fused kernels and their reference twins for test/kernels and bench/kernels.mjs, as `kernels` and
// `kernels.reference` on the addon. Nothing else uses them from JavaScript.
#include "model/kernels.h"

#include "binding/convert.h"
#include "binding/guard.h"
#include "binding/kernels.h"
#include "binding/tensor.h"
#include "model/kernels_reference.h"

namespace troupe::binding {
namespace {

using kernels::Attention;
using kernels::TokenLogprobs;

at::Tensor optional_tensor(const Napi::Value& value, const char* what) {
  return value.IsUndefined() || value.IsNull() ? at::Tensor() : unwrap_tensor(value, what);
}

std::vector<at::Tensor> optional_tensors(const Napi::Value& value, const char* what) {
  return value.IsUndefined() ? std::vector<at::Tensor>() : unwrap_tensors(value, what);
}

// Nodes as flat triples: start, length, parent.
std::vector<kernels::TreeNode> to_nodes(const Napi::Value& value) {
  const std::vector<int64_t> flat = to_int64s(value, "nodes");
  std::vector<kernels::TreeNode> nodes;
  for (size_t i = 0; i + 2 < flat.size(); i += 3) nodes.push_back({flat[i], flat[i + 1], flat[i + 2]});
  return nodes;
}

Napi::Value object_of(Napi::Env env, std::initializer_list<std::pair<const char*, at::Tensor>> tensors) {
  const Napi::Object object = Napi::Object::New(env);
  for (const auto& [name, tensor] : tensors) object.Set(name, wrap_tensor(env, tensor));
  return object;
}

// One set of implementations: the kernels, or their twins.
struct Set {
  decltype(&kernels::embedding) embedding;
  decltype(&kernels::embedding_backward) embedding_backward;
  decltype(&kernels::rms_norm) rms_norm;
  decltype(&kernels::add_rms_norm) add_rms_norm;
  decltype(&kernels::rms_norm_backward) rms_norm_backward;
  decltype(&kernels::rope_) rope;
  decltype(&kernels::swiglu) swiglu;
  decltype(&kernels::swiglu_backward) swiglu_backward;
  decltype(&kernels::tree_attention) tree_attention;
  decltype(&kernels::tree_attention_backward) tree_attention_backward;
  decltype(&kernels::token_logprobs) token_logprobs;
  decltype(&kernels::token_logprobs_backward) token_logprobs_backward;
  decltype(&kernels::accumulate_weight_gradient) accumulate_weight_gradient;
  at::Tensor (*linear)(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
};

constexpr Set kFast{
    kernels::embedding,
    kernels::embedding_backward,
    kernels::rms_norm,
    kernels::add_rms_norm,
    kernels::rms_norm_backward,
    kernels::rope_,
    kernels::swiglu,
    kernels::swiglu_backward,
    kernels::tree_attention,
    kernels::tree_attention_backward,
    kernels::token_logprobs,
    kernels::token_logprobs_backward,
    kernels::accumulate_weight_gradient,
    [](const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
      return kernels::PackedLinear(weight, bias)(x);
    },
};

namespace slow = kernels::reference;
constexpr Set kReference{
    slow::embedding,
    slow::embedding_backward,
    slow::rms_norm,
    slow::add_rms_norm,
    slow::rms_norm_backward,
    slow::rope_,
    slow::swiglu,
    slow::swiglu_backward,
    slow::tree_attention,
    slow::tree_attention_backward,
    slow::token_logprobs,
    slow::token_logprobs_backward,
    slow::accumulate_weight_gradient,
    [](const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
      return at::linear(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
    },
};

template <const Set& S>
struct Functions {
  using Info = Napi::CallbackInfo;

  // (tokens, weight)
  static Napi::Value embedding(const Info& info) {
    return wrap_tensor(info.Env(),
                       S.embedding(unwrap_tensor(info[0], "tokens"), unwrap_tensor(info[1], "weight")));
  }

  // (grad, tokens, groups, gradWeight[])
  static Napi::Value embedding_backward(const Info& info) {
    S.embedding_backward(unwrap_tensor(info[0], "grad"), unwrap_tensor(info[1], "tokens"),
                         to_int64s(info[2], "groups"), unwrap_tensors(info[3], "gradWeight"));
    return info.Env().Undefined();
  }

  // (x, weight, eps) → {y, rstd}
  static Napi::Value rms_norm(const Info& info) {
    const auto result =
        S.rms_norm(unwrap_tensor(info[0], "x"), unwrap_tensor(info[1], "weight"), to_double(info[2], "eps"));
    return object_of(info.Env(), {{"y", result.y}, {"rstd", result.rstd}});
  }

  // (x, residual, weight, eps) → {y, rstd}; x changes
  static Napi::Value add_rms_norm(const Info& info) {
    at::Tensor x = unwrap_tensor(info[0], "x");
    const auto result = S.add_rms_norm(x, unwrap_tensor(info[1], "residual"),
                                       unwrap_tensor(info[2], "weight"), to_double(info[3], "eps"));
    return object_of(info.Env(), {{"y", result.y}, {"rstd", result.rstd}});
  }

  // (grad, x, weight, rstd, groups, gradWeight[], add?, out?)
  static Napi::Value rms_norm_backward(const Info& info) {
    return wrap_tensor(
        info.Env(), S.rms_norm_backward(unwrap_tensor(info[0], "grad"), unwrap_tensor(info[1], "x"),
                                        unwrap_tensor(info[2], "weight"), unwrap_tensor(info[3], "rstd"),
                                        to_int64s(info[4], "groups"), unwrap_tensors(info[5], "gradWeight"),
                                        optional_tensor(info[6], "add"), optional_tensor(info[7], "out")));
  }

  // (x, positions, cos, sin, inverse); x changes
  static Napi::Value rope(const Info& info) {
    at::Tensor x = unwrap_tensor(info[0], "x");
    S.rope(x, unwrap_tensor(info[1], "positions"), unwrap_tensor(info[2], "cos"),
           unwrap_tensor(info[3], "sin"), to_bool(info[4], "inverse"));
    return info.Env().Undefined();
  }

  // (gateUp)
  static Napi::Value swiglu(const Info& info) {
    return wrap_tensor(info.Env(), S.swiglu(unwrap_tensor(info[0], "gateUp")));
  }

  // (grad, gateUp)
  static Napi::Value swiglu_backward(const Info& info) {
    return wrap_tensor(info.Env(),
                       S.swiglu_backward(unwrap_tensor(info[0], "grad"), unwrap_tensor(info[1], "gateUp")));
  }

  // (q, k, v, nodes, scale) → {out, logsumexp}
  static Napi::Value tree_attention(const Info& info) {
    const auto result =
        S.tree_attention(unwrap_tensor(info[0], "q"), unwrap_tensor(info[1], "k"),
                         unwrap_tensor(info[2], "v"), to_nodes(info[3]), to_double(info[4], "scale"));
    return object_of(info.Env(), {{"out", result.out}, {"logsumexp", result.logsumexp}});
  }

  // (grad, q, k, v, out, logsumexp, nodes, scale) → {q, k, v, qkv}
  static Napi::Value tree_attention_backward(const Info& info) {
    const Attention forward{unwrap_tensor(info[4], "out"), unwrap_tensor(info[5], "logsumexp")};
    const auto result = S.tree_attention_backward(unwrap_tensor(info[0], "grad"), unwrap_tensor(info[1], "q"),
                                                  unwrap_tensor(info[2], "k"), unwrap_tensor(info[3], "v"),
                                                  forward, to_nodes(info[6]), to_double(info[7], "scale"));
    return object_of(info.Env(), {{"q", result.q}, {"k", result.k}, {"v", result.v}, {"qkv", result.qkv}});
  }

  // (hidden, weight, rows, targets, temperature) → {logprobs, entropy, logsumexp}
  static Napi::Value token_logprobs(const Info& info) {
    const auto result = S.token_logprobs(unwrap_tensor(info[0], "hidden"), unwrap_tensor(info[1], "weight"),
                                         unwrap_tensor(info[2], "rows"), unwrap_tensor(info[3], "targets"),
                                         to_double(info[4], "temperature"));
    return object_of(
        info.Env(),
        {{"logprobs", result.logprobs}, {"entropy", result.entropy}, {"logsumexp", result.logsumexp}});
  }

  // (gradLogprobs, gradEntropy?, logprobs, entropy, logsumexp, hidden, weight, rows, targets, temperature,
  // groups,
  //  gradHidden, gradWeight[], matrix?, projected?)
  static Napi::Value token_logprobs_backward(const Info& info) {
    const TokenLogprobs forward{unwrap_tensor(info[2], "logprobs"), unwrap_tensor(info[3], "entropy"),
                                unwrap_tensor(info[4], "logsumexp")};
    at::Tensor grad_hidden = unwrap_tensor(info[11], "gradHidden");
    S.token_logprobs_backward(unwrap_tensor(info[0], "gradLogprobs"), optional_tensor(info[1], "gradEntropy"),
                              forward, unwrap_tensor(info[5], "hidden"), unwrap_tensor(info[6], "weight"),
                              unwrap_tensor(info[7], "rows"), unwrap_tensor(info[8], "targets"),
                              to_double(info[9], "temperature"), to_int64s(info[10], "groups"), grad_hidden,
                              optional_tensors(info[12], "gradWeight"),
                              {optional_tensor(info[13], "matrix"), optional_tensor(info[14], "projected")});
    return info.Env().Undefined();
  }

  // (accumulators, delta, x, groups); the accumulators change
  static Napi::Value accumulate_weight_gradient(const Info& info) {
    S.accumulate_weight_gradient(unwrap_tensors(info[0], "accumulators"), unwrap_tensor(info[1], "delta"),
                                 unwrap_tensor(info[2], "x"), to_int64s(info[3], "groups"));
    return info.Env().Undefined();
  }

  // (x, weight, bias?)
  static Napi::Value linear(const Info& info) {
    return wrap_tensor(info.Env(), S.linear(unwrap_tensor(info[0], "x"), unwrap_tensor(info[1], "weight"),
                                            optional_tensor(info[2], "bias")));
  }

  static Napi::Object object(Napi::Env env) {
    const Napi::Object object = Napi::Object::New(env);
    define(object, "embedding", entry<embedding>);
    define(object, "embeddingBackward", entry<embedding_backward>);
    define(object, "rmsNorm", entry<rms_norm>);
    define(object, "addRmsNorm", entry<add_rms_norm>);
    define(object, "rmsNormBackward", entry<rms_norm_backward>);
    define(object, "rope", entry<rope>);
    define(object, "swiglu", entry<swiglu>);
    define(object, "swigluBackward", entry<swiglu_backward>);
    define(object, "treeAttention", entry<tree_attention>);
    define(object, "treeAttentionBackward", entry<tree_attention_backward>);
    define(object, "tokenLogprobs", entry<token_logprobs>);
    define(object, "tokenLogprobsBackward", entry<token_logprobs_backward>);
    define(object, "accumulateWeightGradient", entry<accumulate_weight_gradient>);
    define(object, "linear", entry<linear>);
    return object;
  }
};

}  // namespace

void init_kernels(Napi::Env env, Napi::Object exports) {
  const Napi::Object object = Functions<kFast>::object(env);
  object.Set("reference", Functions<kReference>::object(env));
  exports.Set("kernels", object);
}

}  // namespace troupe::binding
