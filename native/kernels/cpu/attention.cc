// Tree attention, forward: flash attention (arXiv 2205.14135) over blocks that lie in the cache, with the
// list of key blocks taken from the tree, so that no part needs merging afterwards.
#include "kernels/cpu/attention.h"

#include <cmath>
#include <limits>

#include "kernels/cpu/block.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

constexpr int64_t kRound = 8;  // key blocks whose scores are held at a time

template <typename T, typename B>
struct Forward {
  using A = Accumulate<T>;

  const AttentionShape& shape;
  View q, k, v;
  T* out;
  A* logsumexp;
  Blocks blocks;
  int64_t padded_size, group;              // group: query heads to a key head
  Scratch<B> keys{}, transposed_values{};  // left operands, [block][key head][64 · padded_size]

  // Scores, weights and the result are held transposed, a query to a column: reductions run down the columns.
  struct Workspace {
    Scratch<B> plain, queries, weights;
    Scratch<A> scores, total, rows;
    std::vector<int64_t> chain;
    A maximum[kBlock], sum[kBlock], factor[kBlock];
  };

  int64_t block_size() const { return kBlock * padded_size; }

  Workspace workspace() const {
    Workspace space;
    for (auto* x : {&space.plain, &space.queries}) x->resize(block_size());
    for (auto* x : {&space.total, &space.rows}) x->resize(block_size());
    space.weights.resize(kRound * kBlock * kBlock);
    space.scores.resize(kRound * kBlock * kBlock);
    return space;
  }

  const T* rows(const View& x, int64_t row, int64_t head) const {
    return static_cast<const T*>(x.data) + row * x.row_stride + head * x.head_stride;
  }

  void pack() {
    const int64_t count = static_cast<int64_t>(blocks.blocks.size()) * shape.key_heads;
    for (auto* x : {&keys, &transposed_values}) x->resize(count * block_size());
    for_tasks(
        count, [&] { return Scratch<B>(block_size()); },
        [&](int64_t task, Scratch<B>& plain) {
          const Block& block = blocks.blocks[task / shape.key_heads];
          const int64_t head = task % shape.key_heads, place = task * block_size();
          copy_block(rows(k, block.start, head), k.row_stride, block.count, shape.size, kBlock, padded_size,
                     keys.data() + place);
          copy_block(rows(v, block.start, head), v.row_stride, block.count, shape.size, kBlock, padded_size,
                     plain.data());
          transpose(plain.data(), kBlock, padded_size, padded_size, transposed_values.data() + place, kBlock);
        });
  }

  // One round's scores [keys, width] of one pair of vectors of columns → weights, and the sums they change.
  // `chain` are the round's blocks, each with room for 64 keys.
  void soften(std::span<const int64_t> chain, int64_t width, int64_t column, int64_t lanes, bool first,
              Workspace& space) const {
    Lanes<A> top(-std::numeric_limits<A>::infinity());
    const Lanes<A> scale(static_cast<A>(shape.scale));
    for (size_t b = 0; b < chain.size(); ++b) {
      const A* scores = space.scores.data() + b * kBlock * width + column;
      for (int64_t j = 0; j < blocks.blocks[chain[b]].count; ++j)
        top = maximum(top, load(scores + j * width, lanes));
    }
    top = top * scale;
    Lanes<A> factor, sums;
    if (!first) {
      const Lanes<A> before = load(space.maximum + column, lanes);
      top = maximum(top, before);
      factor = exponential<T>(before - top);
      sums = load(space.sum + column, lanes) * factor;
    }
    const Lanes<A> shift = Lanes<A>() - top;
    for (size_t b = 0; b < chain.size(); ++b) {
      const int64_t count = blocks.blocks[chain[b]].count;
      const A* scores = space.scores.data() + b * kBlock * width + column;
      B* weights = space.weights.data() + b * kBlock * width;
      for (int64_t j = 0; j < round_up(count, 32); j += 2) {
        Lanes<A> even, odd;
        if (j < count) even = exponential<T>(multiply_add(load(scores + j * width, lanes), scale, shift));
        if (j + 1 < count)
          odd = exponential<T>(multiply_add(load(scores + (j + 1) * width, lanes), scale, shift));
        sums = sums + even + odd;
        store_pair(weights + j * width, width, column, even, odd);
      }
    }
    store(space.maximum + column, top, lanes);
    store(space.sum + column, sums, lanes);
    store(space.factor + column, factor, lanes);
  }

  // Queries do not see keys of their own block that come after them.
  void mask(A* scores, int64_t width, const Block& block) const {
    for (int64_t j = 1; j < block.count; ++j) {
      std::fill(scores + j * width, scores + j * width + std::min(j, width),
                -std::numeric_limits<A>::infinity());
    }
  }

  void round(std::span<const int64_t> chain, int64_t query_block, int64_t key_head, int64_t width, bool first,
             Workspace& space) const {
    for (size_t b = 0; b < chain.size(); ++b) {
      const Block& block = blocks.blocks[chain[b]];
      A* scores = space.scores.data() + b * kBlock * width;
      multiply(round_up(block.count, 32), width, padded_size,
               keys.data() + (chain[b] * shape.key_heads + key_head) * block_size(), padded_size,
               space.queries.data(), scores, width, false);
      if (chain[b] == query_block) mask(scores, width, block);
    }
    for_lanes<A>(width,
                 [&](int64_t column, int64_t lanes) { soften(chain, width, column, lanes, first, space); });
    if (!first) {
      for (int64_t d = 0; d < padded_size; ++d) {
        A* total = space.total.data() + d * width;
        for (int64_t i = 0; i < width; ++i) total[i] *= space.factor[i];
      }
    }
    for (size_t b = 0; b < chain.size(); ++b) {
      multiply(padded_size, width, round_up(blocks.blocks[chain[b]].count, 32),
               transposed_values.data() + (chain[b] * shape.key_heads + key_head) * block_size(), kBlock,
               space.weights.data() + b * kBlock * width, space.total.data(), width, !first || b > 0);
    }
  }

  void attend(int64_t query_block, int64_t head, Workspace& space) const {
    const Block& queries = blocks.blocks[query_block];
    const int64_t width = round_up(queries.count, 32);
    copy_block(rows(q, queries.start, head), q.row_stride, queries.count, shape.size, width, padded_size,
               space.plain.data());
    pack_transposed(space.plain.data(), width, padded_size, space.queries.data());
    attended(blocks, shape.nodes, query_block, space.chain);
    const std::span<const int64_t> chain(space.chain);
    for (size_t begin = 0; begin < chain.size(); begin += kRound) {
      round(chain.subspan(begin, std::min<size_t>(kRound, chain.size() - begin)), query_block, head / group,
            width, begin == 0, space);
    }
    finish(queries, head, width, space);
  }

  void finish(const Block& queries, int64_t head, int64_t width, Workspace& space) const {
    transpose(space.total.data(), padded_size, width, width, space.rows.data(), padded_size);
    for (int64_t row = 0; row < queries.count; ++row) {
      const int64_t index = (queries.start + row) * shape.query_heads + head;
      const A* total = space.rows.data() + row * padded_size;
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
