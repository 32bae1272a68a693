// y += scale · (x Aᵀ) Bᵀ, fused, for all adapters of a batch at once. As separate products it costs more than
// the base's, since it is many tiny ones. A row's result does not depend on the other rows.
#include "kernels/cpu/lora.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/sixteen.h"
#include "kernels/scratch.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

constexpr int64_t kRows = 4;  // of one task

// Rows of A that are multiplied at once, as many as leave the sums in registers.
template <typename A>
constexpr int kRanks = Sixteen<A>::kParts == 1 ? 4 : 1;

template <typename T>
struct Add {
  using A = Accumulate<T>;

  int64_t inputs, outputs;
  const T* x;
  T* y;

  struct Workspace {
    Scratch<A> wide, inner;
  };

  // N rows of x against M rows of A: N · M dot products.
  template <int N, int M>
  void dots(const A* rows, const T* a, A* u, int64_t rank) const {
    Sixteen<A> sums[N][M];
    int64_t i = 0;
    for (; i + kSixteen <= inputs; i += kSixteen) {
      Sixteen<A> weights[M];
      for (int m = 0; m < M; ++m) weights[m] = load_sixteen(a + m * inputs + i);
      for (int n = 0; n < N; ++n) {
        const auto row = Sixteen<A>::load(rows + n * inputs + i);
        for (int m = 0; m < M; ++m) sums[n][m] = multiply_add(row, weights[m], sums[n][m]);
      }
    }
    for (int n = 0; n < N; ++n) {
      for (int m = 0; m < M; ++m) {
        A total = sum(sums[n][m]);
        for (int64_t j = i; j < inputs; ++j)
          total += rows[n * inputs + j] * static_cast<A>(a[m * inputs + j]);
        u[n * rank + m] = total;
      }
    }
  }

  // y[n, :] += scale · u[n, :] Bᵀ.
  template <int N>
  void spread(const AdapterTerm& term, const A* u, A scale, T* to) const {
    const T* b = static_cast<const T*>(term.b_transposed);
    for_lanes<A>(term.outputs, [&](int64_t j, int64_t count) {
      Lanes<A> sums[N];
      for (int64_t k = 0; k < term.rank; ++k) {
        const Lanes<A> weights = load(b + k * term.outputs + j, count);
        for (int n = 0; n < N; ++n) sums[n] = multiply_add(weights, Lanes<A>(u[n * term.rank + k]), sums[n]);
      }
      for (int n = 0; n < N; ++n) {
        T* place = to + n * outputs + j;
        store(place, multiply_add(Lanes<A>(scale), sums[n], load(place, count)), count);
      }
    });
  }

  template <int N>
  void add_rows(const AdapterRows& part, int64_t row, Workspace& space) const {
    space.wide.resize(kRows * inputs);
    A* const wide = space.wide.data();
    const T* from = x + row * inputs;
    for (int64_t i = 0; i < N * inputs; ++i) wide[i] = static_cast<A>(from[i]);
    for (const AdapterTerm& term : part.terms) {
      const T* a = static_cast<const T*>(term.a);
      space.inner.resize(kRows * term.rank);
      A* const inner = space.inner.data();
      constexpr int kStep = kRanks<A>;
      int64_t k = 0;
      for (; k + kStep <= term.rank; k += kStep) dots<N, kStep>(wide, a + k * inputs, inner + k, term.rank);
      for (; k < term.rank; ++k) dots<N, 1>(wide, a + k * inputs, inner + k, term.rank);
      spread<N>(term, inner, static_cast<A>(part.scale), y + row * outputs + term.begin);
    }
  }

  void task(const AdapterRows& part, int64_t row, int64_t count, Workspace& space) const {
    if (count == 4) return add_rows<4>(part, row, space);
    if (count == 3) return add_rows<3>(part, row, space);
    if (count == 2) return add_rows<2>(part, row, space);
    add_rows<1>(part, row, space);
  }
};

struct Task {
  const AdapterRows* part;
  int64_t row, count;
};

std::vector<Task> tasks_of(std::span<const AdapterRows> parts) {
  std::vector<Task> tasks;
  for (const AdapterRows& part : parts) {
    for (int64_t row = part.begin; row < part.end && !part.terms.empty(); row += kRows)
      tasks.push_back({&part, row, std::min(kRows, part.end - row)});
  }
  return tasks;
}

}  // namespace

void add_adapters(c10::ScalarType dtype, std::span<const AdapterRows> parts, int64_t inputs, int64_t outputs,
                  const void* x, void* y) {
  const std::vector<Task> tasks = tasks_of(parts);
  int64_t work_per_row = 1;
  for (const AdapterRows& part : parts) {
    for (const AdapterTerm& term : part.terms)
      work_per_row = std::max(work_per_row, term.rank * (inputs + term.outputs));
  }
  const int64_t grain = 1 + 100'000 / (work_per_row * kRows);
  with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    const Add<T> add{inputs, outputs, static_cast<const T*>(x), static_cast<T*>(y)};
    at::parallel_for(0, static_cast<int64_t>(tasks.size()), grain, [&](int64_t begin, int64_t end) {
      static thread_local typename Add<T>::Workspace space;
      for (int64_t i = begin; i < end; ++i) add.task(*tasks[i].part, tasks[i].row, tasks[i].count, space);
    });
  });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
