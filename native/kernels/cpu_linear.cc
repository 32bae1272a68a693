// Linear layers on the CPU: weight gradients, weights packed for few rows, the output projection, adapters.
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <optional>

#include "kernels/cpu_kernels.h"
#include "kernels/scratch.h"
#include "kernels/tile_gemm.h"

namespace troupe::kernels {
namespace {

// oneDNN's operators are called through the dispatcher: their C++ declarations are not among libtorch's headers.
const std::optional<c10::OperatorHandle>& one_dnn_reorder() {
  static const auto reorder =
      at::globalContext().hasMKLDNN()
          ? c10::Dispatcher::singleton().findSchema({"mkldnn::_reorder_linear_weight", ""})
          : std::nullopt;
  return reorder;
}

constexpr int64_t kColumns = 64;     // outputs of one packed block of bf16
constexpr int64_t kTileRows = 16;    // of a matrix register: 43 rows take longer than 48
constexpr int64_t kChunkRows = 256;  // that meet a block at a time: both stay in the cache

// Bytes of a float32 weight that stays in a core's second cache, beside the rows that it meets.
constexpr int64_t kSmallWeight = int64_t{1} << 20;

// [N, words] → [N / columns, words, columns]: words of 4 bytes, a column's with zeros where it is none of the weight's.
at::Tensor pack_words(const at::Tensor& weight, int64_t columns) {
  const int64_t outputs = weight.size(0);
  const int64_t words = weight.size(1) * static_cast<int64_t>(weight.element_size()) / 4;
  const int64_t blocks = (outputs + columns - 1) / columns;
  auto packed = at::zeros({blocks, words, columns * weight.size(1) / words}, weight.options());
  const auto source = weight.contiguous();
  const auto* from = static_cast<const uint32_t*>(source.const_data_ptr());
  auto* to = static_cast<uint32_t*>(packed.mutable_data_ptr());
  at::parallel_for(0, blocks, 8, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t count = std::min(columns, outputs - block * columns);
      for (int64_t column = 0; column < count; ++column) {
        const uint32_t* row = from + (block * columns + column) * words;
        uint32_t* out = to + block * words * columns + column;
        for (int64_t word = 0; word < words; ++word) out[word * columns] = row[word];
      }
    }
  });
  return packed;
}

// x with rows of zeros behind it, up to whole tiles.
at::Tensor in_whole_tiles(const at::Tensor& x) {
  const int64_t rows = x.size(0), padded = (rows + kTileRows - 1) / kTileRows * kTileRows;
  if (rows == 1 || rows == padded) return x.contiguous();
  at::Tensor whole = at::empty({padded, x.size(1)}, x.options());
  whole.narrow(0, 0, rows).copy_(x);
  whole.narrow(0, rows, padded - rows).zero_();
  return whole;
}

// From here on ATen's products are faster than the fused ones for an adapter's rows.
constexpr int64_t kFewRows = 64;

}  // namespace

void CpuKernels::do_accumulate_weight_gradient(Tensors accumulators, const at::Tensor& delta,
                                               const at::Tensor& x, Offsets groups,
                                               const std::vector<bool>& fresh, at::Tensor& counters) const {
  const bool tiles = delta.scalar_type() == at::kBFloat16 && has_tile_gemm();
  if (!tiles)
    return ReferenceKernels::do_accumulate_weight_gradient(accumulators, delta, x, groups, fresh, counters);
  const at::Tensor plain_delta = rows_contiguous(delta), plain_x = rows_contiguous(x);
  std::vector<cpu::WeightGradientGroup> parts;
  for (size_t k = 0; k < accumulators.size(); ++k) {
    if (groups[k] < groups[k + 1])
      parts.push_back({groups[k], groups[k + 1], accumulators[k].data_ptr<float>()});
  }
  table_.weight_gradient(delta.size(1), x.size(1), view_of(plain_delta), view_of(plain_x), parts);
}

CpuKernels::Layout CpuKernels::layout_of(at::ScalarType dtype, int64_t outputs, int64_t inputs,
                                         bool head) const {
  if (outputs == 0 || inputs == 0) return Layout::kPlain;
  // As dot products of bf16 read them (VNNI).
  if (dtype == at::kBFloat16 && inputs % 32 == 0 && has_bf16_products()) return Layout::kPairs;
  const cpu::FloatPanels& panels = table_.float_panels;
  const bool small = outputs * inputs * 4 <= kSmallWeight;
  if (dtype == at::kFloat && panels.linear && (panels.large_weights || small)) return Layout::kPanels;
  const bool one_dnn = dtype == at::kFloat || (dtype == at::kBFloat16 && has_tile_gemm());
  return one_dnn && !head && one_dnn_reorder() ? Layout::kOneDnn : Layout::kPlain;
}

int64_t CpuKernels::packed_bytes(at::ScalarType dtype, int64_t outputs, int64_t inputs, bool head) const {
  const auto whole = [&](int64_t columns) { return (outputs + columns - 1) / columns * columns; };
  const int64_t row = inputs * static_cast<int64_t>(c10::elementSize(dtype));
  switch (layout_of(dtype, outputs, inputs, head)) {
    case Layout::kPairs:
      return whole(kColumns) * row;
    case Layout::kPanels:
      return whole(table_.float_panels.columns) * row;
    case Layout::kOneDnn:
      return outputs * row;
    case Layout::kPlain:
      break;
  }
  return 0;
}

at::Tensor CpuKernels::pack(const at::Tensor& weight, bool head) const {
  switch (layout_of(weight.scalar_type(), weight.size(0), weight.size(1), head)) {
    case Layout::kPairs:
      return pack_words(weight, kColumns);
    case Layout::kPanels:
      return pack_words(weight, table_.float_panels.columns);
    case Layout::kOneDnn: {
      c10::Stack stack{weight.contiguous(), c10::IValue()};
      one_dnn_reorder()->callBoxed(stack);
      return stack.front().toTensor();
    }
    case Layout::kPlain:
      break;
  }
  return {};
}

at::Tensor CpuKernels::do_pack_linear(const at::Tensor& weight) const { return pack(weight, false); }

// Few rows read the weights at the speed of the memory. oneDNN's own layout was slower for few rows, and has programs
// to make for each number of rows (docs/rollout.md).
at::Tensor CpuKernels::pair_linear(const at::Tensor& x, const PackedLinear& weight) const {
  const int64_t rows = x.size(0), inputs = x.size(1), outputs = weight.weight.size(0);
  const int64_t blocks = weight.packed.size(0), chunks = (rows + kChunkRows - 1) / kChunkRows;
  const at::Tensor whole = in_whole_tiles(x);
  at::Tensor y = at::empty({rows, outputs}, x.options());
  const auto* from = whole.const_data_ptr<at::BFloat16>();
  const auto* weights = weight.packed.const_data_ptr<at::BFloat16>();
  const auto* bias = weight.bias.defined() ? weight.bias.const_data_ptr<at::BFloat16>() : nullptr;
  auto* to = y.mutable_data_ptr<at::BFloat16>();
  const int64_t grain = 1 + 200'000 / (std::min(whole.size(0), kChunkRows) * inputs * kColumns);
  at::parallel_for(0, blocks * chunks, grain, [&](int64_t begin, int64_t end) {
    static thread_local Scratch<float> sums;
    sums.resize(kChunkRows * kColumns);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i / chunks, row = i % chunks * kChunkRows, column = block * kColumns;
      tile_gemm(std::min(kChunkRows, whole.size(0) - row), kColumns, inputs, inputs, kColumns, kColumns,
                false, from + row * inputs, weights + column * inputs, sums.data());
      table_.narrow_rows(std::min(kChunkRows, rows - row), std::min(kColumns, outputs - column), sums.data(),
                         kColumns, bias ? bias + column : nullptr, to + row * outputs + column, outputs);
    }
    tile_gemm_release();
  });
  return y;
}

at::Tensor CpuKernels::panel_linear(const at::Tensor& x, const PackedLinear& weight) const {
  const at::Tensor rows = x.contiguous();
  at::Tensor y = at::empty({x.size(0), weight.weight.size(0)}, x.options());
  table_.float_panels.linear(
      x.size(0), x.size(1), y.size(1), rows.const_data_ptr<float>(), weight.packed.const_data_ptr<float>(),
      weight.bias.defined() ? weight.bias.const_data_ptr<float>() : nullptr, y.mutable_data_ptr<float>());
  return y;
}

at::Tensor CpuKernels::do_linear(const at::Tensor& x, const PackedLinear& weight) const {
  const bool is_float = x.scalar_type() == at::kFloat;
  if (!weight.packed.defined() || x.size(0) == 0) return at::linear(x, weight.weight, weight.bias);
  // A single row in float32 is a matrix-vector product, at which the plain layout is the faster one; but of a small
  // weight in panels, whose rows have the same sums one by one and together.
  const bool small =
      !weight.packed.is_mkldnn() && static_cast<int64_t>(weight.weight.nbytes()) <= kSmallWeight;
  if (x.size(0) == 1 && is_float && !small) return at::linear(x, weight.weight, weight.bias);
  if (!weight.packed.is_mkldnn()) return is_float ? panel_linear(x, weight) : pair_linear(x, weight);
  static const auto linear = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "");
  c10::Stack stack{x.contiguous(),
                   weight.packed,
                   weight.bias.defined() ? c10::IValue(weight.bias) : c10::IValue(),
                   std::string("none"),
                   c10::List<std::optional<at::Scalar>>(),
                   c10::IValue()};
  linear.callBoxed(stack);
  return stack.front().toTensor();
}

at::Tensor CpuKernels::do_pack_head(const at::Tensor& weight) const { return pack(weight, true); }

at::Tensor CpuKernels::do_logits(const at::Tensor& hidden, const PackedLinear& head) const {
  if (!head.packed.defined()) return ReferenceKernels::do_logits(hidden, head);
  if (hidden.scalar_type() == at::kFloat) return panel_linear(hidden, head);
  const int64_t rows = hidden.size(0), width = hidden.size(1), blocks = head.packed.size(0);
  const at::Tensor plain = hidden.contiguous();
  auto padded = at::empty({rows, blocks * kColumns}, hidden.options().dtype(at::kFloat));
  const auto* x = plain.const_data_ptr<at::BFloat16>();
  const auto* weights = head.packed.const_data_ptr<at::BFloat16>();
  auto* out = padded.mutable_data_ptr<float>();
  const int64_t grain = 1 + 200'000 / (rows * width * kColumns);
  at::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      tile_gemm(rows, kColumns, width, width, kColumns, blocks * kColumns, false, x,
                weights + i * width * kColumns, out + i * kColumns);
    }
    tile_gemm_release();
  });
  return padded.narrow(1, 0, head.weight.size(0));
}

// B transposed, so that its rows are vectors: the terms' one behind the other.
void CpuKernels::do_pack_lora(LoraLinear& linear) const {
  if (linear.terms.empty()) return;
  std::vector<at::Tensor> parts;
  for (const LoraTerm& term : linear.terms) parts.push_back(term.b.t().flatten());
  linear.packed = at::cat(parts);
}

void CpuKernels::do_add_lora(at::Tensor& y, const Adapters& adapters) const {
  const at::Tensor& x = adapters.x;
  std::vector<std::vector<cpu::AdapterTerm>> terms;
  terms.reserve(adapters.parts.size());
  std::vector<cpu::AdapterRows> few;
  for (const LoraRows& part : adapters.parts) {
    const bool many = !part.always_fused && part.end - part.begin > kFewRows;
    if (!part.linear->packed.defined() || many) {
      ReferenceKernels::do_add_lora(y, {x, {&part, 1}, adapters.projected});
      continue;
    }
    std::vector<cpu::AdapterTerm>& of_part = terms.emplace_back();
    const auto* b = static_cast<const char*>(part.linear->packed.const_data_ptr());
    for (const LoraTerm& term : part.linear->terms) {
      of_part.push_back({term.a.const_data_ptr(), b, term.begin, term.a.size(0), term.b.size(0)});
      b += term.b.nbytes();
    }
    few.push_back({of_part, part.linear->scale, part.begin, part.end});
  }
  if (!few.empty()) {
    table_.add_adapters(y.scalar_type(), few, x.size(1), y.size(1), x.const_data_ptr(), y.mutable_data_ptr());
  }
}

}  // namespace troupe::kernels
