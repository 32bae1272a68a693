// Arguments of the fused operations from JavaScript (kernels.cc): what no tensor shows is checked here.
#pragma once

#include "binding/convert.h"
#include "binding/tensor.h"
#include "kernels/kernels.h"

namespace troupe::binding {

// Undefined where the value is undefined or null.
at::Tensor optional_tensor(const Napi::Value& value, const char* what);
at::Tensor optional_tensor(const Fields& fields, const char* name);
std::vector<at::Tensor> optional_tensors(const Fields& fields, const char* name);
std::vector<double> to_doubles(const Napi::Value& value, const char* what);

// Token ids [T] on the host, within a vocabulary of the weight's rows.
at::Tensor to_tokens(const Napi::Value& value, int64_t vocabulary);

// Nodes as flat triples: start, length, parent, of `rows` rows in all. Positions are given, or 0.
kernels::TreePlan to_plan(const Napi::Value& value, const Napi::Value& positions, int64_t rows,
                          const at::Device& device);
kernels::LossEntries to_entries(const Napi::Value& value, const at::Tensor& hidden, const at::Tensor& weight);
kernels::HeadLayout to_layout(const Napi::Value& value);
kernels::HeadNorm to_norm(const Fields& fields);
kernels::LoraLinear to_lora(const Napi::Value& value);
// Adapters, packed for the backend, and the begin and end of each one's rows.
class AdapterParts {
 public:
  AdapterParts(const kernels::Kernels& backend, const Napi::Value& adapters, std::span<const int64_t> rows);
  AdapterParts(const kernels::Kernels& backend, const Napi::Value& adapters, const Napi::Value& rows)
      : AdapterParts(backend, adapters, to_int64s(rows, "rows")) {}
  AdapterParts(const AdapterParts&) = delete;
  std::span<const kernels::LoraRows> all() const { return parts_; }
  // They, for y and x. Where the backend wants x Aᵀ of one product with y, y becomes a view of such a product's result.
  kernels::Adapters of(const kernels::Kernels& backend, at::Tensor& y, const at::Tensor& x);

 private:
  std::vector<kernels::LoraLinear> adapters_;
  std::vector<kernels::LoraRows> parts_;  // of these
};
// Flat triples: begin, size, whether they decay.
std::vector<kernels::FlatRange> to_ranges(const Napi::Value& value);
// A step of the rollout engine, for paged attention and the sampler, on the device.
kernels::RowPlan to_row_plan(const kernels::Kernels& backend, const Napi::Value& value,
                             const at::Device& device);
// The `copies` of such a step, which it may lack: numbers of pages, from and to in turn.
std::vector<kernels::PageCopy> to_copies(const Napi::Value& plan);

}  // namespace troupe::binding
