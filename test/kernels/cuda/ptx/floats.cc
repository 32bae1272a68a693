// Floating point (PTX ISA, "Floating Point Instructions", cvt). What has no rounding in its name rounds to nearest even, and keeps
// subnormal numbers.
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <limits>

#include "isa.h"

namespace troupe::kernels::cuda::ptx {
namespace {

// Of two numbers the lesser, or greater; of a number and NaN the number; of zeros min's is −0.
template <typename T>
T least(T a, T b) {
  if (std::isnan(a)) return std::isnan(b) ? std::numeric_limits<T>::quiet_NaN() : b;
  if (std::isnan(b)) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <typename T>
T greatest(T a, T b) {
  return -least(-a, -b);
}

// Towards zero; what lies outside becomes the nearest that there is, and NaN 0.
template <typename D, typename A>
D truncated(A a) {
  if (std::isnan(a)) return 0;
  const A t = std::trunc(a);
  if (t <= static_cast<A>(std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
  if (t >= std::ldexp(A(1), std::numeric_limits<D>::digits)) return std::numeric_limits<D>::max();
  return static_cast<D>(t);
}

float flushed(float a) { return std::abs(a) < std::numeric_limits<float>::min() ? std::copysign(0.f, a) : a; }

// The lower halves of operand and result are not looked at, and 0.
double gross_reciprocal(double a) {
  const auto upper = [](double x) {
    return std::bit_cast<double>(std::bit_cast<uint64_t>(x) & 0xffffffff00000000u);
  };
  const auto flush = [](double x) {
    return std::abs(x) < std::numeric_limits<double>::min() ? std::copysign(0., x) : x;
  };
  return upper(flush(1 / flush(upper(a))));
}

// To the nearest bf16, ties to even; NaN is 0x7fff.
uint32_t to_bf16(float a) {
  const auto bits = std::bit_cast<uint32_t>(a);
  if (std::isnan(a)) return 0x7fff;
  const uint32_t kept = bits >> 16, rest = bits & 0xffff;
  return kept + (rest > 0x8000 || (rest == 0x8000 && (kept & 1)) ? 1 : 0);
}

// a b + c, rounded down.
void fma_down(Warp& warp, const Instruction& in) {
  const int before = std::fegetround();
  std::fesetround(FE_DOWNWARD);
  for (int i = 0; i < kLanes; ++i) {
    if (!(warp.active >> i & 1)) continue;
    volatile float result =
        std::fma(warp.at<float>(in.at[1])[i], warp.at<float>(in.at[2])[i], warp.at<float>(in.at[3])[i]);
    warp.at<float>(in.at[0])[i] = result;
  }
  std::fesetround(before);
}

template <typename T>
void add_type(Table& table, const std::string& type, const std::string& width) {
  const std::string one = width + width, two = one + width;
  const auto both = [&](const std::string& name, const std::string& signature, Handler handler) {
    table[name + "." + type].push_back({signature, handler});
    table[name + ".rn." + type].push_back({signature, handler});
  };
  both("add", two, lanes<T, T, T>([](T a, T b) { return a + b; }));
  both("sub", two, lanes<T, T, T>([](T a, T b) { return a - b; }));
  both("mul", two, lanes<T, T, T>([](T a, T b) { return a * b; }));
  both("div", two, lanes<T, T, T>([](T a, T b) { return a / b; }));
  both("fma", two + width, lanes<T, T, T, T>([](T a, T b, T c) { return std::fma(a, b, c); }));
  both("sqrt", one, lanes<T, T>([](T a) { return std::sqrt(a); }));
  both("rcp", one, lanes<T, T>([](T a) { return 1 / a; }));
  both("abs", one, lanes<T, T>([](T a) { return std::abs(a); }));
  both("neg", one, lanes<T, T>([](T a) { return -a; }));
  both("min", two, lanes<T, T, T>([](T a, T b) { return least(a, b); }));
  both("max", two, lanes<T, T, T>([](T a, T b) { return greatest(a, b); }));
  const auto compare = [&](const char* name, Handler handler) {
    table[std::string("setp.") + name + "." + type].push_back({"p" + one, handler});
  };
  // Those with a u hold of NaN as well.
  compare("eq", compared<T>([](T a, T b) { return a == b; }));
  compare("ne", compared<T>([](T a, T b) { return a < b || a > b; }));
  compare("lt", compared<T>([](T a, T b) { return a < b; }));
  compare("le", compared<T>([](T a, T b) { return a <= b; }));
  compare("gt", compared<T>([](T a, T b) { return a > b; }));
  compare("ge", compared<T>([](T a, T b) { return a >= b; }));
  compare("equ", compared<T>([](T a, T b) { return !(a < b || a > b); }));
  compare("neu", compared<T>([](T a, T b) { return !(a == b); }));
  compare("ltu", compared<T>([](T a, T b) { return !(a >= b); }));
  compare("leu", compared<T>([](T a, T b) { return !(a > b); }));
  compare("gtu", compared<T>([](T a, T b) { return !(a <= b); }));
  compare("geu", compared<T>([](T a, T b) { return !(a < b); }));
  compare("nan", compared<T>([](T a, T b) { return a != a || b != b; }));
  compare("num", compared<T>([](T a, T b) { return a == a && b == b; }));
}

template <typename D, typename A>
Handler converted() {
  return lanes<D, A>([](A a) { return static_cast<D>(a); });
}

}  // namespace

void add_floats(Table& table) {
  add_type<float>(table, "f32", "w");
  add_type<double>(table, "f64", "d");
  for (const auto& [name, as] : {std::pair("selp.f32", "selp.b32"), std::pair("selp.f64", "selp.b64")})
    table[name] = table.at(as);
  table["fma.rm.f32"].push_back({"wwww", fma_down});
  table["cvt.f64.f32"].push_back({"dw", converted<double, float>()});
  table["cvt.rn.f32.f64"].push_back({"wd", converted<float, double>()});
  table["cvt.rn.f32.s32"].push_back({"ww", converted<float, int32_t>()});
  table["cvt.rn.f32.s64"].push_back({"wd", converted<float, int64_t>()});
  table["cvt.rn.f64.s32"].push_back({"dw", converted<double, int32_t>()});
  table["cvt.rn.f64.s64"].push_back({"dd", converted<double, int64_t>()});
  table["cvt.rn.f64.u64"].push_back({"dd", converted<double, uint64_t>()});
  table["cvt.rzi.u32.f32"].push_back(
      {"ww", lanes<uint32_t, float>([](float a) { return truncated<uint32_t>(a); })});
  table["cvt.rzi.u64.f32"].push_back(
      {"dw", lanes<uint64_t, float>([](float a) { return truncated<uint64_t>(a); })});
  table["cvt.rzi.u64.f64"].push_back(
      {"dd", lanes<uint64_t, double>([](double a) { return truncated<uint64_t>(a); })});
  // Into [0, 1], NaN to 0.
  table["cvt.sat.f32.f32"].push_back(
      {"ww", lanes<float, float>([](float a) { return a > 0 ? (a < 1 ? a : 1.f) : 0.f; })});
  table["cvt.rn.bf16.f32"].push_back({"hw", lanes<uint32_t, float>([](float a) { return to_bf16(a); })});
  // The first operand is the upper half.
  table["cvt.rn.bf16x2.f32"].push_back(
      {"www", lanes<uint32_t, float, float>([](float a, float b) { return to_bf16(a) << 16 | to_bf16(b); })});
  // Approximations: within two units of the last place of these.
  table["ex2.approx.f32"].push_back({"ww", lanes<float, float>([](float a) {
                                       return static_cast<float>(std::exp2(static_cast<double>(a)));
                                     })});
  table["ex2.approx.ftz.f32"].push_back(
      {"ww", lanes<float, float>([](float a) {
         return flushed(static_cast<float>(std::exp2(static_cast<double>(flushed(a)))));
       })});
  table["rcp.approx.ftz.f32"].push_back(
      {"ww", lanes<float, float>([](float a) { return flushed(1 / flushed(a)); })});
  table["rcp.approx.ftz.f64"].push_back(
      {"dd", lanes<double, double>([](double a) { return gross_reciprocal(a); })});
}

}  // namespace troupe::kernels::cuda::ptx
