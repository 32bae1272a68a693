#include "rollout/recorded_steps.h"

#include <algorithm>
#include <bit>

#include "kernels/waits.h"
#include "memory/device_memory.h"

namespace troupe::rollout {
namespace {

// Recordings that are kept, a few MB each.
constexpr size_t kMostSteps = 64;
constexpr int64_t kWidthStep = 16;  // pages: tables of 256 positions more

// 1, 2, 4, 8, 16, 24, 32, 40, … 64, 80, … 128, 160, …: a quarter more at most, beyond 16.
int64_t padded_rows(int64_t rows) {
  const auto count = static_cast<uint64_t>(rows);
  if (count <= 8) return static_cast<int64_t>(std::bit_ceil(count));
  const uint64_t quantum = std::max<uint64_t>(8, std::bit_floor(count - 1) / 4);
  return static_cast<int64_t>((count + quantum - 1) / quantum * quantum);
}

// A row that nobody reads: position 0 of the pass's first table, which is there; nothing of it is stored.
void add_padding(Pass& pass) {
  kernels::RowPlan& rows = pass.rows;
  rows.tokens.push_back(0);
  rows.positions.push_back(0);
  rows.slots.push_back(-1);
  rows.tables.push_back(0);
  rows.sampling.push_back({.temperature = 0});
  rows.uniforms.push_back(0);
  pass.drawing.push_back(nullptr);
}

void pad_tables(const kernels::RowPlan& from, int64_t tables, kernels::RowPlan& to) {
  to.table_width = (from.table_width + kWidthStep - 1) / kWidthStep * kWidthStep;
  to.pages.assign(tables * to.table_width, -1);
  for (int64_t at = 0; at < static_cast<int64_t>(from.pages.size()); at += from.table_width)
    std::copy_n(from.pages.begin() + at, from.table_width,
                to.pages.begin() + at / from.table_width * to.table_width);
}

// Each policy's rows to one of few counts, tables as well.
void pad(Pass& pass) {
  Pass padded;
  const kernels::RowPlan& rows = pass.rows;
  for (Segment segment : pass.segments) {
    const int64_t begin = padded.rows.rows();
    const auto copy = [&](auto& to, const auto& from) {
      to.insert(to.end(), from.begin() + segment.begin, from.begin() + segment.end);
    };
    copy(padded.rows.tokens, rows.tokens);
    copy(padded.rows.positions, rows.positions);
    copy(padded.rows.slots, rows.slots);
    copy(padded.rows.tables, rows.tables);
    copy(padded.rows.sampling, rows.sampling);
    copy(padded.rows.uniforms, rows.uniforms);
    copy(padded.drawing, pass.drawing);
    const int64_t end = begin + padded_rows(segment.end - segment.begin);
    while (padded.rows.rows() < end) add_padding(padded);
    segment.begin = begin;
    segment.end = end;
    padded.segments.push_back(segment);
  }
  for (int32_t row = 0; row < padded.rows.rows(); ++row) {
    padded.rows.outputs.push_back(row);
    padded.rows.draws.push_back(row);
  }
  pad_tables(rows, padded.rows.rows(), padded.rows);
  padded.rows.repeatable = true;
  pass = std::move(padded);
}

int64_t address(const void* pointer) { return static_cast<int64_t>(reinterpret_cast<uintptr_t>(pointer)); }

}  // namespace

bool RecordedSteps::takes(const PackedBase& base, const Pass& pass, const kernels::KvStore& store) const {
  const kernels::RowPlan& rows = pass.rows;
  const auto count = static_cast<size_t>(rows.rows());
  // Outputs and draws ascend, so as many of them as rows are one of each row, unless samples share a prompt's.
  return !gave_up_ && !base.fixed() && base.kernels().records(store.shape) && rows.outputs.size() == count &&
         rows.draws.size() == count && rows.draws.back() + 1 == static_cast<int32_t>(count);
}

// A packed base and its adapters are themselves what lies at their addresses: recordings go before they do.
RecordedSteps::Key RecordedSteps::key_of(const PackedBase& base, const Pass& pass,
                                         const kernels::KvStore& store, const kernels::RotaryTables& tables) {
  const kernels::RowPlan& rows = pass.rows;
  Key key{address(&base),
          address(store.data.const_data_ptr()),
          store.pages,
          address(tables.cos.const_data_ptr()),
          address(tables.sin.const_data_ptr()),
          std::bit_cast<int64_t>(pass.segments.front().policy->config().rms_norm_eps),
          rows.table_width,
          static_cast<int64_t>(rows.extra.size())};
  for (const Segment& segment : pass.segments) {
    key.push_back(address(segment.adapter));
    key.push_back(segment.end);
  }
  key.insert(key.end(), rows.launch.begin(), rows.launch.end());
  return key;
}

RecordedSteps::Step& RecordedSteps::step_of(const Key& key, const at::Device& device) {
  if (steps_.size() >= kMostSteps && !steps_.contains(key)) {
    kernels::wait_for(device);  // it may be running
    steps_.erase(
        std::ranges::min_element(steps_, {}, [](const auto& entry) { return entry.second.last_use; }));
  }
  Step& step = steps_[key];
  step.last_use = ++uses_;
  return step;
}

at::Tensor RecordedSteps::run(const PackedBase& base, Pass& pass, kernels::KvStore& store,
                              const at::Tensor& drawn) {
  const at::Device device = store.shape.device;
  pad(pass);
  base.plan(pass);
  if (!pass.rows.repeatable) {
    base.send(pass, device, drawn);
    return base.compute(pass, store);
  }
  const int32_t last = *std::ranges::max_element(pass.rows.positions);
  const kernels::RotaryTables tables = pass.segments.front().policy->rotary_tables(last + 1);
  Step& step = step_of(key_of(base, pass, store, tables), device);
  base.send(pass, device, drawn, step.plan);
  if (!step.plan.defined()) {
    at::Tensor samples = base.compute(pass, store);
    step.plan = pass.rows.device.buffer;
    step.tables = tables;
    return samples;
  }
  step.base = &base;
  step.pass = &pass;
  step.store = &store;
  try {
    if (!step.recording) {
      step.recording = base.kernels().record(
          device, [&step] { step.samples = step.base->compute(*step.pass, *step.store); });
    }
    step.recording->replay();
  } catch (const c10::OutOfMemoryError&) {
    give_up(device);
    return base.compute(pass, store);
  }
  ++replayed_;
  return step.samples;
}

void RecordedSteps::clear(const at::Device& device) {
  if (!steps_.empty()) kernels::wait_for(device);
  steps_.clear();
  gave_up_ = false;
}

// A recording takes memory of its own, which the step itself does without: no rows are given up for it.
void RecordedSteps::give_up(const at::Device& device) {
  clear(device);
  release_cached_memory(device);
  gave_up_ = true;
  ++memory_restarts_;
}

}  // namespace troupe::rollout
