// The one place where C++ exceptions become JavaScript errors. Every function that JavaScript calls goes
// through `entry` (free functions) or Handle's members (handle.h), and both go through `guard`.
//
// std::invalid_argument and c10::TypeError arrive as TypeError, std::out_of_range and c10::IndexError as
// RangeError, the rest as Error, with the code OUT_OF_MEMORY where memory ran out; libtorch's messages come
// without its backtrace.
#pragma once

#include <c10/util/Exception.h>
#include <napi.h>

#include <new>
#include <stdexcept>
#include <string>

namespace troupe::binding {

// libtorch's message, less what only its developers can use.
inline std::string readable(const c10::Error& error) {
  std::string text = error.what_without_backtrace();
  // A missing kernel is followed by some forty lines that list every backend.
  const size_t listing = text.find(" This could be because the operator doesn't exist for this backend");
  if (listing != std::string::npos) text.resize(listing);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// An error that JavaScript can tell from others: training goes on with smaller micro-batches.
inline Napi::Error out_of_memory(napi_env env, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", "OUT_OF_MEMORY");
  return error;
}

template <typename Body>
napi_value guard(napi_env env, Body&& body) noexcept {
  try {
    try {
      return body();
    } catch (const Napi::Error&) {
      throw;
    } catch (const c10::IndexError& error) {
      throw Napi::RangeError::New(env, readable(error));
    } catch (const c10::TypeError& error) {
      throw Napi::TypeError::New(env, readable(error));
    } catch (const c10::OutOfMemoryError& error) {
      throw out_of_memory(env, readable(error));
    } catch (const c10::Error& error) {
      throw Napi::Error::New(env, readable(error));
    } catch (const std::invalid_argument& error) {
      throw Napi::TypeError::New(env, error.what());
    } catch (const std::out_of_range& error) {
      throw Napi::RangeError::New(env, error.what());
    } catch (const std::bad_alloc&) {
      throw out_of_memory(env, "out of memory");
    } catch (const std::exception& error) {
      throw Napi::Error::New(env, error.what());
    } catch (...) {
      throw Napi::Error::New(env, "unknown C++ exception");
    }
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
  }
  return nullptr;
}

// A Node-API callback around `Function`.
template <Napi::Value (*Function)(const Napi::CallbackInfo&)>
napi_value entry(napi_env env, napi_callback_info raw) {
  return guard(env, [&]() -> napi_value { return Function(Napi::CallbackInfo(env, raw)); });
}

inline void define(Napi::Object exports, const char* name, napi_callback callback) {
  napi_value function = nullptr;
  if (napi_create_function(exports.Env(), name, NAPI_AUTO_LENGTH, callback, nullptr, &function) != napi_ok) {
    throw Napi::Error::New(exports.Env());
  }
  exports.Set(name, function);
}

}  // namespace troupe::binding
