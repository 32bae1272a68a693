// Token log-probabilities, forward: every task takes a part of the vocabulary and leaves, for each row, the
// maximum, Σ exp and Σ exp · logit of its part; the parts merge at the end, in order.
#include "kernels/cpu/logprobs.h"

#include <cmath>
#include <limits>

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

template <typename T, typename B>
struct Forward {
  using A = Accumulate<T>;

  const Projection& projection;
  const LogprobRows& rows;
  int64_t padded_size = round_up(projection.size, 32);
  int64_t panels = (rows.count + kPanel - 1) / kPanel;
  // The number of parts does not depend on the number of threads: nor, then, does the result.
  int64_t part_size = std::clamp<int64_t>(round_up(projection.vocabulary / 8, kChunk), kChunk, 512);
  int64_t parts = (projection.vocabulary + part_size - 1) / part_size;
  Scratch<B> hidden = Scratch<B>(panels * kPanel * padded_size);  // right operands
  // [part][panel · 64]
  Scratch<A> highest = Scratch<A>(parts * panels * kPanel), sums = Scratch<A>(parts * panels * kPanel),
             products = Scratch<A>(parts * panels * kPanel);
  Scratch<A> target_logits = Scratch<A>(rows.starts[rows.count]);
  Scratch<A> inverse_temperatures = Scratch<A>(panels * kPanel);

  void pack() {
    for (int64_t i = 0; i < panels * kPanel; ++i)
      inverse_temperatures[i] = i < rows.count ? static_cast<A>(1 / rows.temperatures[i]) : A(1);
    for_tasks(
        panels, [&] { return Scratch<B>(kPanel * padded_size); },
        [&](int64_t panel, Scratch<B>& plain) {
          gather_rows<T>(projection, rows, panel * kPanel, std::min(kPanel, rows.count - panel * kPanel),
                         kPanel, padded_size, plain.data());
          pack_transposed(plain.data(), kPanel, padded_size, hidden.data() + panel * kPanel * padded_size);
        });
  }

  struct Workspace {
    Scratch<B> weight;
    Scratch<A> logits;  // [part_size, 64]
  };

  void part(int64_t index, Workspace& space) {
    const int64_t first = index * part_size, count = std::min(part_size, projection.vocabulary - first);
    const int64_t padded = round_up(count, 16);
    const B* weight = weight_operand<T, B>(projection, first, count, padded, padded_size, space.weight);
    space.logits.resize(padded * kPanel);
    for (int64_t panel = 0; panel < panels; ++panel) {
      for (int64_t i = 0; i < padded; i += kChunk) {
        multiply(std::min(kChunk, padded - i), kPanel, padded_size, weight + i * padded_size, padded_size,
                 hidden.data() + panel * kPanel * padded_size, space.logits.data() + i * kPanel, kPanel,
                 false);
      }
      reduce_columns(space.logits.data(), count, panel, (index * panels + panel) * kPanel);
      pick_targets(space.logits.data(), first, count, panel);
    }
  }

  // Down the columns, one pair of vectors wide: maximum, then Σ e and Σ e · logit for e = exp(logit −
  // maximum).
  void reduce_columns(const A* logits, int64_t count, int64_t panel, int64_t place) {
    for_lanes<A>(kPanel, [&](int64_t column, int64_t width) {
      const Lanes<A> scale = load(inverse_temperatures.data() + panel * kPanel + column, width);
      Lanes<A> top(-std::numeric_limits<A>::infinity());
      for (int64_t i = 0; i < count; ++i) top = maximum(top, load(logits + i * kPanel + column, width));
      top = top * scale;
      const Lanes<A> shift = Lanes<A>() - top;
      Lanes<A> sum, product;
      for (int64_t i = 0; i < count; ++i) {
        const Lanes<A> difference = multiply_add(load(logits + i * kPanel + column, width), scale, shift);
        const Lanes<A> weight = exponential<T>(difference);
        sum = sum + weight;
        product = multiply_add(weight, difference, product);
      }
      store(highest.data() + place + column, top, width);
      store(sums.data() + place + column, sum, width);
      store(products.data() + place + column, multiply_add(top, sum, product), width);
    });
  }

  void pick_targets(const A* logits, int64_t first, int64_t count, int64_t panel) {
    const int64_t end = std::min(rows.count, (panel + 1) * kPanel);
    for (int64_t row = panel * kPanel; row < end; ++row) {
      for (int64_t entry = rows.starts[row]; entry < rows.starts[row + 1]; ++entry) {
        const int64_t offset = rows.targets[entry] - first;
        if (offset < 0 || offset >= count) continue;
        target_logits[entry] =
            logits[offset * kPanel + row - panel * kPanel] / static_cast<A>(rows.temperatures[row]);
      }
    }
  }

  void merge(int64_t row, A* logprobs, A* entropy, A* logsumexp) const {
    const int64_t stride = panels * kPanel;
    A top = -std::numeric_limits<A>::infinity(), sum(0), product(0);
    for (int64_t i = 0; i < parts; ++i) top = std::max(top, highest[i * stride + row]);
    for (int64_t i = 0; i < parts; ++i) {
      const A factor = std::exp(highest[i * stride + row] - top);
      sum += factor * sums[i * stride + row];
      product += factor * products[i * stride + row];
    }
    const A total = top + std::log(sum);
    for (int64_t entry = rows.starts[row]; entry < rows.starts[row + 1]; ++entry) {
      logprobs[entry] = target_logits[entry] - total;
      entropy[entry] = total - product / sum;
      logsumexp[entry] = total;
    }
  }

  void run(A* logprobs, A* entropy, A* logsumexp) {
    pack();
    for_tasks(
        parts, [] { return Workspace{}; }, [&](int64_t index, Workspace& space) { part(index, space); });
    at::parallel_for(0, rows.count, 64, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) merge(row, logprobs, entropy, logsumexp);
    });
  }
};

template <typename T, typename B>
void run(const Projection& projection, const LogprobRows& rows, void* logprobs, void* entropy,
         void* logsumexp) {
  using A = Accumulate<T>;
  Forward<T, B>{projection, rows}.run(static_cast<A*>(logprobs), static_cast<A*>(entropy),
                                      static_cast<A*>(logsumexp));
}

}  // namespace

void token_logprobs(const Projection& projection, const LogprobRows& rows, void* logprobs, void* entropy,
                    void* logsumexp) {
  with_block_type(projection.dtype, [&](auto tag, auto block) {
    run<decltype(tag), decltype(block)>(projection, rows, logprobs, entropy, logsumexp);
  });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
