// Tree attention, forward: flash attention (arXiv 2205.14135) over blocks that lie in the cache, with the
// list of key blocks taken from the tree, so that no part needs merging afterwards.
#include "model/cpu/attention.h"

#include <cmath>
#include <limits>

#include "model/cpu/block.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

constexpr int64_t kRound = 8;  // key blocks whose scores are held at a time
constexpr int64_t kWidth = kRound * kBlock;

template <typename T, typename B>
struct Forward {
  using A = Accumulate<T>;

  const AttentionShape& shape;
  View q, k, v;
  T* out;
  A* logsumexp;
  Blocks blocks;
  int64_t padded_size, group;   // group: query heads to a key head
  std::vector<B> keys, values;  // right operands, [block][key head][64 · padded_size]

  struct Workspace {
    std::vector<B> queries, weights;
    std::vector<A> scores, total;
    std::vector<int64_t> chain;
    A maximum[kBlock], sum[kBlock];
  };

  Workspace workspace() const {
    Workspace space;
    space.queries.resize(kBlock * padded_size);
    space.weights.resize(kBlock * kWidth);
    space.scores.resize(kBlock * kWidth);
    space.total.resize(kBlock * padded_size);
    return space;
  }

  int64_t operand(int64_t block, int64_t key_head) const {
    return (block * shape.key_heads + key_head) * kBlock * padded_size;
  }

  const T* rows(const View& x, int64_t row, int64_t head) const {
    return static_cast<const T*>(x.data) + row * x.row_stride + head * x.head_stride;
  }

  void pack() {
    const int64_t count = static_cast<int64_t>(blocks.blocks.size()) * shape.key_heads;
    keys.resize(count * kBlock * padded_size);
    values.resize(count * kBlock * padded_size);
    for_tasks(
        count, [&] { return std::vector<B>(kBlock * padded_size); },
        [&](int64_t task, std::vector<B>& plain) {
          const Block& block = blocks.blocks[task / shape.key_heads];
          const int64_t head = task % shape.key_heads, place = task * kBlock * padded_size;
          copy_block(rows(k, block.start, head), k.row_stride, block.count, shape.size, kBlock, padded_size,
                     plain.data());
          pack_transposed(plain.data(), kBlock, padded_size, keys.data() + place);
          copy_block(rows(v, block.start, head), v.row_stride, block.count, shape.size, kBlock, padded_size,
                     plain.data());
          pack_rows(plain.data(), kBlock, padded_size, values.data() + place);
        });
  }

  // −∞ where a key does not exist (columns past its block's end) or lies after its query.
  void mask(A* scores, const Block& queries, const Block& key_block, bool diagonal) const {
    for (int64_t i = 0; i < queries.count; ++i) {
      const int64_t visible = diagonal ? i + 1 : key_block.count;
      std::fill(scores + i * kWidth + visible, scores + i * kWidth + kBlock,
                -std::numeric_limits<A>::infinity());
    }
  }

  // Scores of one query row → exponentials relative to the running maximum; earlier sums are rescaled.
  void soften(Workspace& space, int64_t row, int64_t width, bool first) const {
    const A* scores = space.scores.data() + row * kWidth;
    B* weights = space.weights.data() + row * kWidth;
    const Lanes<A> scale(static_cast<A>(shape.scale));
    Lanes<A> top(-std::numeric_limits<A>::infinity());
    for_lanes<A>(width, [&](int64_t i, int64_t count) { top = maximum(top, load(scores + i, count)); });
    A highest = largest(top) * static_cast<A>(shape.scale);
    A rescale(0);
    if (!first) {
      highest = std::max(highest, space.maximum[row]);
      rescale = std::exp(space.maximum[row] - highest);
      A* total = space.total.data() + row * padded_size;
      for (int64_t d = 0; d < padded_size; ++d) total[d] *= rescale;
    }
    const Lanes<A> shift(-highest);
    Lanes<A> sums;
    for_lanes<A>(width, [&](int64_t i, int64_t count) {
      const Lanes<A> weight = exponential<T>(multiply_add(load(scores + i, count), scale, shift));
      sums = sums + weight;
      store(weights + i, weight, count);
    });
    space.sum[row] = (first ? A(0) : space.sum[row] * rescale) + sum(sums);
    space.maximum[row] = highest;
  }

  void attend(int64_t query_block, int64_t head, Workspace& space) const {
    const Block& queries = blocks.blocks[query_block];
    const int64_t padded_rows = round_up(queries.count, 16), key_head = head / group;
    copy_block(rows(q, queries.start, head), q.row_stride, queries.count, shape.size, padded_rows,
               padded_size, space.queries.data());
    attended(blocks, shape.nodes, query_block, space.chain);
    const int64_t count = static_cast<int64_t>(space.chain.size());
    for (int64_t begin = 0; begin < count; begin += kRound) {
      const int64_t width = std::min(kRound, count - begin);
      for (int64_t i = 0; i < width; ++i) {
        const int64_t block = space.chain[begin + i];
        A* scores = space.scores.data() + i * kBlock;
        multiply(padded_rows, kBlock, padded_size, space.queries.data(), padded_size,
                 keys.data() + operand(block, key_head), scores, kWidth, false);
        const bool diagonal = block == query_block;
        if (diagonal || blocks.blocks[block].count < kBlock)
          mask(scores, queries, blocks.blocks[block], diagonal);
      }
      for (int64_t row = 0; row < queries.count; ++row) soften(space, row, width * kBlock, begin == 0);
      for (int64_t i = 0; i < width; ++i) {
        multiply(padded_rows, padded_size, kBlock, space.weights.data() + i * kBlock, kWidth,
                 values.data() + operand(space.chain[begin + i], key_head), space.total.data(), padded_size,
                 begin + i > 0);
      }
    }
    finish(queries, head, space);
  }

  void finish(const Block& queries, int64_t head, const Workspace& space) const {
    for (int64_t row = 0; row < queries.count; ++row) {
      const int64_t index = (queries.start + row) * shape.query_heads + head;
      const A* total = space.total.data() + row * padded_size;
      const Lanes<A> factor(A(1) / space.sum[row]);
      for_lanes<A>(shape.size, [&](int64_t i, int64_t count) {
        store(out + index * shape.size + i, load(total + i, count) * factor, count);
      });
      logsumexp[index] = space.maximum[row] + std::log(space.sum[row]);
    }
  }
};

template <typename T, typename B>
void run(const AttentionShape& shape, View q, View k, View v, void* out, void* logsumexp) {
  Forward<T, B> forward{shape,
                        q,
                        k,
                        v,
                        static_cast<T*>(out),
                        static_cast<Accumulate<T>*>(logsumexp),
                        cut(shape.nodes),
                        round_up(shape.size, 32),
                        shape.query_heads / shape.key_heads,
                        {},
                        {}};
  forward.pack();
  for_tasks(
      static_cast<int64_t>(forward.blocks.blocks.size()) * shape.query_heads,
      [&] { return forward.workspace(); },
      [&](int64_t task, auto& space) {
        forward.attend(task / shape.query_heads, task % shape.query_heads, space);
      });
}

}  // namespace

void attention(const AttentionShape& shape, View q, View k, View v, void* out, void* logsumexp) {
  with_block_type(shape.dtype, [&](auto tag, auto block) {
    run<decltype(tag), decltype(block)>(shape, q, k, v, out, logsumexp);
  });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
