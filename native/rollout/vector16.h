// Sixteen lanes of float or double as one GCC vector, whatever the instruction set: the compiler lowers it to
// one AVX-512 register, two of AVX2, and so on. Functions are always inlined, so that they take the
// instruction set of the `target` function that uses them.
#pragma once

#include <c10/util/BFloat16.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

// Vector arguments of inlined functions have no ABI to change.
#pragma GCC diagnostic ignored "-Wpsabi"

#if defined(__x86_64__)
#define TROUPE_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")))
#define TROUPE_TARGET_AVX2 __attribute__((target("avx2,fma")))
#else
#define TROUPE_TARGET_AVX512
#define TROUPE_TARGET_AVX2
#endif
#define TROUPE_INLINE __attribute__((always_inline)) inline

namespace troupe::rollout {

constexpr int64_t kLanes = 16;

template <typename A>
struct VectorTypes;
template <>
struct VectorTypes<float> {
  typedef float vector __attribute__((vector_size(64)));
  typedef int32_t mask __attribute__((vector_size(64)));
};
template <>
struct VectorTypes<double> {
  typedef double vector __attribute__((vector_size(128)));
  typedef int64_t mask __attribute__((vector_size(128)));
};
template <typename A>
using Vector = typename VectorTypes<A>::vector;
template <typename A>
using Mask = typename VectorTypes<A>::mask;

template <typename A>
TROUPE_INLINE Vector<A> load(const A* from) {
  Vector<A> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <typename A>
TROUPE_INLINE void store(A* to, Vector<A> v) {
  std::memcpy(to, &v, sizeof v);
}

template <typename A>
TROUPE_INLINE Vector<A> splat(A x) {
  return Vector<A>{} + x;
}

TROUPE_INLINE Vector<float> load(const c10::BFloat16* from) {
  typedef uint16_t half __attribute__((vector_size(32)));
  typedef uint32_t word __attribute__((vector_size(64)));
  half bits;
  std::memcpy(&bits, from, sizeof bits);
  return (Vector<float>)(__builtin_convertvector(bits, word) << 16);
}

template <typename A>
TROUPE_INLINE Vector<A> rotate(Vector<A> v, int by) {
  Mask<A> index{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return __builtin_shuffle(v, (index + by) & 15);
}

template <typename A>
TROUPE_INLINE A maximum(Vector<A> v) {
  for (int by = 8; by > 0; by /= 2) {
    const Vector<A> other = rotate<A>(v, by);
    v = v > other ? v : other;
  }
  return v[0];
}

template <typename A>
TROUPE_INLINE A sum(Vector<A> v) {
  for (int by = 8; by > 0; by /= 2) v += rotate<A>(v, by);
  return v[0];
}

// e^x for x ≤ 0, to 2 units in the last place; 0 below −87. Range reduction and polynomial of Cephes' expf.
TROUPE_INLINE Vector<float> exponential(Vector<float> x) {
  const Vector<float> floor = splat(-87.0f);
  const Mask<float> underflow = x < floor;
  x = underflow ? floor : x;
  const Vector<float> magic = splat(12582912.0f);  // 1.5 · 2²³: rounds to an integer in the low bits
  const Vector<float> shifted = x * 1.44269504088896341f + magic;
  const Vector<float> n = shifted - magic;
  const Vector<float> r = x - n * 0.693359375f - n * -2.12194440e-4f;
  Vector<float> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Mask<float> exponent = ((Mask<float>)shifted) << 23;
  const Vector<float> result = (Vector<float>)((Mask<float>)p + exponent);
  return underflow ? Vector<float>{} : result;
}

TROUPE_INLINE Vector<double> exponential(Vector<double> x) {
  Vector<double> y;
  for (int i = 0; i < kLanes; ++i) y[i] = std::exp(x[i]);
  return y;
}

// Which instruction set the running processor has.
enum class InstructionSet { kPlain, kAvx2, kAvx512 };
inline InstructionSet instruction_set() {
#if defined(__x86_64__)
  static const InstructionSet found = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      return InstructionSet::kAvx512;
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? InstructionSet::kAvx2
                                                                           : InstructionSet::kPlain;
  }();
  return found;
#else
  return InstructionSet::kPlain;
#endif
}

// Products of bf16 pairs summed in fp32 (AVX512_BF16, or AMX on top of it).
inline bool has_bf16_products() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

}  // namespace troupe::rollout
