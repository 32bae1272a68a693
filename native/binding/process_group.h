// createProcessGroup and its handle, ProcessGroup.
#pragma once

#include <napi.h>

namespace troupe::binding {

void init_process_group(Napi::Env env, Napi::Object exports);

}  // namespace troupe::binding
