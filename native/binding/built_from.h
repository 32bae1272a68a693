// What the addon was built from.
#pragma once

#include <napi.h>

namespace troupe::binding {

void init_built_from(Napi::Object exports);

}  // namespace troupe::binding
