// openSafetensors, createSafetensors and saveSafetensors.
#pragma once

#include <napi.h>

namespace troupe::binding {

void init_safetensors(Napi::Env env, Napi::Object exports);

}  // namespace troupe::binding
