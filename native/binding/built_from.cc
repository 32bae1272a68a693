// What the addon was built from: `builtFrom`, the hash that scripts/sources.cjs takes of the sources. A file of its own,
// because it alone is compiled again with every change.
#include "binding/built_from.h"

namespace troupe::binding {

void init_built_from(Napi::Object exports) { exports.Set("builtFrom", TROUPE_BUILT_FROM); }

}  // namespace troupe::binding
