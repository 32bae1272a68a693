#include "rollout/head.h"

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include "rollout/fixed_rows.h"
#include "rollout/vector16.h"

namespace troupe::rollout {

namespace {

constexpr int64_t kColumns = 64;  // vocabulary entries of one packed block

// [V, H] → [V / 64, H / 2, 64, 2]: pairs along H side by side, as bf16 dot products read them (VNNI).
at::Tensor pack_pairs(const at::Tensor& weight) {
  const int64_t vocabulary = weight.size(0), hidden = weight.size(1);
  const int64_t blocks = (vocabulary + kColumns - 1) / kColumns;
  auto packed = at::zeros({blocks, hidden / 2, kColumns, 2}, weight.options());
  const auto source = weight.contiguous();
  // A pair is 4 bytes: move it as one.
  const auto* from = static_cast<const uint32_t*>(source.const_data_ptr());
  auto* to = static_cast<uint32_t*>(packed.mutable_data_ptr());
  at::parallel_for(0, blocks, 8, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t columns = std::min(kColumns, vocabulary - block * kColumns);
      for (int64_t column = 0; column < columns; ++column) {
        const uint32_t* row = from + (block * kColumns + column) * (hidden / 2);
        uint32_t* out = to + block * (hidden / 2) * kColumns + column;
        for (int64_t pair = 0; pair < hidden / 2; ++pair) out[pair * kColumns] = row[pair];
      }
    }
  });
  return packed;
}

bool packable(const at::Tensor& weight) {
  return weight.is_cpu() && weight.scalar_type() == at::kBFloat16 && weight.size(1) % 32 == 0 &&
         has_bf16_products();
}

}  // namespace

Head::Head(at::Tensor weight, bool repack, bool fixed_rows)
    : weight_(std::move(weight)), fixed_rows_(fixed_rows) {
  if (repack && packable(weight_)) packed_ = pack_pairs(weight_);
}

at::Tensor Head::operator()(const at::Tensor& hidden) const {
  if (!fixed_rows_) return block(hidden.contiguous());
  return in_fixed_rows(hidden, [&](const at::Tensor& rows) { return block(rows); });
}

at::Tensor Head::block(const at::Tensor& hidden) const {
  const auto wide = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  if (!packed_.defined()) return at::linear(hidden, weight_).to(wide);
  const int64_t rows = hidden.size(0), width = hidden.size(1), blocks = packed_.size(0);
  auto padded = at::empty({rows, blocks * kColumns}, hidden.options().dtype(wide));
  const auto* x = hidden.const_data_ptr<at::BFloat16>();
  const auto* weights = packed_.const_data_ptr<at::BFloat16>();
  auto* out = padded.mutable_data_ptr<float>();
  const int64_t grain = 1 + 200'000 / (rows * width * kColumns);
  at::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      at::native::cpublas::brgemm(rows, kColumns, width, width, kColumns, blocks * kColumns, false, x,
                                  weights + i * width * kColumns, out + i * kColumns);
    }
    at::native::cpublas::brgemm_release();
  });
  return padded.narrow(1, 0, weight_.size(0));
}

}  // namespace troupe::rollout
