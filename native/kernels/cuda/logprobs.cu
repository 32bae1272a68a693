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

// The logits of a pack join those met so far: what was met is shrunk once for all of them.
template <int V, typename A>
__device__ __forceinline__ void join(Running<A>& met, const A (&logits)[V]) {
  A best = met.best;
#pragma unroll
  for (int j = 0; j < V; ++j) best = max(best, logits[j]);
  met = joined(Running<A>{best, 0, 0}, met);
  const A origin = best == -INFINITY ? A(0) : best;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const A distance = logits[j] - origin, share = exp(distance);
    met.total += share;
    if (share != 0) met.weighted += share * distance;  // 0 · ∞ would be no number
  }
}

template <typename A, int V>
__global__ void __launch_bounds__(kThreads, 1) logprobs_kernel(Logprobs args) {
  __shared__ A parts[kWarps][3];
  const int64_t entry = blockIdx.x;
  const A* const logits = static_cast<const A*>(args.logits) + entry * args.vocabulary;
  const A inverse = static_cast<A>(1 / args.temperatures[entry]);
  Running<A> mine{-INFINITY, 0, 0};
#pragma unroll 4
  for (int64_t j = threadIdx.x * V; j < args.vocabulary; j += kThreads * V) {
    A pack[V];
    load(logits + j, pack);
#pragma unroll
    for (int l = 0; l < V; ++l) pack[l] *= inverse;
    join(mine, pack);
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

// Packs of V logits, kPacks for each thread of a block. grid (entries, columns)
constexpr int kBackwardThreads = 256, kPacks = 2;

template <typename T, int V>
__global__ void __launch_bounds__(kBackwardThreads, 1) logprobs_backward_kernel(LogprobsBackward args) {
  using A = Accumulate<T>;
  constexpr int kRead = V < 4 ? V : 4;
  const int64_t entry = blockIdx.x;
  const A* const logits = static_cast<const A*>(args.logits) + entry * args.vocabulary;
  T* const out = static_cast<T*>(args.grad_logits) + entry * args.vocabulary;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) * kPacks * kBackwardThreads + threadIdx.x) * V;
  const auto at = [&](int p) { return first + p * kBackwardThreads * V; };
  A packs[kPacks][V / kRead][kRead];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
#pragma unroll
    for (int part = 0; part < V / kRead; ++part)
      if (at(p) < args.vocabulary) load(logits + at(p) + part * kRead, packs[p][part]);
  }
  const A inverse = static_cast<A>(1 / args.temperatures[entry]);
  const A logsumexp = static_cast<const A*>(args.logsumexp)[entry],
          entropy = static_cast<const A*>(args.entropy)[entry];
  const A grad = static_cast<const A*>(args.grad_logprobs)[entry];
  const A grad_entropy = args.grad_entropy ? static_cast<const A*>(args.grad_entropy)[entry] : A(0);
  const int64_t target = args.targets[entry];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (at(p) >= args.vocabulary) break;
    A grads[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const A log_p = packs[p][j / kRead][j % kRead] * inverse - logsumexp, probability = exp(log_p);
      A value = (at(p) + j == target ? grad : A(0)) - grad * probability;
      // p log p → 0 where the logit is −∞.
      if (probability > 0) value -= grad_entropy * probability * (log_p + entropy);
      grads[j] = value * inverse;
    }
    store(grads, out + at(p));
  }
}

}  // namespace

int token_logprobs(const Logprobs& args, Stream stream) {
  const dim3 grid(static_cast<unsigned>(args.count));
  if (args.type == Type::kDouble) return launch(logprobs_kernel<double, 1>, grid, kThreads, 0, stream, args);
  const bool packs = args.vocabulary % 4 == 0 && aligned(args.logits);
  return launch(packs ? logprobs_kernel<float, 4> : logprobs_kernel<float, 1>, grid, kThreads, 0, stream,
                args);
}

int token_logprobs_backward(const LogprobsBackward& args, Stream stream) {
  const bool packs = args.vocabulary % 8 == 0 && aligned(args.logits) && aligned(args.grad_logits);
  const auto start = [&](auto element, auto pack) {
    constexpr int V = decltype(pack)::value;
    const dim3 grid(static_cast<unsigned>(args.count),
                    blocks_for(args.vocabulary, kBackwardThreads * kPacks * V));
    return launch(logprobs_backward_kernel<decltype(element), V>, grid, kBackwardThreads, 0, stream, args);
  };
  using One = std::integral_constant<int, 1>;
  return with_type(args.type, [&](auto element) {
    if constexpr (std::is_same_v<decltype(element), Bf16>) {
      if (packs) return start(element, std::integral_constant<int, 8>{});
    }
    return start(element, One{});
  });
}

}  // namespace troupe::kernels::cuda
