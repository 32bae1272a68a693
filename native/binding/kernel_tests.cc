// What tests set of all kernels and see of their plans: `useKernels(name)` makes the implementation of that name everyone's
// until useKernels(""), `treePlan` gives the plan of a batch. In a checkout's build `emulateDeviceMemory(bytes)` hands the
// CPU's memory out as a GPU's, until emulateDeviceMemory(0), and `failLaunch(n)` has the n-th emulated launch from there on fail.
#include "binding/kernel_tests.h"

#include "binding/convert.h"
#include "binding/guard.h"
#include "binding/handle.h"
#include "binding/kernel_arguments.h"
#include "kernels/kernels.h"
#ifdef TROUPE_EMULATED
#include "kernels/cuda/emulation/device_memory.h"
#include "kernels/cuda/emulation/launch_log.h"
#endif

namespace troupe::binding {
namespace {

using Info = Napi::CallbackInfo;

// (nodes, rows) → {order, place, calls: [{causal, queryBegin, queryRows, keyBegin, keyRows, queries, keys}]}
Napi::Value tree_plan(const Info& info) {
  const kernels::TreePlan plan =
      to_plan(info[0], info.Env().Undefined(), to_int64(info[1], "rows"), at::kCPU);
  const Napi::Object object = Napi::Object::New(info.Env());
  object.Set("order", from_int64s(info.Env(), plan.host_order));
  object.Set("place", from_int64s(info.Env(), plan.host_place));
  const Napi::Array calls = Napi::Array::New(info.Env(), plan.calls.size());
  for (size_t i = 0; i < plan.calls.size(); ++i) {
    const kernels::TreeCall& call = plan.calls[i];
    const Napi::Object one = Napi::Object::New(info.Env());
    one.Set("causal", call.causal);
    one.Set("queryBegin", static_cast<double>(call.query_begin));
    one.Set("queryRows", static_cast<double>(call.query_rows));
    one.Set("keyBegin", static_cast<double>(call.key_begin));
    one.Set("keyRows", static_cast<double>(call.key_rows));
    one.Set("longestQuery", static_cast<double>(call.longest_query));
    one.Set("longestKey", static_cast<double>(call.longest_key));
    one.Set("queries", from_int32s(info.Env(), call.queries));
    one.Set("keys", from_int32s(info.Env(), call.keys));
    calls.Set(static_cast<uint32_t>(i), one);
  }
  object.Set("calls", calls);
  return object;
}

Napi::Value use_kernels(const Info& info) {
  check_arguments(info, "useKernels", 1, 1);
  kernels::use_kernels(to_string(info[0], "name"));
  return info.Env().Undefined();
}

#ifdef TROUPE_EMULATED
Napi::Value emulate_device_memory(const Info& info) {
  check_arguments(info, "emulateDeviceMemory", 1, 1);
  kernels::cuda::emulation::emulate_device_memory(to_int64(info[0], "bytes"));
  return info.Env().Undefined();
}

Napi::Value fail_launch(const Info& info) {
  check_arguments(info, "failLaunch", 1, 1);
  kernels::cuda::emulation::fail_launch(to_int64(info[0], "ahead"));
  return info.Env().Undefined();
}
#endif

}  // namespace

void init_kernel_tests(Napi::Object exports) {
  define(exports, "useKernels", entry<use_kernels>);
  define(exports, "treePlan", entry<tree_plan>);
#ifdef TROUPE_EMULATED
  define(exports, "emulateDeviceMemory", entry<emulate_device_memory>);
  define(exports, "failLaunch", entry<fail_launch>);
#endif
}

}  // namespace troupe::binding
