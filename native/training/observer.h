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

namespace troupe::training {

// Inner products of the groups' gradients and `extras` (flat, like a shard) per parameter, in fp64:
// [parameters, K + X, K + X] row-major, symmetric. One pass over the accumulators; the sums do not depend on
// the number of threads.
std::vector<double> gram(const ParameterSet& parameters, const std::vector<at::Tensor>& extras = {});

// Σ_k a_k g_k + Σ_x a_x e_x, formed in group 0's accumulator and returned flat. `coefficients`: K + X
// numbers, or none for the plain sum. The other groups' gradients are gone then; of their memory, as much as
// the device may keep is kept for the next update.
at::Tensor total_gradient(ParameterSet& parameters, std::span<const double> coefficients = {},
                          const std::vector<at::Tensor>& extras = {});

// target ← decay · target + Σ_k a_k g_k, flat.
void add_gradients(const ParameterSet& parameters, at::Tensor target, double decay,
                   std::span<const double> coefficients);

// ⟨u_j, Δθ⟩ per parameter for the K groups, the extras, the momentum carried over and weight decay, in fp64:
// [parameters, K + X + 2]. Δθ is the change that the step is going to make, and u_j the part of it that comes
// from one source, u_j = −lr (1 − β₁) clip a_j g_j / ((1 − β₁ᵗ)(√v̂ + ε)), so each row sums to ‖Δθ‖². To be
// called before the step, while the groups' accumulators are whole.
std::vector<double> optimizer_products(const ParameterSet& parameters, std::span<const double> coefficients,
                                       const std::vector<at::Tensor>& extras, const kernels::AdamWStep& step);

}  // namespace troupe::training
