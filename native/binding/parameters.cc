// NativeParameterSet of src/engine/native.ts, and the functions that make and fill one.
#include <cmath>

#include "binding/handle.h"
#include "binding/model.h"
#include "binding/tensor.h"
#include "training/observer.h"

namespace troupe::binding {
namespace {

class ParameterSetHandle : public Handle<ParameterSetHandle, std::shared_ptr<ParameterSet>> {
 public:
  using Handle::Handle;
  static constexpr const char* kName = "ParameterSet";
  static std::vector<Property> properties() {
    using Self = ParameterSetHandle;
    return {getter<&Self::parameters>("parameters"),
            getter<&Self::size>("size"),
            getter<&Self::decay_size>("decaySize"),
            getter<&Self::version>("version"),
            getter<&Self::trainable>("trainable"),
            method<&Self::master>("master"),
            method<&Self::compute>("compute"),
            method<&Self::buffer>("buffer"),
            getter<&Self::shard_begin>("shardBegin"),
            getter<&Self::shard_size>("shardSize"),
            method<&Self::view>("view"),
            method<&Self::write>("write"),
            method<&Self::commit>("commit"),
            method<&Self::begin_gradients>("beginGradients"),
            method<&Self::begin_sketch>("beginSketch"),
            method<&Self::sketch_gram>("sketchGram"),
            method<&Self::end_gradients>("endGradients"),
            method<&Self::gradient>("gradient"),
            method<&Self::gradient_view>("gradientView"),
            method<&Self::accumulators>("accumulators"),
            method<&Self::gradient_shard>("gradientShard"),
            method<&Self::sketch_sums>("sketchSums"),
            method<&Self::total_gradient>("totalGradient"),
            method<&Self::gram>("gram"),
            method<&Self::add_gradients>("addGradients")};
  }

  Napi::Value parameters(const Napi::CallbackInfo& info) {
    const Napi::Array result = Napi::Array::New(info.Env());
    for (const ParameterSpec& spec : set().layout().parameters) {
      const Napi::Object object = Napi::Object::New(info.Env());
      object.Set("name", spec.name);
      object.Set("shape", from_int64s(info.Env(), spec.shape));
      object.Set("offset", static_cast<double>(spec.offset));
      object.Set("size", static_cast<double>(spec.size));
      object.Set("kind", module_kind_name(spec.kind));
      object.Set("layer", static_cast<double>(spec.layer));
      object.Set("decay", spec.decay);
      result.Set(result.Length(), object);
    }
    return result;
  }
  Napi::Value size(const Napi::CallbackInfo& info) { return number(info, set().layout().size); }
  Napi::Value decay_size(const Napi::CallbackInfo& info) { return number(info, set().layout().decay_size); }
  Napi::Value version(const Napi::CallbackInfo& info) { return number(info, set().version()); }
  Napi::Value trainable(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), set().trainable());
  }
  Napi::Value master(const Napi::CallbackInfo& info) {
    TORCH_CHECK(set().trainable(), "a frozen parameter set has no master weights");
    return wrap_tensor(info.Env(), set().master());
  }
  Napi::Value compute(const Napi::CallbackInfo& info) { return wrap_tensor(info.Env(), set().compute()); }
  Napi::Value buffer(const Napi::CallbackInfo& info) { return wrap_tensor(info.Env(), set().buffer()); }
  Napi::Value shard_begin(const Napi::CallbackInfo& info) { return number(info, set().shard_begin()); }
  Napi::Value shard_size(const Napi::CallbackInfo& info) { return number(info, set().shard_size()); }
  Napi::Value view(const Napi::CallbackInfo& info) {
    check_arguments(info, "view", 1, 1);
    return wrap_tensor(info.Env(), set().exact_view(find(info[0])));
  }
  Napi::Value write(const Napi::CallbackInfo& info) {
    check_arguments(info, "write", 2, 2);
    set().write(find(info[0]), unwrap_tensor(info[1], "values"));
    return info.Env().Undefined();
  }
  Napi::Value commit(const Napi::CallbackInfo& info) {
    set().commit();
    return info.Env().Undefined();
  }
  Napi::Value begin_gradients(const Napi::CallbackInfo& info) {
    check_arguments(info, "beginGradients", 1, 1);
    set().begin_gradients(to_int64(info[0], "groups"));
    return info.Env().Undefined();
  }
  Napi::Value begin_sketch(const Napi::CallbackInfo& info) {
    check_arguments(info, "beginSketch", 2, 2);
    const Fields fields(info[1], "options");
    set().begin_sketch(to_int64(info[0], "groups"), {.replicates = fields.integer("replicates"),
                                                     .size = fields.integer("size"),
                                                     .seed = static_cast<uint64_t>(fields.integer("seed"))});
    return info.Env().Undefined();
  }
  Napi::Value sketch_gram(const Napi::CallbackInfo& info) {
    TORCH_CHECK(set().sketch(), "no sketches were begun");
    return from_doubles(info.Env(), set().sketch()->gram());
  }
  Napi::Value end_gradients(const Napi::CallbackInfo& info) {
    set().end_gradients();
    return info.Env().Undefined();
  }
  Napi::Value gradient(const Napi::CallbackInfo& info) {
    check_arguments(info, "gradient", 1, 1);
    return wrap_tensor(info.Env(), set().gradient(group(info[0])));
  }
  Napi::Value gradient_view(const Napi::CallbackInfo& info) {
    check_arguments(info, "gradientView", 2, 2);
    return wrap_tensor(info.Env(), set().gradient_view(group(info[0]), find(info[1])));
  }
  Napi::Value gradient_shard(const Napi::CallbackInfo& info) {
    check_arguments(info, "gradientShard", 1, 1);
    return wrap_tensor(info.Env(), set().gradient_shard(group(info[0])));
  }
  Napi::Value accumulators(const Napi::CallbackInfo& info) {
    std::vector<at::Tensor> all;
    for (int64_t k = 0; k < set().gradient_groups(); ++k) all.push_back(set().gradient(k));
    return wrap_tensors(info.Env(), all);
  }
  Napi::Value sketch_sums(const Napi::CallbackInfo& info) {
    return wrap_tensors(info.Env(), set().sketch() ? set().sketch()->sums() : std::vector<at::Tensor>());
  }
  Napi::Value total_gradient(const Napi::CallbackInfo& info) {
    check_arguments(info, "totalGradient", 0, 2);
    std::span<const double> coefficients;
    if (!info[0].IsUndefined()) coefficients = to_float64_span(info[0], "coefficients");
    return wrap_tensor(info.Env(), training::total_gradient(set(), coefficients, extras(info[1])));
  }
  Napi::Value gram(const Napi::CallbackInfo& info) {
    check_arguments(info, "gram", 0, 1);
    return from_doubles(info.Env(), training::gram(set(), extras(info[0])));
  }
  Napi::Value add_gradients(const Napi::CallbackInfo& info) {
    check_arguments(info, "addGradients", 3, 3);
    training::add_gradients(set(), unwrap_tensor(info[0], "target"), to_double(info[1], "decay"),
                            to_float64_span(info[2], "coefficients"));
    return info.Env().Undefined();
  }

 private:
  ParameterSet& set() { return *value(); }
  static std::vector<at::Tensor> extras(const Napi::Value& value) {
    return value.IsUndefined() ? std::vector<at::Tensor>() : unwrap_tensors(value, "extras");
  }
  static Napi::Value wrap_tensors(Napi::Env env, const std::vector<at::Tensor>& tensors) {
    const Napi::Array result = Napi::Array::New(env);
    for (const at::Tensor& tensor : tensors) result.Set(result.Length(), wrap_tensor(env, tensor));
    return result;
  }
  static Napi::Value number(const Napi::CallbackInfo& info, int64_t value) {
    return Napi::Number::New(info.Env(), static_cast<double>(value));
  }
  int64_t find(const Napi::Value& name) {
    const std::string text = to_string(name, "name");
    const int64_t i = set().layout().find(text);
    TORCH_CHECK_INDEX(i >= 0, "there is no parameter named ", text);
    return i;
  }
  int64_t group(const Napi::Value& value) {
    const int64_t k = to_int64(value, "group");
    TORCH_CHECK_INDEX(k >= 0 && k < set().gradient_groups(), "gradient group ", k, " of ",
                      set().gradient_groups());
    return k;
  }
};

// Left out: the process trains alone.
Shard to_shard(const Napi::Value& value) {
  if (value.IsUndefined()) return {};
  const Fields fields(value, "shard");
  return {.index = fields.integer("index"), .count = fields.integer("count")};
}

struct Storage {
  at::ScalarType compute;
  at::Device device;
  bool trainable;
  Shard shard;
};

Napi::Value wrap_parameters(const Napi::CallbackInfo& info, ParameterLayout layout, const Storage& storage) {
  return ParameterSetHandle::wrap(
      info.Env(), std::make_shared<ParameterSet>(std::move(layout), storage.compute, storage.device,
                                                 storage.trainable, storage.shard));
}

Napi::Value create_base(const Napi::CallbackInfo& info) {
  check_arguments(info, "createBase", 4, 6);
  const int64_t ranks = info.Length() > 5 && !info[5].IsUndefined() ? to_int64(info[5], "adapterRanks") : 0;
  return wrap_parameters(info, base_layout(to_model_config(info[0], "config"), ranks),
                         {to_dtype(info[1], "compute"), to_device(info[2], "device"),
                          to_bool(info[3], "trainable"), to_shard(info[4])});
}

Napi::Value create_adapter(const Napi::CallbackInfo& info) {
  check_arguments(info, "createAdapter", 4, 5);
  return wrap_parameters(
      info, adapter_layout(to_model_config(info[0], "config"), to_adapter_options(info[1], "adapter")),
      {to_dtype(info[2], "compute"), to_device(info[3], "device"), /*trainable=*/true, to_shard(info[4])});
}

Napi::Value initialize_parameters(const Napi::CallbackInfo& info) {
  check_arguments(info, "initialize", 3, 3);
  const int64_t seed = to_int64(info[1], "seed");
  const double std = to_double(info[2], "std");
  TORCH_CHECK_VALUE(std::isfinite(std) && std >= 0, "std must be finite and not negative, got ", std);
  initialize(*unwrap_parameters(info[0], "parameters"), static_cast<uint64_t>(seed), std);
  return info.Env().Undefined();
}

}  // namespace

std::shared_ptr<ParameterSet> unwrap_parameters(const Napi::Value& value, const char* what) {
  return ParameterSetHandle::unwrap(value, what).value();
}

void init_parameters(Napi::Env env, Napi::Object exports) {
  ParameterSetHandle::define(env);
  define(exports, "createBase", entry<create_base>);
  define(exports, "createAdapter", entry<create_adapter>);
  define(exports, "initialize", entry<initialize_parameters>);
}

}  // namespace troupe::binding
