// Counts the operators that go through ATen's dispatcher, for the tests that bound what a step may launch:
// `countOperators(true)` starts, `countOperators(false)` ends and gives how often each was called.
#include "binding/operator_count.h"

#include <ATen/record_function.h>

#include <map>
#include <mutex>
#include <optional>

#include "binding/convert.h"
#include "binding/guard.h"

namespace troupe::binding {
namespace {

std::mutex mutex;
std::map<std::string, int64_t> counts;
std::optional<at::CallbackHandle> handle;

std::unique_ptr<at::ObserverContext> count(const at::RecordFunction& function) {
  const std::lock_guard lock(mutex);
  ++counts[function.name()];
  return nullptr;
}

Napi::Value count_operators(const Napi::CallbackInfo& info) {
  check_arguments(info, "countOperators", 1, 1);
  if (handle) at::removeCallback(*handle);
  handle.reset();
  const Napi::Object object = Napi::Object::New(info.Env());
  const std::lock_guard lock(mutex);
  for (const auto& [name, times] : counts) object.Set(name, static_cast<double>(times));
  counts.clear();
  if (to_bool(info[0], "counting")) {
    handle = at::addGlobalCallback(at::RecordFunctionCallback(&count).scopes({at::RecordScope::FUNCTION}));
  }
  return object;
}

}  // namespace

void init_operator_count(Napi::Env env, Napi::Object exports) {
  define(exports, "countOperators", entry<count_operators>);
}

}  // namespace troupe::binding
