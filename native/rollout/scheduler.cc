#include "rollout/scheduler.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

#include "rollout/philox.h"

namespace troupe::rollout {

namespace {

std::vector<int64_t> path_ids(const KvNode* node) {
  std::vector<int64_t> ids;
  for (; node; node = node->parent) ids.push_back(node->id);
  std::reverse(ids.begin(), ids.end());
  return ids;
}

// Whether both compute the same of the same tokens: one adapter's parameters may be used at several scales.
bool same_weights(const Policy& a, const Policy& b) {
  return &a.trained() == &b.trained() && a.adapter_scale() == b.adapter_scale();
}

}  // namespace

Scheduler::Scheduler(const Options& options, const KvShape& shape)
    : options_(options),
      cache_(shape, CacheBudget{options.cache_bytes, options.max_batch, options.max_positions,
                                options.reserved_bytes}) {}

void Scheduler::add(Request request) {
  auto sequence = std::make_unique<Sequence>();
  sequence->tokens = request.prompt;
  sequence->stop_strings = StopStrings(request.stop_strings);
  sequence->request = std::move(request);
  waiting_.push_back(std::move(sequence));
  if (options_.deterministic) {
    // Logical order, whatever the order of arrival. A preempted sequence (resumed) stays in front.
    std::stable_sort(waiting_.begin(), waiting_.end(), [](const auto& a, const auto& b) {
      if (a->resumed || b->resumed) return a->resumed && !b->resumed;
      return a->request.counter < b->request.counter;
    });
  }
}

int64_t Scheduler::pages_needed(const Request& request) {
  // The last sample is never fed back. A fresh sequence has one branch, at most one page twice.
  const int64_t tokens = static_cast<int64_t>(request.prompt.size()) + request.max_tokens - 1;
  return (tokens + kPageTokens - 1) / kPageTokens + 1;
}

bool Scheduler::has(int64_t id) const {
  const auto same = [&](const auto& sequence) { return sequence->request.id == id; };
  return std::any_of(waiting_.begin(), waiting_.end(), same) ||
         std::any_of(running_.begin(), running_.end(), same);
}

void Scheduler::cancel(int64_t id) {
  const auto mark = [&](auto& sequences) {
    for (auto& sequence : sequences) {
      if (sequence->request.id == id) sequence->cancelled = true;
    }
  };
  mark(waiting_);
  mark(running_);
}

void Scheduler::release(Sequence& sequence) {
  if (!sequence.leaf) return;
  cache_.release(sequence.leaf);
  sequence.leaf = nullptr;
}

// Takes a place in the tree, if the memory that all running sequences are known to need leaves room for it
// and for one more page each.
bool Scheduler::admit(std::unique_ptr<Sequence>& sequence) {
  if (sequence->alone) cache_.clear(true);
  const KvMatch match = cache_.acquire(cache_.root(*sequence->request.policy), sequence->tokens);
  std::vector<KvNode*> leaves{match.leaf};
  for (const auto& other : running_) {
    if (other->leaf) leaves.push_back(other->leaf);
  }
  const auto headroom = static_cast<int64_t>(leaves.size());
  if (leaves.size() > 1 && cache_.pages_in_use(leaves) + headroom > cache_.pool().capacity()) {
    cache_.release(match.leaf);
    return false;
  }
  sequence->leaf = match.leaf;
  if (!sequence->begun) {
    sequence->begun = true;
    sequence->version = sequence->request.policy->version();
    sequence->base_version = sequence->request.policy->base()->version();
    sequence->cached_tokens = match.cached;
    totals_.cached_tokens += match.cached;
  }
  return true;
}

void Scheduler::admit_waiting() {
  while (!waiting_.empty() && static_cast<int64_t>(running_.size()) < options_.max_batch) {
    if (!admit(waiting_.front())) break;
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// Memory is short: the sequence that came last gives its place up. Its tokens stay in the cache as long as
// nobody needs the room; what goes is computed again.
void Scheduler::preempt() {
  const auto placed = [](const auto& sequence) { return sequence->leaf != nullptr; };
  const auto latest = std::prev(std::find_if(running_.rbegin(), running_.rend(), placed).base());
  auto sequence = std::move(*latest);
  running_.erase(latest);
  release(*sequence);
  sequence->resumed = true;
  ++totals_.preemptions;
  sequence->alone = std::ranges::none_of(running_, placed);
  waiting_.push_front(std::move(sequence));
}

bool Scheduler::halve() {
  const auto running = static_cast<int64_t>(running_.size());
  if (running <= 1 && options_.prefill_tokens <= kPageTokens) return false;
  options_.max_batch = std::max<int64_t>(1, running / 2);
  options_.prefill_tokens = std::max<int64_t>(kPageTokens, options_.prefill_tokens / 2);
  while (static_cast<int64_t>(running_.size()) > options_.max_batch) preempt();
  ++totals_.memory_restarts;
  return true;
}

// Plans the missing tokens on the sequence's path, in order, as far as `budget` reaches. False: out of
// memory.
bool Scheduler::plan_sequence(Sequence& sequence, int64_t& budget, std::vector<Run>& runs, bool& ready) {
  std::vector<KvNode*> path;
  for (KvNode* node = sequence.leaf; node->parent; node = node->parent) path.push_back(node);
  std::reverse(path.begin(), path.end());
  const Policy* policy = sequence.request.policy.get();
  bool planned_any = false;
  for (KvNode* node : path) {
    if (node->plan != plans_) {
      node->plan = plans_;
      node->planned = node->computed;
    }
    if (node->planned == node->size()) continue;
    // A page shared with the parent is copied from it (copies_of), so the parent must have been computed in an
    // earlier step.
    if (node->begin % kPageTokens != 0 && !node->parent->complete()) return true;
    const int64_t missing = node->size() - node->planned;
    const int64_t count = node->growing ? missing : std::min(missing, budget);
    if (count == 0) return true;
    if (!cache_.prepare(node, node->planned + count)) return false;
    runs.push_back({node, policy, node->planned, count, true, node->growing});
    node->planned += count;
    planned_any = true;
    if (!node->growing) budget -= count;
    if (node->planned < node->size()) return true;
  }
  ready = true;
  const bool has_row = planned_any || std::any_of(runs.begin(), runs.end(),
                                                  [&](const Run& run) { return run.node == sequence.leaf; });
  // The whole prompt was in the cache: its last hidden state is computed again, its keys are not.
  if (!has_row) runs.push_back({sequence.leaf, policy, sequence.leaf->size() - 1, 1, false, false});
  return true;
}

bool Scheduler::plan_runs(std::vector<Run>& runs, std::vector<Sequence*>& ready) {
  ++plans_;
  int64_t budget = options_.prefill_tokens;
  for (const auto& sequence : running_) {
    if (!sequence->leaf) continue;
    bool all = false;
    if (!plan_sequence(*sequence, budget, runs, all)) return false;
    if (all) ready.push_back(sequence.get());
  }
  return true;
}

Plan Scheduler::plan() {
  admit_waiting();
  std::vector<Run> runs;
  std::vector<Sequence*> ready;
  while (!plan_runs(runs, ready)) {
    runs.clear();
    ready.clear();
    preempt();
  }
  return assemble(std::move(runs), ready);
}

// Rows in the order base, adapter, place in the tree: so that each base and each adapter multiplies once, and
// rows that share pages lie side by side.
std::vector<Run> Scheduler::in_order(std::vector<Run> runs) {
  struct Key {
    int64_t base, policy;
    std::vector<int64_t> path;
    auto operator<=>(const Key&) const = default;
  };
  // Of first appearance: addresses must not decide.
  std::map<std::pair<const ParameterSet*, double>, int64_t> order;
  const auto rank = [&](const ParameterSet* set, double scale) {
    return order.emplace(std::pair(set, scale), static_cast<int64_t>(order.size())).first->second;
  };
  std::vector<std::pair<Key, Run>> sorted;
  for (const Run& run : runs) {
    const int64_t base = rank(run.policy->base().get(), 0);
    const int64_t policy = rank(&run.policy->trained(), run.policy->adapter_scale());
    sorted.push_back({{base, policy, path_ids(run.node)}, run});
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < runs.size(); ++i) runs[i] = sorted[i].second;
  return runs;
}

// A node's first page may begin on positions of its parent: they are copied when its first token is computed, so that
// siblings write apart. The parent is complete, so its page has them, and keeps them.
std::vector<kernels::PageCopy> Scheduler::copies_of(const std::vector<Run>& runs) {
  std::vector<kernels::PageCopy> copies;
  for (const Run& run : runs) {
    if (!run.write || run.first > 0 || run.node->begin % kPageTokens == 0) continue;
    copies.push_back({run.node->parent->pages.back()->number, run.node->pages.front()->number});
  }
  return copies;
}

Plan Scheduler::assemble(std::vector<Run> runs, const std::vector<Sequence*>& ready) {
  Plan plan;
  plan.runs = in_order(std::move(runs));
  plan.copies = copies_of(plan.runs);
  std::unordered_map<const KvNode*, std::pair<size_t, int64_t>>
      last_rows;                                          // node → pass, row of its last token
  std::vector<std::vector<std::vector<int32_t>>> tables;  // by pass
  const ParameterSet* base = nullptr;
  const Policy* policy = nullptr;
  for (const Run& run : plan.runs) {
    if (run.policy->base().get() != base) {
      plan.passes.emplace_back();
      tables.emplace_back();
      base = run.policy->base().get();
      policy = nullptr;
    }
    Pass& pass = plan.passes.back();
    if (!policy || !same_weights(*run.policy, *policy)) {
      pass.segments.push_back({run.policy, pass.rows.rows(), 0, nullptr});
      policy = run.policy;
    }
    add_rows(run, static_cast<int32_t>(tables.back().size()), pass.rows);
    tables.back().push_back(KvCache::page_table(run.node));
    pass.segments.back().end = pass.rows.rows();
    last_rows[run.node] = {plan.passes.size() - 1, pass.rows.rows() - 1};
  }
  for (size_t i = 0; i < plan.passes.size(); ++i) set_tables(tables[i], plan.passes[i].rows);

  // (pass, row) → who draws from it: samples of a prompt share an output.
  std::vector<std::map<int64_t, std::vector<Sequence*>>> outputs(plan.passes.size());
  for (Sequence* sequence : ready) {
    const auto [pass, row] = last_rows.at(sequence->leaf);
    outputs[pass][row].push_back(sequence);
  }
  for (size_t i = 0; i < plan.passes.size(); ++i) add_draws(outputs[i], plan.passes[i]);
  return plan;
}

void Scheduler::add_rows(const Run& run, int32_t table, kernels::RowPlan& rows) {
  for (int64_t i = run.first; i < run.first + run.count; ++i) {
    const int64_t position = run.node->begin + i;
    const KvPage& page = *run.node->pages.at(position / kPageTokens - run.node->first_page());
    rows.tokens.push_back(run.node->tokens[i]);
    rows.positions.push_back(static_cast<int32_t>(position));
    rows.slots.push_back(run.write ? static_cast<int32_t>(page.number * kPageTokens + position % kPageTokens)
                                   : -1);
    rows.tables.push_back(table);
  }
}

void Scheduler::set_tables(const std::vector<std::vector<int32_t>>& tables, kernels::RowPlan& rows) {
  for (const std::vector<int32_t>& table : tables)
    rows.table_width = std::max(rows.table_width, static_cast<int64_t>(table.size()));
  for (const std::vector<int32_t>& table : tables) {
    rows.pages.insert(rows.pages.end(), table.begin(), table.end());
    rows.pages.resize(rows.pages.size() + rows.table_width - table.size(), -1);
  }
}

void Scheduler::add_draws(const std::map<int64_t, std::vector<Sequence*>>& outputs, Pass& pass) const {
  for (const auto& [row, sequences] : outputs) {
    for (Sequence* sequence : sequences) {
      const Request& request = sequence->request;
      pass.drawing.push_back(sequence);
      pass.rows.draws.push_back(static_cast<int32_t>(pass.rows.outputs.size()));
      pass.rows.sampling.push_back(request.sampling);
      pass.rows.uniforms.push_back(
          uniform(options_.seed, request.counter, static_cast<uint32_t>(sequence->samples())));
    }
    pass.rows.outputs.push_back(static_cast<int32_t>(row));
  }
}

void Scheduler::computed(const Plan& plan) {
  for (const Run& run : plan.runs) {
    if (run.write) run.node->computed = run.first + run.count;
    (run.sampled ? totals_.decode_tokens : totals_.prefill_tokens) += run.count;
  }
}

void Scheduler::append_drawn(Sequence& sequence, int64_t draw) {
  if (sequence.samples() + 1 == sequence.request.max_tokens) return release(sequence);
  append(sequence, static_cast<int32_t>(-1 - draw));
  sequence.drawn = true;
}

void Scheduler::take_back(Sequence& sequence) {
  if (!std::exchange(sequence.drawn, false)) return;
  sequence.tokens.pop_back();
  KvNode* leaf = sequence.leaf;
  if (!leaf) return;  // it was preempted
  leaf->tokens.pop_back();
  leaf->computed = std::min(leaf->computed, leaf->size());
}

void Scheduler::discount(const Sequence& sequence) {
  // A leaf that grows has a row of its own in each step; of one that does not, others may read the row.
  if (sequence.leaf->growing) --totals_.decode_tokens;
}

void Scheduler::append(Sequence& sequence, int32_t token) {
  if (std::exchange(sequence.drawn, false)) {
    sequence.tokens.back() = token;
    if (sequence.leaf) sequence.leaf->tokens.back() = token;
    return;
  }
  sequence.tokens.push_back(token);
  if (!sequence.leaf->growing) sequence.leaf = cache_.grow(sequence.leaf);
  sequence.leaf->tokens.push_back(token);
}

Statistics Scheduler::statistics() const {
  Statistics result = totals_;
  result.running = static_cast<int64_t>(running_.size());
  result.waiting = static_cast<int64_t>(waiting_.size());
  result.memory_restarts += cache_.pool().shrinks();
  result.cache_tokens = cache_.pool().capacity() * kPageTokens;
  result.cache_bytes = cache_.pool().used() * cache_.pool().page_bytes();
  return result;
}

}  // namespace troupe::rollout
