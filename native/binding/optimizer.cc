#include "binding/optimizer.h"

#include "binding/convert.h"
#include "binding/handle.h"
#include "binding/model.h"
#include "binding/tensor.h"
#include "training/observer.h"
#include "training/optimizer.h"

namespace troupe::binding {
namespace {

class OptimizerHandle : public Handle<OptimizerHandle, std::shared_ptr<Optimizer>> {
 public:
  using Handle::Handle;
  static constexpr const char* kName = "Optimizer";

  static std::vector<Property> properties() {
    return {method<&OptimizerHandle::step>("step"),
            method<&OptimizerHandle::step_parameters>("stepParameters"),
            method<&OptimizerHandle::zero_grad>("zeroGrad"),
            method<&OptimizerHandle::set_learning_rate>("setLearningRate"),
            method<&OptimizerHandle::prepare>("prepare"),
            method<&OptimizerHandle::state>("state"),
            method<&OptimizerHandle::load_state>("loadState"),
            getter<&OptimizerHandle::step_count>("stepCount")};
  }

 private:
  Napi::Value step(const Napi::CallbackInfo& info) {
    std::vector<at::Tensor> gradients;
    if (!info[0].IsUndefined()) gradients = unwrap_tensors(info[0], "gradients");
    value()->step(gradients);
    return info.Env().Undefined();
  }

  Napi::Value prepare(const Napi::CallbackInfo& info) {
    value()->prepare();
    return info.Env().Undefined();
  }

  // (parameters, coefficients, extras, {clip, measure, keepTotal}) → {products, squaredNorm}
  Napi::Value step_parameters(const Napi::CallbackInfo& info) {
    check_arguments(info, "stepParameters", 4, 4);
    const auto optimizer = std::dynamic_pointer_cast<AdamW>(value());
    if (!optimizer) throw std::invalid_argument("stepParameters is AdamW's");
    const Fields fields(info[3], "options");
    const kernels::AdamWChange change =
        training::adamw_step(*unwrap_parameters(info[0], "parameters"), *optimizer,
                             to_float64_span(info[1], "coefficients"), unwrap_tensors(info[2], "extras"),
                             {.clip = fields.number("clip"),
                              .measure = fields.boolean("measure"),
                              .keep_total = fields.boolean("keepTotal")});
    const Napi::Object result = Napi::Object::New(info.Env());
    result.Set("products", from_doubles(info.Env(), change.products));
    result.Set("squaredNorm", change.squared_norm);
    return result;
  }

  Napi::Value zero_grad(const Napi::CallbackInfo& info) {
    value()->zero_grad();
    return info.Env().Undefined();
  }

  Napi::Value set_learning_rate(const Napi::CallbackInfo& info) {
    value()->set_learning_rate(to_int64(info[0], "group"), to_double(info[1], "rate"));
    return info.Env().Undefined();
  }

  Napi::Value state(const Napi::CallbackInfo& info) {
    const Napi::Object result = Napi::Object::New(info.Env());
    for (const auto& [name, tensor] : value()->state()) result.Set(name, wrap_tensor(info.Env(), tensor));
    return result;
  }

  Napi::Value load_state(const Napi::CallbackInfo& info) {
    value()->load_state(unwrap_tensor_map(info[0], "state"), to_int64(info[1], "stepCount"));
    return info.Env().Undefined();
  }

  Napi::Value step_count(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(value()->step_count()));
  }
};

std::vector<OptimizerGroup> to_groups(const Napi::Value& value) {
  const Napi::Array array = to_array(value, "groups");
  std::vector<OptimizerGroup> groups;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Fields fields(array[i], "groups[" + std::to_string(i) + "]");
    OptimizerGroup group;
    group.parameters = unwrap_tensors(fields.get("parameters"), fields.path("parameters").c_str());
    group.learning_rate = fields.number("learningRate");
    group.weight_decay = fields.number("weightDecay");
    groups.push_back(std::move(group));
  }
  return groups;
}

Napi::Value create_adamw(const Napi::CallbackInfo& info) {
  check_arguments(info, "createAdamW", 3, 3);
  const Napi::Array betas = to_array(info[1], "betas");
  if (betas.Length() != 2) throw std::invalid_argument("betas takes two numbers");
  return OptimizerHandle::wrap(
      info.Env(), std::make_shared<AdamW>(to_groups(info[0]), to_double(betas[0u], "betas[0]"),
                                          to_double(betas[1u], "betas[1]"), to_double(info[2], "eps")));
}

Napi::Value create_sgd(const Napi::CallbackInfo& info) {
  check_arguments(info, "createSgd", 2, 2);
  return OptimizerHandle::wrap(info.Env(),
                               std::make_shared<Sgd>(to_groups(info[0]), to_double(info[1], "momentum")));
}

Napi::Value clip(const Napi::CallbackInfo& info) {
  check_arguments(info, "clipGradNorm", 2, 2);
  return Napi::Number::New(
      info.Env(), clip_grad_norm(unwrap_tensors(info[0], "gradients"), to_double(info[1], "maxNorm")));
}

}  // namespace

void init_optimizer(Napi::Env env, Napi::Object exports) {
  OptimizerHandle::define(env);
  define(exports, "createAdamW", entry<create_adamw>);
  define(exports, "createSgd", entry<create_sgd>);
  define(exports, "clipGradNorm", entry<clip>);
}

}  // namespace troupe::binding
