// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a keyed function from a
// counter to 128 random bits, with no state to carry.
#pragma once

#include <array>
#include <cstdint>

namespace troupe::rollout {

using PhiloxWords = std::array<uint32_t, 4>;

inline PhiloxWords philox4x32(PhiloxWords counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// Uniform in [0, 1), 53 bits, for token number `position` of the response to call (step, episode, role, slot,
// turn). Six words do not fit one counter: the first application makes the key of the second.
inline double uniform(uint64_t seed, const std::array<uint32_t, 5>& call, uint32_t position) {
  const PhiloxWords key = philox4x32({call[0], call[1], call[2], call[3]},
                                     {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const PhiloxWords bits = philox4x32({call[4], position, key[2], key[3]}, {key[0], key[1]});
  const uint64_t wide = (uint64_t{bits[0]} << 32 | bits[1]) >> 11;
  return static_cast<double>(wide) * 0x1.0p-53;
}

}  // namespace troupe::rollout
