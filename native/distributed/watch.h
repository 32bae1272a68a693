// Watch: who of a group of processes is there, and how far each is.
//
// A thread of its own keeps one connection to the group's store. It publishes this rank's heartbeat and the
// collective that it has come to, and reads everybody else's. Whoever waits for the others (`meet`) therefore
// waits for as long as they are alive and busy, and no longer: a rank whose heartbeat stops for the group's
// timeout, whose process is gone, or that has left, ends the wait with a sentence that names it. A store that
// no longer answers does too, even where the connection hangs: nothing but that thread ever waits for it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

namespace c10d {
class Store;
}

namespace troupe::distributed {

// What a person reads where a group fails. Afterwards the group cannot be used.
class GroupError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

using Clock = std::chrono::steady_clock;

// Memory that a group shares with the threads of its program.
struct Shared {
  std::atomic<int32_t> ticks;   // counts up while the program is alive; heartbeats stop with it
  std::atomic<int32_t> length;  // of `why`; 0 while the group can be used
  char why[504];                // the sentence with which it failed, cut where it is longer
};
static_assert(sizeof(Shared) == 128 * sizeof(int32_t) && std::atomic<int32_t>::is_always_lock_free);

struct WatchOptions {
  int rank = 0, size = 1;
  std::chrono::milliseconds timeout{60000};
  bool nccl = false;         // GPUs exchange by NCCL: the same on all ranks
  std::string store_name;    // in messages: "rank 0's store at 10.0.0.1:29500"
  Shared* shared = nullptr;  // or null: alive as long as the process is
};

// "60 s".
std::string in_seconds(std::chrono::milliseconds time);

class Watch {
 public:
  // `connect` makes the connection, on the calling thread. Returns when every rank has come. Throws GroupError
  // where one does not, where two have the same rank, or where they do not agree on their number or on NCCL.
  Watch(WatchOptions options, const std::function<std::shared_ptr<c10d::Store>()>& connect);
  // Tells the others that this rank has left; a rank that keeps the store waits a moment for them to read it.
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // Waits until every rank has come to its `count`th collective, which all have to call by the same name.
  void meet(const std::string& name);
  // Adds `amount` to the group's count `name`, which begins at 0, and returns what it comes to. Waits for nobody but
  // the store.
  int64_t count(const std::string& name, int64_t amount);
  // Whether it is known that not all are there any more.
  bool lost() const;
  // After an error in collective `name`: throws GroupError, with the name of the rank that is gone if that is
  // found out in time: by default a second after the timeout.
  [[noreturn]] void fail(const std::string& name, const std::string& what,
                         std::optional<std::chrono::milliseconds> patience = {});

 private:
  // Ends the thread, or leaves it behind where it waits for a store that hangs.
  void end();

  struct State;  // shared with the thread, which may outlive this object
  std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace troupe::distributed
