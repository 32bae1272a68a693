// What the observer and the optimizer ask of flat vectors of the size of a model: inner products by
// parameter, and the parts of an AdamW step. Sums are float64; each block writes one partial result of its
// own, and a second kernel adds them in order, so that a result is the same in every run.
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

// grid (pieces)
template <typename A, int kVectors>
__global__ void __launch_bounds__(kThreads, 1)
    adamw_pieces_kernel(Vectors vectors, AdamWProducts step, const Piece* pieces, double* products) {
  const Piece piece = pieces[blockIdx.x];
  const int64_t origin = piece.decays ? 0 : step.decay_size;
  const A* const averages = static_cast<const A*>(piece.decays ? step.averages[0] : step.averages[1]);
  const A* const squares = static_cast<const A*>(piece.decays ? step.squares[0] : step.squares[1]);
  const A* const theta = static_cast<const A*>(step.theta);
  const double weight_decay = piece.decays ? step.weight_decay : 0;
  double sums[kVectors] = {}, momenta = 0, decays = 0;
  const double inverse2 = 1 / step.correction2, rate = -step.learning_rate / step.correction1;
  const auto add = [&](const A(&x)[kVectors], A average, A square, A parameter) {
    double g = 0, part[kVectors];
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      part[j] = vectors.coefficient[j] * x[j];
      g += part[j];
    }
    g *= step.clip;
    const double v = (step.beta2 * square + (1 - step.beta2) * g * g) * inverse2;
    const double scale = rate / (sqrt(v) + step.eps);
    // Where ε is 0 and there is no gradient, nothing moves: 0 · ∞ would say otherwise.
    const bool moves = isfinite(scale);
    const double momentum = moves ? scale * step.beta1 * average : 0;
    const double decay = -step.learning_rate * weight_decay * parameter;
    const double change = (moves ? scale * (1 - step.beta1) * g : 0) + momentum + decay;
    momenta += momentum * change;
    decays += decay * change;
    const double w = moves ? scale * (1 - step.beta1) * step.clip * change : 0;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) sums[j] += part[j] * w;
  };
  const auto add_at = [&](int64_t at) {
    A one[kVectors];
#pragma unroll
    for (int j = 0; j < kVectors; ++j)
      one[j] = j < vectors.count ? static_cast<const A*>(vectors.data[j])[at] : A(0);
    add(one, averages ? averages[at - origin] : A(0), squares ? squares[at - origin] : A(0), theta[at]);
  };
  if constexpr (kVectors <= 8) {
    const auto add_four = [&](int64_t at) {
      using Four = Pack<A, 4>;
      Four x[kVectors], average = {}, square = {};
#pragma unroll
      for (int j = 0; j < kVectors; ++j)
        x[j] = j < vectors.count ? *reinterpret_cast<const Four*>(static_cast<const A*>(vectors.data[j]) + at)
                                 : Four{};
      const Four parameter = *reinterpret_cast<const Four*>(theta + at);
      if (averages) average = *reinterpret_cast<const Four*>(averages + at - origin);
      if (squares) square = *reinterpret_cast<const Four*>(squares + at - origin);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        A one[kVectors];
#pragma unroll
        for (int j = 0; j < kVectors; ++j) one[j] = x[j].at[i];
        add(one, average.at[i], square.at[i], parameter.at[i]);
      }
    };
    for_fours(piece, origin % 4 == 0, add_four, add_at);
  } else {  // no registers for four neighbours of each
    for (int64_t i = threadIdx.x; i < piece.length; i += kThreads) add_at(piece.begin + i);
  }
  double* const to = products + static_cast<int64_t>(blockIdx.x) * (vectors.count + 2);
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const double total = block_total(sums[j]);
    if (threadIdx.x == 0 && j < vectors.count) to[j] = total;
  }
  momenta = block_total(momenta);
  decays = block_total(decays);
  if (threadIdx.x == 0) {
    to[vectors.count] = momenta;
    to[vectors.count + 1] = decays;
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

int adamw_pieces(const Vectors& vectors, const AdamWProducts& step, const Piece* pieces, int32_t count,
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
