// Counts the operators that go through ATen's dispatcher, for the tests that bound what a step may launch and for
// bench/stages.mjs: `countOperators(true)` starts, and gives what was counted until then, `countOperators(false)` ends.
// Of each operator: calls, bytes of the tensors that it reads and writes, floating-point operations of matrix products.
#include "binding/operator_count.h"

#include <ATen/record_function.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>

#include "binding/convert.h"
#include "binding/guard.h"
#ifdef TROUPE_EMULATED
#include "kernels/cuda/emulation/accesses.h"
#endif

namespace troupe::binding {
namespace {

struct OperatorCount {
  int64_t calls = 0, bytes = 0;
  double operations = 0;
};

std::mutex mutex;
std::map<std::string, OperatorCount> counts;
std::optional<at::CallbackHandle> handle;

// What a tensor's elements take in memory: those of an expanded dimension are one.
int64_t bytes_of(const at::Tensor& x) {
  if (!x.defined() || !x.has_storage() || x.numel() == 0) return 0;
  int64_t elements = 1;
  for (int64_t i = 0; i < x.dim(); ++i) elements *= x.stride(i) == 0 ? 1 : x.size(i);
  return elements * static_cast<int64_t>(x.element_size());
}

int64_t bytes_of(const c10::IValue& value) {
  if (value.isTensor()) return bytes_of(value.toTensor());
  int64_t bytes = 0;
  if (value.isTensorList()) {
    for (const at::Tensor& x : value.toTensorList()) bytes += bytes_of(x);
  }
  return bytes;
}

// What the call is of, until it ends.
struct Call : at::ObserverContext {
  int64_t read = 0;
  int64_t inner = 0;  // dimension that a matrix product sums over; 0: it is none
};

using Inputs = c10::ArrayRef<const c10::IValue>;

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Of their first operand they read as many rows as they write.
bool reads_rows(std::string_view name) {
  return is_one_of(name, {"aten::embedding", "aten::index_select", "aten::gather"});
}

// The operands that are read as a whole: not the first where it is only written, nor `out`, the last.
Inputs read_by(const at::RecordFunction& function) {
  const Inputs inputs = function.inputs();
  if (inputs.empty()) return inputs;
  const std::string_view name = function.name();
  const bool first = !reads_rows(name) && !is_one_of(name, {"aten::copy_", "aten::fill_", "aten::zero_"}),
             last = !std::string_view(function.overload_name()).ends_with("out");
  const size_t begin = first ? 0 : 1, end = last ? inputs.size() : inputs.size() - 1;
  return inputs.slice(begin, end - begin);
}

int64_t inner_of(std::string_view name, Inputs inputs) {
  const bool sum_first = is_one_of(name, {"aten::addmm", "aten::addmm_"});
  if (!sum_first && !is_one_of(name, {"aten::mm", "aten::bmm", "troupe::product"})) return 0;
  return inputs[sum_first ? 1 : 0].toTensor().size(-1);
}

// Zeroing is one launch, by itself or by a fill_ inside.
thread_local int zeroing = 0;

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
  const bool zeroes = is_one_of(function.name(), {"aten::zero_"});
  if (zeroing > 0 && !zeroes) return nullptr;
  if (zeroes) ++zeroing;
  auto call = std::make_unique<Call>();
  for (const c10::IValue& input : read_by(function)) call->read += bytes_of(input);
  call->inner = inner_of(function.name(), function.inputs());
  return call;
}

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  if (!context) return;
  if (is_one_of(function.name(), {"aten::zero_"})) --zeroing;
  const auto& call = static_cast<const Call&>(*context);
  const std::lock_guard lock(mutex);
  OperatorCount& count = counts[function.name()];
  ++count.calls;
  count.bytes += call.read;
  for (const c10::IValue& output : function.outputs()) {
    count.bytes += (reads_rows(function.name()) ? 2 : 1) * bytes_of(output);
    if (call.inner > 0 && output.isTensor())
      count.operations += 2.0 * static_cast<double>(output.toTensor().numel() * call.inner);
  }
}

Napi::Value count_operators(const Napi::CallbackInfo& info) {
  check_arguments(info, "countOperators", 1, 1);
  if (handle) at::removeCallback(*handle);
  handle.reset();
  const Napi::Object object = Napi::Object::New(info.Env());
  const std::lock_guard lock(mutex);
  for (const auto& [name, count] : counts) {
    const Napi::Object entry = Napi::Object::New(info.Env());
    entry.Set("calls", static_cast<double>(count.calls));
    entry.Set("bytes", static_cast<double>(count.bytes));
    entry.Set("operations", count.operations);
    object.Set(name, entry);
  }
  counts.clear();
  if (to_bool(info[0], "counting")) {
    handle = at::addGlobalCallback(at::RecordFunctionCallback(&begin, &end)
                                       .scopes({at::RecordScope::FUNCTION})
                                       .needsInputs(true)
                                       .needsOutputs(true));
  }
  return object;
}

#ifdef TROUPE_EMULATED
// Of each launcher of emulated kernels since the last call: launches, and bytes that they read and wrote.
Napi::Value take_accesses(const Napi::CallbackInfo& info) {
  const Napi::Object object = Napi::Object::New(info.Env());
  for (const auto& [name, accesses] : kernels::cuda::emulation::watcher->take()) {
    const Napi::Object entry = Napi::Object::New(info.Env());
    entry.Set("launches", static_cast<double>(accesses.launches));
    entry.Set("bytes", static_cast<double>(accesses.bytes));
    object.Set(name, entry);
  }
  return object;
}
#endif

}  // namespace

void init_operator_count(Napi::Env env, Napi::Object exports) {
  define(exports, "countOperators", entry<count_operators>);
#ifdef TROUPE_EMULATED
  if (kernels::cuda::emulation::watcher) define(exports, "takeAccesses", entry<take_accesses>);
#endif
}

}  // namespace troupe::binding
