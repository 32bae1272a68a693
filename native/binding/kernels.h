// `kernels` on the addon, for tests and benchmarks only.
#pragma once

#include <napi.h>

namespace troupe::binding {

void init_kernels(Napi::Env env, Napi::Object exports);

}  // namespace troupe::binding
