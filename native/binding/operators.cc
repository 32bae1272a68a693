// The boxed dispatcher call. Arguments are converted by the operator's schema; left out ones take their
// defaults; keyword-only ones follow the positional ones in the schema's order.
#include "binding/operators.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/function_schema.h>
#include <ATen/core/jit_type.h>

#include <cmath>
#include <stdexcept>
#include <unordered_map>

#include "binding/convert.h"
#include "binding/handle.h"
#include "binding/tensor.h"

namespace troupe::binding {
namespace {

// Handles by "name.overload": finding one takes longer than most small operators.
struct OperatorCache {
  std::unordered_map<std::string, c10::OperatorHandle> operators;
};

const c10::OperatorHandle& find_operator(Napi::Env env, const std::string& name,
                                         const std::string& overload) {
  auto& operators = environment_slot<OperatorCache>(env)->operators;
  const std::string key = name + "." + overload;
  auto found = operators.find(key);
  if (found == operators.end()) {
    const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
    if (!handle) {
      throw std::invalid_argument("libtorch has no operator " + name +
                                  (overload.empty() ? "" : "." + overload));
    }
    found = operators.emplace(key, *handle).first;
  }
  return found->second;
}

at::Scalar to_scalar(const Napi::Value& value, const char* what) {
  if (value.IsBoolean()) return value.As<Napi::Boolean>().Value();
  if (value.IsBigInt()) return to_int64_or_bigint(value, what);
  const double number = to_double(value, what);
  // A whole number stays one, so that x + 1 of an int64 tensor is an int64 tensor, as in Python.
  const bool whole = std::trunc(number) == number && std::abs(number) < 9007199254740992.0;
  if (whole && !(number == 0 && std::signbit(number))) return static_cast<int64_t>(number);
  return number;
}

bool absent(const Napi::Value& value) { return value.IsUndefined() || value.IsNull(); }

c10::IValue to_ivalue(const Napi::Value& value, const c10::Type& type, const char* what);

c10::IValue to_list(const Napi::Value& value, const c10::TypePtr& element, const char* what) {
  // int[1] dim takes 0 as well as [0].
  const bool single = value.IsNumber();
  c10::impl::GenericList list(element);
  if (single) {
    list.push_back(to_ivalue(value, *element, what));
    return list;
  }
  const Napi::Array array = to_array(value, what);
  list.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array[i];
    list.push_back(to_ivalue(item, *element, (std::string(what) + "[" + std::to_string(i) + "]").c_str()));
  }
  return list;
}

c10::IValue to_ivalue(const Napi::Value& value, const c10::Type& type, const char* what) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return unwrap_tensor(value, what);
    case c10::TypeKind::OptionalType:
      if (absent(value)) return {};
      return to_ivalue(value, *type.castRaw<c10::OptionalType>()->getElementType(), what);
    case c10::TypeKind::ListType: {
      c10::TypePtr element = type.castRaw<c10::ListType>()->getElementType();
      if (element->kind() == c10::TypeKind::SymIntType) element = c10::IntType::get();
      return to_list(value, element, what);
    }
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
    case c10::TypeKind::LayoutType:
    case c10::TypeKind::MemoryFormatType:
      return to_int64_or_bigint(value, what);
    case c10::TypeKind::FloatType:
      return to_double(value, what);
    case c10::TypeKind::BoolType:
      return to_bool(value, what);
    case c10::TypeKind::StringType:
      return to_string(value, what);
    case c10::TypeKind::NumberType:
      return to_scalar(value, what);
    case c10::TypeKind::ScalarTypeType:
      return static_cast<int64_t>(to_dtype(value, what));
    case c10::TypeKind::DeviceObjType:
      return to_device(value, what);
    default:
      throw std::invalid_argument(std::string(what) + " has the type " + type.str() +
                                  ", which cannot be passed from JavaScript");
  }
}

// Takes the value over, so that nothing but the handle holds a tensor (see TensorAccount).
Napi::Value from_ivalue(Napi::Env env, c10::IValue&& value) {
  if (value.isTensor()) return wrap_tensor(env, std::move(value).toTensor());
  if (value.isNone()) return env.Undefined();
  if (value.isBool()) return Napi::Boolean::New(env, value.toBool());
  if (value.isInt()) return Napi::Number::New(env, static_cast<double>(value.toInt()));
  if (value.isDouble()) return Napi::Number::New(env, value.toDouble());
  if (value.isString()) return Napi::String::New(env, value.toStringRef());
  if (value.isList()) {
    const c10::List<c10::IValue> items = std::move(value).toList();
    const Napi::Array array = Napi::Array::New(env, items.size());
    for (uint32_t i = 0; i < items.size(); ++i) array.Set(i, from_ivalue(env, items.extract(i)));
    return array;
  }
  throw std::invalid_argument("a result of type " + value.tagKind() + " cannot be passed to JavaScript");
}

// Fills the stack for `schema` from `args`.
torch::jit::Stack convert_arguments(const c10::FunctionSchema& schema, const Napi::Array& args) {
  const auto& formals = schema.arguments();
  if (args.Length() > formals.size()) {
    throw std::invalid_argument(schema.name() + " takes at most " + std::to_string(formals.size()) +
                                " arguments but received " + std::to_string(args.Length()));
  }
  torch::jit::Stack stack;
  stack.reserve(formals.size());
  for (uint32_t i = 0; i < formals.size(); ++i) {
    const c10::Argument& formal = formals[i];
    const Napi::Value value = i < args.Length() ? Napi::Value(args[i]) : args.Env().Undefined();
    if (value.IsUndefined() && formal.default_value()) {
      stack.push_back(*formal.default_value());
    } else {
      const std::string what = schema.name() + "'s argument " + formal.name();
      stack.push_back(to_ivalue(value, *formal.real_type(), what.c_str()));
    }
  }
  return stack;
}

Napi::Value call(const Napi::CallbackInfo& info) {
  check_arguments(info, "call", 3, 3);
  const c10::OperatorHandle& handle =
      find_operator(info.Env(), to_string(info[0], "operator"), to_string(info[1], "overload"));
  torch::jit::Stack stack = convert_arguments(handle.schema(), to_array(info[2], "args"));
  handle.callBoxed(&stack);
  if (stack.empty()) return info.Env().Undefined();
  if (stack.size() == 1) return from_ivalue(info.Env(), std::move(stack[0]));
  const Napi::Array results = Napi::Array::New(info.Env(), stack.size());
  for (uint32_t i = 0; i < stack.size(); ++i) results.Set(i, from_ivalue(info.Env(), std::move(stack[i])));
  return results;
}

}  // namespace

void init_operators(Napi::Env, Napi::Object exports) { define(exports, "call", entry<call>); }

}  // namespace troupe::binding
