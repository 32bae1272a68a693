// Tensors as JavaScript holds them: handles, creation from and copies into typed arrays, autograd's entry
// points. Operators are in operators.cc.
#include "binding/tensor.h"

#include <torch/csrc/autograd/autograd.h>

#include <cstring>
#include <stdexcept>
#include <unordered_map>

#include "binding/convert.h"
#include "binding/handle.h"
#include "kernels/waits.h"

namespace troupe::binding {
namespace {

// Live handles of one environment and the storages that they hold. V8 is told of the bytes of storages that
// handles alone hold, once, however many handles look at each: collecting garbage can free no others, and V8
// collects all of it at every handle that reports 2 GB (100 ms, for each view of a policy's flat buffer).
struct HeldStorage {
  int64_t handles = 0;
  int64_t reported = 0;  // bytes
};

struct TensorAccount {
  int64_t handles = 0;
  int64_t bytes = 0;
  std::unordered_map<const void*, HeldStorage> storages;
};

class TensorHandle : public Handle<TensorHandle, at::Tensor> {
 public:
  static constexpr const char* kName = "Tensor";

  explicit TensorHandle(const Napi::CallbackInfo& info)
      : Handle(info), account_(environment_slot<TensorAccount>(info.Env())) {
    ++account_->handles;
    const at::Tensor& tensor = value();
    if (!tensor.has_storage()) return;
    storage_ = tensor.storage().unsafeGetStorageImpl();
    HeldStorage& held = account_->storages[storage_];
    if (held.handles++ > 0) return;
    // What autograd's graph keeps of a result, the result itself keeps.
    const bool alone = !tensor.is_leaf() || (tensor.use_count() == 1 && tensor.storage().use_count() == 1);
    held.reported = alone ? static_cast<int64_t>(tensor.storage().nbytes()) : 0;
    report(info.Env(), held.reported);
  }

  void release(Napi::Env env) {
    --account_->handles;
    if (storage_ == nullptr) return;
    const auto entry = account_->storages.find(storage_);
    if (--entry->second.handles > 0) return;
    report(env, -entry->second.reported);
    account_->storages.erase(entry);
  }

  void Finalize(Napi::Env env) override {
    if (!disposed()) release(env);
  }

  static std::vector<Property> properties() {
    return {getter<&TensorHandle::shape>("shape"), getter<&TensorHandle::dtype>("dtype"),
            getter<&TensorHandle::device>("device"), getter<&TensorHandle::requires_grad>("requiresGrad")};
  }

 private:
  void report(Napi::Env env, int64_t bytes) {
    if (bytes == 0) return;
    account_->bytes += bytes;
    Napi::MemoryManagement::AdjustExternalMemory(env, bytes);
  }

  Napi::Value shape(const Napi::CallbackInfo& info) {
    const at::IntArrayRef sizes = value().sizes();
    return from_int64s(info.Env(), {sizes.data(), sizes.size()});
  }
  Napi::Value dtype(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), dtype_name(value().scalar_type()));
  }
  Napi::Value device(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), value().device().str());
  }
  Napi::Value requires_grad(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), value().requires_grad());
  }

  std::shared_ptr<TensorAccount> account_;
  const void* storage_ = nullptr;
};

at::ScalarType element_type(const Napi::TypedArray& array) {
  switch (array.TypedArrayType()) {
    case napi_float64_array:
      return at::kDouble;
    case napi_float32_array:
      return at::kFloat;
    case napi_bigint64_array:
      return at::kLong;
    case napi_int32_array:
      return at::kInt;
    case napi_uint8_array:
      return at::kByte;
    default:
      throw std::invalid_argument(
          "expected a Float64Array, Float32Array, BigInt64Array, Int32Array or Uint8Array for data but "
          "received " +
          describe(array));
  }
}

// tensor(data, shape, dtype, device): copies `data`, converted to `dtype`.
Napi::Value create_tensor(const Napi::CallbackInfo& info) {
  check_arguments(info, "tensor", 4, 4);
  if (!info[0].IsTypedArray()) {
    throw std::invalid_argument("expected a typed array for data but received " + describe(info[0]));
  }
  const auto array = info[0].As<Napi::TypedArray>();
  const at::ScalarType source = element_type(array);
  const std::vector<int64_t> shape = to_int64s(info[1], "shape");
  const at::ScalarType dtype = to_dtype(info[2], "dtype");
  const at::Device device = to_device(info[3], "device");
  int64_t elements = 1;
  for (const int64_t size : shape) {
    if (size < 0)
      throw std::invalid_argument("a shape has no negative size, but received " + std::to_string(size));
    if (__builtin_mul_overflow(elements, size, &elements))
      throw std::invalid_argument("the shape is too large");
  }
  if (elements != static_cast<int64_t>(array.ElementLength())) {
    throw std::invalid_argument("data holds " + std::to_string(array.ElementLength()) +
                                " elements but the shape takes " + std::to_string(elements));
  }
  at::Tensor tensor = at::empty(shape, source);
  if (elements > 0) {
    const auto* bytes = static_cast<const uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset();
    std::memcpy(tensor.mutable_data_ptr(), bytes, array.ByteLength());
  }
  const at::NoGradGuard no_grad;
  tensor = kernels::to_device(tensor, device, dtype);
  return wrap_tensor(info.Env(), std::move(tensor));
}

template <typename Array>
Napi::Value copy_out(Napi::Env env, const at::Tensor& tensor) {
  Array array = Array::New(env, static_cast<size_t>(tensor.numel()));
  if (tensor.numel() > 0) std::memcpy(array.Data(), tensor.const_data_ptr(), tensor.nbytes());
  return array;
}

Napi::Value read(const Napi::CallbackInfo& info) {
  check_arguments(info, "read", 1, 1);
  const at::NoGradGuard no_grad;
  at::Tensor tensor = kernels::to_host(unwrap_tensor(info[0], "tensor").detach()).contiguous();
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return copy_out<Napi::Float64Array>(info.Env(), tensor);
    case at::kBFloat16:
    case at::kHalf:
      tensor = tensor.to(at::kFloat);
      [[fallthrough]];
    case at::kFloat:
      return copy_out<Napi::Float32Array>(info.Env(), tensor);
    case at::kLong:
      return copy_out<Napi::BigInt64Array>(info.Env(), tensor);
    case at::kInt:
      return copy_out<Napi::Int32Array>(info.Env(), tensor);
    case at::kByte:
    case at::kBool:
      return copy_out<Napi::Uint8Array>(info.Env(), tensor);
    default:
      throw std::invalid_argument(std::string("cannot read a tensor of type ") +
                                  at::toString(tensor.scalar_type()));
  }
}

Napi::Value backward(const Napi::CallbackInfo& info) {
  check_arguments(info, "backward", 1, 2);
  const at::Tensor& tensor = unwrap_tensor(info[0], "tensor");
  if (!tensor.requires_grad()) {
    throw std::invalid_argument("backward needs a tensor that was computed from one with requiresGrad");
  }
  torch::autograd::variable_list gradients;
  if (!info[1].IsUndefined()) {
    gradients.push_back(unwrap_tensor(info[1], "gradient"));
  } else if (tensor.numel() != 1) {
    throw std::invalid_argument("backward without a gradient needs a tensor of one element, but it has " +
                                std::to_string(tensor.numel()));
  }
  torch::autograd::backward({tensor}, gradients);
  return info.Env().Undefined();
}

Napi::Value grad(const Napi::CallbackInfo& info) {
  check_arguments(info, "grad", 1, 1);
  return wrap_tensor(info.Env(), unwrap_tensor(info[0], "tensor").grad());
}

Napi::Value requires_grad(const Napi::CallbackInfo& info) {
  check_arguments(info, "requiresGrad", 2, 2);
  at::Tensor tensor = unwrap_tensor(info[0], "tensor");
  const bool value = to_bool(info[1], "value");
  if (!tensor.is_leaf()) {
    throw std::invalid_argument("requiresGrad can be set on a leaf only: detach the tensor first");
  }
  tensor.set_requires_grad(value);
  return info.Env().Undefined();
}

// Sets autograd's recording for this thread; returns what it was.
Napi::Value with_grad_mode(const Napi::CallbackInfo& info) {
  check_arguments(info, "withGradMode", 1, 1);
  const bool before = at::GradMode::is_enabled();
  at::GradMode::set_enabled(to_bool(info[0], "enabled"));
  return Napi::Boolean::New(info.Env(), before);
}

Napi::Value live_tensors(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(),
                           static_cast<double>(environment_slot<TensorAccount>(info.Env())->handles));
}

// Bytes of the storages that live handles alone held when the first of them was made, each counted once: what
// V8 was told of.
Napi::Value live_tensor_bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(),
                           static_cast<double>(environment_slot<TensorAccount>(info.Env())->bytes));
}

}  // namespace

const at::Tensor& unwrap_tensor(const Napi::Value& value, const char* what) {
  TensorHandle& handle = TensorHandle::unwrap(value, what);
  if (handle.disposed()) {
    throw std::invalid_argument("the tensor for " + std::string(what) + " was disposed");
  }
  return handle.value();
}

std::vector<at::Tensor> unwrap_tensors(const Napi::Value& value, const char* what) {
  const Napi::Array array = to_array(value, what);
  std::vector<at::Tensor> tensors;
  tensors.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value element = array[i];
    tensors.push_back(unwrap_tensor(element, (std::string(what) + "[" + std::to_string(i) + "]").c_str()));
  }
  return tensors;
}

std::map<std::string, at::Tensor> unwrap_tensor_map(const Napi::Value& value, const char* what) {
  const Napi::Object object = to_object(value, what);
  const Napi::Array keys = object.GetPropertyNames();
  std::map<std::string, at::Tensor> tensors;
  for (uint32_t i = 0; i < keys.Length(); ++i) {
    const Napi::Value key = keys[i];
    const std::string name = key.ToString().Utf8Value();
    tensors[name] = unwrap_tensor(object.Get(key), (std::string(what) + "." + name).c_str());
  }
  return tensors;
}

Napi::Value wrap_tensor(Napi::Env env, at::Tensor tensor) {
  if (!tensor.defined()) return env.Undefined();
  return TensorHandle::wrap(env, std::move(tensor));
}

void init_tensor(Napi::Env env, Napi::Object exports) {
  TensorHandle::define(env);
  define(exports, "tensor", entry<create_tensor>);
  define(exports, "read", entry<read>);
  define(exports, "backward", entry<backward>);
  define(exports, "grad", entry<grad>);
  define(exports, "requiresGrad", entry<requires_grad>);
  define(exports, "withGradMode", entry<with_grad_mode>);
  define(exports, "liveTensors", entry<live_tensors>);
  define(exports, "liveTensorBytes", entry<live_tensor_bytes>);
}

}  // namespace troupe::binding
