// Loads and stores that hide the element type: a `Lanes<A>` is two SIMD vectors of the accumulate type A,
// which is exactly one vector of bfloat16.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace troupe::kernels::cpu::CPU_CAPABILITY {

template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename A>
struct Lanes {
  using Vector = at::vec::Vectorized<A>;
  static constexpr int64_t kSize = 2 * Vector::size();
  Vector low{A(0)}, high{A(0)};

  Lanes() = default;
  Lanes(Vector low_, Vector high_) : low(low_), high(high_) {}
  explicit Lanes(A value) : low(value), high(value) {}

  friend Lanes operator+(const Lanes& a, const Lanes& b) { return {a.low + b.low, a.high + b.high}; }
  friend Lanes operator-(const Lanes& a, const Lanes& b) { return {a.low - b.low, a.high - b.high}; }
  friend Lanes operator*(const Lanes& a, const Lanes& b) { return {a.low * b.low, a.high * b.high}; }
  friend Lanes operator/(const Lanes& a, const Lanes& b) { return {a.low / b.low, a.high / b.high}; }
};

template <typename A>
Lanes<A> multiply_add(const Lanes<A>& a, const Lanes<A>& b, const Lanes<A>& c) {
  return {at::vec::fmadd(a.low, b.low, c.low), at::vec::fmadd(a.high, b.high, c.high)};
}

// The faster exponential (20 units in the last place) serves bfloat16 results; T is the type that is stored.
template <typename T, typename A>
Lanes<A> exponential(const Lanes<A>& x) {
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    return {x.low.exp_u20(), x.high.exp_u20()};
  } else {
    return {x.low.exp(), x.high.exp()};
  }
}

template <typename A>
Lanes<A> maximum(const Lanes<A>& a, const Lanes<A>& b) {
  return {at::vec::maximum(a.low, b.low), at::vec::maximum(a.high, b.high)};
}

// Both vectors added, then halves, quarters, …: a fixed order.
template <typename A>
A sum(const Lanes<A>& x) {
  constexpr int64_t kSize = Lanes<A>::Vector::size();
  A values[kSize];
  (x.low + x.high).store(values);
  for (int64_t width = kSize / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) values[i] += values[i + width];
  }
  return values[0];
}

// `count` of the elements from `data`, the rest zero.
template <typename T>
Lanes<Accumulate<T>> load(const T* data, int64_t count) {
  using A = Accumulate<T>;
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    using Vector = at::vec::Vectorized<at::BFloat16>;
    const auto [low, high] = at::vec::convert_bfloat16_float(
        count == Vector::size() ? Vector::loadu(data) : Vector::loadu(data, count));
    return {low, high};
  } else {
    using Vector = at::vec::Vectorized<A>;
    constexpr int64_t size = Vector::size();
    if (count == 2 * size) return {Vector::loadu(data), Vector::loadu(data + size)};
    if (count <= size) return {Vector::loadu(data, count), Vector(A(0))};
    return {Vector::loadu(data), Vector::loadu(data + size, count - size)};
  }
}

template <typename T>
void store(T* data, const Lanes<Accumulate<T>>& value, int64_t count) {
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    const auto packed = at::vec::convert_float_bfloat16(value.low, value.high);
    count == packed.size() ? packed.store(data) : packed.store(data, static_cast<int>(count));
  } else {
    constexpr int64_t size = Lanes<T>::Vector::size();
    if (count == 2 * size) {
      value.low.store(data);
      value.high.store(data + size);
    } else {
      value.low.store(data, static_cast<int>(std::min(count, size)));
      if (count > size) value.high.store(data + size, static_cast<int>(count - size));
    }
  }
}

// f(offset, count) over [0, size): whole vectors with a constant count, then the rest.
template <typename A, typename F>
inline __attribute__((always_inline)) void for_lanes(int64_t size, const F& f) {
  constexpr int64_t kSize = Lanes<A>::kSize;
  int64_t i = 0;
  for (; i + kSize <= size; i += kSize) f(i, kSize);
  if (i < size) f(i, size - i);
}

// Calls f with a value of the C++ type of dtype: double, float or at::BFloat16.
template <typename F>
void with_type(c10::ScalarType dtype, const F& f) {
  if (dtype == c10::ScalarType::Double) {
    f(double{});
  } else if (dtype == c10::ScalarType::Float) {
    f(float{});
  } else {
    f(at::BFloat16{});
  }
}

// Rows that one thread should have at least, so that starting the team pays: about 8,000 elements.
inline int64_t row_grain(int64_t row_size) {
  return std::max<int64_t>(1, 8192 / std::max<int64_t>(1, row_size));
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
