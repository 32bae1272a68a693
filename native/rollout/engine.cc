#include "rollout/engine.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <utility>

#include "memory/device_memory.h"

namespace troupe::rollout {

namespace {

std::string join(std::initializer_list<std::string> parts) {
  std::string text;
  for (const auto& part : parts) text += part;
  return text;
}

bool same_shape(const ModelConfig& a, const ModelConfig& b) {
  return a.hidden_size == b.hidden_size && a.layers == b.layers && a.heads == b.heads &&
         a.kv_heads == b.kv_heads && a.head_dim == b.head_dim && a.intermediate_size == b.intermediate_size &&
         a.vocabulary_size == b.vocabulary_size;
}

KvShape shape_of(const ModelConfig& config, const Policy& policy) {
  return {config.layers, config.kv_heads, config.head_dim, policy.compute_dtype(), policy.device()};
}

std::string sampling_refusal(const Sampling& sampling) {
  // Below 1e-4 the scaled logits lose the order of close tokens; greedy says what is meant.
  if (!(sampling.temperature == 0 || (sampling.temperature >= 1e-4 && sampling.temperature <= 1e4))) {
    return join({"temperature is ", std::to_string(sampling.temperature),
                 "; it takes 0 (greedy) or 0.0001 to 10000"});
  }
  if (sampling.top_k < 0) return "topK is negative; it takes 0 (off) or a number of tokens";
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return join({"topP is ", std::to_string(sampling.top_p), "; it takes more than 0 and at most 1 (off)"});
  }
  if (!(sampling.min_p >= 0 && sampling.min_p <= 1)) {
    return join({"minP is ", std::to_string(sampling.min_p), "; it takes 0 (off) to 1"});
  }
  return {};
}

}  // namespace

Engine::Engine(ModelConfig config, Options options)
    : config_(std::move(config)), options_(std::move(options)) {
  const auto positive = [](int64_t value, const char* name) {
    if (value < 1) throw std::invalid_argument(join({"rollout: ", name, " must be at least 1"}));
  };
  if (options_.cache_bytes < 0)
    throw std::invalid_argument(
        "rollout: cacheBytes must be at least 1, or 0: the device's free memory decides");
  options_.max_positions = config_.max_positions;
  positive(options_.max_batch, "maxBatch");
  positive(options_.prefill_tokens, "prefillTokens");
  const auto& offsets = options_.token_offsets;
  if (offsets.empty() && options_.token_bytes.empty()) return;
  if (static_cast<int64_t>(offsets.size()) != config_.vocabulary_size + 1 || offsets.front() != 0 ||
      !std::is_sorted(offsets.begin(), offsets.end()) ||
      offsets.back() != static_cast<int64_t>(options_.token_bytes.size())) {
    throw std::invalid_argument(
        "rollout: tokenOffsets takes vocabulary + 1 ascending offsets into tokenBytes, from 0 to its length");
  }
}

Engine::~Engine() {
  if (!shape_) return;
  try {
    recorded_.clear(shape_->device);  // none of them may go while it runs
  } catch (const c10::Error&) {
    // A device that has failed: whoever uses it next is told.
  }
}

std::string Engine::refusal(const Request& request) {
  const auto number = [](int64_t value) { return std::to_string(value); };
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (!same_shape(request.policy->config(), config_)) return "the policy's model is not this engine's";
  if (shape_ && !(shape_of(config_, *request.policy) == *shape_)) {
    return "the policy's dtype or device differs from the cache's; one engine serves one of each";
  }
  if (prompt == 0) return "the prompt is empty; it takes at least one token";
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= config_.vocabulary_size) {
      return join(
          {"prompt token ", number(token), " is not in the vocabulary of ", number(config_.vocabulary_size)});
    }
  }
  if (request.max_tokens < 1)
    return join({"maxTokens is ", number(request.max_tokens), "; it takes at least 1"});
  if (prompt + request.max_tokens > config_.max_positions) {
    return join({"prompt (", number(prompt), ") and maxTokens (", number(request.max_tokens),
                 ") are more than the model's ", number(config_.max_positions), " positions"});
  }
  PagePool& pool = scheduler_for(*request.policy).cache().pool();
  pool.resize();
  if (auto reason = refusal_of_cache(request, pool); !reason.empty()) return reason;
  const bool empty_stop = std::any_of(request.stop_strings.begin(), request.stop_strings.end(),
                                      [](const std::string& s) { return s.empty(); });
  if (empty_stop) return "a stop string is empty";
  if (!request.stop_strings.empty() && options_.token_offsets.empty()) {
    return "stop strings need the engine's tokenBytes and tokenOffsets";
  }
  return sampling_refusal(request.sampling);
}

std::string Engine::refusal_of_cache(const Request& request, const PagePool& pool) const {
  const auto number = [](int64_t value) { return std::to_string(value); };
  const int64_t needed = Scheduler::pages_needed(request), bytes = pool.capacity() * pool.page_bytes();
  if (needed <= pool.capacity()) return {};
  const bool fixed = options_.cache_bytes > 0 && bytes > options_.cache_bytes - pool.page_bytes();
  return join({"prompt (", number(static_cast<int64_t>(request.prompt.size())), ") and maxTokens (",
               number(request.max_tokens), ") need ", number(needed * pool.page_bytes()),
               " bytes of KV cache; cacheBytes is ",
               fixed ? number(options_.cache_bytes)
                     : join({options_.cache_bytes > 0 ? number(options_.cache_bytes) : "auto", ", and ",
                             number(bytes), " is what the device has room for"})});
}

void Engine::submit(Request request) {
  if (!request.policy) throw std::invalid_argument("rollout: a request needs a policy");
  const bool known =
      (scheduler_ && scheduler_->has(request.id)) ||
      std::any_of(refused_.begin(), refused_.end(), [&](const auto& r) { return r.id == request.id; });
  if (known)
    throw std::invalid_argument(join({"rollout: request id ", std::to_string(request.id), " is in use"}));
  const bool first = !scheduler_;
  if (auto reason = refusal(request); !reason.empty()) {
    if (first) {  // the first that is served decides of which dtype and device the cache is
      scheduler_.reset();
      shape_.reset();
    }
    Result result;
    result.id = request.id;
    result.error = std::move(reason);
    result.version = request.policy->version();
    refused_.push_back(std::move(result));
    return;
  }
  scheduler_for(*request.policy).add(std::move(request));
}

Scheduler& Engine::scheduler_for(const Policy& policy) {
  if (!scheduler_) {
    shape_ = shape_of(config_, policy);
    scheduler_ = std::make_unique<Scheduler>(options_, *shape_);
  }
  return *scheduler_;
}

void Engine::cancel(int64_t id) {
  if (scheduler_) scheduler_->cancel(id);
}

bool Engine::idle() const {
  if (!refused_.empty()) return false;
  if (!scheduler_) return true;
  const Statistics now = scheduler_->statistics();
  return now.running == 0 && now.waiting == 0;
}

Statistics Engine::statistics() const {
  if (!scheduler_) return {};
  Statistics now = scheduler_->statistics();
  now.replayed_steps = recorded_.replayed();
  now.memory_restarts += recorded_.memory_restarts() + memory_restarts_;
  return now;
}

void Engine::clear_cache(bool everything) {
  // First, since they hold addresses of what goes.
  if (shape_) recorded_.clear(shape_->device);
  if (scheduler_) {
    // Their pages would keep the slab; the next step tells of them.
    for (const auto& sequence : take([](const Sequence& s) { return s.cancelled; }))
      refused_.push_back(finish(*sequence, Finish::kCancelled));
    scheduler_->cache().clear(everything);
    scheduler_->cache().pool().trim();
  }
  std::erase_if(adapters_, [&](const auto& adapter) { return everything || adapter->stale(); });
  std::erase_if(packed_,
                [&](const auto& base) { return base->stale() || (everything && base->trainable()); });
  if (scheduler_ && everything && !scheduler_->cache().pool().has_slab())
    release_uncut_memory(shape_->device);
}

void Engine::reserve(int64_t bytes) {
  options_.reserved_bytes = bytes;
  if (scheduler_) scheduler_->cache().pool().reserve(bytes);
}

void Engine::drop_stale() {
  const auto stale = [](const auto& packed) { return packed->stale(); };
  if (std::ranges::none_of(adapters_, stale) && std::ranges::none_of(packed_, stale)) return;
  recorded_.clear(shape_->device);
  std::erase_if(adapters_, stale);
  std::erase_if(packed_, stale);
}

const PackedBase& Engine::packed(const Policy& policy) {
  for (const auto& base : packed_) {
    if (base->holds(policy)) return *base;
  }
  int64_t bytes = PackedBase::weight_bytes(policy);
  for (const auto& base : packed_) bytes += base->packed_bytes();
  const auto products = options_.deterministic      ? Products::kFixed
                        : options_.measure_products ? Products::kMeasured
                                                    : Products::kFast;
  packed_.push_back(std::make_unique<PackedBase>(policy, bytes <= options_.packed_bytes, products));
  return *packed_.back();
}

const PackedAdapter* Engine::packed_adapter(const Policy& policy) {
  if (!policy.adapter()) return nullptr;
  for (const auto& adapter : adapters_) {
    if (adapter->holds(policy)) return adapter.get();
  }
  adapters_.push_back(std::make_unique<PackedAdapter>(policy));
  return adapters_.back().get();
}

Result Engine::finish(Sequence& sequence, Finish how, std::string error) const {
  Result result;
  result.id = sequence.request.id;
  result.ids.assign(sequence.tokens.begin() + static_cast<int64_t>(sequence.request.prompt.size()),
                    sequence.tokens.end());
  result.logprobs = std::move(sequence.logprobs);
  result.finish = how;
  result.error = std::move(error);
  result.version = sequence.begun ? sequence.version : sequence.request.policy->version();
  result.cached_tokens = sequence.cached_tokens;
  return result;
}

template <typename Predicate>
std::vector<std::unique_ptr<Sequence>> Engine::take(const Predicate& gone) {
  if (ahead_) {
    for (Sequence*& sequence : ahead_->drawing) {
      if (!sequence || !gone(*sequence)) continue;
      scheduler_->discount(*sequence);
      sequence = nullptr;
    }
  }
  return scheduler_->take(gone);
}

// Cancelled sequences, and those whose parameters changed under them.
void Engine::collect_interrupted(std::vector<Result>& results) {
  for (auto& result : refused_) results.push_back(std::move(result));
  refused_.clear();
  if (!scheduler_) return;
  for (auto& sequence : take([](const Sequence& s) { return s.cancelled || s.outdated(); })) {
    if (sequence->cancelled) {
      results.push_back(finish(*sequence, Finish::kCancelled));
    } else {
      results.push_back(finish(*sequence, Finish::kError,
                               "the policy was updated while this request ran; submit it again"));
    }
  }
}

std::optional<Result> Engine::advance(Sequence& sequence, int32_t token, float logprob) {
  const Request& request = sequence.request;
  if (token < 0) {
    scheduler_->take_back(sequence);
    return finish(sequence, Finish::kError, "the model's logits are not finite: its weights have diverged");
  }
  sequence.logprobs.push_back(logprob);
  bool stopped =
      std::find(request.stop_tokens.begin(), request.stop_tokens.end(), token) != request.stop_tokens.end();
  if (!request.stop_strings.empty()) {
    const int64_t begin = options_.token_offsets[token], end = options_.token_offsets[token + 1];
    const std::string_view bytes(reinterpret_cast<const char*>(options_.token_bytes.data()) + begin,
                                 end - begin);
    stopped = sequence.stop_strings.append(bytes) || stopped;
  }
  const bool stops = stopped && !request.ignore_stop;
  if (stops || sequence.samples() + (sequence.drawn ? 0 : 1) == request.max_tokens) {
    scheduler_->take_back(sequence);
    sequence.tokens.push_back(token);
    return finish(sequence, stops ? Finish::kStop : Finish::kLength);
  }
  scheduler_->append(sequence, token);
  if (!request.stream) return std::nullopt;
  return Result{
      request.id, {token}, {logprob}, Finish::kRunning, {}, sequence.version, sequence.cached_tokens};
}

at::Tensor Engine::run(Pass& pass, kernels::KvStore& store, const at::Tensor& drawn) {
  const PackedBase& base = packed(*pass.segments.front().policy);
  if (options_.record_steps && recorded_.takes(base, pass, store))
    return recorded_.run(base, pass, store, drawn);
  base.plan(pass);
  base.send(pass, store.shape.device, drawn);
  return base.compute(pass, store);
}

std::optional<Engine::Launched> Engine::launch(Plan& plan, const at::Tensor& drawn) {
  PagePool& pool = scheduler_->cache().pool();
  pool.copy(plan.copies);
  std::vector<at::Tensor> samples;
  std::vector<Sequence*> drawing;
  for (Pass& pass : plan.passes) {
    for (Segment& segment : pass.segments) segment.adapter = packed_adapter(*segment.policy);
    const at::Tensor own = run(pass, pool.store(), drawn);
    if (!own.defined()) continue;
    // A copy: recorded steps share their memory, and the next pass or step may write where these lie.
    samples.push_back(own.clone());
    drawing.insert(drawing.end(), pass.drawing.begin(), pass.drawing.end());
  }
  scheduler_->computed(plan);
  if (samples.empty()) return {};
  at::Tensor all = samples.size() > 1 ? at::cat(samples, 1) : samples.front();
  kernels::HostCopy copy(all);
  return Launched{std::move(drawing), std::move(all), std::move(copy)};
}

void Engine::make_room() {
  recorded_.clear(shape_->device);
  release_cached_memory(shape_->device);
}

std::optional<Engine::Launched> Engine::launch() {
  for (;;) {
    try {
      Plan plan = scheduler_->plan();
      if (plan.empty()) return {};
      drop_stale();
      return launch(plan, {});
    } catch (const c10::OutOfMemoryError&) {
      if (!scheduler_->halve()) throw;
    }
    make_room();  // the step's own tensors are freed now
  }
}

bool Engine::runs_ahead() const {
  return options_.run_ahead && !options_.deterministic && !packed_.empty() &&
         packed_.front()->kernels().runs_ahead();
}

std::optional<Engine::Launched> Engine::launch_after(const Launched& step) {
  for (size_t draw = 0; draw < step.drawing.size(); ++draw) {
    if (Sequence* sequence = step.drawing[draw])
      scheduler_->append_drawn(*sequence, static_cast<int64_t>(draw));
  }
  try {
    Plan plan = scheduler_->plan();
    if (plan.empty()) return {};
    drop_stale();
    return launch(plan, step.samples);
  } catch (const c10::OutOfMemoryError&) {
    ++memory_restarts_;
    make_room();
    return {};
  } catch (...) {
    // What they drew is lost with the error.
    for (Sequence* sequence : step.drawing) {
      if (!sequence) continue;
      scheduler_->take_back(*sequence);
      sequence->cancelled = true;
    }
    throw;
  }
}

void Engine::read(Launched& step, std::vector<Result>& results) {
  const at::Tensor drawn = step.copy.wait();  // the step's one wait for the device
  std::vector<int64_t> ended;
  const auto* id = drawn.const_data_ptr<int32_t>();
  const int32_t* bits = id + drawn.size(1);
  for (Sequence* sequence : step.drawing) {
    const int32_t token = *id++, logprob = *bits++;
    if (!sequence) continue;
    if (auto result = advance(*sequence, token, std::bit_cast<float>(logprob))) {
      if (result->finish != Finish::kRunning) ended.push_back(result->id);
      results.push_back(std::move(*result));
    }
  }
  std::sort(ended.begin(), ended.end());
  take([&](const Sequence& s) { return std::binary_search(ended.begin(), ended.end(), s.request.id); });
}

void Engine::open_cache(std::vector<Result>& results) {
  PagePool& pool = scheduler_->cache().pool();
  if (pool.has_slab() || scheduler_->idle()) return;
  pool.open();
  const auto too_long =
      take([&](const Sequence& sequence) { return !refusal_of_cache(sequence.request, pool).empty(); });
  for (const auto& sequence : too_long)
    results.push_back(finish(*sequence, Finish::kError, refusal_of_cache(sequence->request, pool)));
}

std::vector<Result> Engine::step() {
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  std::vector<Result> results;
  collect_interrupted(results);
  if (!scheduler_) return results;
  open_cache(results);
  std::optional<Launched> step = std::exchange(ahead_, std::nullopt);
  const auto draws = [](const Launched& launched) {
    return std::ranges::any_of(launched.drawing, [](const Sequence* sequence) { return sequence; });
  };
  if (!step || !draws(*step)) step = launch();
  if (!step) return results;
  if (runs_ahead()) ahead_ = launch_after(*step);
  read(*step, results);
  return results;
}

}  // namespace troupe::rollout
