#include "binding/convert.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace troupe::binding {
namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;

struct DtypeName {
  at::ScalarType type;
  const char* name;
};
constexpr DtypeName kDtypes[] = {
    {at::kDouble, "float64"}, {at::kFloat, "float32"}, {at::kBFloat16, "bfloat16"}, {at::kHalf, "float16"},
    {at::kLong, "int64"},     {at::kInt, "int32"},     {at::kByte, "uint8"},        {at::kBool, "bool"},
};

[[noreturn]] void unexpected(const std::string& expected, const char* what, const Napi::Value& value) {
  throw std::invalid_argument("expected " + expected + " for " + what + " but received " + describe(value));
}

template <typename T>
std::span<const T> typed_span(const Napi::Value& value, napi_typedarray_type type, const char* expected,
                              const char* what) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    unexpected(expected, what, value);
  }
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  return {array.Data(), array.ElementLength()};
}

template <typename Array, typename T>
Array typed_copy(Napi::Env env, std::span<const T> values) {
  Array array = Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size_bytes());
  return array;
}

}  // namespace

std::string describe(const Napi::Value& value) {
  if (value.IsEmpty() || value.IsUndefined()) return "undefined";
  if (value.IsNull()) return "null";
  if (value.IsBoolean()) return value.As<Napi::Boolean>().Value() ? "true" : "false";
  if (value.IsNumber()) return "the number " + value.ToString().Utf8Value();
  if (value.IsBigInt()) return "the bigint " + value.ToString().Utf8Value();
  if (value.IsString()) {
    std::string text = value.As<Napi::String>().Utf8Value();
    // Cut on a whole UTF-8 character.
    if (text.size() > 60) {
      size_t end = 57;
      while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
      text = text.substr(0, end) + "…";
    }
    return "\"" + text + "\"";
  }
  if (value.IsSymbol()) return "a symbol";
  if (value.IsFunction()) return "a function";
  if (value.IsArray()) return "an array of " + std::to_string(value.As<Napi::Array>().Length());
  if (value.IsTypedArray()) {
    const auto array = value.As<Napi::TypedArray>();
    static constexpr const char* kNames[] = {
        "Int8Array",   "Uint8Array",   "Uint8ClampedArray", "Int16Array",    "Uint16Array",   "Int32Array",
        "Uint32Array", "Float32Array", "Float64Array",      "BigInt64Array", "BigUint64Array"};
    const auto type = static_cast<size_t>(array.TypedArrayType());
    return std::string(type < std::size(kNames) ? kNames[type] : "typed array") + " of " +
           std::to_string(array.ElementLength());
  }
  return "an object";
}

void check_arguments(const Napi::CallbackInfo& info, const char* function, size_t least, size_t most) {
  if (info.Length() >= least && info.Length() <= most) return;
  std::string expected = std::to_string(least);
  if (most != least) expected += " to " + std::to_string(most);
  throw std::invalid_argument(std::string(function) + " takes " + expected + " argument" +
                              (most == 1 ? "" : "s") + " but received " + std::to_string(info.Length()));
}

double to_double(const Napi::Value& value, const char* what) {
  if (!value.IsNumber()) unexpected("a number", what, value);
  return value.As<Napi::Number>().DoubleValue();
}

int64_t to_int64(const Napi::Value& value, const char* what) {
  if (!value.IsNumber()) unexpected("a whole number", what, value);
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(std::abs(number) <= kMaxSafeInteger) || std::trunc(number) != number) {
    unexpected("a whole number", what, value);
  }
  return static_cast<int64_t>(number);
}

int32_t to_int32(const Napi::Value& value, const char* what) {
  const int64_t number = to_int64(value, what);
  if (number < INT32_MIN || number > INT32_MAX) unexpected("a whole number of 32 bits", what, value);
  return static_cast<int32_t>(number);
}

int64_t to_int64_or_bigint(const Napi::Value& value, const char* what) {
  if (!value.IsBigInt()) return to_int64(value, what);
  bool lossless = false;
  const int64_t result = value.As<Napi::BigInt>().Int64Value(&lossless);
  if (!lossless) unexpected("a whole number of at most 64 bits", what, value);
  return result;
}

bool to_bool(const Napi::Value& value, const char* what) {
  if (!value.IsBoolean()) unexpected("true or false", what, value);
  return value.As<Napi::Boolean>().Value();
}

std::string to_string(const Napi::Value& value, const char* what) {
  if (!value.IsString()) unexpected("a string", what, value);
  return value.As<Napi::String>().Utf8Value();
}

Napi::Object to_object(const Napi::Value& value, const char* what) {
  if (!value.IsObject() || value.IsArray() || value.IsTypedArray() || value.IsFunction()) {
    unexpected("an object", what, value);
  }
  return value.As<Napi::Object>();
}

Napi::Array to_array(const Napi::Value& value, const char* what) {
  if (!value.IsArray()) unexpected("an array", what, value);
  return value.As<Napi::Array>();
}

std::vector<int64_t> to_int64s(const Napi::Value& value, const char* what) {
  const Napi::Array array = to_array(value, what);
  std::vector<int64_t> result;
  result.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value element = array[i];
    result.push_back(to_int64(element, (std::string(what) + "[" + std::to_string(i) + "]").c_str()));
  }
  return result;
}

std::vector<std::string> to_strings(const Napi::Value& value, const char* what) {
  const Napi::Array array = to_array(value, what);
  std::vector<std::string> result;
  result.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value element = array[i];
    result.push_back(to_string(element, (std::string(what) + "[" + std::to_string(i) + "]").c_str()));
  }
  return result;
}

std::map<std::string, std::string> to_string_map(const Napi::Value& value, const char* what) {
  const Napi::Object object = to_object(value, what);
  const Napi::Array names = object.GetPropertyNames();
  std::map<std::string, std::string> result;
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const Napi::Value key = names[i];
    const std::string name = key.ToString().Utf8Value();
    result[name] = to_string(object.Get(key), (std::string(what) + "." + name).c_str());
  }
  return result;
}

std::span<const int32_t> to_int32_span(const Napi::Value& value, const char* what) {
  return typed_span<int32_t>(value, napi_int32_array, "an Int32Array", what);
}

std::span<const uint8_t> to_uint8_span(const Napi::Value& value, const char* what) {
  return typed_span<uint8_t>(value, napi_uint8_array, "a Uint8Array", what);
}

std::span<const double> to_float64_span(const Napi::Value& value, const char* what) {
  return typed_span<double>(value, napi_float64_array, "a Float64Array", what);
}

at::ScalarType to_dtype(const Napi::Value& value, const char* what) {
  std::string known;
  for (const DtypeName& dtype : kDtypes) {
    if (value.IsString() && value.As<Napi::String>().Utf8Value() == dtype.name) return dtype.type;
    known += (known.empty() ? "" : ", ") + std::string(dtype.name);
  }
  unexpected("a dtype (" + known + ")", what, value);
}

at::Device to_device(const Napi::Value& value, const char* what) {
  const std::string name = to_string(value, what);
  try {
    const at::Device device(name);
    if (device.is_cpu() || device.is_cuda()) return device;
  } catch (const c10::Error&) {
    // Falls through to the one message for every bad name.
  }
  unexpected("a device (cpu, cuda or cuda:0, cuda:1, …)", what, value);
}

const char* dtype_name(at::ScalarType type) {
  for (const DtypeName& dtype : kDtypes) {
    if (dtype.type == type) return dtype.name;
  }
  throw std::invalid_argument(std::string("tensors of type ") + at::toString(type) + " are not supported");
}

Fields::Fields(const Napi::Value& value, std::string owner)
    : object_(to_object(value, owner.c_str())), owner_(std::move(owner)) {}

bool Fields::has(const char* name) const {
  const Napi::Value value = object_.Get(name);
  return !value.IsUndefined() && !value.IsNull();
}

Napi::Value Fields::get(const char* name) const {
  const Napi::Value value = object_.Get(name);
  if (value.IsUndefined()) throw std::invalid_argument(path(name) + " is missing");
  return value;
}

double Fields::number(const char* name) const { return to_double(get(name), path(name).c_str()); }
int64_t Fields::integer(const char* name) const { return to_int64(get(name), path(name).c_str()); }
bool Fields::boolean(const char* name) const { return to_bool(get(name), path(name).c_str()); }
std::string Fields::string(const char* name) const { return to_string(get(name), path(name).c_str()); }
std::vector<int64_t> Fields::integers(const char* name) const {
  return to_int64s(get(name), path(name).c_str());
}
std::vector<std::string> Fields::strings(const char* name) const {
  return to_strings(get(name), path(name).c_str());
}
std::span<const int32_t> Fields::int32s(const char* name) const {
  return to_int32_span(get(name), path(name).c_str());
}
std::span<const uint8_t> Fields::bytes(const char* name) const {
  return to_uint8_span(get(name), path(name).c_str());
}
std::span<const double> Fields::doubles(const char* name) const {
  return to_float64_span(get(name), path(name).c_str());
}

Napi::Array from_int64s(Napi::Env env, std::span<const int64_t> values) {
  const Napi::Array array = Napi::Array::New(env, values.size());
  for (uint32_t i = 0; i < values.size(); ++i) array.Set(i, static_cast<double>(values[i]));
  return array;
}

Napi::Array from_strings(Napi::Env env, const std::vector<std::string>& values) {
  const Napi::Array array = Napi::Array::New(env, values.size());
  for (uint32_t i = 0; i < values.size(); ++i) array.Set(i, values[i]);
  return array;
}

Napi::Float64Array from_doubles(Napi::Env env, std::span<const double> values) {
  return typed_copy<Napi::Float64Array>(env, values);
}
Napi::Float32Array from_floats(Napi::Env env, std::span<const float> values) {
  return typed_copy<Napi::Float32Array>(env, values);
}
Napi::Int32Array from_int32s(Napi::Env env, std::span<const int32_t> values) {
  return typed_copy<Napi::Int32Array>(env, values);
}

}  // namespace troupe::binding
