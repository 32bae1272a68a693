// Tests of the CUDA kernels under the emulation: buffers with canaries, random numbers and shapes, comparison, and each
// kernel run with its threads in both orders, which must agree in every bit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace troupe::kernels::cuda::test {

inline std::mt19937& generator() {
  static std::mt19937 engine;  // seeded for each test, see main.cc
  return engine;
}
inline double normal(double scale = 1) { return std::normal_distribution<double>(0, scale)(generator()); }
inline int64_t between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator());
}

template <typename T>
T one_of(std::initializer_list<T> values) {
  return values.begin()[between(0, static_cast<int64_t>(values.size()) - 1)];
}
// Up to `most`: mostly at a multiple of `unit` or beside one.
inline int64_t near_edge(int64_t unit, int64_t most) {
  const int64_t edge = between(0, most / unit) * unit + one_of<int64_t>({-1, 0, 0, 1, between(0, unit)});
  return std::min(most, std::max<int64_t>(1, edge));
}

inline void check(bool right, const std::string& what) {
  if (!right) throw std::runtime_error(what);
}

#ifdef __CUDACC__
inline void succeed(cudaError_t error, const std::string& what) {
  check(error == cudaSuccess, what + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")");
}
#endif

inline int64_t from_environment(const char* name, int64_t otherwise) {
  const char* const text = std::getenv(name);
  return text ? std::stoll(text) : otherwise;
}
// The random shapes that are being tested, for what fails; empty: none.
inline std::string& round_name() {
  static std::string name;
  return name;
}
// `body` draws shapes and tests them, TROUPE_TEST_ROUNDS times, or once for every `share` of them where it takes long:
// from TROUPE_TEST_SEED and the numbers after it.
template <typename F>
void for_rounds(const F& body, int64_t share = 1) {
  const int64_t first = from_environment("TROUPE_TEST_SEED", 20261127),
                rounds = std::max<int64_t>(1, from_environment("TROUPE_TEST_ROUNDS", 20) / share);
  for (int64_t seed = first; seed < first + rounds; ++seed) {
    generator().seed(static_cast<std::mt19937::result_type>(seed));
    round_name() = "TROUPE_TEST_SEED=" + std::to_string(seed) + " TROUPE_TEST_ROUNDS=1";
    body();
  }
  round_name().clear();
}

template <typename T>
constexpr Type type_of() {
  return std::is_same_v<T, Bf16> ? Type::kBf16 : std::is_same_v<T, float> ? Type::kFloat : Type::kDouble;
}
template <typename T>
double tolerance() {
  return std::is_same_v<T, Bf16> ? 1e-2 : std::is_same_v<T, float> ? 2e-5 : 1e-11;
}
template <typename T>
const char* name_of() {
  return std::is_same_v<T, Bf16> ? "bf16" : std::is_same_v<T, float> ? "float32" : "float64";
}

// Conversions of the host. The kernels' own are of the device, and what calls one of those on the host nvcc, where it does not
// refuse it (in a template), compiles to exit(1) without a word: scripts/check-cuda.mjs looks for that.
inline double number(double x) { return x; }
inline double number(float x) { return static_cast<double>(x); }
inline double number(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return static_cast<double>(value);
}
// To the nearest, ties to even.
template <typename T>
T rounded(double value) {
  const auto x = static_cast<Accumulate<T>>(value);
  if constexpr (std::is_same_v<T, Bf16>) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
  } else {
    return x;
  }
}

// Elements between canaries, aligned like memory of a GPU; under AddressSanitizer in memory of their exact
// size, so that reads beyond it fail too. What a kernel should write starts as NaN. `shift`: how many elements behind
// such an address they begin, as those of a view without a tensor's first rows do.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t size, int64_t shift = 0)
      : size_(size), shift_(shift), memory_(allocate(front() + element_bytes() + kGuard)) {
    memset(memory_.get(), 0xff, front() + element_bytes() + kGuard);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(memory_.get(), front());
#endif
  }
  Buffer(const Buffer& other) : Buffer(other.size_, other.shift_) { copy(other); }
  // Into the same memory: kernels hold its address.
  Buffer& operator=(const Buffer& other) {
    check(size_ == other.size_, "buffers of two sizes");
    copy(other);
    return *this;
  }
  Buffer shifted(int64_t shift) const {
    Buffer result(size_, shift);
    result.copy(*this);
    return result;
  }
  static Buffer random(int64_t size, double scale = 1, double mean = 0) {
    Buffer result(size);
    for (int64_t i = 0; i < size; ++i) result[i] = rounded<T>(mean + normal(scale));
    return result;
  }
  static Buffer of(const std::vector<T>& values) {
    Buffer result(static_cast<int64_t>(values.size()));
    for (size_t i = 0; i < values.size(); ++i) result[static_cast<int64_t>(i)] = values[i];
    return result;
  }
  static Buffer zeros(int64_t size) {
    Buffer result(size);
    memset(result.data(), 0, size * sizeof(T));
    return result;
  }
  T* data() { return reinterpret_cast<T*>(memory_.get() + front()); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.get() + front()); }
  T& operator[](int64_t i) { return data()[i]; }
  double at(int64_t i) const {
    if constexpr (std::is_integral_v<T>)
      return static_cast<double>(data()[i]);
    else
      return number(data()[i]);
  }
  int64_t size() const { return size_; }
  // No byte around the elements has changed.
  bool whole() const {
    for (size_t i = kGuard > 0 ? 0 : front() / 8 * 8; i < front(); ++i) {
      if (memory_.get()[i] != 0xff) return false;
    }
    for (size_t i = 0; i < kGuard; ++i) {
      if (memory_.get()[front() + element_bytes() + i] != 0xff) return false;
    }
    return true;
  }
  bool operator==(const Buffer& other) const {
    return size_ == other.size_ && memcmp(data(), other.data(), element_bytes()) == 0 &&
           whole() == other.whole();
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kGuard =
      0;  // the sanitizer's own, but for bytes of the eight that an element begins in
#else
  static constexpr size_t kGuard = 256;
#endif
#ifdef __CUDACC__
  struct Delete {
    void operator()(uint8_t* memory) const { cudaFree(memory); }
  };
  static uint8_t* memory_of(size_t bytes) {
    void* memory = nullptr;
    succeed(cudaMallocManaged(&memory, bytes), "managed memory");
    return static_cast<uint8_t*>(memory);
  }
#else
  struct Delete {
    void operator()(uint8_t* memory) const { ::operator delete(memory, std::align_val_t(256)); }
  };
  static uint8_t* memory_of(size_t bytes) {
    return static_cast<uint8_t*>(::operator new(bytes, std::align_val_t(256)));
  }
#endif
  using Memory = std::unique_ptr<uint8_t, Delete>;
  static Memory allocate(size_t bytes) { return Memory(memory_of(bytes)); }
  size_t front() const { return kGuard + static_cast<size_t>(shift_) * sizeof(T); }
  size_t element_bytes() const { return static_cast<size_t>(size_) * sizeof(T); }
  void copy(const Buffer& other) { memcpy(data(), other.data(), element_bytes()); }
  int64_t size_, shift_;
  Memory memory_;
};

template <typename T>
void near(const Buffer<T>& got, const std::vector<double>& want, double tolerance, const std::string& what) {
  check(got.whole(), what + ": wrote outside its result");
  check(got.size() == static_cast<int64_t>(want.size()), what + ": sizes differ");
  for (int64_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(got.at(i) - want[i]);
    if (!(difference <= tolerance * (1 + std::abs(want[i])))) {
      throw std::runtime_error(what + ": element " + std::to_string(i) + " is " + std::to_string(got.at(i)) +
                               ", not " + std::to_string(want[i]));
    }
  }
}

// Launches, and waits for the end.
template <typename F>
void run(const std::string& what, const F& kernel) {
  const int error = kernel();
  check(error == 0, what + ": the launch failed: " + error_text(error));
#ifdef __CUDACC__
  succeed(cudaDeviceSynchronize(), what);
#endif
}

inline void reverse_threads([[maybe_unused]] bool on) {
#ifndef __CUDACC__
  emulation::reverse(on);
#endif
}

// Runs `kernel` twice on the same outputs, under the emulation forwards and backwards; leaves the first
// results.
template <typename F, typename... Buffers>
void both_ways(const std::string& what, const F& kernel, Buffers&... outputs) {
  const auto before = std::make_tuple(outputs...);
  run(what, kernel);
  const auto forwards = std::make_tuple(outputs...);
  std::tie(outputs...) = before;
  reverse_threads(true);
  run(what, kernel);
  reverse_threads(false);
  check(forwards == std::make_tuple(outputs...), what + ": depends on the order of its threads");
}

template <typename T>
void spoil(Buffer<T>& buffer, int64_t begin, int64_t count) {
  memset(buffer.data() + begin, 0xff, count * sizeof(T));
}
template <typename... Buffers>
void spoil_all(const std::tuple<Buffers&...>& buffers) {
  std::apply([](auto&... one) { (spoil(one, 0, one.size()), ...); }, buffers);
}

// both_ways of a kernel that a card may begin while those before it still write some of `written`, and the outputs' memory: here
// that is garbage until it waits for them. `spoil_written` makes it so.
template <typename F, typename Spoil, typename... Written, typename... Buffers>
void both_ways_early(const std::string& what, const F& kernel, const Spoil& spoil_written,
                     const std::tuple<Written&...>& written, Buffers&... outputs) {
  const auto all = std::tuple_cat(written, std::tie(outputs...));
  const auto before = std::apply([](const auto&... one) { return std::make_tuple(one...); }, all);
  both_ways(what, kernel, outputs...);
#ifndef __CUDACC__
  const auto wanted = std::make_tuple(outputs...);
  for (const bool reversed : {false, true}) {
    spoil_written();
    spoil_all(std::tie(outputs...));
    bool waited = false;
    emulation::at_wait = [&] {
      std::apply([&](auto&... one) { std::tie(one...) = before; }, all);
      waited = true;
    };
    reverse_threads(reversed);
    run(what, kernel);
    reverse_threads(false);
    emulation::at_wait = nullptr;
    check(waited, what + ": does not wait for the kernels before it");
    check(wanted == std::make_tuple(outputs...), what + ": reads or writes before it waits");
  }
#endif
}
// The same where all of `written` is still being written.
template <typename F, typename... Written, typename... Buffers>
void both_ways_early(const std::string& what, const F& kernel, const std::tuple<Written&...>& written,
                     Buffers&... outputs) {
  both_ways_early(
      what, kernel, [&] { spoil_all(written); }, written, outputs...);
}

using Doubles = std::vector<double>;

inline std::string label(const char* what, const char* type, std::initializer_list<int64_t> sizes) {
  std::string text = std::string(what) + " " + type;
  for (const int64_t size : sizes) text += " " + std::to_string(size);
  return text;
}

// Groups of random sizes, some empty.
inline Groups random_groups(int64_t rows, int count) {
  Groups groups;
  groups.count = count;
  for (int k = 1; k < count; ++k) groups.offset[k] = between(0, rows);
  std::sort(groups.offset, groups.offset + count);
  groups.offset[count] = rows;
  return groups;
}

struct Test {
  const char* name;
  std::function<void()> body;
};
inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
struct Register {
  Register(const char* name, std::function<void()> body) { tests().push_back({name, std::move(body)}); }
};

// Every type in turn.
template <typename F>
void for_types(const F& f) {
  f(Bf16{});
  f(float{});
  f(double{});
}

}  // namespace troupe::kernels::cuda::test
