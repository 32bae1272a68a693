#include "binding/kernel_arguments.h"

#include "kernels/waits.h"

namespace troupe::binding {

using kernels::Kernels;

namespace {

void check_triples(const std::vector<int64_t>& flat, const char* what) {
  TORCH_CHECK_VALUE(flat.size() % 3 == 0, what, " must be triples, not ", flat.size(), " numbers");
}

}  // namespace

at::Tensor optional_tensor(const Napi::Value& value, const char* what) {
  return value.IsUndefined() || value.IsNull() ? at::Tensor() : unwrap_tensor(value, what);
}

std::vector<double> to_doubles(const Napi::Value& value, const char* what) {
  const std::span<const double> span = to_float64_span(value, what);
  return {span.begin(), span.end()};
}

at::Tensor optional_tensor(const Fields& fields, const char* name) {
  return fields.has(name) ? unwrap_tensor(fields.get(name), name) : at::Tensor();
}

std::vector<at::Tensor> optional_tensors(const Fields& fields, const char* name) {
  return fields.has(name) ? unwrap_tensors(fields.get(name), name) : std::vector<at::Tensor>();
}

kernels::TreePlan to_plan(const Napi::Value& value, const Napi::Value& positions, int64_t rows,
                          const at::Device& device) {
  const std::vector<int64_t> flat = to_int64s(value, "nodes");
  std::vector<kernels::TreeNode> nodes;
  check_triples(flat, "nodes");
  for (size_t i = 0; i < flat.size(); i += 3) nodes.push_back({flat[i], flat[i + 1], flat[i + 2]});
  const std::vector<int64_t> places =
      positions.IsUndefined() ? std::vector<int64_t>(rows, 0) : to_int64s(positions, "positions");
  kernels::TreePlan plan(nodes, std::vector<int64_t>(rows, 0), places);
  kernels::Upload upload;
  plan.add_to(upload);
  upload.send(device);
  return plan;
}

kernels::LossEntries to_entries(const Napi::Value& value, const at::Tensor& hidden,
                                const at::Tensor& weight) {
  TORCH_CHECK_VALUE(hidden.dim() == 2 && weight.dim() == 2,
                    "loss entries need hidden [T, H] and weight [V, H]");
  const Fields fields(value, "entries");
  kernels::LossEntries entries(fields.integers("rows"), fields.integers("targets"),
                               to_doubles(fields.get("temperatures"), "entries.temperatures"), hidden.size(0),
                               weight.size(0));
  kernels::Upload upload;
  entries.add_to(upload);
  upload.send(hidden.device());
  return entries;
}

kernels::HeadLayout to_layout(const Napi::Value& value) {
  const Fields fields(value, "layout");
  return {fields.integer("queryHeads"), fields.integer("keyHeads"), fields.integer("dim")};
}

kernels::HeadNorm to_norm(const Fields& fields) {
  return {optional_tensor(fields, "qNorm"), optional_tensor(fields, "kNorm"), 1e-6};
}

kernels::LoraLinear to_lora(const Napi::Value& value) {
  const Fields fields(value, "adapter");
  kernels::LoraLinear linear;
  linear.scale = fields.number("scale");
  const std::vector<int64_t> begins = fields.integers("begins");
  const std::vector<at::Tensor> a = unwrap_tensors(fields.get("a"), "adapter.a"),
                                b = unwrap_tensors(fields.get("b"), "adapter.b");
  TORCH_CHECK_VALUE(a.size() == begins.size() && b.size() == begins.size(), "an adapter of ", begins.size(),
                    " terms has ", a.size(), " A and ", b.size(), " B");
  for (size_t i = 0; i < begins.size(); ++i) linear.terms.push_back({begins[i], a[i], b[i]});
  return linear;
}

AdapterParts::AdapterParts(const Kernels& backend, const Napi::Value& adapters,
                           std::span<const int64_t> rows) {
  const Napi::Array array = to_array(adapters, "adapters");
  for (uint32_t i = 0; i < array.Length(); ++i) {
    adapters_.push_back(to_lora(array.Get(i)));
    backend.pack_lora(adapters_.back());
  }
  TORCH_CHECK_VALUE(rows.size() == 2 * adapters_.size(), adapters_.size(), " adapters have ", rows.size(),
                    " ends of their rows; two each");
  for (size_t i = 0; i < adapters_.size(); ++i)
    parts_.push_back({&adapters_[i], rows[2 * i], rows[2 * i + 1]});
}

kernels::Adapters AdapterParts::of(const Kernels& backend, at::Tensor& y, const at::Tensor& x) {
  if (!backend.stacks_adapters()) return {x, all(), {}};
  std::vector<at::Tensor> columns{y};
  int64_t column = 0;
  for (kernels::LoraLinear& adapter : adapters_) {
    for (kernels::LoraTerm& term : adapter.terms) {
      term.projected = column;
      const int64_t padding = (8 - term.a.size(0) % 8) % 8;
      columns.push_back(at::constant_pad_nd(at::mm(x, term.a.t()), {0, padding}));
      column += columns.back().size(1);
    }
  }
  const at::Tensor together = at::cat(columns, 1);
  const int64_t out = y.size(1);
  y = together.narrow(1, 0, out);
  return {x, all(), together.narrow(1, out, column)};
}

std::vector<kernels::FlatRange> to_ranges(const Napi::Value& value) {
  const std::vector<int64_t> flat = to_int64s(value, "ranges");
  check_triples(flat, "ranges");
  std::vector<kernels::FlatRange> ranges;
  for (size_t i = 0; i < flat.size(); i += 3) ranges.push_back({flat[i], flat[i + 1], flat[i + 2] != 0});
  return ranges;
}

kernels::RowPlan to_row_plan(const Kernels& backend, const Napi::Value& value, const at::Device& device) {
  const Fields fields(value, "plan");
  const auto numbers = [&](const char* name) {
    const std::span<const int32_t> values = fields.int32s(name);
    return std::vector<int32_t>(values.begin(), values.end());
  };
  kernels::RowPlan plan;
  plan.positions = numbers("positions");
  plan.tokens.assign(plan.positions.size(), 0);
  plan.slots = numbers("slots");
  plan.tables = numbers("tables");
  plan.pages = numbers("pages");
  plan.table_width = fields.integer("tableWidth");
  if (fields.has("queryGroup")) plan.query_group = fields.integer("queryGroup");
  plan.repeatable = fields.has("repeatable") && fields.boolean("repeatable");
  plan.outputs = numbers("outputs");
  plan.draws = numbers("draws");
  plan.uniforms = to_doubles(fields.get("uniforms"), "plan.uniforms");
  const std::vector<double> sampling = to_doubles(fields.get("sampling"), "plan.sampling");
  TORCH_CHECK_VALUE(sampling.size() == 4 * plan.draws.size(), plan.draws.size(), " draws have ",
                    sampling.size(), " numbers of sampling; four each");
  for (size_t i = 0; i < sampling.size(); i += 4) {
    TORCH_CHECK_VALUE(sampling[i + 1] >= 0 && sampling[i + 1] <= INT32_MAX, "topK is ", sampling[i + 1]);
    plan.sampling.push_back(
        {sampling[i], static_cast<int64_t>(sampling[i + 1]), sampling[i + 2], sampling[i + 3]});
  }
  backend.plan_work(plan);
  plan.send(device);
  return plan;
}

at::Tensor to_tokens(const Napi::Value& value, int64_t vocabulary) {
  const at::Tensor tokens = unwrap_tensor(value, "tokens");
  TORCH_CHECK_VALUE(tokens.scalar_type() == at::kLong || tokens.scalar_type() == at::kInt,
                    "token ids must be int64 or int32, not ", tokens.scalar_type());
  if (tokens.numel() == 0) return tokens;
  const at::Tensor ends = kernels::to_host(at::stack({tokens.min(), tokens.max()}).to(at::kLong));
  const int64_t lowest = ends.const_data_ptr<int64_t>()[0], highest = ends.const_data_ptr<int64_t>()[1];
  TORCH_CHECK_VALUE(lowest >= 0 && highest < vocabulary, "token id ", lowest < 0 ? lowest : highest,
                    " lies outside the vocabulary of ", vocabulary, " tokens");
  return tokens;
}

std::vector<kernels::PageCopy> to_copies(const Napi::Value& plan) {
  const Fields fields(plan, "plan");
  std::vector<kernels::PageCopy> copies;
  if (!fields.has("copies")) return copies;
  const std::span<const int32_t> pages = fields.int32s("copies");
  TORCH_CHECK_VALUE(pages.size() % 2 == 0, "plan.copies takes pairs of pages, not ", pages.size(), " pages");
  for (size_t i = 0; i < pages.size(); i += 2) copies.push_back({pages[i], pages[i + 1]});
  return copies;
}

}  // namespace troupe::binding
