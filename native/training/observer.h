// The gradient observer: what the groups' accumulators say about each other. Statistics built on it (shares,
// cosines, noise floors) are for src/gradients.
#pragma once

#include <vector>

#include "model/parameters.h"

namespace troupe::training {

// Inner products ⟨g_k, g_l⟩ of the groups' gradients per parameter, in fp64: [parameters, K, K] row-major,
// symmetric. One pass over the accumulators; the sums do not depend on the number of threads.
std::vector<double> gram(const ParameterSet& parameters);

// Σ_k g_k, formed in group 0's accumulator and returned flat; the other groups' accumulators are freed.
at::Tensor total_gradient(ParameterSet& parameters);

}  // namespace troupe::training
