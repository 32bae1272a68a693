// The order of things: which block and warp runs next, and which lanes of a warp.
//
// Lanes of a warp that have parted meet again where their ways do, since those that are behind run first; or, in every second
// launch, where they must.
#include <algorithm>
#include <cstring>
#include <random>

#include "machine.h"

namespace troupe::kernels::cuda::ptx {
namespace {

// The group of the lowest pc that does not wait; groups at one place become one. Lanes that have gone ahead of others so wait
// where their ways meet again.
void choose_group(Warp& warp, bool waits) {
  if (warp.lanes != 0) warp.others.push_back({warp.pc, warp.lanes, waits});
  std::vector<Group>& all = warp.others;
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t j = all.size() - 1; j > i; --j) {
      if (all[j].pc != all[i].pc) continue;
      all[i].lanes |= all[j].lanes;
      all[i].waits = false;  // there are more of them now
      all.erase(all.begin() + static_cast<ptrdiff_t>(j));
    }
  }
  size_t best = all.size();
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].waits && (best == all.size() || all[i].pc < all[best].pc)) best = i;
  }
  if (best == all.size()) {
    warp.lanes = 0;
    return;
  }
  warp.pc = all[best].pc;
  warp.lanes = all[best].lanes;
  all.erase(all.begin() + static_cast<ptrdiff_t>(best));
}

// Whether other lanes are at this place, or behind.
bool overtakes(const Warp& warp) {
  for (const Group& group : warp.others)
    if (group.pc <= warp.pc) return true;
  return false;
}

bool any_runs(const Warp& warp) {
  return std::any_of(warp.others.begin(), warp.others.end(), [](const Group& group) { return !group.waits; });
}

// What a warp does, until `most` instructions have run or it can do no more; `together`: its lanes as near to each other as
// they can be, else as they are until they must wait.
void run_warp(Warp& warp, int most, bool together) {
  const std::vector<Instruction>& code = warp.block->launch->program->code;
  for (int count = 0; count < most && warp.state == WarpState::kRuns; ++count) {
    if (warp.lanes == 0 && !together && any_runs(warp)) return;
    if (warp.lanes == 0 || (together && overtakes(warp))) {
      choose_group(warp, /*waits=*/false);
      if (warp.lanes == 0) {
        if (!warp.others.empty()) throw Fault("lanes wait for others that have ended");
        warp.state = WarpState::kDone;
        return;
      }
    }
    const Instruction& in = code[static_cast<size_t>(warp.pc++)];
    warp.active = warp.lanes;
    if (in.guarded) {
      const uint32_t bits = *warp.at<uint32_t>(in.guard);
      warp.active &= in.negated ? ~bits : bits;
    }
    if (warp.active != 0) in.run(warp, in);
  }
}

constexpr size_t kMostGroups = 3;  // that lanes are divided into on purpose

class Run {
 public:
  Run(Launch& launch, uint64_t seed)
      : launch_(launch),
        random_(seed),
        together_(one_of({0, 1}) == 1),
        slice_(together_ ? one_of({1, 8, 64, 100000}) : one_of({64, 100000})) {}

  void run() {
    const Index& grid = launch_.grid;
    const uint64_t count = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    order_.resize(count);
    for (uint64_t i = 0; i < count; ++i) order_[i] = i;
    std::shuffle(order_.begin(), order_.end(), random_);
    const size_t at_once = one_of({1, 2, 3, 8});
    while (next_ < count || !blocks_.empty()) {
      while (next_ < count && blocks_.size() < at_once) begin(order_[next_++]);
      const size_t which = random_() % blocks_.size();
      if (!advance(*blocks_[which])) continue;
      free_.push_back(std::move(blocks_[which]));
      blocks_.erase(blocks_.begin() + static_cast<ptrdiff_t>(which));
    }
  }

 private:
  size_t one_of(std::initializer_list<size_t> values) { return values.begin()[random_() % values.size()]; }

  void begin(uint64_t number) {
    if (free_.empty()) free_.push_back(make_block());
    std::unique_ptr<Block> block = std::move(free_.back());
    free_.pop_back();
    const Index& grid = launch_.grid;
    block->number = static_cast<unsigned>(number);
    block->index = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                    static_cast<unsigned>(number / grid.x / grid.y)};
    block->barriers = 0;
    block->waiting = block->done = 0;
    block->shared.assign(launch_.program->static_shared + launch_.shared, 0xff);
    block->shadow.reset(block->shared.size());
    for (Warp& warp : block->warps) begin(*block, warp);
    blocks_.push_back(std::move(block));
  }

  std::unique_ptr<Block> make_block() {
    auto block = std::make_unique<Block>();
    block->launch = &launch_;
    const Program& program = *launch_.program;
    const size_t bytes = program.register_bytes + program.fixed.size();
    const auto warps = static_cast<size_t>(launch_.threads / kLanes);
    // Whatever a register has before it is written is no number that a kernel could mean.
    block->register_memory.assign(bytes * warps + 64, 0xff);
    auto* const begin = reinterpret_cast<uint8_t*>(
        (reinterpret_cast<uintptr_t>(block->register_memory.data()) + 63) / 64 * 64);
    block->warps.resize(warps);
    for (size_t i = 0; i < warps; ++i) {
      block->warps[i].number = static_cast<int>(i);
      block->warps[i].registers = begin + i * bytes;
    }
    return block;
  }

  void begin(Block& block, Warp& warp) {
    warp.block = &block;
    warp.state = WarpState::kRuns;
    warp.pc = 0;
    warp.lanes = kAll;
    warp.others.clear();
    warp.exited = 0;
    warp.syncs = warp.fences = 0;
    warp.copies = {};
    const Program& program = *launch_.program;
    uint8_t* const fixed = warp.registers + program.register_bytes;
    std::memcpy(fixed, program.fixed.data(), program.fixed.size());
    for (const auto& [name, place] : program.special) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const uint32_t value = special(name, block, warp, lane);
        std::memcpy(fixed + place + 4 * lane, &value, 4);
      }
    }
    for (const auto& [place, offset] : program.parameter_addresses) {
      const auto address = reinterpret_cast<uint64_t>(launch_.parameters.data() + offset);
      for (int lane = 0; lane < kLanes; ++lane) std::memcpy(fixed + place + 8 * lane, &address, 8);
    }
  }

  uint32_t special(const std::string& name, const Block& block, const Warp& warp, int lane) const {
    if (name == "%laneid") return static_cast<uint32_t>(lane);
    const std::string what = name.substr(0, name.size() - 2);
    const char axis = name.back();
    const auto of = [&](const Index& index) {
      return axis == 'x' ? index.x : axis == 'y' ? index.y : index.z;
    };
    if (what == "%tid") return of({static_cast<unsigned>(warp.thread(lane)), 0, 0});
    if (what == "%ntid") return of({static_cast<unsigned>(launch_.threads), 1, 1});
    if (what == "%ctaid") return of(block.index);
    if (what == "%nctaid") return of(launch_.grid);
    throw Fault("no special register " + name);
  }

  // Since Volta a card's lanes need not stay together but where they must: any group goes on, and now and then is divided.
  void scatter(Warp& warp) {
    std::vector<Group>& all = warp.others;
    if (warp.lanes != 0) all.push_back({warp.pc, warp.lanes, false});
    std::shuffle(all.begin(), all.end(), random_);
    const auto next = std::find_if(all.begin(), all.end(), [](const Group& group) { return !group.waits; });
    warp.lanes = 0;
    if (next == all.end()) return;  // they have ended, or run_warp finds what they wait for
    warp.pc = next->pc;
    warp.lanes = next->lanes;
    all.erase(next);
    const uint32_t ahead = warp.lanes & static_cast<uint32_t>(random_());
    if (random_() % 2 != 0 || all.size() >= kMostGroups || ahead == 0 || ahead == warp.lanes) return;
    all.push_back({warp.pc, warp.lanes & ~ahead, false});
    warp.lanes = ahead;
  }

  // Runs one of the block's warps for a while. Whether the block has ended.
  bool advance(Block& block) {
    runnable_.clear();
    for (Warp& warp : block.warps)
      if (warp.state == WarpState::kRuns) runnable_.push_back(&warp);
    if (!runnable_.empty()) {
      Warp& warp = *runnable_[random_() % runnable_.size()];
      if (!together_) scatter(warp);
      run_warp(warp, static_cast<int>(1 + random_() % slice_), together_);
      if (warp.state == WarpState::kAtBarrier) ++block.waiting;
      if (warp.state == WarpState::kDone) ++block.done;
    }
    if (static_cast<size_t>(block.done) == block.warps.size()) return true;
    if (static_cast<size_t>(block.done + block.waiting) < block.warps.size()) return false;
    if (block.done > 0)
      throw Fault(launch_.program->text.name + ": some warps wait at a barrier, and some have ended");
    block.waiting = 0;
    ++block.barriers;
    for (Warp& warp : block.warps) {
      warp.state = WarpState::kRuns;
      warp.syncs = 0;
    }
    return false;
  }

  Launch& launch_;
  std::mt19937_64 random_;
  const bool together_;
  const size_t slice_;
  std::vector<uint64_t> order_;  // of the blocks
  uint64_t next_ = 0;
  std::vector<std::unique_ptr<Block>> blocks_, free_;
  std::vector<Warp*> runnable_;
};

}  // namespace

void fail(const Warp& warp, const Instruction& in, const std::string& what, int lane) {
  const KernelText& text = warp.block->launch->program->text;
  const Statement& statement = text.statements[static_cast<size_t>(in.statement)];
  const Index& block = warp.block->index;
  throw Fault(
      text.file + ":" + std::to_string(statement.line) + ": " + what + ": `" + statement.text + "`, block " +
      std::to_string(block.x) + " " + std::to_string(block.y) + " " + std::to_string(block.z) +
      (lane < 0 ? ", warp " + std::to_string(warp.number) : ", thread " + std::to_string(warp.thread(lane))) +
      " of " + text.name);
}

bool together(Warp& warp, const Instruction& in, uint32_t named) {
  if ((named & ~warp.active) == 0) return true;
  if (named & warp.exited) fail(warp, in, "lanes that it names have ended");
  if (warp.active != warp.lanes) fail(warp, in, "lanes that it names do not execute it");
  --warp.pc;
  choose_group(warp, /*waits=*/true);
  if (warp.lanes == 0) fail(warp, in, "lanes that it names wait somewhere else, or have ended");
  return false;
}

void run(Launch& launch, uint64_t seed) { Run(launch, seed).run(); }

}  // namespace troupe::kernels::cuda::ptx
