// Attention over the pages of the KV cache, see table.h.
#pragma once

#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

void store_keys_values(const Pages& pages, const PagedRows& rows, View k, View v);
void paged_attention(const Pages& pages, const PagedRows& rows, int64_t query_heads, double scale, View q,
                     void* out);

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
