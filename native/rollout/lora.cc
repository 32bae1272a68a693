#include "rollout/lora.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "rollout/vector16.h"

namespace troupe::rollout {

namespace {

constexpr int64_t kRows = 4;  // of one task

template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

// N rows of x against M rows of A: N · M dot products of length `in`.
template <typename T, typename A, int N, int M>
TROUPE_INLINE void dots(const A* x, const T* a, int64_t in, A* u, int64_t rank) {
  Vector<A> sums[N][M] = {};
  int64_t i = 0;
  for (; i + kLanes <= in; i += kLanes) {
    Vector<A> weights[M];
    for (int m = 0; m < M; ++m) weights[m] = load(a + m * in + i);
    for (int n = 0; n < N; ++n) {
      const Vector<A> row = load(x + n * in + i);
      for (int m = 0; m < M; ++m) sums[n][m] += row * weights[m];
    }
  }
  for (int n = 0; n < N; ++n) {
    for (int m = 0; m < M; ++m) {
      A total = sum<A>(sums[n][m]);
      for (int64_t j = i; j < in; ++j) total += x[n * in + j] * static_cast<A>(a[m * in + j]);
      u[n * rank + m] = total;
    }
  }
}

// y[n, :] += scale · u[n, :] Bᵀ.
template <typename T, typename A, int N>
TROUPE_INLINE void spread(const A* u, int64_t rank, const T* b, int64_t rows, A scale, T* y, int64_t stride) {
  int64_t j = 0;
  for (; j + kLanes <= rows; j += kLanes) {
    Vector<A> sums[N] = {};
    for (int64_t k = 0; k < rank; ++k) {
      const Vector<A> weights = load(b + k * rows + j);
      for (int n = 0; n < N; ++n) sums[n] += weights * u[n * rank + k];
    }
    for (int n = 0; n < N; ++n) {
      for (int lane = 0; lane < kLanes; ++lane) {
        T& to = y[n * stride + j + lane];
        to = static_cast<T>(static_cast<A>(to) + scale * sums[n][lane]);
      }
    }
  }
  for (; j < rows; ++j) {
    for (int n = 0; n < N; ++n) {
      A total = 0;
      for (int64_t k = 0; k < rank; ++k) total += u[n * rank + k] * static_cast<A>(b[k * rows + j]);
      T& to = y[n * stride + j];
      to = static_cast<T>(static_cast<A>(to) + scale * total);
    }
  }
}

template <typename T, int N>
TROUPE_INLINE void add_rows(const LoraLinear& linear, const T* x, int64_t in, T* y, int64_t out) {
  using A = Accumulate<T>;
  static thread_local std::vector<A> wide, inner;
  wide.resize(N * in);
  for (int64_t i = 0; i < N * in; ++i) wide[i] = static_cast<A>(x[i]);
  for (const LoraTerm& term : linear.terms) {
    const int64_t rank = term.a.size(0);
    const T* a = term.a.const_data_ptr<T>();
    inner.resize(N * rank);
    int64_t k = 0;
    for (; k + 4 <= rank; k += 4) dots<T, A, N, 4>(wide.data(), a + k * in, in, inner.data() + k, rank);
    for (; k < rank; ++k) dots<T, A, N, 1>(wide.data(), a + k * in, in, inner.data() + k, rank);
    spread<T, A, N>(inner.data(), rank, term.b_transposed.const_data_ptr<T>(), term.b_transposed.size(1),
                    static_cast<A>(linear.scale), y + term.begin, out);
  }
}

template <typename T>
TROUPE_INLINE void add_task(const LoraLinear& linear, const T* x, int64_t in, T* y, int64_t out,
                            int64_t rows) {
  if (rows == 4) return add_rows<T, 4>(linear, x, in, y, out);
  if (rows == 3) return add_rows<T, 3>(linear, x, in, y, out);
  if (rows == 2) return add_rows<T, 2>(linear, x, in, y, out);
  return add_rows<T, 1>(linear, x, in, y, out);
}

template <typename T>
TROUPE_TARGET_AVX512 void add_avx512(const LoraLinear& linear, const T* x, int64_t in, T* y, int64_t out,
                                     int64_t rows) {
  add_task(linear, x, in, y, out, rows);
}
template <typename T>
TROUPE_TARGET_AVX2 void add_avx2(const LoraLinear& linear, const T* x, int64_t in, T* y, int64_t out,
                                 int64_t rows) {
  add_task(linear, x, in, y, out, rows);
}
template <typename T>
void add_scalar(const LoraLinear& linear, const T* x, int64_t in, T* y, int64_t out, int64_t rows) {
  add_task(linear, x, in, y, out, rows);
}

template <typename T>
void add_cpu(at::Tensor& y, const at::Tensor& x, std::span<const LoraRows> parts) {
  const auto work = instruction_set() == InstructionSet::kAvx512 ? add_avx512<T>
                    : instruction_set() == InstructionSet::kAvx2 ? add_avx2<T>
                                                                 : add_scalar<T>;
  struct Task {
    const LoraLinear* linear;
    int64_t row, count;
  };
  std::vector<Task> tasks;
  for (const LoraRows& part : parts) {
    if (part.linear->terms.empty()) continue;
    for (int64_t row = part.begin; row < part.end; row += kRows) {
      tasks.push_back({part.linear, row, std::min(kRows, part.end - row)});
    }
  }
  const int64_t in = x.size(1), out = y.size(1);
  int64_t work_per_row = 1;
  for (const LoraRows& part : parts) {
    for (const LoraTerm& term : part.linear->terms) {
      work_per_row = std::max(work_per_row, term.a.numel() + term.b_transposed.numel());
    }
  }
  const int64_t grain = 1 + 100'000 / (work_per_row * kRows);
  const T* from = x.const_data_ptr<T>();
  T* to = y.mutable_data_ptr<T>();
  at::parallel_for(0, static_cast<int64_t>(tasks.size()), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      work(*tasks[i].linear, from + tasks[i].row * in, in, to + tasks[i].row * out, out, tasks[i].count);
    }
  });
}

LoraLinear pack(const LinearWeights& weights, double scale) {
  LoraLinear linear;
  linear.scale = scale;
  for (const AdapterWeights& adapter : weights.adapters) {
    linear.terms.push_back({adapter.begin, adapter.a.contiguous(), adapter.b.t().contiguous()});
  }
  return linear;
}

}  // namespace

PackedAdapter::PackedAdapter(const Policy& policy)
    : adapter_(policy.adapter()), version_(policy.adapter()->version()) {
  const double scale = policy.adapter_scale();
  for (int64_t i = 0; i < policy.config().layers; ++i) {
    const LayerWeights& layer = policy.layer(i);
    layers_.push_back(
        {pack(layer.qkv, scale), pack(layer.o, scale), pack(layer.gate_up, scale), pack(layer.down, scale)});
  }
}

bool PackedAdapter::holds(const Policy& policy) const {
  return policy.adapter() && adapter_.lock() == policy.adapter() && version_ == policy.adapter()->version();
}

bool PackedAdapter::stale() const {
  const auto adapter = adapter_.lock();
  return !adapter || adapter->version() != version_;
}

const LoraLinear& PackedAdapter::linear(int64_t layer, LinearWeights LayerWeights::*which) const {
  const Layer& found = layers_.at(layer);
  if (which == &LayerWeights::qkv) return found.qkv;
  if (which == &LayerWeights::o) return found.o;
  if (which == &LayerWeights::gate_up) return found.gate_up;
  return found.down;
}

void add_lora(at::Tensor& y, const at::Tensor& x, std::span<const LoraRows> parts) {
  if (!y.is_cpu()) {
    for (const LoraRows& part : parts) add_lora_plain(y, x, part);
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, y.scalar_type(), "add_lora",
                                 [&] { add_cpu<scalar_t>(y, x, parts); });
}

void add_lora_plain(at::Tensor& y, const at::Tensor& x, const LoraRows& part) {
  const int64_t count = part.end - part.begin;
  const auto rows = x.narrow(0, part.begin, count);
  for (const LoraTerm& term : part.linear->terms) {
    y.narrow(0, part.begin, count)
        .narrow(1, term.begin, term.b_transposed.size(1))
        .add_(at::mm(at::linear(rows, term.a), term.b_transposed), part.linear->scale);
  }
}

}  // namespace troupe::rollout
