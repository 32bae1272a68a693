// RMS norm forward and backward, one pass over memory each: a row stays in the first-level cache between the
// reduction and the scaling.
#include "kernels/cpu/norm.h"

#include <cmath>
#include <vector>

#include "kernels/cpu/vector.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

template <typename T>
T* at_row(const View& view, int64_t row, int64_t head) {
  return static_cast<T*>(view.data) + row * view.row_stride + head * view.head_stride;
}

// Sum of squares of a row, after adding the residual in place where there is one.
template <typename T>
Accumulate<T> add_and_square(T* x, const T* residual, int64_t size) {
  using A = Accumulate<T>;
  Lanes<A> squares;
  if (residual) {
    for_lanes<A>(size, [&](int64_t i, int64_t count) {
      store(x + i, load(x + i, count) + load(residual + i, count), count);
      const Lanes<A> sum = load(x + i, count);  // as rounded to T: what the backward pass will read
      squares = multiply_add(sum, sum, squares);
    });
  } else {
    for_lanes<A>(size, [&](int64_t i, int64_t count) {
      const Lanes<A> value = load(x + i, count);
      squares = multiply_add(value, value, squares);
    });
  }
  return sum(squares);
}

template <typename T>
void forward(const NormShape& shape, View x, View residual, const T* weight, T* y, Accumulate<T>* rstd,
             double eps) {
  using A = Accumulate<T>;
  at::parallel_for(0, shape.rows, row_grain(shape.heads * shape.size), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        T* input = at_row<T>(x, row, head);
        const A squares =
            add_and_square<T>(input, residual.data ? at_row<T>(residual, row, head) : nullptr, shape.size);
        const A scale = A(1) / std::sqrt(squares / static_cast<A>(shape.size) + static_cast<A>(eps));
        const int64_t index = row * shape.heads + head;
        rstd[index] = scale;
        T* output = y + index * shape.size;
        for_lanes<A>(shape.size, [&](int64_t i, int64_t count) {
          store(output + i, load(input + i, count) * Lanes<A>(scale) * load(weight + i, count), count);
        });
      }
    }
  });
}

// One row: dx = rstd · (g·w − x · rstd² · mean(g·w·x)) (+ add); weight_sum += g · x · rstd.
template <typename T>
void backward_row(const T* grad, const T* x, const T* weight, Accumulate<T> rstd, const T* add, T* out,
                  Accumulate<T>* weight_sum, int64_t size) {
  using A = Accumulate<T>;
  Lanes<A> products;
  for_lanes<A>(size, [&](int64_t i, int64_t count) {
    const Lanes<A> grad_x = load(grad + i, count) * load(x + i, count);
    products = multiply_add(grad_x, load(weight + i, count), products);
    if (weight_sum)
      store(weight_sum + i, multiply_add(grad_x, Lanes<A>(rstd), load(weight_sum + i, count)), count);
  });
  const Lanes<A> factor(-rstd * rstd * rstd * sum(products) / static_cast<A>(size)), scale(rstd);
  for_lanes<A>(size, [&](int64_t i, int64_t count) {
    Lanes<A> value = load(grad + i, count) * load(weight + i, count) * scale;
    value = multiply_add(load(x + i, count), factor, value);
    if (add) value = value + load(add + i, count);
    store(out + i, value, count);
  });
}

// Rows [begin, end) of one group: a unit of work with partial sums of its own, so that the result does not
// depend on the number of threads.
struct Chunk {
  int64_t group, begin, end;
};

std::vector<Chunk> chunks_of(const NormShape& shape, std::span<const int64_t> groups, bool grouped) {
  const int64_t rows_per_chunk = 4 * row_grain(shape.heads * shape.size);
  const std::vector<int64_t> whole{0, shape.rows};
  const std::span<const int64_t> offsets = grouped ? groups : std::span<const int64_t>(whole);
  std::vector<Chunk> chunks;
  for (size_t k = 0; k + 1 < offsets.size(); ++k) {
    for (int64_t begin = offsets[k]; begin < offsets[k + 1]; begin += rows_per_chunk) {
      chunks.push_back({static_cast<int64_t>(k), begin, std::min(begin + rows_per_chunk, offsets[k + 1])});
    }
  }
  return chunks;
}

template <typename T>
void backward(const NormShape& shape, View grad, View x, const T* weight, const Accumulate<T>* rstd, View add,
              View out, std::span<const int64_t> groups, std::span<void* const> grad_weight) {
  using A = Accumulate<T>;
  const bool with_weight = !grad_weight.empty();
  const std::vector<Chunk> chunks = chunks_of(shape, groups, with_weight);
  std::vector<A> partial(with_weight ? chunks.size() * shape.size : 0, A(0));
  at::parallel_for(0, static_cast<int64_t>(chunks.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      A* weight_sum = with_weight ? partial.data() + c * shape.size : nullptr;
      for (int64_t row = chunks[c].begin; row < chunks[c].end; ++row) {
        for (int64_t head = 0; head < shape.heads; ++head) {
          backward_row<T>(at_row<T>(grad, row, head), at_row<T>(x, row, head), weight,
                          rstd[row * shape.heads + head], add.data ? at_row<T>(add, row, head) : nullptr,
                          at_row<T>(out, row, head), weight_sum, shape.size);
        }
      }
    }
  });
  if (!with_weight) return;
  for (size_t c = 0; c < chunks.size(); ++c) {
    A* total = static_cast<A*>(grad_weight[chunks[c].group]);
    const A* part = partial.data() + c * shape.size;
    for (int64_t i = 0; i < shape.size; ++i) total[i] += part[i];
  }
}

}  // namespace

void rms_norm(const NormShape& shape, View x, View residual, const void* weight, void* y, void* rstd,
              double eps) {
  with_type(shape.dtype, [&](auto tag) {
    using T = decltype(tag);
    forward<T>(shape, x, residual, static_cast<const T*>(weight), static_cast<T*>(y),
               static_cast<Accumulate<T>*>(rstd), eps);
  });
}

void rms_norm_backward(const NormShape& shape, View grad, View x, const void* weight, const void* rstd,
                       View add, View out, std::span<const int64_t> groups,
                       std::span<void* const> grad_weight) {
  with_type(shape.dtype, [&](auto tag) {
    using T = decltype(tag);
    backward<T>(shape, grad, x, static_cast<const T*>(weight), static_cast<const Accumulate<T>*>(rstd), add,
                out, groups, grad_weight);
  });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
