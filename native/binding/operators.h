// call(operator, overload, args): any ATen operator through one boxed dispatcher call.
#pragma once

#include <napi.h>

namespace troupe::binding {

void init_operators(Napi::Env env, Napi::Object exports);

}  // namespace troupe::binding
