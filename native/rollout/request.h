// What the rollout engine takes and gives, in plain C++. src/engine/native.ts documents each field.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/policy.h"

namespace troupe::rollout {

struct Options {
  int64_t cache_bytes = 0;     // 0: the free memory of the device decides
  int64_t reserved_bytes = 0;  // of it are not for the cache (CacheBudget)
  int64_t max_positions = 0;   // the model's; the engine fills it in
  int64_t max_batch = 0;
  int64_t prefill_tokens = 0;
  int64_t packed_bytes = int64_t{2} << 30;
  uint64_t seed = 0;
  bool deterministic = false;
  bool record_steps = true;  // decode steps are recorded and replayed where the kernels do (RecordedSteps)
  bool run_ahead =
      true;  // where the device works on its own, a step is launched before the last one's tokens are read
  bool measure_products = true;  // of recorded steps, where the kernels do (Products::kMeasured)
  // Bytes of every token, concatenated; empty: no stop strings.
  std::vector<uint8_t> token_bytes;
  std::vector<int32_t> token_offsets;
};

using kernels::Sampling;

struct Request {
  int64_t id = 0;
  std::shared_ptr<Policy> policy;
  std::vector<int32_t> prompt;
  int64_t max_tokens = 0;
  Sampling sampling;
  std::vector<int32_t> stop_tokens;
  std::vector<std::string> stop_strings;
  std::array<uint32_t, 5> counter{};  // step, episode, role, slot, turn
  bool ignore_stop = false;
  bool stream = false;  // every token is a result of its own, as it comes
};

enum class Finish { kRunning, kStop, kLength, kCancelled, kError };

struct Result {
  int64_t id = 0;
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  Finish finish = Finish::kError;
  std::string error;
  int64_t version = 0;
  int64_t cached_tokens = 0;
};

struct Statistics {
  int64_t running = 0, waiting = 0;
  int64_t cache_bytes = 0;   // in use
  int64_t cache_tokens = 0;  // that the cache can hold
  int64_t prefill_tokens = 0, decode_tokens = 0, cached_tokens = 0;
  int64_t preemptions = 0;
  // Times that memory ran out, and a smaller slab or fewer rows were taken, no step was recorded any more, or one was not
  // launched ahead.
  int64_t memory_restarts = 0;
  int64_t replayed_steps = 0;  // decode steps that were recorded ones
};

}  // namespace troupe::rollout
