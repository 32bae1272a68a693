// Integers, bits, predicates and moves (PTX ISA, "Integer Arithmetic", "Comparison and Selection", "Logic and Shift").
#include <algorithm>
#include <bit>
#include <limits>

#include "isa.h"

namespace troupe::kernels::cuda::ptx {
namespace {

// A shift by the width or more leaves nothing, or the sign.
template <typename T>
T shifted_right(T value, uint32_t by) {
  constexpr uint32_t kBits = sizeof(T) * 8;
  if (by < kBits) return static_cast<T>(value >> by);
  return std::is_signed_v<T> && value < 0 ? T(-1) : T(0);
}
template <typename T>
T shifted_left(T value, uint32_t by) {
  return by < sizeof(T) * 8 ? static_cast<T>(value << by) : T(0);
}
// `length` bits of a from bit `position` of b.
template <typename T>
T inserted(T a, T b, uint32_t position, uint32_t length) {
  const uint32_t p = position & 0xff, n = length & 0xff;
  const T ones = n >= sizeof(T) * 8 ? ~T(0) : (T(1) << n) - 1;
  const T mask = shifted_left(ones, p);
  return (b & ~mask) | (shifted_left(a, p) & mask);
}

// Quotient or remainder: what divides by 0 is at fault.
template <typename T, bool quotient>
void divide(Warp& warp, const Instruction& in) {
  T* const d = warp.at<T>(in.at[0]);
  const T *const a = warp.at<T>(in.at[1]), *const b = warp.at<T>(in.at[2]);
  for (int i = 0; i < kLanes; ++i) {
    if (!(warp.active >> i & 1)) continue;
    if (b[i] == 0) fail(warp, in, "divides by zero", i);
    if (std::is_signed_v<T> && b[i] == T(-1))  // the least number's quotient is itself
      d[i] = quotient ? static_cast<T>(T(0) - static_cast<std::make_unsigned_t<T>>(a[i])) : T(0);
    else
      d[i] = quotient ? a[i] / b[i] : a[i] % b[i];
  }
}

// Predicates, all lanes at once.
template <typename F>
Handler predicates(F) {
  return [](Warp& warp, const Instruction& in) {
    warp.write_predicate(in.at[0], F{}(*warp.at<uint32_t>(in.at[1]), *warp.at<uint32_t>(in.at[2])));
  };
}

template <typename T>
void select(Warp& warp, const Instruction& in) {
  T* const d = warp.at<T>(in.at[0]);
  const T *const a = warp.at<T>(in.at[1]), *const b = warp.at<T>(in.at[2]);
  const uint32_t which = *warp.at<uint32_t>(in.at[3]);
  for (int i = 0; i < kLanes; ++i) {
    if (warp.active >> i & 1) d[i] = which >> i & 1 ? a[i] : b[i];
  }
}

template <typename T>
void add_type(Table& table, const std::string& type, const std::string& width) {
  using U = std::make_unsigned_t<T>;
  const auto two = [&](const char* name, Handler handler) {
    table[name + ("." + type)].push_back({width + width + width, handler});
  };
  // Of unsigned numbers where a sign makes no difference: nothing overflows.
  two("add", lanes<U, U, U>([](U a, U b) { return a + b; }));
  two("sub", lanes<U, U, U>([](U a, U b) { return a - b; }));
  two("mul.lo", lanes<U, U, U>([](U a, U b) { return a * b; }));
  two("min", lanes<T, T, T>([](T a, T b) { return std::min(a, b); }));
  two("max", lanes<T, T, T>([](T a, T b) { return std::max(a, b); }));
  two("div", divide<T, true>);
  two("rem", divide<T, false>);
  table["mad.lo." + type].push_back(
      {width + width + width + width, lanes<U, U, U, U>([](U a, U b, U c) { return a * b + c; })});
  table["neg." + type].push_back({width + width, lanes<U, U>([](U a) { return U(0) - a; })});
  table["shr." + type].push_back(
      {width + width + "w", lanes<T, T, uint32_t>([](T a, uint32_t b) { return shifted_right(a, b); })});
  table["selp." + type].push_back({width + width + width + "p", select<T>});
  const auto compare = [&](const char* name, Handler handler) {
    table[std::string("setp.") + name + "." + type].push_back({"p" + width + width, handler});
  };
  compare("eq", compared<T>([](T a, T b) { return a == b; }));
  compare("ne", compared<T>([](T a, T b) { return a != b; }));
  compare("lt", compared<T>([](T a, T b) { return a < b; }));
  compare("le", compared<T>([](T a, T b) { return a <= b; }));
  compare("gt", compared<T>([](T a, T b) { return a > b; }));
  compare("ge", compared<T>([](T a, T b) { return a >= b; }));
}

template <typename T>
void add_bits(Table& table, const std::string& type, const std::string& width) {
  const std::string two = width + width + width;
  table["and." + type].push_back({two, lanes<T, T, T>([](T a, T b) { return a & b; })});
  table["or." + type].push_back({two, lanes<T, T, T>([](T a, T b) { return a | b; })});
  table["xor." + type].push_back({two, lanes<T, T, T>([](T a, T b) { return a ^ b; })});
  table["not." + type].push_back({width + width, lanes<T, T>([](T a) { return ~a; })});
  table["shl." + type].push_back(
      {width + width + "w", lanes<T, T, uint32_t>([](T a, uint32_t b) { return shifted_left(a, b); })});
  table["bfi." + type].push_back(
      {two + "ww", lanes<T, T, T, uint32_t, uint32_t>(
                       [](T a, T b, uint32_t c, uint32_t d) { return inserted(a, b, c, d); })});
  table["setp.eq." + type].push_back({"p" + width + width, compared<T>([](T a, T b) { return a == b; })});
  table["setp.ne." + type].push_back({"p" + width + width, compared<T>([](T a, T b) { return a != b; })});
  table["selp." + type].push_back({two + "p", select<T>});
}

template <typename From, typename To>
void add_conversion(Table& table, const char* name, const char* signature) {
  // What lies in the register beside the number is not looked at.
  table[name].push_back({signature, lanes<To, From>([](From a) { return static_cast<To>(a); })});
}

void add_moves(Table& table) {
  const auto move = [&](std::initializer_list<const char*> types, const char* signature, Handler handler) {
    for (const char* type : types) table[std::string("mov.") + type].push_back({signature, handler});
  };
  move({"b32", "u32", "s32", "f32"}, "ww", lanes<uint32_t, uint32_t>([](uint32_t a) { return a; }));
  move({"b64", "u64", "s64", "f64"}, "dd", lanes<uint64_t, uint64_t>([](uint64_t a) { return a; }));
  move({"b16", "u16", "s16"}, "hh", lanes<uint32_t, uint32_t>([](uint32_t a) { return a; }));
  // Halves, the lower one first.
  table["mov.b32"].push_back({"whh", lanes<uint32_t, uint32_t, uint32_t>(
                                         [](uint32_t a, uint32_t b) { return (a & 0xffff) | b << 16; })});
  table["mov.b64"].push_back(
      {"dww", lanes<uint64_t, uint32_t, uint32_t>([](uint64_t a, uint64_t b) { return a | b << 32; })});
  table["mov.b32"].push_back({"hhw", [](Warp& warp, const Instruction& in) {
                                for (int i = 0; i < kLanes; ++i) {
                                  if (!(warp.active >> i & 1)) continue;
                                  const uint32_t value = warp.at<uint32_t>(in.at[2])[i];
                                  warp.at<uint32_t>(in.at[0])[i] = value & 0xffff;
                                  warp.at<uint32_t>(in.at[1])[i] = value >> 16;
                                }
                              }});
  table["mov.b64"].push_back({"wwd", [](Warp& warp, const Instruction& in) {
                                for (int i = 0; i < kLanes; ++i) {
                                  if (!(warp.active >> i & 1)) continue;
                                  const uint64_t value = warp.at<uint64_t>(in.at[2])[i];
                                  warp.at<uint32_t>(in.at[0])[i] = static_cast<uint32_t>(value);
                                  warp.at<uint32_t>(in.at[1])[i] = static_cast<uint32_t>(value >> 32);
                                }
                              }});
  // Global memory is at the same addresses in the generic space.
  table["cvta.to.global.u64"] = table["mov.b64"];
  table["mov.pred"].push_back({"pp", [](Warp& warp, const Instruction& in) {
                                 warp.write_predicate(in.at[0], *warp.at<uint32_t>(in.at[1]));
                               }});
  table["not.pred"].push_back({"pp", [](Warp& warp, const Instruction& in) {
                                 warp.write_predicate(in.at[0], ~*warp.at<uint32_t>(in.at[1]));
                               }});
  table["and.pred"].push_back({"ppp", predicates([](uint32_t a, uint32_t b) { return a & b; })});
  table["or.pred"].push_back({"ppp", predicates([](uint32_t a, uint32_t b) { return a | b; })});
  table["xor.pred"].push_back({"ppp", predicates([](uint32_t a, uint32_t b) { return a ^ b; })});
}

}  // namespace

void add_integers(Table& table) {
  add_type<int32_t>(table, "s32", "w");
  add_type<uint32_t>(table, "u32", "w");
  add_type<int64_t>(table, "s64", "d");
  add_type<uint64_t>(table, "u64", "d");
  add_bits<uint32_t>(table, "b32", "w");
  add_bits<uint64_t>(table, "b64", "d");
  table["mul.wide.s32"].push_back(
      {"dww", lanes<int64_t, int32_t, int32_t>([](int64_t a, int64_t b) { return a * b; })});
  table["mul.wide.u32"].push_back(
      {"dww", lanes<uint64_t, uint32_t, uint32_t>([](uint64_t a, uint64_t b) { return a * b; })});
  table["mul.hi.s32"].push_back(
      {"www", lanes<int32_t, int32_t, int32_t>([](int64_t a, int64_t b) { return a * b >> 32; })});
  table["mul.hi.u32"].push_back(
      {"www", lanes<uint32_t, uint32_t, uint32_t>([](uint64_t a, uint64_t b) { return a * b >> 32; })});
  // 16 bits, in the lower half of 32.
  table["setp.eq.s16"].push_back(
      {"phh", compared<uint32_t>([](uint32_t a, uint32_t b) { return ((a ^ b) & 0xffff) == 0; })});
  table["setp.ne.s16"].push_back(
      {"phh", compared<uint32_t>([](uint32_t a, uint32_t b) { return ((a ^ b) & 0xffff) != 0; })});
  table["selp.u16"].push_back({"hhhp", select<uint32_t>});
  add_conversion<int32_t, int64_t>(table, "cvt.s64.s32", "dw");
  add_conversion<uint32_t, uint64_t>(table, "cvt.u64.u32", "dw");
  add_conversion<uint64_t, uint32_t>(table, "cvt.u32.u64", "wd");
  table["cvt.s64.s32"].push_back({"dd", lanes<int64_t, uint64_t>([](uint64_t a) {
                                    return static_cast<int32_t>(static_cast<uint32_t>(a));
                                  })});
  table["cvt.u32.u16"].push_back({"wh", lanes<uint32_t, uint32_t>([](uint32_t a) { return a & 0xffff; })});
  add_moves(table);
}

}  // namespace troupe::kernels::cuda::ptx
