// NativeRolloutEngine of src/engine/native.ts.
#include "binding/rollout.h"

#include <limits>

#include "binding/convert.h"
#include "binding/handle.h"
#include "binding/model.h"
#include "rollout/engine.h"

namespace troupe::binding {
namespace {

uint32_t to_uint32(int64_t value, const std::string& what) {
  if (value < 0 || value > std::numeric_limits<uint32_t>::max()) {
    throw std::invalid_argument("expected a whole number from 0 to 4294967295 for " + what +
                                " but received " + std::to_string(value));
  }
  return static_cast<uint32_t>(value);
}

std::vector<int32_t> to_vector(std::span<const int32_t> values) { return {values.begin(), values.end()}; }

rollout::Options to_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  rollout::Options options;
  options.cache_bytes = fields.integer("cacheBytes");
  options.max_batch = fields.integer("maxBatch");
  options.prefill_tokens = fields.integer("prefillTokens");
  if (fields.has("packedBytes")) options.packed_bytes = fields.integer("packedBytes");
  const int64_t seed = fields.integer("seed");
  if (seed < 0)
    throw std::invalid_argument("expected a seed from 0 on for options.seed but received a negative one");
  options.seed = static_cast<uint64_t>(seed);
  options.deterministic = fields.boolean("deterministic");
  if (fields.has("recordSteps")) options.record_steps = fields.boolean("recordSteps");
  if (fields.has("measureProducts")) options.measure_products = fields.boolean("measureProducts");
  if (fields.has("runAhead")) options.run_ahead = fields.boolean("runAhead");
  if (fields.has("tokenBytes")) {
    const auto bytes = fields.bytes("tokenBytes");
    options.token_bytes.assign(bytes.begin(), bytes.end());
    options.token_offsets = to_vector(fields.int32s("tokenOffsets"));
  }
  return options;
}

rollout::Request to_request(const Napi::Value& value) {
  const Fields fields(value, "request");
  rollout::Request request;
  request.id = fields.integer("id");
  request.policy = unwrap_policy(fields.get("policy"), "request.policy");
  request.prompt = to_vector(fields.int32s("prompt"));
  request.max_tokens = fields.integer("maxTokens");
  request.sampling = {fields.number("temperature"), fields.integer("topK"), fields.number("topP"),
                      fields.number("minP")};
  request.stop_tokens = to_vector(fields.int32s("stopTokens"));
  request.stop_strings = fields.strings("stopStrings");
  const auto counter = fields.integers("counter");
  if (counter.size() != request.counter.size()) {
    throw std::invalid_argument(
        "expected [step, episode, role, slot, turn] for request.counter but received " +
        std::to_string(counter.size()) + " numbers");
  }
  for (size_t i = 0; i < counter.size(); ++i) request.counter[i] = to_uint32(counter[i], "request.counter");
  request.ignore_stop = fields.has("ignoreStop") && fields.boolean("ignoreStop");
  request.stream = fields.has("stream") && fields.boolean("stream");
  return request;
}

const char* finish_name(rollout::Finish finish) {
  switch (finish) {
    case rollout::Finish::kRunning:
      return "running";
    case rollout::Finish::kStop:
      return "stop";
    case rollout::Finish::kLength:
      return "length";
    case rollout::Finish::kCancelled:
      return "cancelled";
    case rollout::Finish::kError:
      return "error";
  }
  TORCH_INTERNAL_ASSERT(false, "no way to finish");
}

Napi::Object from_result(Napi::Env env, const rollout::Result& result) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("id", static_cast<double>(result.id));
  object.Set("ids", from_int32s(env, result.ids));
  object.Set("logprobs", from_floats(env, result.logprobs));
  object.Set("finish", finish_name(result.finish));
  if (!result.error.empty()) object.Set("error", result.error);
  object.Set("version", static_cast<double>(result.version));
  object.Set("cachedTokens", static_cast<double>(result.cached_tokens));
  return object;
}

class RolloutEngineHandle : public Handle<RolloutEngineHandle, std::unique_ptr<rollout::Engine>> {
 public:
  using Handle::Handle;
  static constexpr const char* kName = "RolloutEngine";
  static std::vector<Property> properties() {
    using Self = RolloutEngineHandle;
    return {method<&Self::submit>("submit"),   method<&Self::cancel>("cancel"),
            method<&Self::step>("step"),       method<&Self::clear_cache>("clearCache"),
            method<&Self::reserve>("reserve"), method<&Self::statistics>("statistics"),
            getter<&Self::idle>("idle")};
  }
  Napi::Value submit(const Napi::CallbackInfo& info) {
    check_arguments(info, "submit", 1, 1);
    value()->submit(to_request(info[0]));
    return info.Env().Undefined();
  }
  Napi::Value cancel(const Napi::CallbackInfo& info) {
    check_arguments(info, "cancel", 1, 1);
    value()->cancel(to_int64(info[0], "id"));
    return info.Env().Undefined();
  }
  Napi::Value step(const Napi::CallbackInfo& info) {
    const auto results = value()->step();
    const Napi::Array array = Napi::Array::New(info.Env(), results.size());
    for (size_t i = 0; i < results.size(); ++i) {
      array.Set(static_cast<uint32_t>(i), from_result(info.Env(), results[i]));
    }
    return array;
  }
  Napi::Value clear_cache(const Napi::CallbackInfo& info) {
    check_arguments(info, "clearCache", 1, 1);
    value()->clear_cache(to_bool(info[0], "everything"));
    return info.Env().Undefined();
  }
  Napi::Value reserve(const Napi::CallbackInfo& info) {
    check_arguments(info, "reserve", 1, 1);
    value()->reserve(to_int64(info[0], "bytes"));
    return info.Env().Undefined();
  }
  Napi::Value idle(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), value()->idle()); }
  Napi::Value statistics(const Napi::CallbackInfo& info) {
    const rollout::Statistics now = value()->statistics();
    const Napi::Object object = Napi::Object::New(info.Env());
    object.Set("running", static_cast<double>(now.running));
    object.Set("waiting", static_cast<double>(now.waiting));
    object.Set("cacheBytes", static_cast<double>(now.cache_bytes));
    object.Set("cacheTokens", static_cast<double>(now.cache_tokens));
    object.Set("prefillTokens", static_cast<double>(now.prefill_tokens));
    object.Set("decodeTokens", static_cast<double>(now.decode_tokens));
    object.Set("cachedTokens", static_cast<double>(now.cached_tokens));
    object.Set("preemptions", static_cast<double>(now.preemptions));
    object.Set("memoryRestarts", static_cast<double>(now.memory_restarts));
    object.Set("replayedSteps", static_cast<double>(now.replayed_steps));
    return object;
  }
};

Napi::Value create_rollout_engine(const Napi::CallbackInfo& info) {
  check_arguments(info, "createRolloutEngine", 2, 2);
  return RolloutEngineHandle::wrap(
      info.Env(), std::make_unique<rollout::Engine>(to_model_config(info[0], "config"), to_options(info[1])));
}

}  // namespace

void init_rollout(Napi::Env env, Napi::Object exports) {
  RolloutEngineHandle::define(env);
  define(exports, "createRolloutEngine", entry<create_rollout_engine>);
}

}  // namespace troupe::binding
