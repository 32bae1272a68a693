// Memory of the KV cache: one slab per device, in pages of 16 tokens that are known by number.
//
// A page covers 16 absolute positions, [16 i, 16 i + 16), whatever node of the tree holds it. So the order in
// which a query meets its keys depends on their positions only, never on how the tree happened to be cut, and
// a result does not depend on what else is in the cache.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace troupe::kernels {

constexpr int64_t kPageTokens = 16;

struct KvShape {
  int64_t layers = 0, kv_heads = 0, head_dim = 0;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  bool operator==(const KvShape&) const = default;
};

// How the slab is laid out is for the backend that made it (Kernels::make_kv_store):
//   reference, cuda: data [layers, 2, pages, kv_heads, 16, D], keys then values;
//   cpu: [pages, layers, kv_heads, block], keys transposed [D, 16], then values [16, D padded to 16].
struct KvStore {
  KvShape shape;
  int64_t pages = 0;
  at::Tensor data;
};

// Of a whole page of all layers, by number.
struct PageCopy {
  int32_t from = 0, to = 0;
};

}  // namespace troupe::kernels
