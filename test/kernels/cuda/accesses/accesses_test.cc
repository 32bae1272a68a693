// The bytes that kernels are said to touch (native/kernels/cuda/emulation/accesses.h), against what their tensors hold.
#include "kernels/cuda/emulation/accesses.h"

#include "../support.h"

namespace troupe::kernels::cuda::test {
namespace {

constexpr int64_t kTwo = sizeof(Bf16), kFour = sizeof(float);

// Bytes that one launch reads and writes.
template <typename F>
int64_t bytes_of(const char* what, const F& launcher) {
  run(what, launcher);
  emulation::watcher->end(what, launch_count());
  return emulation::watcher->take()[what].bytes;
}

void equal(const std::string& what, int64_t got, int64_t want) {
  check(got == want, what + " moves " + std::to_string(want) + " bytes, not " + std::to_string(got));
}

const Register activations("bytes of activations: SwiGLU and backward", [] {
  const int64_t rows = 33, size = 72;
  auto gate_up = Buffer<Bf16>::random(rows * 2 * size), grad = Buffer<Bf16>::random(rows * size);
  Buffer<Bf16> y(rows * size), grad_gate_up(rows * 2 * size);
  equal(
      "SwiGLU",
      bytes_of("swiglu", [&] { return swiglu(Type::kBf16, gate_up.data(), y.data(), rows, size, nullptr); }),
      3 * rows * size * kTwo);
  equal("its backward",
        bytes_of("swiglu_backward",
                 [&] {
                   return swiglu_backward(Type::kBf16, grad.data(), gate_up.data(), grad_gate_up.data(), rows,
                                          size, nullptr);
                 }),
        5 * rows * size * kTwo);
});

const Register cache("bytes of the cache: keys and values stored, and read once for all who share them", [] {
  const int32_t rows = 5, heads = 4, kv_heads = 2, size = 64, pages = 3;
  auto qkv = Buffer<Bf16>::random(rows * (heads + 2 * kv_heads) * size);
  auto q_norm = Buffer<Bf16>::random(size), k_norm = Buffer<Bf16>::random(size);
  auto cos = Buffer<float>::random(64 * size / 2), sin = Buffer<float>::random(64 * size / 2);
  // Two rows at one position; the last is stored nowhere.
  auto positions = Buffer<int32_t>::of({17, 17, 20, 30, 31}),
       slots = Buffer<int32_t>::of({17, 33, 20, 30, -1});
  Buffer<Bf16> q(rows * heads * size);
  auto k = Buffer<Bf16>::zeros(pages * kv_heads * kPageTokens * size), v = k;
  const SplitHeads split{Type::kBf16,   rows,          heads,    kv_heads,   size,       qkv.data(),
                         q_norm.data(), k_norm.data(), 1e-6,     cos.data(), sin.data(), positions.data(),
                         nullptr,       slots.data(),  q.data(), k.data(),   v.data()};
  equal("split_heads", bytes_of("split_heads", [&] { return split_heads(split, nullptr); }),
        qkv.size() * kTwo + 2 * size * kTwo + 4 * size * kFour  // norms; cosines and sines of four positions
            + 2 * rows * kFour                                  // positions, slots
            + q.size() * kTwo + (rows - 1) * 2 * kv_heads * size * kTwo);

  // Rows 0 and 2 read page 0 and 5 tokens of page 1, rows 1 and 3 page 0 and 15 tokens of page 2; page 0 counts once. Row
  // 4 waits.
  auto table = Buffer<int32_t>::of({0, 1, 0, 2});
  auto members = Buffer<PagedMember>::of({{0, 0, 18}, {2, 1, 21}, {1, -1, 18}, {3, -1, 31}});
  const int32_t pairs = 2 * heads / kv_heads;
  auto runs = Buffer<PagedRun>::of({{0, 0, 21, 0, 2}, {2, 0, 31, 0, 2}});
  auto tiles = Buffer<PagedTile>::of({{0, 1, 0, 0, pairs}, {1, 1, 2, 0, pairs}});
  Buffer<float> partial(2 * heads * size), logsumexp(2 * heads);
  Buffer<Bf16> out(rows * heads * size);
  const PagedAttention attention{Type::kBf16, heads,          kv_heads, size,           heads * size,
                                 q.data(),    k.data(),       v.data(), table.data(),   tiles.data(),
                                 runs.data(), members.data(), 2,        partial.data(), logsumexp.data(),
                                 out.data(),  0.125};
  // Rows 0 and 2 have other parts, rows 1 and 3 are written as they are.
  equal("paged_attention", bytes_of("paged_attention", [&] { return paged_attention(attention, nullptr); }),
        2 * (kPageTokens + 5 + 15) * kv_heads * size * kTwo +
            4 * heads * size * kTwo  // keys, values, queries
            + table.size() * kFour + 4 * sizeof(PagedMember) + 2 * sizeof(PagedTile) +
            2 * (sizeof(PagedRun) - kFour)  // but where a first run begins
            + (partial.size() + logsumexp.size()) * kFour + 2 * heads * size * kTwo);
});

const Register accumulators("bytes of accumulators: an adapter's gradient, and the Gram of two", [] {
  const int32_t rows = 40, wide = 96, narrow = 16;
  auto left = Buffer<Bf16>::random(rows * wide), right = Buffer<Bf16>::random(rows * narrow);
  auto first = Buffer<float>::zeros(wide * narrow), second = first;
  WeightGradient gradient{left.data(), right.data(), wide, narrow, wide, narrow, false, {}, nullptr, nullptr};
  gradient.groups.count = 2;
  gradient.groups.offset[1] = 24;
  gradient.groups.offset[2] = rows;
  gradient.groups.target[0] = first.data();
  gradient.groups.target[1] = second.data();
  check(weight_gradient_counters(gradient) == 0, "so few rows are one part");
  equal("weight_gradient", bytes_of("weight_gradient", [&] { return weight_gradient(gradient, nullptr); }),
        (left.size() + right.size()) * kTwo + 2 * (first.size() + second.size()) * kFour);

  // What a piece itself takes is the same for both lengths.
  const auto gram = [&](int64_t length) {
    const Vectors vectors{Type::kFloat, 2, {first.data(), second.data()}, {1, 1}};
    auto pieces = Buffer<int64_t>::of({0, length, 0});
    Buffer<double> products(4);
    return bytes_of("gram", [&] {
      return gram_pieces(vectors, reinterpret_cast<const Piece*>(pieces.data()), 1, products.data(), nullptr);
    });
  };
  equal("Gram", gram(first.size()) - gram(100), 2 * (first.size() - 100) * kFour);

  // A step reads every gradient once, reads and writes parameters and both moments, and writes the rounded parameters.
  auto theta = Buffer<float>::random(first.size()), average = Buffer<float>::random(first.size());
  auto square = Buffer<float>::zeros(first.size());
  Buffer<Bf16> copy(first.size());
  const auto step = [&](int64_t length) {
    const Vectors vectors{Type::kFloat, 2, {first.data(), second.data()}, {1, 1}};
    auto pieces = Buffer<int64_t>::of({0, length, int64_t{1} << 32});  // parameter 0, which decays
    const AdamWUpdate update{theta.data(),
                             copy.data(),
                             nullptr,
                             {average.data()},
                             {square.data()},
                             first.size(),
                             1e-3,
                             0.9,
                             0.99,
                             1e-8,
                             0.1,
                             1,
                             0.1,
                             0.01};
    Buffer<double> products(5);
    return bytes_of("adamw_step", [&] {
      return adamw_pieces(vectors, update, reinterpret_cast<const Piece*>(pieces.data()), 1, products.data(),
                          nullptr);
    });
  };
  equal("a step", step(first.size()) - step(100), (first.size() - 100) * ((2 + 6) * kFour + kTwo));
});

}  // namespace
}  // namespace troupe::kernels::cuda::test
