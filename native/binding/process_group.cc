#include "binding/process_group.h"

#include "binding/handle.h"
#include "binding/tensor.h"
#include "distributed/nccl.h"
#include "distributed/process_group.h"

namespace troupe::binding {
namespace {

using distributed::GroupOptions;
using distributed::ProcessGroup;

// The group, and what keeps the memory alive that it shares with JavaScript.
struct Joined {
  std::unique_ptr<ProcessGroup> group;
  Napi::Reference<Napi::Int32Array> shared;
};

class ProcessGroupHandle : public Handle<ProcessGroupHandle, std::shared_ptr<Joined>> {
 public:
  using Handle::Handle;
  static constexpr const char* kName = "ProcessGroup";
  static std::vector<Property> properties() {
    using Self = ProcessGroupHandle;
    return {getter<&Self::rank>("rank"),
            getter<&Self::size>("size"),
            getter<&Self::traffic>("traffic"),
            method<&Self::all_reduce>("allReduce"),
            method<&Self::reduce_scatter>("reduceScatter"),
            method<&Self::all_gather>("allGather"),
            method<&Self::broadcast>("broadcast"),
            method<&Self::barrier>("barrier"),
            method<&Self::take_nccl>("takeNccl"),
            method<&Self::drop_nccl>("dropNccl"),
            method<&Self::count>("count"),
            method<&Self::gather>("gather")};
  }

  Napi::Value rank(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), group().rank()); }
  Napi::Value size(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), group().size()); }
  Napi::Value traffic(const Napi::CallbackInfo& info) {
    const distributed::Traffic& traffic = group().traffic();
    const Napi::Object object = Napi::Object::New(info.Env());
    object.Set("seconds", traffic.seconds);
    object.Set("waitingSeconds", traffic.waiting_seconds);
    object.Set("bytes", static_cast<double>(traffic.bytes));
    object.Set("ncclBytes", static_cast<double>(traffic.nccl_bytes));
    return object;
  }
  Napi::Value all_reduce(const Napi::CallbackInfo& info) {
    check_arguments(info, "allReduce", 3, 3);
    const std::string reduction = to_string(info[2], "reduction");
    if (reduction != "sum" && reduction != "max") {
      throw std::invalid_argument("expected \"sum\" or \"max\" for reduction but received " +
                                  describe(info[2]));
    }
    group().all_reduce(to_string(info[0], "name"), unwrap_tensors(info[1], "tensors"),
                       reduction == "sum" ? ProcessGroup::Reduction::kSum : ProcessGroup::Reduction::kMax);
    return info.Env().Undefined();
  }
  Napi::Value reduce_scatter(const Napi::CallbackInfo& info) {
    check_arguments(info, "reduceScatter", 2, 2);
    group().reduce_scatter(to_string(info[0], "name"), unwrap_tensors(info[1], "tensors"));
    return info.Env().Undefined();
  }
  Napi::Value all_gather(const Napi::CallbackInfo& info) {
    check_arguments(info, "allGather", 2, 2);
    group().all_gather(to_string(info[0], "name"), unwrap_tensors(info[1], "tensors"));
    return info.Env().Undefined();
  }
  Napi::Value broadcast(const Napi::CallbackInfo& info) {
    check_arguments(info, "broadcast", 3, 3);
    group().broadcast(to_string(info[0], "name"), unwrap_tensors(info[1], "tensors"),
                      to_int32(info[2], "root"));
    return info.Env().Undefined();
  }
  Napi::Value barrier(const Napi::CallbackInfo& info) {
    check_arguments(info, "barrier", 1, 1);
    group().barrier(to_string(info[0], "name"));
    return info.Env().Undefined();
  }
  Napi::Value take_nccl(const Napi::CallbackInfo& info) {
    check_arguments(info, "takeNccl", 1, 1);
    return Napi::String::New(info.Env(), group().take_nccl(to_device(info[0], "device")));
  }
  Napi::Value drop_nccl(const Napi::CallbackInfo& info) {
    check_arguments(info, "dropNccl", 0, 0);
    group().drop_nccl();
    return info.Env().Undefined();
  }
  Napi::Value count(const Napi::CallbackInfo& info) {
    check_arguments(info, "count", 2, 2);
    const int64_t sum = group().count(to_string(info[0], "name"), to_int64(info[1], "amount"));
    return Napi::Number::New(info.Env(), static_cast<double>(sum));
  }
  Napi::Value gather(const Napi::CallbackInfo& info) {
    check_arguments(info, "gather", 2, 2);
    const auto all = group().gather(to_string(info[0], "name"), to_uint8_span(info[1], "bytes"));
    const Napi::Array result = Napi::Array::New(info.Env(), all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      Napi::Uint8Array bytes = Napi::Uint8Array::New(info.Env(), all[i].size());
      std::copy(all[i].begin(), all[i].end(), bytes.Data());
      result.Set(static_cast<uint32_t>(i), bytes);
    }
    return result;
  }

 private:
  ProcessGroup& group() { return *value()->group; }
};

distributed::Shared* shared_memory(Napi::Int32Array array) {
  if (array.ByteLength() != sizeof(distributed::Shared)) {
    throw std::invalid_argument("expected 128 numbers for options.shared");
  }
  return reinterpret_cast<distributed::Shared*>(array.Data());
}

Napi::Value create_process_group(const Napi::CallbackInfo& info) {
  check_arguments(info, "createProcessGroup", 1, 1);
  const Fields fields(info[0], "options");
  const auto joined = std::make_shared<Joined>();
  GroupOptions options;
  options.rank = to_int32(fields.get("rank"), "options.rank");
  options.size = to_int32(fields.get("size"), "options.size");
  options.host = fields.string("host");
  const int64_t port = fields.integer("port");
  TORCH_CHECK_VALUE(port > 0 && port < 65536, "a port is a number from 1 to 65535, not ", port);
  options.port = static_cast<uint16_t>(port);
  options.serve = fields.boolean("serve");
  options.prefix = fields.string("prefix");
  options.address = fields.string("address");
  options.interface = fields.string("interface");
  options.timeout_seconds = fields.number("timeoutSeconds");
  options.nccl = fields.boolean("nccl");
  if (fields.has("shared")) {
    fields.int32s("shared");  // checks the type
    const Napi::Int32Array array = fields.get("shared").As<Napi::Int32Array>();
    options.shared = shared_memory(array);
    joined->shared = Napi::Reference<Napi::Int32Array>::New(array, 1);
  }
  joined->group = std::make_unique<ProcessGroup>(std::move(options));
  return ProcessGroupHandle::wrap(info.Env(), joined);
}

Napi::Value nccl_problem(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), distributed::nccl_problem());
}

}  // namespace

void init_process_group(Napi::Env env, Napi::Object exports) {
  ProcessGroupHandle::define(env);
  define(exports, "ncclProblem", entry<nccl_problem>);
  define(exports, "createProcessGroup", entry<create_process_group>);
}

}  // namespace troupe::binding
