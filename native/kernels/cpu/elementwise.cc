// RoPE, SwiGLU and the embedding's gradient: one pass over memory each.
#include "kernels/cpu/elementwise.h"

#include "kernels/cpu/vector.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

template <typename T>
void rotate(const NormShape& shape, View x, const int32_t* positions, const Accumulate<T>* cos,
            const Accumulate<T>* sin, bool inverse) {
  using A = Accumulate<T>;
  const int64_t half = shape.size / 2;
  const Lanes<A> sign(inverse ? A(-1) : A(1));
  at::parallel_for(0, shape.rows, row_grain(shape.heads * shape.size), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const A *row_cos = cos + positions[row] * half, *row_sin = sin + positions[row] * half;
      T* data = static_cast<T*>(x.data) + row * x.row_stride;
      for_lanes<A>(half, [&](int64_t i, int64_t count) {
        const Lanes<A> c = load(row_cos + i, count), s = load(row_sin + i, count) * sign;
        for (int64_t head = 0; head < shape.heads; ++head) {
          T *first = data + head * x.head_stride + i, *second = first + half;
          const Lanes<A> a = load(first, count), b = load(second, count);
          store(first, a * c - b * s, count);
          store(second, b * c + a * s, count);
        }
      });
    }
  });
}

template <typename T, typename A>
Lanes<A> sigmoid(const Lanes<A>& x) {
  const Lanes<A> one(A(1));
  return one / (one + exponential<T>(Lanes<A>() - x));
}

template <typename T>
void gated(int64_t rows, int64_t size, const T* gate_up, T* out) {
  using A = Accumulate<T>;
  at::parallel_for(0, rows, row_grain(size), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T *gates = gate_up + row * 2 * size, *ups = gates + size;
      T* result = out + row * size;
      for_lanes<A>(size, [&](int64_t i, int64_t count) {
        const Lanes<A> gate = load(gates + i, count);
        store(result + i, gate * sigmoid<T>(gate) * load(ups + i, count), count);
      });
    }
  });
}

template <typename T>
void gated_backward(int64_t rows, int64_t size, const T* grad, const T* gate_up, T* out) {
  using A = Accumulate<T>;
  const Lanes<A> one(A(1));
  at::parallel_for(0, rows, row_grain(size), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T *gates = gate_up + row * 2 * size, *ups = gates + size, *grads = grad + row * size;
      T *grad_gates = out + row * 2 * size, *grad_ups = grad_gates + size;
      for_lanes<A>(size, [&](int64_t i, int64_t count) {
        const Lanes<A> gate = load(gates + i, count), upstream = load(grads + i, count);
        const Lanes<A> s = sigmoid<T>(gate), silu = gate * s;
        store(grad_ups + i, upstream * silu, count);
        // d silu(g)/dg = σ(g) · (1 + g · (1 − σ(g))) = σ + silu − silu · σ
        store(grad_gates + i, upstream * load(ups + i, count) * (s + silu * (one - s)), count);
      });
    }
  });
}

template <typename T>
void scatter_rows(int64_t rows, int64_t size, const T* grad, const int64_t* tokens,
                  Accumulate<T>* accumulator) {
  using A = Accumulate<T>;
  // Threads share the columns, not the rows: tokens repeat, and the order of additions stays fixed.
  const int64_t blocks = (size + Lanes<A>::kSize - 1) / Lanes<A>::kSize;
  at::parallel_for(0, blocks, std::max<int64_t>(1, 8192 / std::max<int64_t>(1, rows * Lanes<A>::kSize)),
                   [&](int64_t begin, int64_t end) {
                     const int64_t first = begin * Lanes<A>::kSize,
                                   width = std::min(size, end * Lanes<A>::kSize) - first;
                     for (int64_t row = 0; row < rows; ++row) {
                       const T* source = grad + row * size + first;
                       A* target = accumulator + tokens[row] * size + first;
                       for_lanes<A>(width, [&](int64_t i, int64_t count) {
                         store(target + i, load(target + i, count) + load(source + i, count), count);
                       });
                     }
                   });
}

}  // namespace

void rope(const NormShape& shape, View x, const int32_t* positions, const void* cos, const void* sin,
          bool inverse) {
  with_type(shape.dtype, [&](auto tag) {
    using T = decltype(tag);
    rotate<T>(shape, x, positions, static_cast<const Accumulate<T>*>(cos),
              static_cast<const Accumulate<T>*>(sin), inverse);
  });
}

void swiglu(c10::ScalarType dtype, int64_t rows, int64_t size, const void* gate_up, void* out) {
  with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    gated<T>(rows, size, static_cast<const T*>(gate_up), static_cast<T*>(out));
  });
}

void swiglu_backward(c10::ScalarType dtype, int64_t rows, int64_t size, const void* grad, const void* gate_up,
                     void* out) {
  with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    gated_backward<T>(rows, size, static_cast<const T*>(grad), static_cast<const T*>(gate_up),
                      static_cast<T*>(out));
  });
}

void embedding_backward(c10::ScalarType dtype, int64_t rows, int64_t size, const void* grad,
                        const int64_t* tokens, void* accumulator) {
  with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    scatter_rows<T>(rows, size, static_cast<const T*>(grad), tokens,
                    static_cast<Accumulate<T>*>(accumulator));
  });
}

void narrow_rows(int64_t rows, int64_t columns, const float* from, int64_t from_stride,
                 const c10::BFloat16* bias, c10::BFloat16* to, int64_t to_stride) {
  for_lanes<float>(columns, [&](int64_t i, int64_t count) {
    const Lanes<float> added = bias ? load(bias + i, count) : Lanes<float>();
    for (int64_t row = 0; row < rows; ++row)
      store(to + row * to_stride + i, load(from + row * from_stride + i, count) + added, count);
  });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
