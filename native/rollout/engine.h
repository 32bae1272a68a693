// The rollout engine: takes requests, runs the model a step at a time, gives results. It checks requests,
// turns plans into passes, draws tokens and ends sequences; the order of work is the scheduler's.
//
// Not thread safe: it lives in the engine worker. Nothing is logged; what goes wrong with a request is in its
// result.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "rollout/forward.h"
#include "rollout/recorded_steps.h"
#include "rollout/request.h"
#include "rollout/scheduler.h"

namespace troupe::rollout {

class Engine {
 public:
  // Throws std::invalid_argument for options that make no sense.
  Engine(ModelConfig config, Options options);

  // A request that can't be served comes back from the next step as an error. Throws std::invalid_argument if
  // the id is in use.
  void submit(Request request);
  // Its result comes from the next step, with the tokens so far. An unknown id is ignored: it may just have
  // ended.
  void cancel(int64_t id);
  // One iteration: admits, computes, draws a token for every sequence that is ready. In deterministic runs
  // requests are admitted in the order of their counters, among those submitted so far: the caller steps when
  // every live episode waits.
  std::vector<Result> step();
  // Drops cached keys of outdated parameters, or all that no running sequence uses; repacked weights likewise
  // (with `everything`, those that training will change), and every recorded step.
  void clear_cache(bool everything);
  // So many bytes of the device's memory, which training is going to make and keep, are not for a cache that nobody sized;
  // from the next slab on.
  void reserve(int64_t bytes);
  bool idle() const;
  Statistics statistics() const;

 private:
  std::string refusal(const Request& request);
  std::string refusal_of_cache(const Request& request, const PagePool& pool) const;
  Scheduler& scheduler_for(const Policy& policy);
  const PackedBase& packed(const Policy& policy);
  const PackedAdapter* packed_adapter(const Policy& policy);
  // Packed weights and adapters of versions that are gone, and the recorded steps, which hold addresses of them.
  void drop_stale();
  void collect_interrupted(std::vector<Result>& results);
  // Makes the slab where requests wait for it; those that it is too small for fail.
  void open_cache(std::vector<Result>& results);
  // Samples as of PackedBase::compute.
  at::Tensor run(Pass& pass, kernels::KvStore& store);
  // The samples of all passes side by side, on the host: the step's one wait for the device.
  at::Tensor run(std::vector<Pass>& passes);
  // A result if the sequence ends with the token, or is streamed. token −1: the logits were not finite.
  std::optional<Result> advance(Sequence& sequence, int32_t token, float logprob);
  Result finish(Sequence& sequence, Finish how, std::string error = {}) const;

  ModelConfig config_;
  Options options_;
  std::deque<Result> refused_;
  std::optional<KvShape> shape_;  // known with the first policy
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<std::unique_ptr<PackedBase>> packed_;
  std::vector<std::unique_ptr<PackedAdapter>> adapters_;
  RecordedSteps recorded_;
};

}  // namespace troupe::rollout
