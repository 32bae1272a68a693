// Which instructions are known. A signature has a letter for each operand: w a register of 32 bits, d of 64, h of 16 (in a
// vector of 32), p a predicate, each also a number where the text has one; i a number alone; G, S and P the address of an
// operand in brackets, in global and shared memory and among the parameters.
#pragma once

#include <type_traits>

#include "machine.h"

namespace troupe::kernels::cuda::ptx {

void add_integers(Table& table);
void add_floats(Table& table);
void add_memory(Table& table);
void add_warp(Table& table);

template <typename D, typename F, typename... A>
void each_lane(uint32_t active, D* d, F f, const A*... a) {
  if (active == kAll) {
#pragma GCC ivdep
    for (int i = 0; i < kLanes; ++i) d[i] = static_cast<D>(f(a[i]...));
  } else {
    for (int i = 0; i < kLanes; ++i) {
      if (active >> i & 1) d[i] = static_cast<D>(f(a[i]...));
    }
  }
}

// d = f(a…), lane by lane, of registers with elements D and A.
template <typename D, typename... A, typename F>
Handler lanes(F) {
  static_assert(std::is_empty_v<F>);
  return [](Warp& warp, const Instruction& in) {
    [&]<size_t... I>(std::index_sequence<I...>) {
      each_lane<D>(warp.active, warp.at<D>(in.at[0]), F{},
                   static_cast<const A*>(warp.at<A>(in.at[1 + I]))...);
    }
    (std::index_sequence_for<A...>{});
  };
}

// A predicate of two registers.
template <typename A, typename F>
Handler compared(F) {
  return [](Warp& warp, const Instruction& in) {
    const A *const a = warp.at<A>(in.at[1]), *const b = warp.at<A>(in.at[2]);
    uint32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(F{}(a[i], b[i])) << i;
    warp.write_predicate(in.at[0], bits);
  };
}

}  // namespace troupe::kernels::cuda::ptx
