#include "rollout/recorded_steps.h"

#include <algorithm>
#include <bit>

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

std::vector<std::shared_ptr<ParameterSet>> sets_of(const Pass& pass) {
  std::vector<std::shared_ptr<ParameterSet>> sets{pass.segments.front().policy->base()};
  for (const Segment& segment : pass.segments) sets.push_back(segment.policy->adapter());
  return sets;
}

}  // namespace

bool RecordedSteps::takes(const PackedBase& base, const Pass& pass, const kernels::KvStore& store) {
  const kernels::RowPlan& rows = pass.rows;
  const auto count = static_cast<size_t>(rows.rows());
  // Outputs and draws ascend, so as many of them as rows are one of each row, unless samples share a prompt's.
  return !base.fixed() && base.kernels().records(store.shape) && rows.outputs.size() == count &&
         rows.draws.size() == count && rows.draws.back() + 1 == static_cast<int32_t>(count);
}

RecordedSteps::Step& RecordedSteps::step_of(const Key& key, const Pass& pass) {
  std::erase_if(steps_, [](const auto& entry) {
    return std::ranges::any_of(entry.second.sets, [](const auto& set) { return set.expired(); });
  });
  if (steps_.size() >= kMostSteps && !steps_.contains(key)) {
    steps_.erase(
        std::ranges::min_element(steps_, {}, [](const auto& entry) { return entry.second.last_use; }));
  }
  Step& step = steps_[key];
  step.last_use = ++uses_;
  if (step.sets.empty()) {
    for (const auto& set : sets_of(pass))
      if (set) step.sets.push_back(set);
  }
  return step;
}

at::Tensor RecordedSteps::run(const PackedBase& base, Pass& pass, kernels::KvStore& store) {
  pad(pass);
  base.plan(pass);
  const kernels::RowPlan& rows = pass.rows;
  Key key;
  for (const auto& set : sets_of(pass)) {
    key.push_back(address(set.get()));
    if (set) key.push_back(address(set->compute().const_data_ptr()));
  }
  for (const Segment& segment : pass.segments) key.push_back(segment.end);
  const Policy& policy = *pass.segments.front().policy;
  const int32_t last = *std::ranges::max_element(rows.positions);
  const kernels::RotaryTables tables = policy.rotary_tables(last + 1);
  key.push_back(address(tables.cos.const_data_ptr()));
  key.push_back(rows.table_width);
  key.push_back(static_cast<int64_t>(rows.extra.size()));
  key.insert(key.end(), rows.launch.begin(), rows.launch.end());

  Step& step = step_of(key, pass);
  step.base = &base;
  const bool first = step.pass.segments.empty();
  if (first) {
    pass.rows.send(store.shape.device);
    step.pass = pass;
    step.tables = tables;
    return base.compute(step.pass, store);
  }
  step.pass.segments = pass.segments;
  pass.rows.send(store.shape.device, step.pass.rows.device.buffer);
  if (!step.recording) {
    step.recording = base.kernels().record(
        store.shape.device, [&step, &store] { step.samples = step.base->compute(step.pass, store); });
  }
  step.recording->replay();
  ++replayed_;
  return step.samples;
}

}  // namespace troupe::rollout
