// The gradient observer: what the groups' accumulators say about each other, and how much of the parameters'
// change each of them makes. Statistics built on it (shares, cosines, noise floors) are for src/gradients.
//
// Everything here is about this process's shard of the accumulators (model/parameters.h), and so are the extras: sums
// over several processes' shards are sums of the results. With one process the shard is everything.
#pragma once

#include <span>
#include <vector>

#include "kernels/kernels.h"
#include "model/parameters.h"
#include "training/optimizer.h"

namespace troupe::training {

// Inner products of the groups' gradients and `extras` (flat, like a shard) per parameter, in fp64:
// [parameters, K + X, K + X] row-major, symmetric. One pass over the accumulators; the sums do not depend on
// the number of threads.
std::vector<double> gram(const ParameterSet& parameters, const std::vector<at::Tensor>& extras = {});

// Σ_k a_k g_k + Σ_x a_x e_x, formed in group 0's accumulator and returned flat. `coefficients`: K + X
// numbers, or none for the plain sum. The other groups' gradients are gone then.
at::Tensor total_gradient(ParameterSet& parameters, std::span<const double> coefficients = {},
                          const std::vector<at::Tensor>& extras = {});

// target ← decay · target + Σ_k a_k g_k, flat.
void add_gradients(const ParameterSet& parameters, at::Tensor target, double decay,
                   std::span<const double> coefficients);

struct StepOptions {
  double clip = 1;      // factor on the gradient
  bool measure = true;  // whether an AdamWChange is wanted
  // Group 0's accumulator becomes Σ_k a_k g_k + Σ_x a_x e_x; if not, no group's is specified.
  bool keep_total = false;
};
// One AdamW step with clip (Σ_k a_k g_k + Σ_x a_x e_x), formed on the way, and a new version of the parameters, which is
// counted before the first of them changes: where this throws, an unchanged version says that they are unchanged.
// `optimizer`: of the shard's masters with and without weight decay. The products, of the K groups, the extras, the
// momentum carried over and weight decay, are per parameter: [parameters, K + X + 2].
kernels::AdamWChange adamw_step(ParameterSet& parameters, AdamW& optimizer,
                                std::span<const double> coefficients, const std::vector<at::Tensor>& extras,
                                const StepOptions& options);

}  // namespace troupe::training
