// Draws one token from a row of logits.
//
// Filters apply in the order of transformers and vLLM: temperature, top-k, top-p (of what top-k left,
// renormalised; the token that crosses p belongs to it), min-p (relative to the likeliest token). Among equal
// probabilities the smaller id comes first.
#pragma once

#include <cstdint>

#include "rollout/request.h"

namespace troupe::rollout {

struct Sample {
  int32_t token = -1;  // −1: the logits are not finite
  // Natural log of its probability under the full softmax at the sampling temperature, before the filters.
  // Greedy (temperature 0): at temperature 1.
  double logprob = 0;
};

// logits [vocabulary]; uniform in [0, 1).
Sample sample(const float* logits, int64_t vocabulary, const Sampling& sampling, double uniform);
Sample sample(const double* logits, int64_t vocabulary, const Sampling& sampling, double uniform);

}  // namespace troupe::rollout
