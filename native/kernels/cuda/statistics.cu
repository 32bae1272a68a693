// What the observer and the optimizer ask of flat vectors of the size of a model: inner products by parameter, and an
// AdamW step with what each vector makes of it. Sums are float64; each block writes one partial result of its own,
// and a second kernel adds them in order, so that a result is the same in every run.
#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32, kTile = 4;

__device__ double block_total(double value) { return block_sum<kWarps>(value); }

// Calls f(i) for the neighbours of a piece, four at a time where they are read as one, and g(i) for the rest.
template <typename F, typename G>
__device__ __forceinline__ void for_fours(const Piece& piece, bool fours, const F& f, const G& g) {
  const int64_t begin = fours && piece.begin % 4 == 0 ? piece.length / 4 * 4 : 0;
  for (int64_t i = threadIdx.x * 4; i < begin; i += kThreads * 4) f(piece.begin + i);
  for (int64_t i = begin + threadIdx.x; i < piece.length; i += kThreads) g(piece.begin + i);
}

// grid (pieces): all pairs of up to four vectors.
template <typename A, int kVectors>
__global__ void __launch_bounds__(kThreads, 1)
    gram_few_kernel(Vectors vectors, const Piece* pieces, double* products) {
  const Piece piece = pieces[blockIdx.x];
  double sums[kVectors][kVectors] = {};
  const auto add = [&](const A(&x)[kVectors]) {
#pragma unroll
    for (int l = 0; l < kVectors; ++l) {
#pragma unroll
      for (int m = l; m < kVectors; ++m) sums[l][m] += static_cast<double>(x[l]) * static_cast<double>(x[m]);
    }
  };
  for_fours(
      piece, true,
      [&](int64_t at) {
        Pack<A, 4> x[kVectors];
#pragma unroll
        for (int k = 0; k < kVectors; ++k)
          x[k] = *reinterpret_cast<const Pack<A, 4>*>(static_cast<const A*>(vectors.data[k]) + at);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          A one[kVectors];
#pragma unroll
          for (int k = 0; k < kVectors; ++k) one[k] = x[k].at[j];
          add(one);
        }
      },
      [&](int64_t at) {
        A one[kVectors];
#pragma unroll
        for (int k = 0; k < kVectors; ++k) one[k] = static_cast<const A*>(vectors.data[k])[at];
        add(one);
      });
  double* const to = products + static_cast<int64_t>(blockIdx.x) * kVectors * kVectors;
#pragma unroll
  for (int l = 0; l < kVectors; ++l) {
#pragma unroll
    for (int m = l; m < kVectors; ++m) {
      const double total = block_total(sums[l][m]);
      if (threadIdx.x == 0) to[l * kVectors + m] = total;
    }
  }
}

// grid (pieces, tiles of 4 × 4 pairs)
template <typename A>
__global__ void __launch_bounds__(kThreads, 1)
    gram_kernel(Vectors vectors, const Piece* pieces, double* products) {
  const int tiles = (vectors.count + kTile - 1) / kTile;
  // Tile number → (row, column) with row ≤ column.
  int row = 0, left = static_cast<int>(blockIdx.y);
  while (left >= tiles - row) left -= tiles - row++;
  const int first = row * kTile, second = (row + left) * kTile;
  const Piece piece = pieces[blockIdx.x];
  double sums[kTile][kTile] = {};
  for (int64_t i = threadIdx.x; i < piece.length; i += kThreads) {
    double a[kTile], b[kTile];
#pragma unroll
    for (int j = 0; j < kTile; ++j) {
      a[j] = first + j < vectors.count ? static_cast<const A*>(vectors.data[first + j])[piece.begin + i] : 0;
      b[j] =
          second + j < vectors.count ? static_cast<const A*>(vectors.data[second + j])[piece.begin + i] : 0;
    }
#pragma unroll
    for (int j = 0; j < kTile; ++j) {
#pragma unroll
      for (int k = 0; k < kTile; ++k) sums[j][k] += a[j] * b[k];
    }
  }
  double* const to = products + static_cast<int64_t>(blockIdx.x) * vectors.count * vectors.count;
#pragma unroll
  for (int j = 0; j < kTile; ++j) {
#pragma unroll
    for (int k = 0; k < kTile; ++k) {
      const double total = block_total(sums[j][k]);
      const int l = first + j, m = second + k;
      if (threadIdx.x == 0 && l < vectors.count && m < vectors.count) to[l * vectors.count + m] = total;
    }
  }
}

// grid (parameters, width)
__global__ void __launch_bounds__(kThreads, 1)
    sum_pieces_kernel(const double* pieces, const int32_t* starts, int width, double* totals) {
  const int j = static_cast<int>(blockIdx.y), end = starts[blockIdx.x + 1];
  double total = 0;
  for (int p = starts[blockIdx.x] + static_cast<int>(threadIdx.x); p < end; p += kThreads)
    total += pieces[static_cast<int64_t>(p) * width + j];
  total = block_total(total);
  if (threadIdx.x == 0) totals[static_cast<int64_t>(blockIdx.x) * width + j] = total;
}

// One element's step, in the type of the masters but for the sum of the gradients: where they cancel, what is left is
// as exact as they are. Products of it are summed in float64.
template <typename A, int kVectors>
struct Stepper {
  const Vectors& vectors;
  const AdamWUpdate& step;
  A weight_decay, inverse2, rate;
  double sums[kVectors] = {}, momenta = 0, decays = 0, norm = 0;

  __device__ Stepper(const Vectors& all, const AdamWUpdate& update, bool with_decay)
      : vectors(all),
        step(update),
        weight_decay(static_cast<A>(with_decay ? -update.learning_rate * update.weight_decay : 0)),
        inverse2(static_cast<A>(1 / update.correction2)),
        rate(static_cast<A>(-update.learning_rate / update.correction1)) {}
  // Returns the total, not clipped.
  __device__ A operator()(const A (&x)[kVectors], A& average, A& square, A& parameter) {
    const A beta1 = static_cast<A>(step.beta1), rest1 = static_cast<A>(1 - step.beta1),
            beta2 = static_cast<A>(step.beta2), rest2 = static_cast<A>(1 - step.beta2);
    double total = 0;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) total += vectors.coefficient[j] * static_cast<double>(x[j]);
    norm += total * total;
    const A g = static_cast<A>(step.clip * total);
    square = beta2 * square + rest2 * g * g;
    const A scale = rate / (sqrt(square * inverse2) + static_cast<A>(step.eps));
    // Where ε is 0 and there is no gradient, nothing moves: 0 · ∞ would say otherwise.
    const A own = isfinite(scale) ? scale * rest1 : 0, carried = isfinite(scale) ? scale * beta1 : 0;
    const A momentum = carried * average, decay = weight_decay * parameter;
    const A change = own * g + momentum + decay;
    average = beta1 * average + rest1 * g;
    parameter += change;
    const double wide = change;
    momenta += static_cast<double>(momentum) * wide;
    decays += static_cast<double>(decay) * wide;
    const double weight = static_cast<double>(own) * step.clip * wide;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) sums[j] += static_cast<double>(x[j]) * weight;
    return static_cast<A>(total);
  }
};

// grid (pieces)
template <typename A, int kVectors>
__global__ void __launch_bounds__(kThreads, 1)
    adamw_pieces_kernel(Vectors vectors, AdamWUpdate step, const Piece* pieces, double* products) {
  const Piece piece = pieces[blockIdx.x];
  const int64_t origin = piece.decays ? 0 : step.decay_size;
  A* const averages = static_cast<A*>(piece.decays ? step.averages[0] : step.averages[1]);
  A* const squares = static_cast<A*>(piece.decays ? step.squares[0] : step.squares[1]);
  A* const theta = static_cast<A*>(step.theta);
  A* const total = static_cast<A*>(step.total);
  Bf16* const copy = static_cast<Bf16*>(step.copy);
  Stepper<A, kVectors> stepper(vectors, step, piece.decays);
  const auto step_at = [&](int64_t at) {
    A one[kVectors];
#pragma unroll
    for (int j = 0; j < kVectors; ++j)
      one[j] = j < vectors.count ? static_cast<const A*>(vectors.data[j])[at] : A(0);
    const A whole = stepper(one, averages[at - origin], squares[at - origin], theta[at]);
    if (total) total[at] = whole;
    if (copy) copy[at] = narrow<Bf16>(static_cast<float>(theta[at]));
  };
  if constexpr (kVectors <= 8) {
    const auto step_four = [&](int64_t at) {
      using Four = Pack<A, 4>;
      Four x[kVectors], whole;
      Pack<Bf16, 4> rounded;
#pragma unroll
      for (int j = 0; j < kVectors; ++j)
        x[j] = j < vectors.count ? *reinterpret_cast<const Four*>(static_cast<const A*>(vectors.data[j]) + at)
                                 : Four{};
      Four parameter = *reinterpret_cast<const Four*>(theta + at),
           average = *reinterpret_cast<const Four*>(averages + at - origin),
           square = *reinterpret_cast<const Four*>(squares + at - origin);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        A one[kVectors];
#pragma unroll
        for (int j = 0; j < kVectors; ++j) one[j] = x[j].at[i];
        whole.at[i] = stepper(one, average.at[i], square.at[i], parameter.at[i]);
        rounded.at[i] = narrow<Bf16>(static_cast<float>(parameter.at[i]));
      }
      *reinterpret_cast<Four*>(theta + at) = parameter;
      *reinterpret_cast<Four*>(averages + at - origin) = average;
      *reinterpret_cast<Four*>(squares + at - origin) = square;
      if (total) *reinterpret_cast<Four*>(total + at) = whole;
      if (copy) *reinterpret_cast<Pack<Bf16, 4>*>(copy + at) = rounded;
    };
    for_fours(piece, origin % 4 == 0, step_four, step_at);
  } else {  // no registers for four neighbours of each
    for (int64_t i = threadIdx.x; i < piece.length; i += kThreads) step_at(piece.begin + i);
  }
  double* const to = products + static_cast<int64_t>(blockIdx.x) * (vectors.count + 3);
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const double sum = block_total(stepper.sums[j]);
    if (threadIdx.x == 0 && j < vectors.count) to[j] = sum * vectors.coefficient[j];
  }
  const double momenta = block_total(stepper.momenta), decays = block_total(stepper.decays),
               norm = block_total(stepper.norm);
  if (threadIdx.x == 0) {
    to[vectors.count] = momenta;
    to[vectors.count + 1] = decays;
    to[vectors.count + 2] = norm;
  }
}

template <typename F>
int with_wide(Type type, const F& f) {
  if (type == Type::kDouble) return f(double{});
  return type == Type::kFloat ? f(float{}) : kInvalidValue;
}

}  // namespace

int gram_pieces(const Vectors& vectors, const Piece* pieces, int32_t count, double* products, Stream stream) {
  const int tiles = (vectors.count + kTile - 1) / kTile;
  return with_wide(vectors.type, [&](auto wide) {
    using A = decltype(wide);
    const auto few = [&](auto kernel) {
      return launch(kernel, dim3(count), kThreads, 0, stream, vectors, pieces, products);
    };
    if (vectors.count == 1) return few(gram_few_kernel<A, 1>);
    if (vectors.count == 2) return few(gram_few_kernel<A, 2>);
    if (vectors.count == 3) return few(gram_few_kernel<A, 3>);
    if (vectors.count == 4) return few(gram_few_kernel<A, 4>);
    return launch(gram_kernel<A>, dim3(count, tiles * (tiles + 1) / 2), kThreads, 0, stream, vectors, pieces,
                  products);
  });
}

int sum_pieces(const double* pieces, const int32_t* starts, int32_t parameters, int32_t width, double* totals,
               Stream stream) {
  return launch(sum_pieces_kernel, dim3(parameters, width), kThreads, 0, stream, pieces, starts, width,
                totals);
}

int adamw_pieces(const Vectors& vectors, const AdamWUpdate& step, const Piece* pieces, int32_t count,
                 double* products, Stream stream) {
  return with_wide(vectors.type, [&](auto wide) {
    using A = decltype(wide);
    const dim3 grid(count);
    if (vectors.count == 1)
      return launch(adamw_pieces_kernel<A, 1>, grid, kThreads, 0, stream, vectors, step, pieces, products);
    if (vectors.count <= 4)
      return launch(adamw_pieces_kernel<A, 4>, grid, kThreads, 0, stream, vectors, step, pieces, products);
    if (vectors.count <= 8)
      return launch(adamw_pieces_kernel<A, 8>, grid, kThreads, 0, stream, vectors, step, pieces, products);
    return launch(adamw_pieces_kernel<A, kMaxVectors>, grid, kThreads, 0, stream, vectors, step, pieces,
                  products);
  });
}

}  // namespace troupe::kernels::cuda
