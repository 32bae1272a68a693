// Decode steps recorded once and replayed: on a GPU the hundreds of launches of a step become one, where the host
// could not launch them as fast as the device runs them. A step that decodes only, and nothing else, is padded to
// one of few sizes; the second step of a size is recorded, those after it copy their plan to where the recorded one
// lay and replay.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "rollout/forward.h"

namespace troupe::rollout {

class RecordedSteps {
 public:
  // Whether the pass is a decode step on kernels that record.
  static bool takes(const PackedBase& base, const Pass& pass, const kernels::KvStore& store);
  // Pads the pass, whose `drawing` gets null pointers for the rows that nobody reads, and computes it; samples as of
  // PackedBase::compute, valid until the next step.
  at::Tensor run(const PackedBase& base, Pass& pass, kernels::KvStore& store);
  int64_t replayed() const { return replayed_; }

 private:
  // Addresses of what the launches read, and the lengths that they depend on.
  using Key = std::vector<int64_t>;
  struct Step {
    const PackedBase* base = nullptr;
    Pass pass;  // of the first step; its plan's device arrays are those that every later one fills
    std::vector<std::weak_ptr<ParameterSet>> sets;
    kernels::RotaryTables
        tables;  // held, so that their addresses, which the launches read, are nobody else's
    at::Tensor samples;
    std::unique_ptr<kernels::Recording> recording;
    int64_t last_use = 0;
  };
  Step& step_of(const Key& key, const Pass& pass);

  std::map<Key, Step> steps_;
  int64_t uses_ = 0, replayed_ = 0;
};

}  // namespace troupe::rollout
