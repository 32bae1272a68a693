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

#include "kernels/waits.h"
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
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine();

  // A request that can't be served comes back from the next step as an error. Throws std::invalid_argument if
  // the id is in use.
  void submit(Request request);
  // Its result comes from the next step, with the tokens so far. An unknown id is ignored: it may just have
  // ended.
  void cancel(int64_t id);
  // One iteration: admits, computes, draws a token for every sequence that is ready; where the device works on its own, the
  // next iteration is under way when it returns, and a sequence that has ended has computed one row for nothing. In deterministic runs
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
  // Scheduler::take; a step that runs draws for none of them any more.
  template <typename Predicate>
  std::vector<std::unique_ptr<Sequence>> take(const Predicate& gone);
  // Makes the slab where requests wait for it; those that it is too small for fail.
  void open_cache(std::vector<Result>& results);
  // A step that the device was told to run.
  struct Launched {
    std::vector<Sequence*> drawing;  // whose token each draw is; null: nobody's
    at::Tensor samples;              // int32 [2, D] as of PackedBase::compute, of all passes, on the device
    kernels::HostCopy copy;          // of them
  };
  // Runs the pass; `drawn` are the samples of the step before, whose tokens the plan may not know yet. Samples as of
  // PackedBase::compute.
  at::Tensor run(Pass& pass, kernels::KvStore& store, const at::Tensor& drawn);
  // Runs the plan; none where it draws nothing.
  std::optional<Launched> launch(Plan& plan, const at::Tensor& drawn);
  // Plans and runs a step, of fewer rows where memory runs out.
  std::optional<Launched> launch();
  // The step after `step`, whose tokens are on the device alone. None where there is no memory for it: once they are read,
  // it is launched as any other.
  std::optional<Launched> launch_after(const Launched& step);
  bool runs_ahead() const;
  // Memory that ran out: what recorded steps keep to themselves, and what the allocator does.
  void make_room();
  // Waits for the step's tokens, and goes on with them.
  void read(Launched& step, std::vector<Result>& results);
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
  std::optional<Launched> ahead_;  // runs while the host reads the one before
  int64_t memory_restarts_ = 0;    // times that memory ran out for it
};

}  // namespace troupe::rollout
