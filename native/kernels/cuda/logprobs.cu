// Log-probabilities and entropies of a chunk of entries from their rows of logits, and the logits' gradient.
#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kWarps = 16, kThreads = kWarps * 32;

// Σ exp(l − best) and Σ exp(l − best) (l − best) of the logits met so far.
template <typename A>
struct Running {
  A best, total, weighted;
};
template <typename A>
__device__ __forceinline__ Running<A> joined(Running<A> a, Running<A> b) {
  if (b.best > a.best) {
    const Running<A> other = a;
    a = b;
    b = other;
  }
  const A distance = b.best - a.best, shrink = exp(distance);
  // −∞: nothing was met. 0 · ∞ would be no number.
  if (shrink == 0) return a;
  return {a.best, a.total + shrink * b.total, a.weighted + shrink * (b.weighted + distance * b.total)};
}

template <typename A>
__global__ void __launch_bounds__(kThreads, 1) logprobs_kernel(Logprobs args) {
  __shared__ A parts[kWarps][3];
  const int64_t entry = blockIdx.x;
  const A* const logits = static_cast<const A*>(args.logits) + entry * args.vocabulary;
  const A inverse = static_cast<A>(1 / args.temperatures[entry]);
  Running<A> mine{-INFINITY, 0, 0};
  for (int64_t j = threadIdx.x; j < args.vocabulary; j += kThreads) {
    mine = joined(mine, Running<A>{logits[j] * inverse, 1, 0});
  }
  for (int offset = 16; offset > 0; offset >>= 1) {
    mine = joined(mine, Running<A>{__shfl_xor_sync(0xffffffffu, mine.best, offset),
                                   __shfl_xor_sync(0xffffffffu, mine.total, offset),
                                   __shfl_xor_sync(0xffffffffu, mine.weighted, offset)});
  }
  if (threadIdx.x % 32 == 0) {
    parts[threadIdx.x / 32][0] = mine.best;
    parts[threadIdx.x / 32][1] = mine.total;
    parts[threadIdx.x / 32][2] = mine.weighted;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int w = 1; w < kWarps; ++w) mine = joined(mine, Running<A>{parts[w][0], parts[w][1], parts[w][2]});
  const A log_total = log(mine.total), logsumexp = mine.best + log_total;
  static_cast<A*>(args.logsumexp)[entry] = logsumexp;
  static_cast<A*>(args.logprobs)[entry] = logits[args.targets[entry]] * inverse - logsumexp;
  static_cast<A*>(args.entropy)[entry] = log_total - mine.weighted / mine.total;
}

// grid (columns, entries)
template <typename T>
__global__ void __launch_bounds__(256, 1) logprobs_backward_kernel(LogprobsBackward args) {
  using A = Accumulate<T>;
  const int64_t entry = blockIdx.x;
  const A inverse = static_cast<A>(1 / args.temperatures[entry]);
  const A logsumexp = static_cast<const A*>(args.logsumexp)[entry],
          entropy = static_cast<const A*>(args.entropy)[entry];
  const A grad = static_cast<const A*>(args.grad_logprobs)[entry];
  const A grad_entropy = args.grad_entropy ? static_cast<const A*>(args.grad_entropy)[entry] : A(0);
  const int64_t target = args.targets[entry];
  const A* const logits = static_cast<const A*>(args.logits) + entry * args.vocabulary;
  T* const out = static_cast<T*>(args.grad_logits) + entry * args.vocabulary;
  for (int64_t j = blockIdx.y * 256 + threadIdx.x; j < args.vocabulary;
       j += static_cast<int64_t>(gridDim.y) * 256) {
    const A log_p = logits[j] * inverse - logsumexp, p = exp(log_p);
    A value = (j == target ? grad : A(0)) - grad * p;
    // p log p → 0 where the logit is −∞.
    if (p > 0) value -= grad_entropy * p * (log_p + entropy);
    out[j] = narrow<T>(value * inverse);
  }
}

}  // namespace

int token_logprobs(const Logprobs& args, Stream stream) {
  const dim3 grid(static_cast<unsigned>(args.count));
  if (args.type == Type::kDouble) return launch(logprobs_kernel<double>, grid, kThreads, 0, stream, args);
  return launch(logprobs_kernel<float>, grid, kThreads, 0, stream, args);
}

int token_logprobs_backward(const LogprobsBackward& args, Stream stream) {
  const unsigned columns = blocks_for(args.vocabulary, 256 * 8);
  return with_type(args.type, [&](auto element) {
    return launch(logprobs_backward_kernel<decltype(element)>,
                  dim3(static_cast<unsigned>(args.count), columns), 256, 0, stream, args);
  });
}

}  // namespace troupe::kernels::cuda
