// createAdamW, createSgd, clipGradNorm.
#pragma once

#include <napi.h>

namespace troupe::binding {

void init_optimizer(Napi::Env env, Napi::Object exports);

}  // namespace troupe::binding
