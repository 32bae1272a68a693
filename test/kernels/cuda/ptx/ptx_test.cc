// The interpreter itself: the instructions whose layouts are easily mistaken against the figures of the PTX manual, written out
// here, and faults that it must find where the emulation, on which the same kernels run first, computes what was meant.
#include <numeric>

#include "../support.h"
#include "faults.h"

namespace troupe::kernels::cuda::test {
namespace {

// Under the emulation `kernel` writes `want`.
template <typename F, typename T>
void check_emulated(const char* what, const F& kernel, const Buffer<T>& out, const std::vector<T>& want) {
  emulation::Runner* const interpreter = std::exchange(emulation::runner, nullptr);
  run(what, kernel);
  emulation::runner = interpreter;
  for (size_t i = 0; i < want.size(); ++i)
    check(out.data()[i] == want[i], std::string(what) + ": the emulation computes something else");
}

template <typename F>
void check_found(const char* what, const F& kernel, const char* expected) {
  std::string found = "nothing";
  try {
    run(what, kernel);
  } catch (const std::exception& error) {
    found = error.what();
  }
  check(found.find(expected) != std::string::npos, std::string(what) + ": found was " + found);
}

Buffer<int> counted(int64_t size) {
  Buffer<int> result(size);
  std::iota(result.data(), result.data() + size, 1);
  return result;
}
std::vector<int> values(const Buffer<int>& of) { return {of.data(), of.data() + of.size()}; }

const Register barrier("interpreter: a missing barrier", [] {
  const Buffer<int> in = counted(64);
  Buffer<int> out(64);
  std::vector<int> want = values(in);
  std::reverse_copy(in.data(), in.data() + 32, want.begin() + 32);
  const auto kernel = [&] { return reversed_without_barrier(in.data(), out.data()); };
  check_emulated("reversed", kernel, out, want);
  // Whichever warp comes first, in whatever order they go on.
  for (int i = 0; i < 20; ++i) check_found("reversed", kernel, "shared memory that");
});

const Register wait("interpreter: a copy that nobody waits for", [] {
  const Buffer<int> in = counted(128);
  Buffer<int> out(128);
  const auto kernel = [&] { return copied_without_wait(in.data(), out.data()); };
  check_emulated("copied", kernel, out, values(in));
  check_found("copied", kernel, "an asynchronous copy writes, and nobody has waited for");
});

const Register alignment("interpreter: sixteen bytes at another address", [] {
  Buffer<float> in(129), out(128);
  for (int i = 0; i < 129; ++i) in[i] = static_cast<float>(i);
  const auto kernel = [&] { return misaligned(in.data(), out.data()); };
  check_emulated("misaligned", kernel, out, std::vector<float>(in.data() + 1, in.data() + 129));
  check_found("misaligned", kernel, "not a multiple of 16");
});

const Register mask("interpreter: a shuffle whose mask lacks half of the warp", [] {
  const Buffer<int> in = counted(32);
  Buffer<int> out(32);
  std::vector<int> want = values(in);
  for (size_t i = 0; i < 32; i += 2) std::swap(want[i], want[i + 1]);
  const auto kernel = [&] { return half_a_mask(in.data(), out.data()); };
  check_emulated("mask", kernel, out, want);
  check_found("mask", kernel, "a lane that its mask does not name");
});

const Register fence("interpreter: a missing fence", [] {
  const Buffer<int> in = counted(64);
  std::vector<int> want;
  for (int i = 1; i <= 32; ++i) want.push_back(2 * i + 32);
  Buffer<uint32_t> ticket = Buffer<uint32_t>::zeros(1);
  Buffer<int> parts(64), out(32);
  const auto kernel = [&] {
    return summed_without_fence(in.data(), ticket.data(), parts.data(), out.data());
  };
  check_emulated("summed", kernel, out, want);
  parts = Buffer<int>::zeros(64);
  // What another block has written, and no fence has let be seen, is garbage.
  run("summed", kernel);
  bool differs = false;
  for (int i = 0; i < 32; ++i) differs = differs || out[i] != want[static_cast<size_t>(i)];
  check(differs, "what the other block wrote was seen without a fence");
});

const Register bounds("interpreter: memory that is not the kernel's", [] {
  Buffer<int> out(32);
  check_found(
      "beyond", [&] { return write_beyond(out.data()); }, "global memory that is not the kernel's");
  check_found(
      "beyond", [&] { return read_beyond_shared(out.data()); }, "byte 128 of 128 of shared memory");
  Buffer<int> in = counted(32);
  in[7] = 0;
  check_found(
      "divided", [&] { return divided(in.data(), out.data()); }, "divides by zero");
});

// One element of a is 1, and b[k][n] = 8 k + n + 1: row `row` of the product is row `column` of b.
struct Element {
  int lane, reg, half, row, column;  // (PTX ISA, "Matrix Fragments for mma.m16n8k16", the figure of A)
};
constexpr Element kElements[] = {{0, 0, 0, 0, 0},  {0, 0, 1, 0, 1},   {5, 0, 0, 1, 2},   {31, 0, 1, 7, 7},
                                 {0, 1, 0, 8, 0},  {5, 1, 0, 9, 2},   {31, 1, 1, 15, 7}, {0, 2, 0, 0, 8},
                                 {6, 2, 1, 1, 13}, {28, 3, 0, 15, 8}, {31, 3, 1, 15, 15}};

const Register product("interpreter: mma's registers", [] {
  Buffer<uint32_t> b(64);
  for (int lane = 0; lane < 32; ++lane) {
    for (int reg = 0; reg < 2; ++reg) {
      const auto bits = [&](int k) {
        return static_cast<uint32_t>(rounded<Bf16>(8 * k + lane / 4 + 1).bits);
      };
      const int k = lane % 4 * 2 + 8 * reg;
      b[lane * 2 + reg] = bits(k) | bits(k + 1) << 16;
    }
  }
  for (const bool fault : {false, true}) {
    int wrong = 0;
    for (const Element& one : kElements) {
      Buffer<uint32_t> a = Buffer<uint32_t>::zeros(128);
      a[one.lane * 4 + one.reg] = 0x3f80u << (16 * one.half);
      std::vector<float> want(128);
      for (int n = 0; n < 8; ++n)
        want[static_cast<size_t>((one.row % 8 * 4 + n / 2) * 4 + one.row / 8 * 2 + n % 2)] =
            static_cast<float>(8 * one.column + n + 1);
      Buffer<float> d(128);
      const auto kernel = [&] { return multiplied(fault, a.data(), b.data(), d.data()); };
      check_emulated("multiplied", kernel, d, want);
      run("multiplied", kernel);
      wrong += !std::equal(want.begin(), want.end(), d.data());
    }
    // Those of the middle registers, five of them.
    check(wrong == (fault ? 5 : 0), "products of single elements: " + std::to_string(wrong) + " are wrong");
  }
});

const Register matrices("interpreter: ldmatrix's registers", [] {
  Buffer<uint16_t> in(256);
  for (int i = 0; i < 256; ++i) in[i] = static_cast<uint16_t>(i);
  struct Expected {
    int lane;
    uint32_t low, high, low_transposed, high_transposed;  // of the first matrix, rows of 8: 0 to 63
  };
  constexpr Expected kExpected[] = {
      {0, 0, 1, 0, 8}, {1, 2, 3, 16, 24}, {3, 6, 7, 48, 56}, {4, 8, 9, 1, 9}, {31, 62, 63, 55, 63}};
  for (const bool transposed : {false, true}) {
    for (const bool fault : {false, true}) {
      Buffer<uint32_t> out(128);
      run("loaded", [&] { return loaded(transposed, fault, in.data(), out.data()); });
      bool right = true;
      for (const Expected& one : kExpected) {
        for (uint32_t m = 0; m < 4; ++m) {
          const uint32_t low = (transposed ? one.low_transposed : one.low) + 64 * m,
                         high = (transposed ? one.high_transposed : one.high) + 64 * m;
          right = right && out[one.lane * 4 + static_cast<int64_t>(m)] == (low | high << 16);
        }
      }
      check(right == !(transposed && fault), "registers of matrices");
      const Buffer<uint32_t> interpreted = out;
      if (fault) continue;
      check_emulated(
          "loaded", [&] { return loaded(transposed, fault, in.data(), out.data()); }, out,
          std::vector<uint32_t>(interpreted.data(), interpreted.data() + 128));
    }
  }
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
