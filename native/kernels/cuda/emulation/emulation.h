// CUDA on the CPU, for tests without a GPU: what a .cu file of this folder uses of the language and its
// library.
//
// Blocks run one after another, and launches of several OS threads too; a block's threads are fibers that give
// way at barriers and warp operations only. It finds wrong indices, arithmetic and barriers (all threads of a block,
// and all lanes of a warp, must meet at the same line), and with a sanitizer accesses out of bounds; running threads
// and blocks in the reverse order as well finds many a missing barrier, and a result that depends on which block comes
// last. A block that waits for one that has not run fails. It does not find slowness, nor races that need two threads at
// the same instant, missing fences and waits, wrong alignment of shared memory, and what is wrong in assembly: those
// test/kernels/cuda/ptx finds, which runs what nvcc makes of the kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>

#include "kernels/cuda/emulation/launch_log.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace troupe::kernels::cuda::emulation {

struct Position {
  dim3 thread, block, threads, grid;
};
// Of the fiber that runs.
extern Position here;
extern unsigned char* shared_memory;

// Runs the kernel's body for every thread. Throws std::runtime_error where threads diverge at a barrier.
int run(dim3 grid, int threads, size_t shared, const std::function<void()>& body);
// Who runs kernels in run's place: the interpreter of what nvcc makes of them (test/kernels/cuda/ptx).
class Runner {
 public:
  virtual ~Runner() = default;
  // arguments: the kernel's, as bytes.
  virtual int run(const void* kernel, dim3 grid, int threads, size_t shared,
                  const std::string& arguments) = 0;
};
extern Runner* runner;     // null: nobody
Runner* current_runner();  // the same for .cu files, as current_launch_log is
// Threads, and blocks, run in the reverse order from now on (or no longer).
void reverse(bool on);

// What the first thread calls that waits for the kernels before (device.h), once: a test lets appear only then what those
// have written.
extern std::function<void()> at_wait;
inline void wait_for_previous() {
  if (at_wait) std::exchange(at_wait, nullptr)();
}

// Every thread of the block, or lane of the warp, must come to the same line.
void meet_block(int line);
void meet_warp(int line);

// What each thread shows its warp, of up to 64 bytes: put, then meet, then see. Two places take turns, so that
// the next value waits for nobody.
constexpr int kWidest = 64, kMostThreads = 1024;
struct Shown {
  alignas(64) unsigned char values[2][kWidest];
  int turn;  // which of the two was put last
};
extern Shown shown[kMostThreads];
inline void put(const void* value, size_t size) {
  Shown& mine = shown[here.thread.x];
  mine.turn ^= 1;
  memcpy(mine.values[mine.turn], value, size);
}
inline const void* see(int lane) {
  const unsigned thread = here.thread.x;
  return shown[thread / 32 * 32 + static_cast<unsigned>(lane)].values[shown[thread].turn];
}
inline int lane() { return static_cast<int>(here.thread.x % 32); }

template <typename T>
T exchange(T value, int from, int line) {
  static_assert(sizeof(T) <= kWidest);
  put(&value, sizeof value);
  meet_warp(line);
  T result;
  memcpy(&result, see(from & 31), sizeof result);
  return result;
}

}  // namespace troupe::kernels::cuda::emulation

#define threadIdx (::troupe::kernels::cuda::emulation::here.thread)
#define blockIdx (::troupe::kernels::cuda::emulation::here.block)
#define blockDim (::troupe::kernels::cuda::emulation::here.threads)
#define gridDim (::troupe::kernels::cuda::emulation::here.grid)

inline void __syncthreads(int line = __builtin_LINE()) { troupe::kernels::cuda::emulation::meet_block(line); }
inline void __syncwarp(int line = __builtin_LINE()) { troupe::kernels::cuda::emulation::meet_warp(line); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask, int line = __builtin_LINE()) {
  using namespace troupe::kernels::cuda::emulation;
  return exchange(value, lane() ^ mask, line);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int distance, int line = __builtin_LINE()) {
  using namespace troupe::kernels::cuda::emulation;
  return exchange(value, lane() >= distance ? lane() - distance : lane(), line);
}
template <typename T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}
inline uint32_t atomicInc(uint32_t* at, uint32_t last) {
  const uint32_t before = *at;
  *at = before >= last ? 0 : before + 1;
  return before;
}
inline void __threadfence() {}
template <typename T>
T atomicMin(T* at, T value) {
  const T before = *at;
  *at = value < before ? value : before;
  return before;
}
using std::exp;
using std::isfinite;
using std::log;
using std::max;
using std::min;
using std::sqrt;
