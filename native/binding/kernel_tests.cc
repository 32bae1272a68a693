// What tests set of all kernels and see of their plans: `useKernels(name)` makes the implementation of that name everyone's
// until useKernels(""), `treePlan` gives the plan of a batch. In a checkout's build `emulateDeviceMemory(bytes)` hands the
// CPU's memory out as a GPU's, until emulateDeviceMemory(0), `failLaunch(n)` has the n-th emulated launch from there on fail, and
// `plantProducts(usual, [{kind, microseconds, calls?}])` says what ways there are to compute a product, `plantedRuns()` how often
// each was taken.
#include "binding/kernel_tests.h"

#include "binding/convert.h"
#include "binding/guard.h"
#include "binding/handle.h"
#include "binding/kernel_arguments.h"
#include "kernels/kernels.h"
#ifdef TROUPE_EMULATED
#include "kernels/cuda/emulation/device_memory.h"
#include "kernels/cuda/emulation/launch_log.h"
#include "kernels/cuda/emulation/planted_products.h"
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

Napi::Value plant_products(const Info& info) {
  using kernels::cuda::emulation::Candidate;
  check_arguments(info, "plantProducts", 2, 2);
  static const std::map<std::string, Candidate> kinds{{"right", Candidate::kRight},
                                                      {"wrong", Candidate::kWrong},
                                                      {"incomplete", Candidate::kIncomplete},
                                                      {"refuses", Candidate::kRefuses},
                                                      {"refuses later", Candidate::kRefusesLater}};
  std::vector<kernels::cuda::emulation::PlantedProduct> products;
  const auto list = info[1].As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Fields fields(list.Get(i), "products");
    products.push_back({kinds.at(fields.string("kind")), fields.number("microseconds"),
                        fields.has("calls") ? fields.integer("calls") : 0});
  }
  kernels::cuda::emulation::plant_products(info[0].As<Napi::Number>().DoubleValue(), std::move(products));
  return info.Env().Undefined();
}

Napi::Value planted_runs(const Info& info) {
  return from_int64s(info.Env(), kernels::cuda::emulation::planted_runs());
}
#endif

}  // namespace

void init_kernel_tests(Napi::Object exports) {
  define(exports, "useKernels", entry<use_kernels>);
  define(exports, "treePlan", entry<tree_plan>);
#ifdef TROUPE_EMULATED
  define(exports, "emulateDeviceMemory", entry<emulate_device_memory>);
  define(exports, "failLaunch", entry<fail_launch>);
  define(exports, "plantProducts", entry<plant_products>);
  define(exports, "plantedRuns", entry<planted_runs>);
#endif
}

}  // namespace troupe::binding
