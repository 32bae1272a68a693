// Rows of a training pass of 8,176 rows in sequences of 511, whose tensors come from memory, and of the head, the statistics
// and the optimizer of an adapter of 33 M parameters.
#include "times.h"

namespace troupe::bench {
namespace {

using namespace kernels::cuda;

constexpr int64_t kRows = 8176, kSequence = 511, kEntries = 1024;
constexpr int64_t kPieces = 504, kParameters = kPieces * kPieceElements;

// The rows in `count` groups, whose sums of `size` floats go to neighbouring targets.
Groups groups_of(int count, const Tensor& targets, int64_t size) {
  Groups groups;
  groups.count = count;
  for (int k = 0; k < count; ++k) {
    groups.offset[k + 1] = kRows * (k + 1) / count;
    groups.target[k] = targets.as<float>() + k * size;
  }
  return groups;
}

Rows rows_at(void* data, int64_t width) { return {data, width, width}; }

Work gate() {
  const Tensor gate_up = stream_of(kRows * 2 * kIntermediate), y = stream_of(kRows * kIntermediate);
  return {gate_up.bytes() + y.bytes(), [=](int launch) {
            return swiglu(Type::kBf16, gate_up[launch], y[launch], kRows, kIntermediate, nullptr);
          }};
}
Work gate_backward() {
  const Tensor gate_up = stream_of(kRows * 2 * kIntermediate), grad = stream_of(kRows * kIntermediate),
               out = stream_of(kRows * 2 * kIntermediate);
  return {gate_up.bytes() + grad.bytes() + out.bytes(), [=](int launch) {
            return swiglu_backward(Type::kBf16, grad[launch], gate_up[launch], out[launch], kRows,
                                   kIntermediate, nullptr);
          }};
}

struct Heads {
  Heads()
      : qkv(stream_of(kRows * kFusedWidth)),
        q(stream_of(kRows * kQueryWidth)),
        k(stream_of(kRows * kKeyWidth)),
        v(stream_of(kRows * kKeyWidth)),
        q_norm(warm(kHeadSize)),
        k_norm(warm(kHeadSize)),
        cos(warm(kSequence * kHeadSize / 2, Fill::kFloat)),
        sin(warm(kSequence * kHeadSize / 2, Fill::kFloat)),
        positions(Tensor::of(numbers<int32_t>(kSequence))),
        place(Tensor::of(numbers<int64_t>(kRows))) {}
  template <typename T>
  static std::vector<T> numbers(int64_t period) {
    std::vector<T> result;
    for (int64_t row = 0; row < kRows; ++row) result.push_back(static_cast<T>(row % period));
    return result;
  }
  SplitHeads of(int launch) const {
    return {Type::kBf16,         kRows,     kHeads,    kKvHeads,  kHeadSize, qkv[launch],
            q_norm[0],           k_norm[0], 1e-6,      cos[0],    sin[0],    positions.as<int32_t>(),
            place.as<int64_t>(), nullptr,   q[launch], k[launch], v[launch]};
  }

  Tensor qkv, q, k, v, q_norm, k_norm, cos, sin, positions, place;
};

Work heads() {
  const Heads heads;
  return {2 * heads.qkv.bytes(), [=](int launch) { return split_heads(heads.of(launch), nullptr); }};
}
// Without groups the norms' weights are frozen.
Work heads_backward(int groups) {
  const Heads heads;
  const Tensor out = stream_of(kRows * kFusedWidth), targets = warm(2 * kMaxGroups * kHeadSize, Fill::kFloat),
               partial = warm(kMaxGroups * heads_partials(kRows, kRows) * 2 * kHeadSize, Fill::kFloat);
  const int32_t partials = groups > 0 ? heads_partials(kRows / groups, kRows) : 0;
  // v itself is not read.
  return {
      3 * out.bytes() - heads.v.bytes(), [=](int launch) {
        const Groups all = groups_of(groups, targets, kHeadSize);
        return split_heads_backward({heads.of(launch), out[launch], all, all, partial[0], partials}, nullptr);
      }};
}

Work norm(bool with_residual) {
  const Tensor x = stream_of(kRows * kHidden), residual = stream_of(kRows * kHidden),
               y = stream_of(kRows * kHidden), weight = warm(kHidden), rstd = warm(kRows, Fill::kFloat);
  return {(with_residual ? 4 : 2) * x.bytes(), [=](int launch) {
            return rms_norm({Type::kBf16, kRows, 1, kHidden, rows_at(x[launch], kHidden),
                             rows_at(with_residual ? residual[launch] : nullptr, kHidden), weight[0],
                             y[launch], rstd[0], 1e-6},
                            nullptr);
          }};
}
Work norm_backward(int groups) {
  const Tensor grad = stream_of(kRows * kHidden), x = stream_of(kRows * kHidden),
               add = stream_of(kRows * kHidden), out = stream_of(kRows * kHidden), weight = warm(kHidden),
               rstd = warm(kRows, Fill::kFloat), targets = warm(kMaxGroups * kHidden, Fill::kFloat),
               partial = warm(kMaxGroups * norm_partials(kRows, kRows, kHidden) * kHidden, Fill::kFloat);
  const int32_t partials = groups > 0 ? norm_partials(kRows / groups, kRows, kHidden) : 0;
  return {4 * x.bytes(), [=](int launch) {
            return rms_norm_backward(
                {Type::kBf16, kRows, 1, kHidden, rows_at(grad[launch], kHidden), rows_at(x[launch], kHidden),
                 rows_at(add[launch], kHidden), rows_at(out[launch], kHidden), weight[0], rstd[0],
                 groups_of(groups, targets, kHidden), partial[0], partials},
                nullptr);
          }};
}

// Both sides lie in wider rows, as the parts of fused products do. A's gradient is transposed.
struct Gradient {
  const char* name;
  int32_t wide, narrow;
  int64_t wide_stride, narrow_stride;
  bool transposed;
};
constexpr Gradient kGradients[] = {
    {"B of gate, 9728 × 16", 9728, 16, 19456, 32, false},
    {"A of down, 9728 × 16", 9728, 16, 9728, 16, true},
    {"B of q, 4096 × 16", 4096, 16, 6144, 48, false},
    {"B of k, 1024 × 16", 1024, 16, 6144, 48, false},
    {"B of o, 2560 × 16", 2560, 16, 2560, 16, false},
    {"A of gate and up, 2560 × 32", 2560, 32, 2560, 32, true},
    {"A of q, k and v, 2560 × 48", 2560, 48, 2560, 48, true},
    {"B of gate, 9728 × 64", 9728, 64, 19456, 128, false},
    {"A of gate and up, 2560 × 128", 2560, 128, 2560, 128, true},
};
Work gradient(const Gradient& of, int groups) {
  const Tensor wide = stream_of(kRows * of.wide_stride), narrow = stream_of(kRows * of.narrow_stride);
  const int64_t size = static_cast<int64_t>(of.wide) * of.narrow;
  const Tensor targets = warm(groups * size, Fill::kFloat);
  const auto of_launch = [=](int launch) {
    return WeightGradient{wide[launch], narrow[launch], of.wide_stride, of.narrow_stride,
                          of.wide,      of.narrow,      of.transposed,  groups_of(groups, targets, size),
                          nullptr,      nullptr};
  };
  const Tensor partial = warm(weight_gradient_partial(of_launch(0)), Fill::kFloat),
               counters = warm(4 * weight_gradient_counters(of_launch(0)), Fill::kZeroBytes);
  return {kRows * (of.wide + of.narrow) * 2 + 2 * groups * size * 4, [=](int launch) {
            WeightGradient args = of_launch(launch);
            args.partial = partial.as<float>();
            args.counters = counters.as<uint32_t>();
            return weight_gradient(args, nullptr);
          }};
}

// All rows have a second part, the prefix that they share with others.
Work merge(bool in_order) {
  const Tensor out = stream_of(kRows * kQueryWidth), other = stream_of(kRows * kQueryWidth),
               ordered = stream_of(kRows * kQueryWidth), sums = stream_of(kHeads * kRows, Fill::kFloat),
               other_sums = stream_of(kHeads * kRows, Fill::kFloat),
               order = Tensor::of(Heads::numbers<int64_t>(kRows));
  return {3 * out.bytes() + 3 * sums.bytes(), [=](int launch) {
            MergeParts merge{Type::kBf16,
                             kRows,
                             kHeads,
                             kHeadSize,
                             1,
                             out[launch],
                             sums[launch],
                             in_order ? nullptr : order.as<int64_t>(),
                             ordered[launch],
                             {}};
            merge.parts[0] = {other[launch], other_sums[launch], 0, kRows};
            return merge_parts(merge, nullptr);
          }};
}

struct Entries {
  Entries()
      : logits(stream_of(kEntries * kVocabulary, Fill::kFloat)),
        targets(Tensor::of(Heads::numbers<int64_t>(kVocabulary))),
        temperatures(Tensor::of(std::vector<double>(kEntries, 1))),
        logprobs(warm(kEntries, Fill::kFloat)),
        entropy(warm(kEntries, Fill::kFloat)),
        logsumexp(warm(kEntries, Fill::kFloat)) {}
  Tensor logits, targets, temperatures, logprobs, entropy, logsumexp;
};
Work head() {
  const Entries entries;
  return {entries.logits.bytes(), [=](int launch) {
            return token_logprobs({Type::kFloat, entries.logits[launch], entries.targets.as<int64_t>(),
                                   entries.temperatures.as<double>(), entries.logprobs[0], entries.entropy[0],
                                   entries.logsumexp[0], kEntries, kVocabulary},
                                  nullptr);
          }};
}
Work head_backward() {
  const Entries entries;
  const Tensor grad = warm(kEntries, Fill::kFloat), out = stream_of(kEntries * kVocabulary);
  return {entries.logits.bytes() + out.bytes(), [=](int launch) {
            return token_logprobs_backward(
                {Type::kBf16, entries.logits[launch], entries.targets.as<int64_t>(),
                 entries.temperatures.as<double>(), entries.entropy[0], entries.logsumexp[0], grad[0],
                 nullptr, out[launch], kEntries, kVocabulary},
                nullptr);
          }};
}

struct Accumulators {
  explicit Accumulators(int groups)
      : flat(stream_of(groups * kParameters, Fill::kFloat)),
        groups(groups),
        products(warm(kPieces * (groups + 3) * (groups + 3), Fill::kDouble)) {
    std::vector<Piece> cut;
    for (int64_t i = 0; i < kPieces; ++i) cut.push_back({i * kPieceElements, kPieceElements, 0, 1});
    pieces = std::make_shared<Tensor>(Tensor::of(cut));
  }
  Vectors of(int launch) const {
    Vectors vectors{Type::kFloat, groups, {}, {}};
    for (int k = 0; k < groups; ++k) {
      vectors.data[k] = static_cast<const float*>(flat[launch]) + k * kParameters;
      vectors.coefficient[k] = 1;
    }
    return vectors;
  }
  Tensor flat;
  int32_t groups;
  Tensor products;
  std::shared_ptr<Tensor> pieces;
};
Work gram(int groups) {
  const Accumulators all(groups);
  return {all.flat.bytes(), [=](int launch) {
            return gram_pieces(all.of(launch), all.pieces->as<Piece>(), kPieces, all.products.as<double>(),
                               nullptr);
          }};
}
Work adamw(int groups) {
  const Accumulators all(groups);
  const Tensor theta = warm(kParameters, Fill::kFloat), copy = warm(kParameters),
               average = warm(kParameters, Fill::kFloat), square = warm(4 * kParameters, Fill::kZeroBytes);
  return {all.flat.bytes() + 6 * theta.bytes() + copy.bytes(), [=](int launch) {
            AdamWUpdate step{};
            step.theta = theta[0];
            step.copy = copy[0];
            step.averages[0] = step.averages[1] = average[0];
            step.squares[0] = step.squares[1] = square[0];
            step.decay_size = kParameters;
            step.learning_rate = 1e-5;
            step.beta1 = 0.9;
            step.beta2 = 0.999;
            step.eps = 1e-8;
            step.weight_decay = 0.01;
            step.clip = step.correction1 = step.correction2 = 1;
            return adamw_pieces(all.of(launch), step, all.pieces->as<Piece>(), kPieces,
                                all.products.as<double>(), nullptr);
          }};
}

}  // namespace

std::vector<Row> training_rows() {
  std::vector<Row> rows{{"swiglu", gate},
                        {"swiglu_backward", gate_backward},
                        {"split_heads", heads},
                        {"split_heads_backward", [] { return heads_backward(0); }},
                        {"split_heads_backward, norms of 2 groups", [] { return heads_backward(2); }},
                        {"rms_norm", [] { return norm(false); }},
                        {"rms_norm with residual", [] { return norm(true); }},
                        {"rms_norm_backward", [] { return norm_backward(0); }},
                        {"rms_norm_backward, weights of 2 groups", [] { return norm_backward(2); }}};
  for (const Gradient& of : kGradients)
    rows.push_back({std::string("weight_gradient ") + of.name, [&of] { return gradient(of, 1); }});
  rows.push_back(
      {"weight_gradient B of gate, 9728 × 16, 4 groups", [] { return gradient(kGradients[0], 4); }});
  rows.push_back({"merge_parts", [] { return merge(true); }});
  rows.push_back({"merge_parts into an order", [] { return merge(false); }});
  rows.push_back({"logprobs", head});
  rows.push_back({"logprobs_backward", head_backward});
  for (const int groups : {1, 4}) {
    const std::string of = " of " + std::to_string(groups) + (groups == 1 ? " group" : " groups");
    rows.push_back({"gram" + of, [=] { return gram(groups); }});
    rows.push_back({"adamw" + of, [=] { return adamw(groups); }});
  }
  return rows;
}

}  // namespace troupe::bench
