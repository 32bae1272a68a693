// The addon's entry: one line for each subject. Everything in it is synchronous and belongs to the thread
// that loaded it.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <malloc.h>
#include <napi.h>
#include <torch/headeronly/version.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "binding/built_from.h"
#include "binding/convert.h"
#include "binding/guard.h"
#include "binding/handle.h"
#include "binding/kernel_tests.h"
#include "binding/kernels.h"
#include "binding/model.h"
#include "binding/operator_count.h"
#include "binding/operators.h"
#include "binding/optimizer.h"
#include "binding/process_group.h"
#include "binding/rollout.h"
#include "binding/safetensors.h"
#include "binding/tensor.h"
#include "cuda/library.h"
#include "memory/caching_allocator.h"
#include "memory/device_memory.h"

namespace troupe::binding {
namespace {

// The version of the libtorch that was loaded, as its own build settings state it ("unknown" if they do not).
std::string loaded_version() {
  const std::string config = at::show_config();
  const std::string key = "TORCH_VERSION=";
  const size_t begin = config.find(key);
  if (begin == std::string::npos) return "unknown";
  const size_t end = config.find_first_of(", \n", begin);
  return config.substr(begin + key.size(), end - begin - key.size());
}

// Whether the processor multiplies bf16 itself; otherwise bf16 runs, but slower than fp32.
bool processor_has_bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#elif defined(__aarch64__)
  return (getauxval(AT_HWCAP2) & HWCAP2_BF16) != 0;
#else
  return false;
#endif
}

Napi::Value threads(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), at::get_num_threads());
}

Napi::Value bf16_kernels(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), processor_has_bf16());
}

Napi::Value cuda_devices(const Napi::CallbackInfo& info) {
  const Napi::Array devices = Napi::Array::New(info.Env());
  if (!at::hasCUDA()) return devices;
  const int count = at::detail::getCUDAHooks().deviceCount();
  for (int i = 0; i < count; ++i) devices.Set(static_cast<uint32_t>(i), "cuda:" + std::to_string(i));
  return devices;
}

Napi::Value cuda_problems(const Napi::CallbackInfo& info) {
  const auto& [device, kernels, nccl] = cuda::problems();
  const Napi::Object sentences = Napi::Object::New(info.Env());
  if (!device.empty()) sentences.Set("device", device);
  if (!kernels.empty()) sentences.Set("kernels", kernels);
  if (!nccl.empty()) sentences.Set("nccl", nccl);
  return sentences;
}

Napi::Value memory_of(const Napi::CallbackInfo& info) {
  check_arguments(info, "deviceMemory", 1, 1);
  const DeviceMemory now = device_memory(to_device(info[0], "device"));
  const Napi::Object object = Napi::Object::New(info.Env());
  object.Set("free", static_cast<double>(now.free));
  object.Set("limit", static_cast<double>(now.limit));
  object.Set("used", static_cast<double>(now.used));
  object.Set("cached", static_cast<double>(now.cached));
  object.Set("peak", static_cast<double>(now.peak));
  object.Set("shared", now.shared);
  return object;
}

// (device)
Napi::Value stacks_adapters(const Napi::CallbackInfo& info) {
  check_arguments(info, "stacksAdapters", 1, 1);
  return Napi::Boolean::New(info.Env(), kernels::kernels_for(to_device(info[0], "device")).stacks_adapters());
}

// (device, dtype, outputs, inputs, head)
Napi::Value packed_bytes(const Napi::CallbackInfo& info) {
  check_arguments(info, "packedBytes", 5, 5);
  const kernels::Kernels& backend = kernels::kernels_for(to_device(info[0], "device"));
  const int64_t bytes = backend.packed_bytes(to_dtype(info[1], "dtype"), to_int64(info[2], "outputs"),
                                             to_int64(info[3], "inputs"), to_bool(info[4], "head"));
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

Napi::Value reset_peak(const Napi::CallbackInfo& info) {
  check_arguments(info, "resetPeakMemory", 1, 1);
  reset_peak_memory(to_device(info[0], "device"));
  return info.Env().Undefined();
}

Napi::Value release_memory(const Napi::CallbackInfo& info) {
  release_cached_memory();
  if (at::hasCUDA()) release_cached_memory(at::Device(at::kCUDA, 0));
  return info.Env().Undefined();
}

// MKL sets its vector functions up at their first call. Several threads at once there have left one thread's
// part with 1e-9 of error in fp64 (4 of 100 processes, torch 2.13): one thread alone goes first.
void settle_vector_functions() { at::exp(at::zeros({16}, at::kDouble)); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  // With glibc's adaptive threshold, freed tensors stay behind small allocations of V8's and are not reused.
  mallopt(M_MMAP_THRESHOLD, 128 * 1024);
  guard(env, [&]() -> napi_value {
    install_caching_allocator();
    cuda::library();
    settle_vector_functions();
    env.SetInstanceData(std::make_unique<EnvironmentData>().release());
    exports.Set("torchVersion", loaded_version());
    exports.Set("compiledTorchVersion", TORCH_VERSION);
    init_built_from(exports);
    define(exports, "threads", entry<threads>);
    define(exports, "bf16Kernels", entry<bf16_kernels>);
    define(exports, "cudaDevices", entry<cuda_devices>);
    define(exports, "cudaProblems", entry<cuda_problems>);
    define(exports, "deviceMemory", entry<memory_of>);
    define(exports, "packedBytes", entry<packed_bytes>);
    define(exports, "stacksAdapters", entry<stacks_adapters>);
    define(exports, "resetPeakMemory", entry<reset_peak>);
    define(exports, "releaseMemory", entry<release_memory>);
    init_tensor(env, exports);
    init_operators(env, exports);
    init_optimizer(env, exports);
    init_safetensors(env, exports);
    init_parameters(env, exports);
    init_model(env, exports);
    init_rollout(env, exports);
    init_kernels(env, exports);
    init_kernel_tests(exports);
    init_operator_count(env, exports);
    init_process_group(env, exports);
    return nullptr;
  });
  return exports;
}

}  // namespace

NODE_API_MODULE(troupe, init)

}  // namespace troupe::binding
