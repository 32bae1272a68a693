// Token log-probabilities, backward. Logits are formed again, a tile at a time, and turned into their
// gradients:
//   dl_v = (Σ_e g_e [v = target_e] − p_v (G + H (log p_v + entropy))) / temperature
// with G and H the sums of the row's gradients on its log-probabilities and on its entropy. Then
//   dW += dlᵀ h (a task owns its part of the vocabulary) and dhᵀ += Wᵀ dlᵀ (partial sums for each segment of
//   it).
#include <vector>

#include "kernels/cpu/logprobs.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

constexpr int64_t kRows = 2048;         // rows whose partial gradients exist at a time
constexpr int64_t kStrip = 4 * kPanel;  // rows whose logit gradients exist at a time
constexpr int64_t kVocabulary = 512;    // vocabulary entries whose logit gradients exist at a time

template <typename T, typename B>
struct Backward {
  using A = Accumulate<T>;

  const Projection& projection;
  const LogprobRows& rows;
  const LogprobGradient& gradient;
  int64_t padded_size = round_up(projection.size, 32);
  int64_t padded_extra = round_up(gradient.extra_size, 32);
  // Columns of what the logits' gradient is multiplied with: the weight, then the extra factor.
  int64_t factor_size = padded_size + padded_extra;
  int64_t chunk = std::clamp<int64_t>(round_up(projection.vocabulary / at::get_num_threads(), kChunk), kChunk,
                                      kVocabulary);
  int64_t chunks = (projection.vocabulary + chunk - 1) / chunk;
  int64_t segments = std::min<int64_t>(chunks, at::get_num_threads());
  // Of the rows at hand, begin to begin + count, all of one group:
  int64_t begin = 0, count = 0, group = 0;
  Scratch<B> transposed{};  // right operands of the logits, [panel][padded_size · 64]
  Scratch<B> plain{};       // right operands of dW, [strip][256 · padded_size]
  // Of a line: −logsumexp, G + H · entropy, H, 1 / temperature.
  Scratch<A> shift{}, first_factor{}, second_factor{}, inverse{};
  Scratch<A> partial{};  // dhᵀ, [segment][panel][factor_size, 64]

  int64_t panels() const { return (count + kPanel - 1) / kPanel; }
  int64_t partial_size() const { return panels() * kPanel * factor_size; }

  struct Workspace {
    Scratch<B> weight, extra, weight_transposed;  // the last with the extra factor under it
    Scratch<B> grads, grads_packed;               // [chunk, 256]
    Scratch<A> logits;                            // [64, 64]
    Scratch<A> product;                           // dW where it cannot be added in place
  };

  Workspace workspace() const {
    Workspace space;
    space.grads.resize(chunk * kStrip);
    space.grads_packed.resize(chunk * kStrip);
    space.logits.resize(kChunk * kPanel);
    return space;
  }

  void prepare() {
    const int64_t strips = (count + kStrip - 1) / kStrip;
    transposed.resize(strips * kStrip * padded_size);
    plain.resize(strips * kStrip * padded_size);
    for_tasks(
        strips, [&] { return Scratch<B>(kStrip * padded_size); },
        [&](int64_t strip, Scratch<B>& block) {
          const int64_t first = strip * kStrip, place = first * padded_size;
          gather_rows<T>(projection, rows, begin + first, std::min(kStrip, count - first), kStrip,
                         padded_size, block.data());
          pack_rows(block.data(), kStrip, padded_size, plain.data() + place);
          for (int64_t i = 0; i < kStrip; i += kPanel) {
            pack_transposed(block.data() + i * padded_size, kPanel, padded_size,
                            transposed.data() + place + i * padded_size);
          }
        });
    // Where there is no row, p is zero and log p finite.
    for (auto* x : {&shift, &first_factor, &second_factor, &inverse}) x->resize(strips * kStrip);
    std::fill_n(shift.data(), strips * kStrip, A(-1e30));
    std::fill_n(first_factor.data(), strips * kStrip, A(0));
    std::fill_n(second_factor.data(), strips * kStrip, A(0));
    std::fill_n(inverse.data(), strips * kStrip, A(1));
    const auto* grads = static_cast<const A*>(gradient.logprobs);
    const auto* entropy_grads = static_cast<const A*>(gradient.entropy);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t first = rows.starts[begin + i];
      shift[i] = -static_cast<const A*>(gradient.forward_logsumexp)[first];
      inverse[i] = static_cast<A>(1 / rows.temperatures[begin + i]);
      for (int64_t entry = first; entry < rows.starts[begin + i + 1]; ++entry) {
        first_factor[i] += grads[entry];
        if (entropy_grads) second_factor[i] += entropy_grads[entry];
      }
      first_factor[i] += second_factor[i] * static_cast<const A*>(gradient.forward_entropy)[first];
    }
    partial.resize(segments * partial_size());
  }

  // One tile of logits → gradients, in place; columns are rows [panel · 64, …) of those at hand.
  void differentiate(A* logits, int64_t first, int64_t height, int64_t panel) const {
    const int64_t place = panel * kPanel;
    for_lanes<A>(kPanel, [&](int64_t column, int64_t width) {
      const Lanes<A> scale = load(inverse.data() + place + column, width), negative = Lanes<A>() - scale;
      const Lanes<A> offset = load(shift.data() + place + column, width);
      const Lanes<A> on_logprob = load(first_factor.data() + place + column, width);
      const Lanes<A> on_entropy = load(second_factor.data() + place + column, width);
      for (int64_t i = 0; i < height; ++i) {
        A* value = logits + i * kPanel + column;
        const Lanes<A> log_p = multiply_add(load(value, width), scale, offset);
        const Lanes<A> p = exponential<T>(log_p) * negative;
        store(value, p * (gradient.entropy ? multiply_add(log_p, on_entropy, on_logprob) : on_logprob),
              width);
      }
    });
    const int64_t end = std::min(count, place + kPanel);
    for (int64_t row = place; row < end; ++row) {
      for (int64_t entry = rows.starts[begin + row]; entry < rows.starts[begin + row + 1]; ++entry) {
        const int64_t offset = rows.targets[entry] - first;
        if (offset < 0 || offset >= height) continue;
        logits[offset * kPanel + row - place] +=
            static_cast<const A*>(gradient.logprobs)[entry] * inverse[row];
      }
    }
  }

  // dlᵀ of a part of the vocabulary and a strip of rows: [padded, 256] in space.grads.
  void logit_gradients(const B* weight, int64_t first, int64_t height, int64_t padded, int64_t strip,
                       Workspace& space) const {
    for (int64_t panel = strip * 4; panel < std::min(panels(), strip * 4 + 4); ++panel) {
      B* grads = space.grads.data() + panel % 4 * kPanel;
      for (int64_t i = 0; i < padded; i += kChunk) {
        const int64_t rows_here = std::min(kChunk, padded - i),
                      real = std::clamp<int64_t>(height - i, 0, kChunk);
        multiply(rows_here, kPanel, padded_size, weight + i * padded_size, padded_size,
                 transposed.data() + panel * kPanel * padded_size, space.logits.data(), kPanel, false);
        differentiate(space.logits.data(), first + i, real, panel);
        std::fill(space.logits.data() + real * kPanel, space.logits.data() + rows_here * kPanel, A(0));
        for (int64_t r = 0; r < rows_here; ++r) {
          for_lanes<A>(kPanel, [&](int64_t column, int64_t width) {
            store(grads + (i + r) * kStrip + column, load(space.logits.data() + r * kPanel + column, width),
                  width);
          });
        }
      }
    }
    for (int64_t column = (panels() - strip * 4) * kPanel; column < kStrip; column += kPanel) {
      for (int64_t r = 0; r < padded; ++r)
        std::fill_n(space.grads.data() + r * kStrip + column, kPanel, B(0));
    }
  }

  void add_weight_gradient(int64_t first, int64_t height, int64_t padded, int64_t strip,
                           Workspace& space) const {
    A* target = static_cast<A*>(gradient.weights[group]) + first * projection.size;
    const B* right = plain.data() + strip * kStrip * padded_size;
    if (height == padded && projection.size == padded_size) {
      multiply(padded, padded_size, kStrip, space.grads.data(), kStrip, right, target, padded_size, true);
      return;
    }
    space.product.resize(padded * padded_size);
    multiply(padded, padded_size, kStrip, space.grads.data(), kStrip, right, space.product.data(),
             padded_size, false);
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < projection.size; ++j)
        target[i * projection.size + j] += space.product[i * padded_size + j];
    }
  }

  void transpose_extra(int64_t first, int64_t height, int64_t padded, Workspace& space) const {
    const T* rows_here = static_cast<const T*>(gradient.extra) + first * gradient.extra_size;
    space.extra.resize(padded * padded_extra);
    copy_block(rows_here, gradient.extra_size, height, gradient.extra_size, padded, padded_extra,
               space.extra.data());
    transpose(space.extra.data(), padded, padded_extra, padded_extra,
              space.weight_transposed.data() + padded_size * padded, padded);
  }

  void propagate(int64_t first, A* sums, Workspace& space) const {
    const int64_t height = std::min(chunk, projection.vocabulary - first), padded = round_up(height, 32);
    const B* weight = weight_operand<T, B>(projection, first, height, padded, padded_size, space.weight);
    space.weight_transposed.resize(padded * factor_size);
    transpose(weight, padded, padded_size, padded_size, space.weight_transposed.data(), padded);
    if (gradient.extra) transpose_extra(first, height, padded, space);
    for (int64_t strip = 0; strip * kStrip < count; ++strip) {
      logit_gradients(weight, first, height, padded, strip, space);
      if (!gradient.weights.empty()) add_weight_gradient(first, height, padded, strip, space);
      pack_rows(space.grads.data(), padded, kStrip, space.grads_packed.data());
      for (int64_t panel = strip * 4; panel < std::min(panels(), strip * 4 + 4); ++panel) {
        multiply(factor_size, kPanel, padded, space.weight_transposed.data(), padded,
                 space.grads_packed.data() + panel % 4 * kPanel * padded, sums + panel * kPanel * factor_size,
                 kPanel, true);
      }
    }
  }

  // Σ over the segments, transposed, added to the hidden states' gradient.
  template <typename G>
  void add_hidden_gradient(int64_t panel, Scratch<A>& rows_first) const {
    A* total = const_cast<A*>(partial.data()) + panel * kPanel * factor_size;
    for (int64_t segment = 1; segment < segments; ++segment) {
      const A* part = total + segment * partial_size();
      for (int64_t i = 0; i < kPanel * factor_size; ++i) total[i] += part[i];
    }
    transpose(total, factor_size, kPanel, kPanel, rows_first.data(), factor_size);
    for (int64_t row = panel * kPanel; row < std::min(count, (panel + 1) * kPanel); ++row) {
      G* target = static_cast<G*>(gradient.hidden) + rows.rows[begin + row] * gradient.hidden_stride;
      const A* source = rows_first.data() + (row - panel * kPanel) * factor_size;
      for_lanes<A>(projection.size, [&](int64_t i, int64_t width) {
        store(target + i, load(target + i, width) + load(source + i, width), width);
      });
      A* extra = static_cast<A*>(gradient.extra_out) + rows.rows[begin + row] * gradient.extra_size;
      for (int64_t i = 0; i < gradient.extra_size; ++i) extra[i] += source[padded_size + i];
    }
  }

  void run_rows() {
    prepare();
    at::parallel_for(0, segments, 1, [&](int64_t first_segment, int64_t last_segment) {
      Workspace space = workspace();
      for (int64_t segment = first_segment; segment < last_segment; ++segment) {
        A* sums = partial.data() + segment * partial_size();
        std::fill_n(sums, partial_size(), A(0));
        for (int64_t i = segment * chunks / segments; i < (segment + 1) * chunks / segments; ++i) {
          propagate(i * chunk, sums, space);
        }
      }
      if (has_tile_gemm()) tile_gemm_release();
    });
    // Lines of one row in two panels add to the same hidden state, so such neighbours are one task.
    const auto continues = [&](int64_t panel) {
      const int64_t line = begin + panel * kPanel;
      return rows.rows[line] == rows.rows[line - 1];
    };
    std::vector<int64_t> starts;
    for (int64_t panel = 0; panel < panels(); ++panel) {
      if (panel == 0 || !continues(panel)) starts.push_back(panel);
    }
    starts.push_back(panels());
    for_tasks(
        static_cast<int64_t>(starts.size()) - 1, [&] { return Scratch<A>(kPanel * factor_size); },
        [&](int64_t task, Scratch<A>& space) {
          for (int64_t panel = starts[task]; panel < starts[task + 1]; ++panel) {
            gradient.wide_hidden ? add_hidden_gradient<A>(panel, space)
                                 : add_hidden_gradient<T>(panel, space);
          }
        });
  }

  void run() {
    for (size_t k = 0; k + 1 < gradient.groups.size(); ++k) {
      for (begin = gradient.groups[k]; begin < gradient.groups[k + 1]; begin += kRows) {
        count = std::min(kRows, gradient.groups[k + 1] - begin);
        group = static_cast<int64_t>(k);
        run_rows();
      }
    }
  }
};

}  // namespace

void token_logprobs_backward(const Projection& projection, const LogprobRows& rows,
                             const LogprobGradient& gradient) {
  with_block_type(projection.dtype, [&](auto tag, auto block) {
    Backward<decltype(tag), decltype(block)>{projection, rows, gradient}.run();
  });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
