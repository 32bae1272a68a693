// Where a running sum over tokens, likeliest first, reaches its goal: what a filter leaves ends at such a place, and a uniform
// number meets its token there.
//
// Every token has a key, and keys descend in that order (equals by id). A place lies in an interval of keys: a histogram of
// the interval's tokens says in which of its parts, and so on until that has one token.
#pragma once

#include "kernels/cuda/sampler_chunks.h"

namespace troupe::kernels::cuda {
namespace {

constexpr int kBins = 2048;
constexpr float kBinsPerNat = 72.f;  // exp(−2047 / 72) is less than half a unit of mass
constexpr int kMost = 2048;          // tokens that fit into shared memory
constexpr int kIdBits = 23;

// Floats ordered as unsigned integers.
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t bits = bits_of(x == 0 ? 0.f : x);  // −0 is 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(uint32_t bits) {
  return float_of(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

// The logit's bits, then the id's complement.
using Key = unsigned long long;
constexpr Key kIdMask = (Key{1} << kIdBits) - 1;
__device__ __forceinline__ Key key_of(float logit, int id) {
  return static_cast<Key>(ordered(logit)) << kIdBits | (kIdMask - static_cast<Key>(id));
}
// The last key in order, of any id, that tokens with these bits may have.
__device__ __forceinline__ Key last_key(uint32_t bits) { return static_cast<Key>(bits) << kIdBits; }
__device__ __forceinline__ float logit_of(Key key) { return value_of(static_cast<uint32_t>(key >> kIdBits)); }
__device__ __forceinline__ int token_of(Key key) { return static_cast<int>(kIdMask - (key & kIdMask)); }

// Count and mass of the tokens in each bin; bins ascend as tokens become less likely.
struct alignas(16) Histogram {
  uint32_t count[kBins];
  // Halves of the mass: an atomic addition of 64 bits in shared memory would be a loop, which waits for every other thread at
  // the same bin.
  uint32_t low[kBins], high[kBins];

  __device__ void clear() {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) count[i] = low[i] = high[i] = 0;
    __syncthreads();
  }
  __device__ __forceinline__ void add(unsigned bin, Mass mass) {
    const auto added = static_cast<uint32_t>(mass);
    const uint32_t before = atomicAdd(&low[bin], added);
    const uint32_t carry = before + added < before;
    const uint32_t above = static_cast<uint32_t>(mass >> 32) + carry;
    if (above > 0) atomicAdd(&high[bin], above);
    atomicAdd(&count[bin], 1u);
  }
  __device__ __forceinline__ Mass mass(unsigned bin) const {
    return static_cast<Mass>(high[bin]) << 32 | low[bin];
  }
};

// The first token with which the running mass, or number of tokens, is more than `at`.
struct Goal {
  bool by_mass;
  Mass at;
};
struct Hit {
  unsigned bin, count;  // the goal's bin, and its tokens
  Goal goal;            // over the tokens of the bin
  Mass mass;            // of the bins before it
};
struct Place {
  Key low, high;   // it lies between them, or at one
  unsigned count;  // tokens of this interval
  Goal goal;       // over the tokens of the interval
  Mass mass;       // of the tokens before the interval
};
struct Found {
  Key key;
  Mass mass;  // of the tokens up to this one and with it
};

struct Scratch {
  Histogram row, part;  // of the row's tokens by distance from the best; of an interval's by key
  Key keys[kMost];
  Place place;  // that is being looked for
  Key key;
  unsigned found;
  Mass places[kWarps];
};

constexpr unsigned kOwnBins = kBins / kThreads;

// Of this thread's bins.
__device__ __forceinline__ Mass own_mass(const Histogram& all) {
  using Own = Pack<uint32_t, kOwnBins>;
  const Own low = reinterpret_cast<const Own*>(all.low)[threadIdx.x],
            high = reinterpret_cast<const Own*>(all.high)[threadIdx.x];
  Mass mass = 0;
#pragma unroll
  for (unsigned j = 0; j < kOwnBins; ++j) mass += (static_cast<Mass>(high.at[j]) << 32) + low.at[j];
  return mass;
}
__device__ __forceinline__ Mass own_count(const Histogram& all) {
  using Own = Pack<uint32_t, kOwnBins>;
  const Own count = reinterpret_cast<const Own*>(all.count)[threadIdx.x];
  Mass sum = 0;
#pragma unroll
  for (unsigned j = 0; j < kOwnBins; ++j) sum += count.at[j];
  return sum;
}

// The thread that has the bin of the goal, which is less than all have together, calls hit with it.
template <typename F>
__device__ __forceinline__ void locate(const Histogram& all, Scratch& s, Goal goal, const F& hit) {
  Mass mass = own_mass(all), sum;
  const Mass own = goal.by_mass ? mass : own_count(all);
  mass = before_thread(mass, s.places, sum);
  Mass before = goal.by_mass ? mass : before_thread(own, s.places, sum);
  if (goal.at >= before && goal.at < before + own) {
    const auto of = [&](unsigned bin) { return goal.by_mass ? all.mass(bin) : Mass{all.count[bin]}; };
    unsigned bin = threadIdx.x * kOwnBins;
    for (; goal.at >= before + of(bin); ++bin) {
      before += of(bin);
      mass += all.mass(bin);
    }
    hit(Hit{bin, all.count[bin], {goal.by_mass, goal.at - before}, mass});
  }
  __syncthreads();
}

// What a place is looked for among has within(low, high, f), which calls f with each key in the interval.

// All tokens of a row.
struct Tokens {
  static constexpr int kFew = 8;  // logits of a lane at a time
  Row row;
  const Chunk* chunks;
  int count;  // of chunks
  // Calls f(logit, id) at least of every logit that is not below the floor, and with −∞ behind the last.
  template <typename F>
  __device__ __forceinline__ void each(float floor, const F& f) const {
    for (int c = static_cast<int>(threadIdx.x) / 32; c < count; c += kWarps) {
      if (chunks[c].best < floor) continue;
#pragma unroll 1
      for (int begin = c * kChunk; begin < (c + 1) * kChunk; begin += 32 * kFew) {
        float logits[kFew];
        load_logits(row, begin, logits);
#pragma unroll
        for (int j = 0; j < kFew; ++j) f(logits[j], id_of(begin, j));
      }
    }
  }
  template <typename F>
  __device__ __forceinline__ void within(Key low, Key high, const F& f) const {
    const float floor = logit_of(low), ceiling = logit_of(high);
    each(floor, [&](float logit, int id) {
      if (logit < floor || logit > ceiling || id >= row.vocabulary) return;
      const Key key = key_of(logit, id);
      if (key >= low && key <= high) f(key);
    });
  }
};
// The best of each chunk, with the chunk for an id.
struct Bests {
  const Chunk* chunks;
  int count;
  template <typename F>
  __device__ __forceinline__ void within(Key low, Key high, const F& f) const {
    for (int c = static_cast<int>(threadIdx.x); c < count; c += kThreads) {
      const Key key = key_of(chunks[c].best, c);
      if (key >= low && key <= high) f(key);
    }
  }
};
// Keys in shared memory, in any order.
struct List {
  const Key* keys;
  unsigned count;
  template <typename F>
  __device__ __forceinline__ void within(Key low, Key high, const F& f) const {
    for (unsigned i = threadIdx.x; i < count; i += kThreads) {
      const Key key = keys[i];
      if (key >= low && key <= high) f(key);
    }
  }
};

// The place, to one of kBins parts of its interval.
template <typename Items>
__device__ void narrow(const Row& row, Scratch& s, const Items& items) {
  const Key low = s.place.low, high = s.place.high;
  int shift = 0;
  while ((high - low) >> shift >= kBins) ++shift;
  s.part.clear();
  items.within(low, high, [&](Key key) {
    s.part.add(static_cast<unsigned>((high - key) >> shift), row.mass(logit_of(key)));
  });
  __syncthreads();
  locate(s.part, s, s.place.goal, [&](const Hit& hit) {
    const Key last = high - (static_cast<Key>(hit.bin) << shift), width = (Key{1} << shift) - 1;
    s.place = {last - low > width ? last - width : low, last, hit.count, hit.goal, s.place.mass + hit.mass};
  });
}

// The place's token.
template <typename Items>
__device__ Found token_at_place(const Row& row, Scratch& s, const Items& items) {
  while (s.place.count > 1) narrow(row, s, items);
  items.within(s.place.low, s.place.high, [&](Key key) { s.key = key; });
  __syncthreads();
  const Found found{s.key, s.place.mass + row.mass(logit_of(s.key))};
  __syncthreads();
  return found;
}

__device__ __forceinline__ void start_at(Scratch& s, const Place& place) {
  if (threadIdx.x == 0) s.place = place;
  __syncthreads();
}

// Lists the tokens of the interval: how many they are, of which no more than kMost are listed.
__device__ __forceinline__ unsigned list(const Tokens& tokens, Scratch& s, Key low, Key high) {
  __syncthreads();
  if (threadIdx.x == 0) s.found = 0;
  __syncthreads();
  tokens.within(low, high, [&](Key key) {
    const unsigned i = atomicAdd(&s.found, 1u);
    if (i < kMost) s.keys[i] = key;
  });
  __syncthreads();
  return s.found;
}

}  // namespace
}  // namespace troupe::kernels::cuda
