// The NativeTensor of src/engine/native.ts: a handle on one at::Tensor.
#pragma once

#include <ATen/ATen.h>
#include <napi.h>

#include <map>
#include <string>
#include <vector>

namespace troupe::binding {

// Throws (TypeError) if `value` is no tensor or a disposed one; `what` names the argument.
const at::Tensor& unwrap_tensor(const Napi::Value& value, const char* what);
// An array of tensors.
std::vector<at::Tensor> unwrap_tensors(const Napi::Value& value, const char* what);
// An object whose values are tensors.
std::map<std::string, at::Tensor> unwrap_tensor_map(const Napi::Value& value, const char* what);
// A new handle; undefined for an undefined tensor.
Napi::Value wrap_tensor(Napi::Env env, at::Tensor tensor);

void init_tensor(Napi::Env env, Napi::Object exports);

}  // namespace troupe::binding
