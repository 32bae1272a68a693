// Decides what the next step computes: which requests run, which of their tokens, and where the results go.
// It keeps the sequences and their places in the KV cache; it runs no model and draws no token.
//
// There is no difference between prefill and decode here. A sequence wants the hidden state of its last
// token; every token on its path whose keys are missing must be computed first, by whichever sequence comes
// by. So samples of one prompt share its prefill, a request joins a prefill under way, and a cancelled
// request leaves the rest of it to the others.
#pragma once

#include <deque>
#include <list>
#include <map>
#include <memory>
#include <vector>

#include "rollout/forward.h"
#include "rollout/kv_tree.h"
#include "rollout/request.h"
#include "rollout/stop_strings.h"

namespace troupe::rollout {

struct Sequence {
  Request request;
  std::vector<int32_t> tokens;  // prompt, then samples
  std::vector<float> logprobs;
  StopStrings stop_strings;
  int64_t version = 0, base_version = 0;
  int64_t cached_tokens = 0;
  // Null while it waits, and when the token that is being drawn is its last, whatever it is.
  KvNode* leaf = nullptr;
  bool begun = false;    // was admitted once, under `version`
  bool resumed = false;  // was preempted: its samples are computed again
  bool alone = false;    // ran out of memory with nobody else running
  bool cancelled = false;
  bool drawn =
      false;  // its last token is drawn by a step that runs, and stands for the draw's number until it is known

  // The parameters changed since it began.
  bool outdated() const {
    return begun &&
           (version != request.policy->version() || base_version != request.policy->base()->version());
  }
  int64_t samples() const { return static_cast<int64_t>(tokens.size() - request.prompt.size()); }
};

// Some tokens of one node, computed in this step.
struct Run {
  KvNode* node = nullptr;
  const Policy* policy = nullptr;
  int64_t first = 0, count = 0;  // within the node
  bool write = true;             // false: keys are there, only the hidden state is wanted again
  bool sampled = false;          // tokens of a response, for the statistics
};

struct Plan {
  std::vector<kernels::PageCopy> copies;  // to be made before the passes run
  std::vector<Pass> passes;               // one for each base
  std::vector<Run> runs;
  bool empty() const { return runs.empty(); }
};

class Scheduler {
 public:
  Scheduler(const Options& options, const KvShape& shape);

  void add(Request request);
  // What a request needs at most, in pages; refused by the engine when the cache is smaller.
  static int64_t pages_needed(const Request& request);
  bool has(int64_t id) const;
  void cancel(int64_t id);
  // Takes out the sequences for which `gone` says so, waiting and running.
  template <typename Predicate>
  std::vector<std::unique_ptr<Sequence>> take(Predicate gone);

  // Admits what fits and plans one step.
  Plan plan();
  // Memory ran out while a step was computed: from now on half the sequences at a time and half the prompt tokens. False:
  // there is but one sequence, and a page of its prompt.
  bool halve();
  bool idle() const { return running_.empty() && waiting_.empty(); }
  // The planned tokens' keys are stored now.
  void computed(const Plan& plan);
  // The sequence goes on with this token, which may be the one that it went on with before it was known.
  void append(Sequence& sequence, int32_t token);
  // It goes on with what draw `draw` of the step that runs will be: the next plan has −1 − draw in its place. Or it ends with
  // it, and gives up its place in the cache: the device has been told to read that before whatever the next plan writes there.
  void append_drawn(Sequence& sequence, int64_t draw);
  // As if it had not gone on with a token that is not known.
  void take_back(Sequence& sequence);
  // Nobody will read what a step that was computed draws for the sequence: its row was for nothing.
  void discount(const Sequence& sequence);

  KvCache& cache() { return cache_; }
  Statistics statistics() const;

 private:
  bool admit(std::unique_ptr<Sequence>& sequence);
  void admit_waiting();
  bool plan_runs(std::vector<Run>& runs, std::vector<Sequence*>& ready);
  bool plan_sequence(Sequence& sequence, int64_t& budget, std::vector<Run>& runs, bool& ready);
  void preempt();
  static std::vector<Run> in_order(std::vector<Run> runs);
  Plan assemble(std::vector<Run> runs, const std::vector<Sequence*>& ready);
  static std::vector<kernels::PageCopy> copies_of(const std::vector<Run>& runs);
  static void add_rows(const Run& run, int32_t table, kernels::RowPlan& rows);
  static void set_tables(const std::vector<std::vector<int32_t>>& tables, kernels::RowPlan& rows);
  void add_draws(const std::map<int64_t, std::vector<Sequence*>>& outputs, Pass& pass) const;
  void release(Sequence& sequence);

  Options options_;
  KvCache cache_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
  uint64_t plans_ = 0;
  Statistics totals_;
};

template <typename Predicate>
std::vector<std::unique_ptr<Sequence>> Scheduler::take(Predicate gone) {
  std::vector<std::unique_ptr<Sequence>> taken;
  const auto sweep = [&](auto& sequences) {
    for (auto& sequence : sequences) {
      if (!gone(*sequence)) continue;
      release(*sequence);
      taken.push_back(std::move(sequence));
    }
    std::erase(sequences, nullptr);
  };
  sweep(running_);
  sweep(waiting_);
  return taken;
}

}  // namespace troupe::rollout
