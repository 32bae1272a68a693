#include "binding/safetensors.h"

#include "binding/convert.h"
#include "binding/handle.h"
#include "binding/tensor.h"
#include "io/safetensors.h"

namespace troupe::binding {
namespace {

class SafetensorsHandle : public Handle<SafetensorsHandle, std::shared_ptr<SafetensorsFile>> {
 public:
  using Handle::Handle;
  static constexpr const char* kName = "Safetensors";

  static std::vector<Property> properties() {
    return {getter<&SafetensorsHandle::names>("names"), getter<&SafetensorsHandle::metadata>("metadata"),
            method<&SafetensorsHandle::info>("info"), method<&SafetensorsHandle::tensor>("tensor")};
  }

 private:
  Napi::Value names(const Napi::CallbackInfo& info) {
    std::vector<std::string> names;
    for (const SafetensorsEntry& entry : value()->entries()) names.push_back(entry.name);
    return from_strings(info.Env(), names);
  }

  Napi::Value metadata(const Napi::CallbackInfo& info) {
    const Napi::Object result = Napi::Object::New(info.Env());
    for (const auto& [key, text] : value()->metadata()) result.Set(key, text);
    return result;
  }

  // The dtype by Troupe's name, or the file's where Troupe has none.
  Napi::Value info(const Napi::CallbackInfo& info) {
    const SafetensorsEntry& entry = value()->entry(to_string(info[0], "name"));
    const at::ScalarType type = safetensors_type(entry.dtype);
    const Napi::Object result = Napi::Object::New(info.Env());
    result.Set("dtype", type == at::ScalarType::Undefined ? entry.dtype : std::string(dtype_name(type)));
    result.Set("shape", from_int64s(info.Env(), entry.shape));
    return result;
  }

  Napi::Value tensor(const Napi::CallbackInfo& info) {
    return wrap_tensor(info.Env(), value()->tensor(to_string(info[0], "name")));
  }
};

Napi::Value open(const Napi::CallbackInfo& info) {
  check_arguments(info, "openSafetensors", 1, 1);
  return SafetensorsHandle::wrap(info.Env(), std::make_shared<SafetensorsFile>(to_string(info[0], "path")));
}

class WriterHandle : public Handle<WriterHandle, std::shared_ptr<SafetensorsWriter>> {
 public:
  using Handle::Handle;
  static constexpr const char* kName = "SafetensorsWriter";
  static std::vector<Property> properties() {
    return {method<&WriterHandle::write>("write"), method<&WriterHandle::finish>("finish")};
  }

 private:
  Napi::Value write(const Napi::CallbackInfo& info) {
    check_arguments(info, "write", 1, 1);
    value()->write(unwrap_tensor(info[0], "piece"));
    return info.Env().Undefined();
  }
  Napi::Value finish(const Napi::CallbackInfo& info) {
    value()->finish();
    return info.Env().Undefined();
  }
};

Napi::Value create_safetensors(const Napi::CallbackInfo& info) {
  check_arguments(info, "createSafetensors", 3, 3);
  const Napi::Array array = to_array(info[1], "entries");
  std::vector<SafetensorsWriter::Entry> entries;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Fields fields(array[i], "entries[" + std::to_string(i) + "]");
    entries.push_back({fields.string("name"), to_dtype(fields.get("dtype"), "dtype"),
                       to_int64s(fields.get("shape"), "shape")});
  }
  return WriterHandle::wrap(info.Env(),
                            std::make_shared<SafetensorsWriter>(to_string(info[0], "path"), entries,
                                                                to_string_map(info[2], "metadata")));
}

Napi::Value save(const Napi::CallbackInfo& info) {
  check_arguments(info, "saveSafetensors", 3, 3);
  const std::string path = to_string(info[0], "path");
  save_safetensors(path, unwrap_tensor_map(info[1], "tensors"), to_string_map(info[2], "metadata"));
  return info.Env().Undefined();
}

}  // namespace

void init_safetensors(Napi::Env env, Napi::Object exports) {
  SafetensorsHandle::define(env);
  WriterHandle::define(env);
  define(exports, "openSafetensors", entry<open>);
  define(exports, "createSafetensors", entry<create_safetensors>);
  define(exports, "saveSafetensors", entry<save>);
}

}  // namespace troupe::binding
