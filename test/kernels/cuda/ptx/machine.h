// A kernel decoded, and what runs it: warps of 32 lanes, each instruction for all lanes of a group that are at one place.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "order.h"
#include "source.h"

namespace troupe::kernels::cuda::ptx {

constexpr int kLanes = 32;
constexpr uint32_t kAll = 0xffffffffu;
// Shared memory begins here, so that no address in it is 0.
constexpr uint32_t kSharedBase = 1024;

struct Warp;
struct Instruction;
using Handler = void (*)(Warp&, const Instruction&);

// Operands are offsets into a warp's registers, in the order of the text. A register is a vector of 32 lanes of 4 or 8 bytes;
// a predicate is one word, a bit for each lane. Numbers and special registers lie among them.
struct Instruction {
  Handler run = nullptr;
  std::array<uint32_t, 14> at = {};
  int64_t number = 0;  // an operand that must be one: a barrier, a size
  int64_t offset = 0;  // of the address
  uint32_t guard = 0;  // the predicate's place
  bool guarded = false, negated = false;
  int target = -1;    // of a branch
  int statement = 0;  // in the kernel's text
};

// What a signature (isa.h) says of each operand.
struct Entry {
  std::string signature;
  Handler run;
};
using Table = std::unordered_map<std::string, std::vector<Entry>>;

struct Program {
  KernelText text;
  std::vector<Instruction> code;
  size_t register_bytes = 0;   // those of a warp, the fixed ones behind them
  std::vector<uint8_t> fixed;  // numbers
  // Of a parameter's address the place in `fixed`, and its offset among the parameters.
  std::vector<std::pair<uint32_t, size_t>> parameter_addresses;
  std::unordered_map<std::string, uint32_t> special;  // "%tid.x" → place in `fixed`
  std::vector<size_t> parameter_offsets;              // of each, as a launch has them
  size_t parameter_bytes = 0, static_shared = 0;
};
// Throws Fault at an instruction that is not known.
Program decode(KernelText text);

struct Index {
  unsigned x, y, z;
};

struct Launch {
  const Program* program;
  Index grid;
  int threads;
  size_t shared;  // dynamic
  std::vector<uint8_t> parameters;
  GlobalShadow shadow = {};  // of global memory
};

struct Block;

struct Copy {
  uint32_t to;
  uint64_t from;
  uint32_t bytes;  // of 16; the rest are zeros
};
// A lane's cp.async: those since its last commit, and its groups, the oldest first.
struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};

struct Group {
  int pc;
  uint32_t lanes;
  bool waits;  // for the other lanes of its warp
};

enum class WarpState { kRuns, kAtBarrier, kDone };

struct Warp {
  Block* block = nullptr;
  int number = 0;  // in its block
  uint8_t* registers = nullptr;
  WarpState state = WarpState::kRuns;
  // The group that runs, and the others.
  int pc = 0;
  uint32_t lanes = kAll;
  std::vector<Group> others;
  uint32_t active = kAll;  // of the group, those that this instruction is for
  uint32_t exited = 0;
  uint32_t syncs = 0;  // bar.warp.sync that it has passed since its block's last barrier
  uint32_t fences = 0;
  std::array<Copies, kLanes> copies;

  template <typename T>
  T* at(uint32_t place) {
    return reinterpret_cast<T*>(registers + place);
  }
  void write_predicate(uint32_t place, uint32_t bits) {
    uint32_t& now = *at<uint32_t>(place);
    now = (now & ~active) | (bits & active);
  }
  int thread(int lane) const { return number * kLanes + lane; }
  Moment moment(int lane) const;
};

struct Block {
  Launch* launch = nullptr;
  unsigned number = 0;  // in the grid
  Index index = {};
  uint32_t barriers = 0;  // that it has passed
  int waiting = 0, done = 0;
  std::vector<uint8_t> shared;
  SharedShadow shadow;
  std::vector<uint8_t> register_memory;
  std::vector<Warp> warps;
};

inline Moment Warp::moment(int lane) const {
  return {block->number, static_cast<uint32_t>(thread(lane)), block->barriers, syncs, fences};
}

// Throws Fault with the place and the text of the instruction.
[[noreturn]] void fail(const Warp& warp, const Instruction& in, const std::string& what, int lane = -1);

// For an instruction that all lanes of `named` must execute together: whether they are there. If not, the group waits for them
// and the instruction runs again later.
bool together(Warp& warp, const Instruction& in, uint32_t named);

// Runs a launch, its blocks and warps in an order that `seed` gives. Throws Fault.
void run(Launch& launch, uint64_t seed);

}  // namespace troupe::kernels::cuda::ptx
