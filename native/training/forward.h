// The training pass of a whole model: log-probabilities of a packed batch's response tokens with one autograd
// node, whose hand-written backward adds every gradient group's weight gradients to its accumulator. What the
// loss is, is for TypeScript.
#pragma once

#include <memory>

#include "batch/packed_batch.h"
#include "model/policy.h"

namespace troupe::training {

struct CallLogprobs {
  // [E] in the order of the calls (call by call, token by token), fp32 (fp64 in fp64 models). log p is of
  // softmax(logits / temperature), entropy of the same distribution, in nats. A call's own temperature goes
  // before the pass's.
  at::Tensor logprobs, entropy;
};

// gradients: both results carry an autograd node. Backward adds to the accumulators of policy->trained(),
// which must have one per group of the batch then and unchanged weights since; it runs once.
// activation_bytes: where the activations would take more, each layer keeps its input only and is run again
// in the backward pass (the same numbers, a third more work). 0: half of the memory that is free on the
// policy's device.
CallLogprobs token_logprobs(std::shared_ptr<const Policy> policy, std::shared_ptr<const PackedBatch> batch,
                            double temperature, bool gradients, int64_t activation_bytes = 0);

struct Likeliest {
  at::Tensor logprobs;  // [E] of the response tokens, in the order of the calls, wide
  at::Tensor ids,
      values;  // [E, K] int64 and wide: the K likeliest tokens in each one's place, likeliest first
};

// The same distributions without gradients, and what else was likely: every number of an entry is of one softmax over
// the whole vocabulary. Holds kernels' logit_rows() rows of logits at a time.
Likeliest likeliest_tokens(std::shared_ptr<const Policy> policy, std::shared_ptr<const PackedBatch> batch,
                           double temperature, int64_t count);

}  // namespace troupe::training
