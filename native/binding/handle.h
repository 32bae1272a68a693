// Handle: a JavaScript object that owns one C++ value (usually a shared_ptr).
//
// A handle carries a type tag, so that a wrong object (another handle, a plain object, a method taken from a
// prototype and called on something else) throws instead of being read as what it is not. `dispose()` frees
// the value at once; the garbage collector frees what was forgotten. State is kept per environment: the addon
// can be loaded by several workers.
//
//   class PolicyHandle : public Handle<PolicyHandle, std::shared_ptr<Policy>> {
//    public:
//     using Handle::Handle;
//     static constexpr const char* kName = "Policy";
//     static std::vector<Property> properties() { return {getter<&PolicyHandle::version>("version")}; }
//     Napi::Value version(const Napi::CallbackInfo& info);
//   };
//   PolicyHandle::define(env);                        // once, in init_policy
//   return PolicyHandle::wrap(env, policy);
//   Policy& policy = *PolicyHandle::unwrap(info[0], "policy").value();
#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <typeindex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "binding/convert.h"
#include "binding/guard.h"

namespace troupe::binding {

// What one environment (main thread or worker) holds.
struct EnvironmentData {
  std::unordered_map<std::type_index, Napi::FunctionReference> constructors;
  // Anything else that a binding file keeps per environment.
  std::unordered_map<std::type_index, std::shared_ptr<void>> slots;
};

// The environment's own T, made on first use.
template <typename T>
std::shared_ptr<T> environment_slot(Napi::Env env) {
  std::shared_ptr<void>& slot = env.GetInstanceData<EnvironmentData>()->slots[typeid(T)];
  if (!slot) slot = std::make_shared<T>();
  return std::static_pointer_cast<T>(slot);
}

template <typename Derived, typename Value>
class Handle : public Napi::ObjectWrap<Derived> {
 public:
  using Property = Napi::ClassPropertyDescriptor<Derived>;

  explicit Handle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Derived>(info) {
    if (pending_ == nullptr) {
      throw Napi::TypeError::New(info.Env(), std::string(Derived::kName) + " cannot be constructed directly");
    }
    value_.emplace(std::move(*std::exchange(pending_, nullptr)));
    info.This().As<Napi::Object>().TypeTag(&tag());
  }

  static void define(Napi::Env env) {
    std::vector<Property> properties = Derived::properties();
    properties.push_back(method<&Handle::dispose>("dispose"));
    const Napi::Function constructor =
        Napi::ObjectWrap<Derived>::DefineClass(env, Derived::kName, properties);
    env.GetInstanceData<EnvironmentData>()->constructors[typeid(Derived)] = Napi::Persistent(constructor);
  }

  static Napi::Object wrap(Napi::Env env, Value value) {
    pending_ = &value;
    try {
      return env.GetInstanceData<EnvironmentData>()->constructors.at(typeid(Derived)).New({});
    } catch (...) {
      pending_ = nullptr;
      throw;
    }
  }

  // `what` names the argument in the message.
  static Derived& unwrap(const Napi::Value& object, const char* what) {
    if (!object.IsObject() || !object.As<Napi::Object>().CheckTypeTag(&tag())) {
      throw std::invalid_argument("expected a " + std::string(Derived::kName) + " for " + what +
                                  " but received " + describe(object));
    }
    return *Napi::ObjectWrap<Derived>::Unwrap(object.As<Napi::Object>());
  }

  bool disposed() const { return !value_.has_value(); }

  Value& value() {
    if (!value_) throw std::invalid_argument("this " + std::string(Derived::kName) + " was disposed");
    return *value_;
  }

  // Frees the value; a second call does nothing. A class that must do more hides `release`, and calls it from
  // a Finalize(Napi::Env) of its own, for values that the garbage collector frees: node-addon-api looks for
  // that function in the class itself, not in this one.
  Napi::Value dispose(const Napi::CallbackInfo& info) {
    if (value_) {
      static_cast<Derived*>(this)->release(info.Env());
      value_.reset();
    }
    return info.Env().Undefined();
  }

  void release(Napi::Env) {}

 protected:
  template <auto Member>
  static napi_value invoke(napi_env env, napi_callback_info raw) {
    return guard(env, [&]() -> napi_value {
      const Napi::CallbackInfo info(env, raw);
      return (unwrap(info.This(), "this").*Member)(info);
    });
  }

  template <auto Member>
  static Property method(const char* name) {
    napi_property_descriptor descriptor{};
    descriptor.utf8name = name;
    descriptor.method = &invoke<Member>;
    return Property(descriptor);
  }

  template <auto Member>
  static Property getter(const char* name) {
    napi_property_descriptor descriptor{};
    descriptor.utf8name = name;
    descriptor.getter = &invoke<Member>;
    return Property(descriptor);
  }

 private:
  // An address that no other class has, in this library or another copy of it.
  static const napi_type_tag& tag() {
    static const char anchor = 0;
    static const napi_type_tag tag{reinterpret_cast<uintptr_t>(&anchor), 0x74726f757065};
    return tag;
  }

  // What the constructor that `wrap` is about to run takes; null when JavaScript calls the constructor
  // itself.
  static inline thread_local Value* pending_ = nullptr;
  std::optional<Value> value_;
};

}  // namespace troupe::binding
