// Loads, stores, atomics and asynchronous copies (PTX ISA, "Data Movement", "Parallel Synchronization").
#include "memory.h"

#include <algorithm>
#include <cstring>

#include "isa.h"

// Of AddressSanitizer, where the tests run with it: the first byte of these that is nobody's.
extern "C" void* __asan_region_is_poisoned(void* begin, size_t bytes) __attribute__((weak));

namespace troupe::kernels::cuda::ptx {
namespace {

constexpr uint64_t kFirstPage = 4096;

void check_alignment(const Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes) {
  if (address % bytes != 0)
    fail(warp, in,
         "an address that is not a multiple of " + std::to_string(bytes) + ": " + std::to_string(address),
         lane);
}
void check(const Warp& warp, const Instruction& in, int lane, const char* wrong) {
  if (wrong[0] != '\0') fail(warp, in, wrong, lane);
}

uint8_t* global_place(const Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes) {
  check_alignment(warp, in, lane, address, bytes);
  if (address < kFirstPage) fail(warp, in, "address " + std::to_string(address) + " of global memory", lane);
  auto* const at = reinterpret_cast<uint8_t*>(address);
  if (__asan_region_is_poisoned && __asan_region_is_poisoned(at, bytes))
    fail(warp, in, "global memory that is not the kernel's", lane);
  return at;
}

// Where a shared address lies in the block's memory, of which all of [address, address + bytes) must be.
size_t shared_place(const Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes) {
  check_alignment(warp, in, lane, address, bytes);
  const size_t size = warp.block->shared.size();
  if (address < kSharedBase || address - kSharedBase + bytes > size)
    fail(warp, in,
         "byte " + std::to_string(static_cast<int64_t>(address) - kSharedBase) + " of " +
             std::to_string(size) + " of shared memory",
         lane);
  return address - kSharedBase;
}

enum class Space { kGlobal, kShared, kParameter };

template <Space space>
uint64_t address_of(Warp& warp, const Instruction& in, size_t operand, int lane) {
  const uint32_t place = in.at[operand];
  if constexpr (space == Space::kShared)
    return static_cast<uint32_t>(warp.at<uint32_t>(place)[lane] + in.offset);
  else
    return warp.at<uint64_t>(place)[lane] + static_cast<uint64_t>(in.offset);
}

// N elements M into registers with elements R.
template <Space space, typename M, typename R, int N>
void load(Warp& warp, const Instruction& in) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.active >> lane & 1)) continue;
    M values[N];
    constexpr auto read = space == Space::kGlobal   ? read_global
                          : space == Space::kShared ? read_shared
                                                    : read_parameter;
    read(warp, in, lane, address_of<space>(warp, in, N, lane), sizeof values, values);
    for (int j = 0; j < N; ++j) warp.at<R>(in.at[static_cast<size_t>(j)])[lane] = static_cast<R>(values[j]);
  }
}

template <Space space, typename M, typename R, int N>
void store(Warp& warp, const Instruction& in) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.active >> lane & 1)) continue;
    M values[N];
    for (int j = 0; j < N; ++j)
      values[j] = static_cast<M>(warp.at<R>(in.at[static_cast<size_t>(1 + j)])[lane]);
    const uint64_t address = address_of<space>(warp, in, 0, lane);
    constexpr auto place = space == Space::kGlobal ? global_memory : shared_memory;
    std::memcpy(place(warp, in, lane, address, sizeof values, Use::kWrite, values), values, sizeof values);
  }
}

// d = what was there, which becomes f(it, b).
template <Space space, typename T, typename F>
Handler atomic(F) {
  return [](Warp& warp, const Instruction& in) {
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(warp.active >> lane & 1)) continue;
      const uint64_t address = address_of<space>(warp, in, 1, lane);
      constexpr auto place = space == Space::kGlobal ? global_memory : shared_memory;
      uint8_t* const at = place(warp, in, lane, address, sizeof(T), Use::kAtomic, nullptr);
      T before;
      std::memcpy(&before, at, sizeof before);
      const T after = F{}(before, warp.at<T>(in.at[2])[lane]);
      std::memcpy(at, &after, sizeof after);
      warp.at<T>(in.at[0])[lane] = before;
    }
  };
}

// Sixteen bytes, or zeros, to shared memory, which come when the group is waited for and no sooner.
template <bool sized>
void copy(Warp& warp, const Instruction& in) {
  if (in.number != 16) fail(warp, in, "a copy of other than 16 bytes");
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.active >> lane & 1)) continue;
    const auto to = static_cast<uint32_t>(address_of<Space::kShared>(warp, in, 0, lane));
    const uint64_t from = warp.at<uint64_t>(in.at[1])[lane];
    const uint32_t bytes = sized ? warp.at<uint32_t>(in.at[3])[lane] : 16;
    if (bytes != 0 && bytes != 16)
      fail(warp, in, "a copy of " + std::to_string(bytes) + " of 16 bytes", lane);
    check_alignment(warp, in, lane, from, 16);
    uint8_t now[16];
    if (bytes > 0) read_global(warp, in, lane, from, 16, now);  // for its checks: it may be read from here on
    const size_t place = shared_place(warp, in, lane, to, 16);
    check(warp, in, lane, warp.block->shadow.begin_copy(place, 16, warp.moment(lane)));
    warp.copies[static_cast<size_t>(lane)].open.push_back({to, from, bytes});
  }
}

void commit(Warp& warp, const Instruction&) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.active >> lane & 1)) continue;
    Copies& copies = warp.copies[static_cast<size_t>(lane)];
    copies.groups.push_back(std::move(copies.open));
    copies.open.clear();
  }
}

// Until no more than `number` groups are on their way.
void wait_group(Warp& warp, const Instruction& in) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.active >> lane & 1)) continue;
    auto& groups = warp.copies[static_cast<size_t>(lane)].groups;
    for (; groups.size() > static_cast<size_t>(in.number); groups.pop_front()) {
      for (const Copy& one : groups.front()) {
        uint8_t bytes[16] = {};
        if (one.bytes > 0) read_global(warp, in, lane, one.from, 16, bytes);
        const size_t place = shared_place(warp, in, lane, one.to, 16);
        std::memcpy(warp.block->shared.data() + place, bytes, 16);
        warp.block->shadow.end_copy(place, 16, warp.moment(lane));
      }
    }
  }
}

void fence(Warp& warp, const Instruction&) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (warp.active >> lane & 1) warp.block->launch->shadow.fence(warp.moment(lane));
  }
  ++warp.fences;
}

constexpr char letter(Space space) {
  return space == Space::kGlobal ? 'G' : space == Space::kShared ? 'S' : 'P';
}

template <Space space, typename M, typename R, int N>
void add_vector(Table& table, const std::string& type, const char* width) {
  const char* const name = space == Space::kGlobal   ? "global."
                           : space == Space::kShared ? "shared."
                                                     : "param.";
  const std::string vector = N == 1 ? "" : "v" + std::to_string(N) + ".";
  std::string registers;
  for (int j = 0; j < N; ++j) registers += width;
  table["ld." + (name + vector) + type].push_back({registers + letter(space), load<space, M, R, N>});
  if constexpr (space != Space::kParameter)
    table["st." + (name + vector) + type].push_back({letter(space) + registers, store<space, M, R, N>});
}
template <Space space, typename M, typename R>
void add_type(Table& table, const std::string& type, const char* width) {
  add_vector<space, M, R, 1>(table, type, width);
  add_vector<space, M, R, 2>(table, type, width);
  if constexpr (sizeof(M) <= 4) add_vector<space, M, R, 4>(table, type, width);
}
template <Space space>
void add_space(Table& table) {
  add_type<space, uint8_t, uint32_t>(table, "u8", "h");
  add_type<space, uint16_t, uint32_t>(table, "u16", "h");
  add_type<space, uint32_t, uint32_t>(table, "u32", "w");
  add_type<space, uint32_t, uint32_t>(table, "f32", "w");
  add_type<space, uint64_t, uint64_t>(table, "u64", "d");
  add_type<space, uint64_t, uint64_t>(table, "f64", "d");
  // Into wider registers, by sign where the type has one.
  add_vector<space, uint16_t, uint32_t, 1>(table, "u16", "w");
  add_vector<space, int32_t, int32_t, 1>(table, "s32", "w");
  add_vector<space, int32_t, int64_t, 1>(table, "s32", "d");
  add_vector<space, uint32_t, uint64_t, 1>(table, "u32", "d");
}

}  // namespace

void read_global(Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes, void* to) {
  const uint8_t* const from = global_place(warp, in, lane, address, bytes);
  if (warp.block->launch->shadow.races(address, bytes, warp.moment(lane)))
    std::memset(to, 0xff, bytes);  // see order.h
  else
    std::memcpy(to, from, bytes);
}

void read_shared(Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes, void* to) {
  const size_t place = shared_place(warp, in, lane, address, bytes);
  check(warp, in, lane,
        warp.block->shadow.touch(place, bytes, Use::kRead, warp.moment(lane), /*same=*/false));
  std::memcpy(to, warp.block->shared.data() + place, bytes);
}

void read_parameter(Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes, void* to) {
  check_alignment(warp, in, lane, address, bytes);
  const std::vector<uint8_t>& all = warp.block->launch->parameters;
  const auto begin = reinterpret_cast<uint64_t>(all.data());
  if (address < begin || address + bytes > begin + all.size()) fail(warp, in, "beyond the parameters", lane);
  std::memcpy(to, reinterpret_cast<const uint8_t*>(address), bytes);
}

uint8_t* global_memory(Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes, Use use,
                       const void* value) {
  uint8_t* const at = global_place(warp, in, lane, address, bytes);
  const bool same = use == Use::kWrite && std::memcmp(at, value, bytes) == 0;
  check(warp, in, lane, warp.block->launch->shadow.touch(address, bytes, use, warp.moment(lane), same));
  return at;
}

uint8_t* shared_memory(Warp& warp, const Instruction& in, int lane, uint64_t address, size_t bytes, Use use,
                       const void* value) {
  const size_t place = shared_place(warp, in, lane, address, bytes);
  uint8_t* const at = warp.block->shared.data() + place;
  const bool same = use == Use::kWrite && std::memcmp(at, value, bytes) == 0;
  check(warp, in, lane, warp.block->shadow.touch(place, bytes, use, warp.moment(lane), same));
  return at;
}

void add_memory(Table& table) {
  add_space<Space::kGlobal>(table);
  add_space<Space::kShared>(table);
  add_space<Space::kParameter>(table);
  table["atom.shared.add.u32"].push_back(
      {"wSw", atomic<Space::kShared, uint32_t>([](uint32_t now, uint32_t b) { return now + b; })});
  table["atom.shared.min.s32"].push_back(
      {"wSw", atomic<Space::kShared, int32_t>([](int32_t now, int32_t b) { return std::min(now, b); })});
  table["atom.global.inc.u32"].push_back(
      {"wGw",
       atomic<Space::kGlobal, uint32_t>([](uint32_t now, uint32_t b) { return now >= b ? 0 : now + 1; })});
  table["cp.async.cg.shared.global"].push_back({"SGi", copy<false>});
  table["cp.async.cg.shared.global"].push_back({"SGiw", copy<true>});
  table["membar.gl"].push_back({"", fence});
  table["cp.async.commit_group"].push_back({"", commit});
  table["cp.async.wait_group"].push_back({"i", wait_group});
}

}  // namespace troupe::kernels::cuda::ptx
