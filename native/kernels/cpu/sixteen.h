// Sixteen lanes: the tokens of one page of the KV cache, whatever the width of the instruction set's vectors.
// Sums over them are taken in one order on all of them.
#pragma once

#include "kernels/cpu/vector.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

constexpr int64_t kSixteen = 16;

template <typename A>
struct Sixteen {
  using Vector = at::vec::Vectorized<A>;
  static constexpr int kSize = Vector::size();
  static constexpr int kParts = kSixteen / kSize;
  Vector parts[kParts];

  Sixteen() : Sixteen(A(0)) {}
  explicit Sixteen(A value) {
    for (Vector& part : parts) part = Vector(value);
  }

  template <typename F>
  static Sixteen each(const F& f) {
    Sixteen result;
    for (int i = 0; i < kParts; ++i) result.parts[i] = f(i);
    return result;
  }
  static Sixteen load(const A* from) {
    return each([&](int i) { return Vector::loadu(from + i * kSize); });
  }
  void store(A* to) const {
    for (int i = 0; i < kParts; ++i) parts[i].store(to + i * kSize);
  }
  // The first `count` lanes; the rest is `other`.
  Sixteen first(int64_t count, A other) const {
    if (count >= kSixteen) return *this;
    return each([&](int i) {
      return Vector::set(Vector(other), parts[i], std::clamp<int64_t>(count - i * kSize, 0, kSize));
    });
  }

  friend Sixteen operator+(const Sixteen& a, const Sixteen& b) {
    return each([&](int i) { return a.parts[i] + b.parts[i]; });
  }
  friend Sixteen operator-(const Sixteen& a, const Sixteen& b) {
    return each([&](int i) { return a.parts[i] - b.parts[i]; });
  }
  friend Sixteen operator*(const Sixteen& a, const Sixteen& b) {
    return each([&](int i) { return a.parts[i] * b.parts[i]; });
  }
};

template <typename A>
Sixteen<A> multiply_add(const Sixteen<A>& a, const Sixteen<A>& b, const Sixteen<A>& c) {
  return Sixteen<A>::each([&](int i) { return at::vec::fmadd(a.parts[i], b.parts[i], c.parts[i]); });
}

template <typename A>
Sixteen<A> maximum(const Sixteen<A>& a, const Sixteen<A>& b) {
  return Sixteen<A>::each([&](int i) { return at::vec::maximum(a.parts[i], b.parts[i]); });
}

// Sixteen values of T, widened.
template <typename T>
Sixteen<Accumulate<T>> load_sixteen(const T* from) {
  using Vector = at::vec::Vectorized<Accumulate<T>>;
  if constexpr (!std::is_same_v<T, at::BFloat16>) {
    return Sixteen<T>::load(from);
  } else if constexpr (Vector::size() == kSixteen) {
    Sixteen<float> result;
    at::vec::load_fp32_from_bf16(from, result.parts[0]);
    return result;
  } else {
    Sixteen<float> result;
    for (int i = 0; i < Sixteen<float>::kParts; i += 2) {
      const auto [low, high] = at::vec::convert_bfloat16_float(
          at::vec::Vectorized<at::BFloat16>::loadu(from + i * Vector::size()));
      result.parts[i] = low;
      result.parts[i + 1] = high;
    }
    return result;
  }
}

// The lanes of one vector combined: lane i with i + size / 2, then with i + size / 4, …
template <typename A, typename F>
A fold(at::vec::Vectorized<A> x, const F& combine) {
  constexpr int kSize = at::vec::Vectorized<A>::size();
  A lanes[2 * kSize] = {};
  for (int width = kSize / 2; width > 0; width /= 2) {
    x.store(lanes);
    x = combine(x, at::vec::Vectorized<A>::loadu(lanes + width));
  }
  x.store(lanes);
  return lanes[0];
}
#if defined(CPU_CAPABILITY_AVX512)
template <typename F>
float fold(at::vec::Vectorized<float> x, const F& combine) {
  x = combine(x, _mm512_shuffle_f32x4(x, x, 0x4E));
  x = combine(x, _mm512_shuffle_f32x4(x, x, 0xB1));
  x = combine(x, _mm512_shuffle_ps(x, x, 0x4E));
  x = combine(x, _mm512_shuffle_ps(x, x, 0xB1));
  return _mm512_cvtss_f32(x);
}
#elif defined(CPU_CAPABILITY_AVX2)
template <typename F>
float fold(at::vec::Vectorized<float> x, const F& combine) {
  x = combine(x, _mm256_permute2f128_ps(x, x, 0x01));
  x = combine(x, _mm256_shuffle_ps(x, x, 0x4E));
  x = combine(x, _mm256_shuffle_ps(x, x, 0xB1));
  return _mm256_cvtss_f32(x);
}
#endif

template <typename A, typename F>
A reduce(const Sixteen<A>& x, const F& combine) {
  Sixteen<A> folded = x;
  for (int width = Sixteen<A>::kParts / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) folded.parts[i] = combine(folded.parts[i], folded.parts[i + width]);
  }
  return fold(folded.parts[0], combine);
}

template <typename A>
A sum(const Sixteen<A>& x) {
  using Vector = at::vec::Vectorized<A>;
  return reduce(x, [](const Vector& a, const Vector& b) { return a + b; });
}

template <typename A>
A largest(const Sixteen<A>& x) {
  using Vector = at::vec::Vectorized<A>;
  return reduce(x, [](const Vector& a, const Vector& b) { return at::vec::maximum(a, b); });
}

// e^x for x ≤ 0, to 2 units in the last place; 0 below −87. Range reduction and polynomial of Cephes' expf.
inline at::vec::Vectorized<float> falling_exponential(const at::vec::Vectorized<float>& exponent) {
  using Vector = at::vec::Vectorized<float>;
  using Words = at::vec::Vectorized<int32_t>;
  const Vector floor(-87.0F);
  const Vector x = at::vec::maximum(exponent, floor);
  const Vector magic(12582912.0F);  // 1.5 · 2²³: rounds to an integer in the low bits
  const Vector shifted = at::vec::fmadd(x, Vector(1.44269504088896341F), magic);
  const Vector n = shifted - magic;
  const Vector r = at::vec::fmadd(n, Vector(2.12194440e-4F), at::vec::fmadd(n, Vector(-0.693359375F), x));
  Vector p = at::vec::fmadd(r, Vector(1.9875691500e-4F), Vector(1.3981999507e-3F));
  p = at::vec::fmadd(p, r, Vector(8.3334519073e-3F));
  p = at::vec::fmadd(p, r, Vector(4.1665795894e-2F));
  p = at::vec::fmadd(p, r, Vector(1.6666665459e-1F));
  p = at::vec::fmadd(p, r, Vector(5.0000001201e-1F));
  p = at::vec::fmadd(p, r * r, r) + Vector(1.0F);
  const Words power = at::vec::cast<int32_t>(shifted) << Words(23);
  const Vector result = at::vec::cast<float>(at::vec::cast<int32_t>(p) + power);
  return Vector::blendv(result, Vector(0.0F), exponent < floor);
}
inline at::vec::Vectorized<double> falling_exponential(const at::vec::Vectorized<double>& exponent) {
  return exponent.exp();
}

template <typename A>
Sixteen<A> falling_exponential(const Sixteen<A>& x) {
  return Sixteen<A>::each([&](int i) { return falling_exponential(x.parts[i]); });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
