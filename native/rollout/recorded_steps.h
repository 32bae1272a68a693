// Decode steps recorded once and replayed: on a GPU the hundreds of launches of a step become one, where the host
// could not launch them as fast as the device runs them. A step that decodes only, and nothing else, is padded to
// one of few sizes; the second step of a size is recorded, those after it copy their plan to where the recorded one
// lay and replay.
//
// A recording holds the addresses and numbers of its launches for ever. They are of
//   the packed weights and adapters, and the slab of keys and values: in the key, and whoever lets one of them go calls
//     clear();
//   the plan's device side and the rotation tables: the step's own;
//   what the launches compute: in memory that all recordings share, so that the next replay may overwrite it.
// The emulation fails where a replay would be given anything else (native/kernels/cuda/emulation/recording.h).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "rollout/forward.h"

namespace troupe::rollout {

class RecordedSteps {
 public:
  // Whether the pass is a decode step on kernels that record, and there was memory for recordings so far.
  bool takes(const PackedBase& base, const Pass& pass, const kernels::KvStore& store) const;
  // Pads the pass, whose `drawing` gets null pointers for the rows that nobody reads, sends it with what the step before
  // has drawn, and computes it; samples as of PackedBase::compute, to be read or copied before the next pass runs.
  at::Tensor run(const PackedBase& base, Pass& pass, kernels::KvStore& store, const at::Tensor& drawn);
  // Forgets all recordings and frees their memory, once the device has run what it was given of them.
  void clear(const at::Device& device);
  int64_t replayed() const { return replayed_; }
  // Times that memory ran out for a recording: its step was launched plainly, as were all others until clear().
  int64_t memory_restarts() const { return memory_restarts_; }

 private:
  // Addresses of what the launches read, and the numbers that they depend on.
  using Key = std::vector<int64_t>;
  struct Step {
    at::Tensor plan;  // every later plan is copied here; undefined: no step of the size has run
    kernels::RotaryTables tables;
    // What is recorded: it computes what these say when it is run.
    const PackedBase* base = nullptr;
    const Pass* pass = nullptr;
    kernels::KvStore* store = nullptr;
    std::unique_ptr<kernels::Recording> recording;
    at::Tensor samples;  // in the recording's memory
    int64_t last_use = 0;
  };
  static Key key_of(const PackedBase& base, const Pass& pass, const kernels::KvStore& store,
                    const kernels::RotaryTables& tables);
  Step& step_of(const Key& key, const at::Device& device);
  void give_up(const at::Device& device);

  std::map<Key, Step> steps_;
  bool gave_up_ = false;
  int64_t uses_ = 0, replayed_ = 0, memory_restarts_ = 0;
};

}  // namespace troupe::rollout
