// countOperators, and takeAccesses where kernels are counted, for tests and benchmarks only.
#pragma once

#include <napi.h>

namespace troupe::binding {

void init_operator_count(Napi::Env env, Napi::Object exports);

}  // namespace troupe::binding
