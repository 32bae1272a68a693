// Tree attention, backward. Scores are formed transposed (keys × queries), so that every product finds its
// operands without transposing a block of scores:
//   Sᵀ = K Qᵀ, dPᵀ = V dOᵀ, P = exp(S · scale − logsumexp), dS = P ∘ (dP − rowsum(dO ∘ O)) · scale,
//   dV += Pᵀ dO, dK += dSᵀ Q, dQᵀ += Kᵀ dSᵀ.
#include <limits>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/block.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

// Partial sums of one task are kept apart only below this many bytes in all.
constexpr int64_t kPartialBytes = int64_t{256} << 20;

template <typename T, typename B>
struct Backward {
  using A = Accumulate<T>;

  const AttentionShape& shape;
  View q, k, v, grad, out;
  const A* logsumexp;
  View grad_q, grad_k, grad_v;
  Blocks blocks;
  int64_t padded_size, group;
  Scratch<B> keys{}, values{}, transposed_keys{};  // left operands, [block][key head][64 · padded_size]
  std::vector<std::vector<int64_t>> trees;         // blocks of each tree, in row order
  std::vector<int64_t> place;                      // of a block within its tree

  struct Workspace {
    Scratch<B> plain;                                             // [64, padded_size]
    Scratch<B> q_rows, q_transposed, grad_rows, grad_transposed;  // right operands
    Scratch<B> weights, score_grads, packed_score_grads;          // [64, 64]
    Scratch<A> scores, weight_grads;                              // [64, 64]
    Scratch<A> total, total_transposed;                           // dQᵀ [padded_size, 64] and dQ
    std::vector<int64_t> chain;
    Scratch<A> sums;  // dK and dV of one tree
    A shift[kBlock], projection[kBlock];
  };

  int64_t block_size() const { return kBlock * padded_size; }

  Workspace workspace() const {
    Workspace space;
    for (auto* x :
         {&space.plain, &space.q_rows, &space.q_transposed, &space.grad_rows, &space.grad_transposed}) {
      x->resize(block_size());
    }
    for (auto* x : {&space.weights, &space.score_grads, &space.packed_score_grads})
      x->resize(kBlock * kBlock);
    for (auto* x : {&space.scores, &space.weight_grads}) x->resize(kBlock * kBlock);
    for (auto* x : {&space.total, &space.total_transposed}) x->resize(block_size());
    return space;
  }

  T* rows(const View& x, int64_t row, int64_t head) const {
    return static_cast<T*>(x.data) + row * x.row_stride + head * x.head_stride;
  }

  void find_trees() {
    std::vector<int64_t> tree_of(shape.nodes.size());
    for (size_t n = 0; n < shape.nodes.size(); ++n) {
      const int64_t parent = shape.nodes[n].parent;
      if (parent < 0) trees.emplace_back();
      tree_of[n] = parent < 0 ? static_cast<int64_t>(trees.size()) - 1 : tree_of[parent];
    }
    for (size_t b = 0; b < blocks.blocks.size(); ++b) {
      std::vector<int64_t>& tree = trees[tree_of[blocks.blocks[b].node]];
      place.push_back(static_cast<int64_t>(tree.size()));
      tree.push_back(static_cast<int64_t>(b));
    }
    // Largest first, so that the threads end together.
    std::stable_sort(trees.begin(), trees.end(),
                     [](const auto& a, const auto& b) { return a.size() > b.size(); });
  }

  void pack() {
    const int64_t count = static_cast<int64_t>(blocks.blocks.size()) * shape.key_heads;
    for (auto* x : {&keys, &values, &transposed_keys}) x->resize(count * block_size());
    for_tasks(
        count, [] { return 0; },
        [&](int64_t task, int) {
          const Block& block = blocks.blocks[task / shape.key_heads];
          const int64_t head = task % shape.key_heads;
          B *key = keys.data() + task * block_size(), *value = values.data() + task * block_size();
          copy_block(rows(k, block.start, head), k.row_stride, block.count, shape.size, kBlock, padded_size,
                     key);
          copy_block(rows(v, block.start, head), v.row_stride, block.count, shape.size, kBlock, padded_size,
                     value);
          transpose(key, kBlock, padded_size, padded_size, transposed_keys.data() + task * block_size(),
                    kBlock);
        });
  }

  // The operands of one query block; absent queries are zero and get weight exp(−∞).
  void prepare(const Block& queries, int64_t head, int64_t width, Workspace& space) const {
    copy_block(rows(q, queries.start, head), q.row_stride, queries.count, shape.size, width, padded_size,
               space.plain.data());
    pack_transposed(space.plain.data(), width, padded_size, space.q_transposed.data());
    pack_rows(space.plain.data(), width, padded_size, space.q_rows.data());
    copy_block(rows(grad, queries.start, head), grad.row_stride, queries.count, shape.size, width,
               padded_size, space.plain.data());
    pack_transposed(space.plain.data(), width, padded_size, space.grad_transposed.data());
    pack_rows(space.plain.data(), width, padded_size, space.grad_rows.data());
    std::fill(space.shift, space.shift + kBlock, -std::numeric_limits<A>::infinity());
    std::fill(space.projection, space.projection + kBlock, A(0));
    for (int64_t i = 0; i < queries.count; ++i) {
      space.shift[i] = -logsumexp[(queries.start + i) * shape.query_heads + head];
      const T *g = rows(grad, queries.start + i, head), *o = rows(out, queries.start + i, head);
      Lanes<A> products;
      for_lanes<A>(shape.size, [&](int64_t d, int64_t count) {
        products = multiply_add(load(g + d, count), load(o + d, count), products);
      });
      space.projection[i] = sum(products);
    }
  }

  // Sᵀ and dPᵀ → Pᵀ and dSᵀ, [padded_keys, width].
  void differentiate(const Block& key_block, int64_t padded_keys, int64_t width, bool diagonal,
                     Workspace& space) const {
    const Lanes<A> scale(static_cast<A>(shape.scale));
    for (int64_t j = 0; j < padded_keys; ++j) {
      B *weights = space.weights.data() + j * width, *score_grads = space.score_grads.data() + j * width;
      // Queries before the key do not see it; keys past the block's end do not exist.
      const int64_t hidden = j >= key_block.count ? width : diagonal ? j : 0;
      if (hidden < width) {
        const A *scores = space.scores.data() + j * kBlock, *grads = space.weight_grads.data() + j * kBlock;
        for_lanes<A>(width, [&](int64_t i, int64_t count) {
          const Lanes<A> weight =
              exponential<T>(multiply_add(load(scores + i, count), scale, load(space.shift + i, count)));
          store(weights + i, weight, count);
          store(score_grads + i,
                weight * scale * (load(grads + i, count) - load(space.projection + i, count)), count);
        });
      }
      std::fill(weights, weights + hidden, B(0));
      std::fill(score_grads, score_grads + hidden, B(0));
    }
  }

  // Gradients of one query block and head; sums holds dK and dV of its tree, [block][2][64, padded_size].
  void propagate(int64_t query_block, int64_t head, A* sums, Workspace& space) const {
    const Block& queries = blocks.blocks[query_block];
    const int64_t width = round_up(queries.count, 32), key_head = head / group;
    prepare(queries, head, width, space);
    attended(blocks, shape.nodes, query_block, space.chain);
    bool first = true;
    for (const int64_t block : space.chain) {
      const Block& key_block = blocks.blocks[block];
      const int64_t padded_keys = round_up(key_block.count, 32);
      const int64_t operand = (block * shape.key_heads + key_head) * block_size();
      multiply(padded_keys, width, padded_size, keys.data() + operand, padded_size, space.q_transposed.data(),
               space.scores.data(), kBlock, false);
      multiply(padded_keys, width, padded_size, values.data() + operand, padded_size,
               space.grad_transposed.data(), space.weight_grads.data(), kBlock, false);
      differentiate(key_block, padded_keys, width, block == query_block, space);
      A* key_grad = sums + place[block] * 2 * block_size();
      multiply(padded_keys, padded_size, width, space.score_grads.data(), width, space.q_rows.data(),
               key_grad, padded_size, true);
      multiply(padded_keys, padded_size, width, space.weights.data(), width, space.grad_rows.data(),
               key_grad + block_size(), padded_size, true);
      pack_rows(space.score_grads.data(), padded_keys, width, space.packed_score_grads.data());
      multiply(padded_size, width, padded_keys, transposed_keys.data() + operand, kBlock,
               space.packed_score_grads.data(), space.total.data(), width, !first);
      first = false;
    }
    transpose(space.total.data(), padded_size, width, width, space.total_transposed.data(), padded_size);
    for (int64_t i = 0; i < queries.count; ++i) {
      write_row(rows(grad_q, queries.start + i, head), space.total_transposed.data() + i * padded_size);
    }
  }

  void write_row(T* target, const A* source) const {
    for_lanes<A>(shape.size,
                 [&](int64_t i, int64_t count) { store(target + i, load(source + i, count), count); });
  }

  int64_t sums_size(int64_t tree) const {
    return static_cast<int64_t>(trees[tree].size()) * 2 * block_size();
  }

  // Adds up `parts` partial sums (into the first) and writes dK and dV of one tree and key head.
  void flush(int64_t tree, int64_t key_head, A* sums, int64_t parts) const {
    const int64_t size = sums_size(tree);
    for (int64_t part = 1; part < parts; ++part) {
      for (int64_t i = 0; i < size; ++i) sums[i] += sums[part * size + i];
    }
    for (size_t b = 0; b < trees[tree].size(); ++b) {
      const Block& block = blocks.blocks[trees[tree][b]];
      const A* key_grad = sums + b * 2 * block_size();
      for (int64_t i = 0; i < block.count; ++i) {
        write_row(rows(grad_k, block.start + i, key_head), key_grad + i * padded_size);
        write_row(rows(grad_v, block.start + i, key_head), key_grad + block_size() + i * padded_size);
      }
    }
  }

  void propagate_tree(int64_t tree, int64_t head, A* sums, Workspace& space) const {
    for (const int64_t block : trees[tree]) propagate(block, head, sums, space);
  }

  // A task is a tree and a key head: its queries' heads add to sums of the task's own.
  void run_by_key_head() const {
    for_tasks(
        static_cast<int64_t>(trees.size()) * shape.key_heads, [&] { return workspace(); },
        [&](int64_t task, Workspace& space) {
          const int64_t tree = task / shape.key_heads, key_head = task % shape.key_heads;
          space.sums.resize(sums_size(tree));
          std::fill_n(space.sums.data(), sums_size(tree), A(0));
          for (int64_t i = 0; i < group; ++i) {
            propagate_tree(tree, key_head * group + i, space.sums.data(), space);
          }
          flush(tree, key_head, space.sums.data(), 1);
        });
  }

  // A task is a tree and a query head, for many threads and few trees: partial sums for each query head.
  void run_by_query_head() const {
    std::vector<int64_t> offsets(trees.size() + 1, 0);
    for (size_t t = 0; t < trees.size(); ++t) offsets[t + 1] = offsets[t] + sums_size(t) * shape.query_heads;
    Scratch<A> sums(offsets.back());
    for_tasks(
        static_cast<int64_t>(trees.size()) * shape.query_heads, [&] { return workspace(); },
        [&](int64_t task, Workspace& space) {
          const int64_t tree = task / shape.query_heads, head = task % shape.query_heads;
          A* part = sums.data() + offsets[tree] + head * sums_size(tree);
          std::fill_n(part, sums_size(tree), A(0));
          propagate_tree(tree, head, part, space);
        });
    for_tasks(
        static_cast<int64_t>(trees.size()) * shape.key_heads, [] { return 0; },
        [&](int64_t task, int) {
          const int64_t tree = task / shape.key_heads, key_head = task % shape.key_heads;
          flush(tree, key_head, sums.data() + offsets[tree] + key_head * group * sums_size(tree), group);
        });
  }

  void run() {
    find_trees();
    pack();
    const int64_t tasks = static_cast<int64_t>(trees.size()) * shape.key_heads;
    const int64_t bytes =
        static_cast<int64_t>(blocks.blocks.size()) * 2 * block_size() * shape.query_heads * sizeof(A);
    const bool split = group > 1 && tasks < 4 * at::get_num_threads() && bytes < kPartialBytes;
    split ? run_by_query_head() : run_by_key_head();
  }
};

template <typename T, typename B>
void run(const AttentionShape& shape, View q, View k, View v, View grad, View out, const void* logsumexp,
         View grad_q, View grad_k, View grad_v) {
  Backward<T, B>{shape,
                 q,
                 k,
                 v,
                 grad,
                 out,
                 static_cast<const Accumulate<T>*>(logsumexp),
                 grad_q,
                 grad_k,
                 grad_v,
                 cut(shape.nodes),
                 round_up(shape.size, 32),
                 shape.query_heads / shape.key_heads,
                 {},
                 {},
                 {},
                 {},
                 {}}
      .run();
}

}  // namespace

void attention_backward(const AttentionShape& shape, View q, View k, View v, View grad, View out,
                        const void* logsumexp, View grad_q, View grad_k, View grad_v) {
  with_block_type(shape.dtype, [&](auto tag, auto block) {
    run<decltype(tag), decltype(block)>(shape, q, k, v, grad, out, logsumexp, grad_q, grad_k, grad_v);
  });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
