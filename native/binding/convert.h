// JavaScript values to C++ ones and back, with messages that name the argument: "expected X for NAME but
// received Y". Every function here throws std::invalid_argument, which guard.h turns into a TypeError.
#pragma once

#include <ATen/ATen.h>
#include <napi.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace troupe::binding {

// A value as a message shows it: `"abc"`, `the number 1.5`, `an array of 3`.
std::string describe(const Napi::Value& value);

// Throws unless the function was called with `least` to `most` arguments.
void check_arguments(const Napi::CallbackInfo& info, const char* function, size_t least, size_t most);

double to_double(const Napi::Value& value, const char* what);
// A whole number of at most 2⁵³ − 1 in size, which a double holds exactly: sums of a few do not overflow.
int64_t to_int64(const Napi::Value& value, const char* what);
// One of 32 bits.
int32_t to_int32(const Napi::Value& value, const char* what);
// Or a BigInt, for what takes all 64 bits and checks them itself: ATen's operators.
int64_t to_int64_or_bigint(const Napi::Value& value, const char* what);
bool to_bool(const Napi::Value& value, const char* what);
std::string to_string(const Napi::Value& value, const char* what);
Napi::Object to_object(const Napi::Value& value, const char* what);
Napi::Array to_array(const Napi::Value& value, const char* what);
// An array of whole numbers.
std::vector<int64_t> to_int64s(const Napi::Value& value, const char* what);
std::vector<std::string> to_strings(const Napi::Value& value, const char* what);
std::map<std::string, std::string> to_string_map(const Napi::Value& value, const char* what);

// Views of a typed array's memory: valid until JavaScript runs again.
std::span<const int32_t> to_int32_span(const Napi::Value& value, const char* what);
std::span<const uint8_t> to_uint8_span(const Napi::Value& value, const char* what);
std::span<const double> to_float64_span(const Napi::Value& value, const char* what);

at::ScalarType to_dtype(const Napi::Value& value, const char* what);
at::Device to_device(const Napi::Value& value, const char* what);
// "float32"; throws for a type that Troupe has no name for.
const char* dtype_name(at::ScalarType type);

// Reads the fields of an options object; messages name owner.field.
class Fields {
 public:
  Fields(const Napi::Value& value, std::string owner);
  bool has(const char* name) const;
  Napi::Value get(const char* name) const;  // throws if it is missing
  double number(const char* name) const;
  int64_t integer(const char* name) const;
  bool boolean(const char* name) const;
  std::string string(const char* name) const;
  std::vector<int64_t> integers(const char* name) const;
  std::vector<std::string> strings(const char* name) const;
  std::span<const int32_t> int32s(const char* name) const;
  std::span<const uint8_t> bytes(const char* name) const;
  std::span<const double> doubles(const char* name) const;
  std::string path(const char* name) const { return owner_ + "." + name; }

 private:
  Napi::Object object_;
  std::string owner_;
};

Napi::Array from_int64s(Napi::Env env, std::span<const int64_t> values);
Napi::Array from_strings(Napi::Env env, const std::vector<std::string>& values);
// Copies.
Napi::Float64Array from_doubles(Napi::Env env, std::span<const double> values);
Napi::Float32Array from_floats(Napi::Env env, std::span<const float> values);
Napi::Int32Array from_int32s(Napi::Env env, std::span<const int32_t> values);

}  // namespace troupe::binding
