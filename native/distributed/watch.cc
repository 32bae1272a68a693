#include "distributed/watch.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <mutex>
#include <sstream>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>
#include <vector>

namespace troupe::distributed {
namespace {

using namespace std::chrono_literals;

// Of the processes whose numbers mean something here.
std::string process_space() {
  char link[64];
  const ssize_t length = readlink("/proc/self/ns/pid", link, sizeof link);
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return length > 0 && !boot.empty() ? boot + std::string(link, length) : "";
}

// What a rank publishes of itself.
struct Position {
  int size = 0;
  std::string space = "-";
  int pid = 0;
  int64_t beat = 0;
  bool left = false;
  bool nccl = false;
  int64_t count = 0;  // collectives begun
  std::string name;   // of the last one

  std::string text() const {
    std::ostringstream out;
    out << size << ' ' << space << ' ' << pid << ' ' << beat << ' ' << left << ' ' << nccl << ' ' << count
        << ' ' << name;
    return out.str();
  }
  static Position parse(const std::string& text) {
    Position position;
    std::istringstream in(text);
    in >> position.size >> position.space >> position.pid >> position.beat >> position.left >>
        position.nccl >> position.count;
    in.get();
    std::getline(in, position.name, '\0');
    return position;
  }
};

// Key of why the group cannot start.
const char* const kRefusal = "refusal";

std::string key_of(int rank) { return "rank/" + std::to_string(rank); }
std::string rank_name(int rank) { return "rank " + std::to_string(rank); }

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

std::string in_seconds(std::chrono::milliseconds time) {
  std::ostringstream out;
  out << static_cast<double>(time.count()) / 1000 << " s";
  return out.str();
}

struct Watch::State {
  struct Peer {
    Position position;
    bool known = false;
    Clock::time_point heard = Clock::now();
  };

  WatchOptions options;
  std::shared_ptr<c10d::Store> store;  // the thread's alone
  std::mutex mutex;
  std::condition_variable to_thread, from_thread;
  Position own;
  std::vector<Peer> peers;
  bool waiting = false, stopping = false, ended = false;
  Clock::time_point answered = Clock::now();
  std::string count_name;  // what is to be counted, if anything
  int64_t count_amount = 0;
  std::optional<int64_t> counted;
  std::string lost;  // why the group can no longer be used; empty: it can

  void run();
  void round();
  void linger();
  void add_count();
  void look_at(int rank, const Position& now);
  bool answers();
  void lose(std::string why);
  bool all_known() const;
  bool all_left() const;
  std::string gone() const;
  std::chrono::milliseconds pause() const;
};

void Watch::State::lose(std::string why) {
  if (!lost.empty()) return;
  lost = std::move(why);
  if (options.shared != nullptr && !stopping) {
    const size_t length = std::min(lost.size(), sizeof options.shared->why);
    std::copy_n(lost.begin(), length, options.shared->why);
    options.shared->length.store(static_cast<int32_t>(length));
  }
  from_thread.notify_all();
}

bool Watch::State::all_known() const {
  return std::all_of(peers.begin(), peers.end(), [](const Peer& peer) { return peer.known; });
}

bool Watch::State::all_left() const {
  return std::all_of(peers.begin(), peers.end(),
                     [](const Peer& peer) { return !peer.known || peer.position.left; });
}

// Why not all are there any more; empty: they are.
std::string Watch::State::gone() const {
  if (!lost.empty()) return lost;
  for (int rank = 0; rank < options.size; ++rank) {
    if (rank != options.rank && peers[rank].position.left) return rank_name(rank) + " has ended.";
  }
  return "";
}

std::chrono::milliseconds Watch::State::pause() const {
  if (waiting || stopping || !all_known()) return 2ms;
  return std::clamp(options.timeout / 20, 10ms, 1000ms);
}

// Under the mutex.
void Watch::State::look_at(int rank, const Position& now) {
  Peer& peer = peers[rank];
  if (now.size != options.size) {
    return lose(rank_name(options.rank) + " was started as one of " + std::to_string(options.size) +
                " ranks, " + rank_name(rank) + " as one of " + std::to_string(now.size) +
                ": WORLD_SIZE has to be the same for all.");
  }
  if (now.nccl != options.nccl) {
    return lose("TROUPE_NCCL is 1 on " + rank_name(now.nccl ? rank : options.rank) + " and not on " +
                rank_name(now.nccl ? options.rank : rank) + ": it has to be the same for all.");
  }
  if (!peer.known || now.beat != peer.position.beat) peer.heard = Clock::now();
  peer.known = true;
  peer.position = now;
  if (rank == options.rank || now.left) return;
  const auto silence = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - peer.heard);
  if (silence > options.timeout) {
    lose(rank_name(rank) + " has not been heard of for " + in_seconds(options.timeout) + ".");
  } else if (now.space == own.space && now.space != "-" && kill(now.pid, 0) != 0 && errno == ESRCH) {
    lose("the process of " + rank_name(rank) + " (" + std::to_string(now.pid) + ") is gone.");
  }
}

// Whether the store has answered lately; else the group is lost. Under the mutex.
bool Watch::State::answers() {
  if (Clock::now() - answered > options.timeout)
    lose(options.store_name + " has not answered for " + in_seconds(options.timeout) + ".");
  return lost.empty();
}

void Watch::State::add_count() {
  std::unique_lock lock(mutex);
  if (count_name.empty()) return;
  const std::string key = "count/" + std::exchange(count_name, "");
  const int64_t amount = count_amount;
  lock.unlock();
  const int64_t sum = store->add(key, amount);
  lock.lock();
  counted = sum;
  from_thread.notify_all();
}

// Publishes and reads once. The store is asked without the mutex: it may take long, or for ever.
void Watch::State::round() {
  std::string text;
  bool all = false;
  {
    const std::lock_guard lock(mutex);
    text = own.text();
    all = all_known();
  }
  store->set(key_of(options.rank), std::vector<uint8_t>(text.begin(), text.end()));
  std::vector<std::pair<int, std::vector<uint8_t>>> found;
  if (all) {
    std::vector<std::string> keys;
    for (int rank = 0; rank < options.size; ++rank) keys.push_back(key_of(rank));
    std::vector<std::vector<uint8_t>> values = store->multiGet(keys);
    for (int rank = 0; rank < options.size; ++rank) found.emplace_back(rank, std::move(values[rank]));
  } else {
    if (store->check({kRefusal})) {
      const std::vector<uint8_t> why = store->get(kRefusal);
      const std::lock_guard lock(mutex);
      lose(std::string(why.begin(), why.end()));
    }
    for (int rank = 0; rank < options.size; ++rank) {
      if (store->check({key_of(rank)})) found.emplace_back(rank, store->get(key_of(rank)));
    }
  }
  const std::lock_guard lock(mutex);
  answered = Clock::now();
  for (const auto& [rank, value] : found) {
    look_at(rank, Position::parse(std::string(value.begin(), value.end())));
  }
  from_thread.notify_all();
}

// Whoever keeps the store lets the others read that it leaves, and why the group could not start.
void Watch::State::linger() {
  std::string why;
  {
    const std::lock_guard lock(mutex);
    if (!all_known()) why = lost;
  }
  if (!why.empty()) store->set(kRefusal, std::vector<uint8_t>(why.begin(), why.end()));
  for (const auto end = Clock::now() + (why.empty() ? 2s : 1s); Clock::now() < end;) {
    round();
    {
      const std::lock_guard lock(mutex);
      if (why.empty() && all_left()) break;
    }
    std::this_thread::sleep_for(2ms);
  }
}

void Watch::State::run() {
  int32_t ticks = -1;
  try {
    for (;;) {
      std::unique_lock lock(mutex);
      const int32_t now = options.shared == nullptr ? ticks + 1 : options.shared->ticks.load();
      if (now != ticks) ++own.beat;
      ticks = now;
      const bool last = stopping;
      own.left = stopping;
      lock.unlock();
      add_count();
      round();
      lock.lock();
      if (last) break;
      const bool idle = !waiting;
      to_thread.wait_for(lock, pause(), [&] { return stopping || (idle && waiting) || !count_name.empty(); });
    }
    if (options.rank == 0) linger();
  } catch (const std::exception& error) {
    const std::lock_guard lock(mutex);
    lose(options.store_name + " is gone (" + first_line(error.what()) + ").");
  }
  store.reset();
  const std::lock_guard lock(mutex);
  ended = true;
  from_thread.notify_all();
}

Watch::Watch(WatchOptions options, const std::function<std::shared_ptr<c10d::Store>()>& connect)
    : state_(std::make_shared<State>()) {
  State& state = *state_;
  state.options = std::move(options);
  state.peers.resize(state.options.size);
  state.own.size = state.options.size;
  state.own.pid = getpid();
  state.own.nccl = state.options.nccl;
  if (const std::string space = process_space(); !space.empty()) state.own.space = space;
  state.store = connect();
  if (state.store->add("claims/" + std::to_string(state.options.rank), 1) > 1) {
    const std::string why = "two processes were started as " + rank_name(state.options.rank) +
                            ": every rank has to have a RANK of its own.";
    // The other one is told; it may wait for somebody else.
    state.store->set(kRefusal, std::vector<uint8_t>(why.begin(), why.end()));
    throw GroupError(why);
  }
  thread_ = std::thread([shared = state_] { shared->run(); });
  std::unique_lock lock(state.mutex);
  const bool came = state.from_thread.wait_for(lock, state.options.timeout,
                                               [&] { return !state.lost.empty() || state.all_known(); });
  if (came && state.lost.empty()) return;
  if (state.lost.empty()) {
    std::string missing;
    for (int rank = 0; rank < state.options.size; ++rank) {
      if (!state.peers[rank].known) missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
    }
    state.lost = "waited " + in_seconds(state.options.timeout) + " for all " +
                 std::to_string(state.options.size) + " ranks to start; missing: " + missing + ".";
  }
  const std::string why = state.lost;
  lock.unlock();
  end();
  throw GroupError(why);
}

Watch::~Watch() { end(); }

void Watch::end() {
  std::unique_lock lock(state_->mutex);
  state_->stopping = true;
  state_->to_thread.notify_all();
  const bool ended = state_->from_thread.wait_for(lock, 4s, [&] { return state_->ended; });
  // One that waits for a store that hangs is left behind, with what it needs.
  if (!ended) state_->options.shared = nullptr;
  lock.unlock();
  if (ended)
    thread_.join();
  else
    thread_.detach();
}

void Watch::meet(const std::string& name) {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  const int64_t count = ++state.own.count;
  state.own.name = name;
  state.waiting = true;
  state.to_thread.notify_all();
  const auto why = [&]() -> std::string {
    if (!state.answers()) return state.lost;
    for (int rank = 0; rank < state.options.size; ++rank) {
      const Position& there = state.peers[rank].position;
      if (there.count < count && there.left) return rank_name(rank) + " has ended.";
      if (there.count == count && there.name != name) {
        return rank_name(rank) + " is in \"" + there.name + "\": the ranks have lost each other.";
      }
    }
    return "";
  };
  const auto all_came = [&] {
    return std::all_of(state.peers.begin(), state.peers.end(),
                       [&](const State::Peer& peer) { return peer.position.count >= count; });
  };
  std::string failure = why();
  while (failure.empty() && !all_came()) {
    state.from_thread.wait_for(lock, 100ms);
    failure = why();
  }
  state.waiting = false;
  if (failure.empty()) return;
  throw GroupError(rank_name(state.options.rank) + " waited in \"" + name + "\", and " + failure);
}

int64_t Watch::count(const std::string& name, int64_t amount) {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  state.count_name = name;
  state.count_amount = amount;
  state.counted.reset();
  state.to_thread.notify_all();
  while (!state.counted && state.answers()) state.from_thread.wait_for(lock, 100ms);
  if (state.counted) return *state.counted;
  throw GroupError(rank_name(state.options.rank) + " counted \"" + name + "\", and " + state.lost);
}

bool Watch::lost() const {
  const std::lock_guard lock(state_->mutex);
  return !state_->gone().empty();
}

void Watch::fail(const std::string& name, const std::string& what,
                 std::optional<std::chrono::milliseconds> patience) {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  state.waiting = true;
  const auto end = Clock::now() + patience.value_or(state.options.timeout + 1s);
  while (state.gone().empty() && Clock::now() < end) state.from_thread.wait_for(lock, 100ms);
  const std::string who = state.gone();
  state.lose("\"" + name + "\" failed.");
  throw GroupError(rank_name(state.options.rank) + " failed in \"" + name + "\"" +
                   (who.empty() ? "" : ": " + who) + " (" + first_line(what) + ")");
}

}  // namespace troupe::distributed
