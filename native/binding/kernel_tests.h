// What tests set of all kernels, and see of their plans.
#pragma once

#include <napi.h>

namespace troupe::binding {

void init_kernel_tests(Napi::Object exports);

}  // namespace troupe::binding
