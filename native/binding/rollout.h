// The rollout engine as JavaScript sees it.
#pragma once

#include <napi.h>

namespace troupe::binding {

void init_rollout(Napi::Env env, Napi::Object exports);

}  // namespace troupe::binding
