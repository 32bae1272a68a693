// What the lanes of a warp do together, and where they go: branches, barriers, shuffles, ldmatrix and mma (PTX ISA, "Control Flow",
// "Parallel Synchronization", "Warp-level Matrix").
#include <bit>
#include <cmath>
#include <cstring>

#include "isa.h"
#include "kernels/cuda/emulation/emulation.h"
#include "memory.h"

namespace troupe::kernels::cuda::ptx {
namespace {

void branch(Warp& warp, const Instruction& in) {
  const uint32_t stay = warp.lanes & ~warp.active;
  if (stay != 0) {
    warp.others.push_back({warp.pc, stay, false});
    warp.lanes = warp.active;
  }
  warp.pc = in.target;
}

// Shared addresses of 8 rows of 8 elements of 16 bits for each of four matrices: lane 8 m + r has that of row r of matrix m.
template <bool transposed>
void load_matrices(Warp& warp, const Instruction& in) {
  if (!together(warp, in, kAll)) return;
  uint16_t matrices[4][8][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto address = static_cast<uint32_t>(warp.at<uint32_t>(in.at[4])[lane] + in.offset);
    read_shared(warp, in, lane, address, 16, matrices[lane / 8][lane % 8]);
  }
  // Lane l has elements 2 (l % 4) and the next of row l / 4, of a transposed matrix of that column.
  for (int lane = 0; lane < kLanes; ++lane) {
    const int line = lane / 4, first = lane % 4 * 2;
    for (size_t m = 0; m < 4; ++m) {
      const uint32_t low = transposed ? matrices[m][first][line] : matrices[m][line][first];
      const uint32_t high = transposed ? matrices[m][first + 1][line] : matrices[m][line][first + 1];
      warp.at<uint32_t>(in.at[m])[lane] = low | high << 16;
    }
  }
}

// d [16, 8] = a [16, 16] b [16, 8] + c of bf16, in float. Operands: 4 of d, 4 of a, 2 of b, 4 of c.
void multiply(Warp& warp, const Instruction& in) {
  if (!together(warp, in, kAll)) return;
  float a[16][16], b[16][8], c[16][8];
  const auto half = [&](size_t operand, int lane, int which) {
    return std::bit_cast<float>((warp.at<uint32_t>(in.at[operand])[lane] >> (16 * which) & 0xffff) << 16);
  };
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane / 4, in_group = lane % 4;
    for (int i = 0; i < 8; ++i) {
      const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
      const int column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      a[row][column] = half(4 + static_cast<size_t>(i) / 2, lane, i % 2);
    }
    for (int i = 0; i < 4; ++i) {
      b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = half(8 + static_cast<size_t>(i) / 2, lane, i % 2);
      c[i < 2 ? group : group + 8][in_group * 2 + (i & 1)] =
          warp.at<float>(in.at[10 + static_cast<size_t>(i)])[lane];
    }
  }
  // Products are exact; how the sum is rounded is not said.
  float d[16][8];
  for (int row = 0; row < 16; ++row) {
    double sums[8];
    for (int column = 0; column < 8; ++column) sums[column] = static_cast<double>(c[row][column]);
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column)
        sums[column] += static_cast<double>(a[row][k]) * static_cast<double>(b[k][column]);
    }
    for (int column = 0; column < 8; ++column) d[row][column] = static_cast<float>(sums[column]);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i)
      warp.at<float>(in.at[static_cast<size_t>(i)])[lane] =
          d[lane / 4 + (i < 2 ? 0 : 8)][lane % 4 * 2 + (i & 1)];
  }
}

enum class Shuffle { kUp, kDown, kButterfly, kIndex };

// Operands: d, a predicate, a, b, c (the last lane and the segments), the lanes that take part.
template <Shuffle mode>
void shuffle(Warp& warp, const Instruction& in) {
  const int first = std::countr_zero(warp.active);
  const uint32_t named = warp.at<uint32_t>(in.at[5])[first];
  if (!together(warp, in, named)) return;
  uint32_t values[kLanes], results[kLanes], found = 0;
  std::memcpy(values, warp.at<uint32_t>(in.at[2]), sizeof values);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.active >> lane & 1)) continue;
    if (warp.at<uint32_t>(in.at[5])[lane] != named || !(named >> lane & 1))
      fail(warp, in, "a lane that its mask does not name", lane);
    const auto b = static_cast<int>(warp.at<uint32_t>(in.at[3])[lane] & 31);
    const uint32_t c = warp.at<uint32_t>(in.at[4])[lane];
    const auto segment = static_cast<int>(c >> 8 & 31), clamp = static_cast<int>(c & 31);
    const int most = (lane & segment) | (clamp & ~segment), least = lane & segment;
    int from = mode == Shuffle::kUp          ? lane - b
               : mode == Shuffle::kDown      ? lane + b
               : mode == Shuffle::kButterfly ? lane ^ b
                                             : least | (b & ~segment);
    const bool inside = mode == Shuffle::kUp ? from >= most : from <= most;
    if (!inside) from = lane;
    if (!(named >> from & 1))
      fail(warp, in, "the value of lane " + std::to_string(from) + ", which takes no part", lane);
    results[lane] = values[from];
    found |= static_cast<uint32_t>(inside) << lane;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if (warp.active >> lane & 1) warp.at<uint32_t>(in.at[0])[lane] = results[lane];
  }
  warp.write_predicate(in.at[1], found);
}

void meet_block(Warp& warp, const Instruction& in) {
  if (in.number != 0) fail(warp, in, "a barrier other than 0");
  if (!together(warp, in, kAll)) return;
  warp.state = WarpState::kAtBarrier;
}

void meet_warp(Warp& warp, const Instruction& in) {
  const uint32_t named = warp.at<uint32_t>(in.at[0])[std::countr_zero(warp.active)];
  if (!together(warp, in, named)) return;
  ++warp.syncs;
}

void leave(Warp& warp, const Instruction&) {
  warp.exited |= warp.active;
  warp.lanes &= ~warp.active;
}

void wait_for_previous(Warp&, const Instruction&) { emulation::wait_for_previous(); }

}  // namespace

void add_warp(Table& table) {
  table["bra"].push_back({"l", branch});
  table["bra.uni"].push_back({"l", branch});
  table["ret"].push_back({"", leave});
  table["bar.sync"].push_back({"i", meet_block});
  table["bar.warp.sync"].push_back({"w", meet_warp});
  table["griddepcontrol.wait"].push_back({"", wait_for_previous});
  table["griddepcontrol.launch_dependents"].push_back({"", [](Warp&, const Instruction&) {}});
  table["shfl.sync.up.b32"].push_back({"wpwwww", shuffle<Shuffle::kUp>});
  table["shfl.sync.down.b32"].push_back({"wpwwww", shuffle<Shuffle::kDown>});
  table["shfl.sync.bfly.b32"].push_back({"wpwwww", shuffle<Shuffle::kButterfly>});
  table["shfl.sync.idx.b32"].push_back({"wpwwww", shuffle<Shuffle::kIndex>});
  table["ldmatrix.sync.aligned.m8n8.x4.shared.b16"].push_back({"wwwwS", load_matrices<false>});
  table["ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16"].push_back({"wwwwS", load_matrices<true>});
  table["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"].push_back({"wwwwwwwwwwwwww", multiply});
}

}  // namespace troupe::kernels::cuda::ptx
