// Token log-probabilities, see table.h. Logits exist transposed (vocabulary × rows) and a tile at a time: the
// weight is then a left operand as it lies in memory, and the reductions over the vocabulary run down
// columns.
#pragma once

#include "kernels/cpu/block.h"
#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

// Vocabulary entries to a tile; its columns are a panel of rows of hidden states.
constexpr int64_t kChunk = 64;

// Rows of the weight as a left operand [padded_count, padded_size]: where it lies if nothing must be padded
// or widened, else copied to `space`.
template <typename T, typename B>
const B* weight_operand(const Projection& projection, int64_t first, int64_t count, int64_t padded_count,
                        int64_t padded_size, Scratch<B>& space) {
  const T* weight = static_cast<const T*>(projection.weight) + first * projection.size;
  if constexpr (std::is_same_v<T, B>) {
    if (count == padded_count && projection.size == padded_size) return weight;
  }
  space.resize(padded_count * padded_size);
  copy_block(weight, projection.size, count, projection.size, padded_count, padded_size, space.data());
  return space.data();
}

// Hidden states of rows [first, first + count) as a left operand [padded_count, padded_size].
template <typename T, typename B>
void gather_rows(const Projection& projection, const LogprobRows& rows, int64_t first, int64_t count,
                 int64_t padded_count, int64_t padded_size, B* out) {
  for (int64_t i = 0; i < padded_count; ++i) {
    const T* row = static_cast<const T*>(rows.hidden) + (i < count ? rows.rows[first + i] * rows.stride : 0);
    copy_block(row, 0, i < count ? 1 : 0, projection.size, 1, padded_size, out + i * padded_size);
  }
}

void token_logprobs(const Projection& projection, const LogprobRows& rows, void* logprobs, void* entropy,
                    void* logsumexp);
void token_logprobs_backward(const Projection& projection, const LogprobRows& rows,
                             const LogprobGradient& gradient);

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
