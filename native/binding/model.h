// Models as JavaScript sees them: parameter sets, packed batches and policies.
#pragma once

#include <napi.h>

#include <memory>

#include "model/config.h"
#include "model/policy.h"

namespace troupe::binding {

// A NativeModelConfig; throws if a field is missing or does not fit the others.
ModelConfig to_model_config(const Napi::Value& value, const char* what);
// An AdapterConfig.
AdapterOptions to_adapter_options(const Napi::Value& value, const char* what);

// Throw (TypeError) if `value` is something else or was disposed; `what` names the argument.
std::shared_ptr<ParameterSet> unwrap_parameters(const Napi::Value& value, const char* what);
std::shared_ptr<Policy> unwrap_policy(const Napi::Value& value, const char* what);

void init_parameters(Napi::Env env, Napi::Object exports);
void init_model(Napi::Env env, Napi::Object exports);

}  // namespace troupe::binding
