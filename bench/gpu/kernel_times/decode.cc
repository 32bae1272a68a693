// Rows of a decode step of 256 sequences with one adapter: what a layer's kernels read but weights, keys and values was
// written just before, and lies in L2.
#include "kernels/cuda/paged_plan.h"
#include "times.h"

namespace troupe::bench {
namespace {

using namespace kernels::cuda;

constexpr int64_t kRows = 256, kPositions = 1024;
constexpr int32_t kTokens = 290, kPagesOfRow = (kTokens + kPageTokens - 1) / kPageTokens;

Work norm() {
  const Tensor x = warm(kRows * kHidden), residual = warm(kRows * kHidden), y = warm(kRows * kHidden),
               weight = weights_of(kHidden), rstd = warm(kRows, Fill::kFloat);
  return {4 * x.bytes() + weight.bytes(), [=](int launch) {
            return rms_norm({Type::kBf16,
                             kRows,
                             1,
                             kHidden,
                             {x[0], kHidden, kHidden},
                             {residual[0], kHidden, kHidden},
                             weight[launch],
                             y[0],
                             rstd[0],
                             1e-6},
                            nullptr);
          }};
}

// An adapter of one product whose terms have these columns: behind y's columns lie its x Aᵀ; B lies fused.
struct Adapter {
  Adapter(std::vector<int32_t> columns, int32_t rank)
      : columns(std::move(columns)),
        rank(rank),
        out(total(this->columns)),
        stride(out + static_cast<int64_t>(this->columns.size()) * rank),
        y(warm(kRows * stride)),
        b(weights_of(out * rank)) {}
  static int64_t total(const std::vector<int32_t>& columns) {
    int64_t sum = 0;
    for (const int32_t count : columns) sum += count;
    return sum;
  }
  Lora of(int launch) const {
    Lora lora{kRows, out, stride, y[0], 0, {}};
    int32_t column = 0;
    for (const int32_t count : columns) {
      const auto projected = static_cast<int32_t>(out + lora.count * rank);
      const void* const own = static_cast<const uint16_t*>(b[launch]) + static_cast<int64_t>(column) * rank;
      lora.terms[lora.count++] = {own, 0, kRows, rank, column, count, projected, 1e-3f};
      column += count;
    }
    return lora;
  }

  std::vector<int32_t> columns;
  int32_t rank;
  int64_t out, stride;
  Tensor y, b;
};

Work adapted_norm(int32_t rank) {
  const Adapter adapter({kHidden}, rank);
  const Tensor stream = warm(kRows * kHidden), normed = warm(kRows * kHidden), weight = weights_of(kHidden);
  return {adapter.b.bytes() + adapter.y.bytes() + 3 * stream.bytes() + weight.bytes(), [=](int launch) {
            return lora_norm({adapter.of(launch), stream[0], weight[launch], normed[0], 1e-6}, nullptr);
          }};
}

Work adapted_swiglu(int32_t rank) {
  const Adapter adapter({kIntermediate, kIntermediate}, rank);
  const Tensor gated = warm(kRows * kIntermediate);
  return {adapter.b.bytes() + adapter.y.bytes() + gated.bytes(),
          [=](int launch) { return lora_swiglu(adapter.of(launch), gated[0], nullptr); }};
}

// Heads of qkv to q and to the last place of each row's pages.
struct Heads {
  Heads()
      : q_norm(weights_of(kHeadSize)),
        k_norm(weights_of(kHeadSize)),
        cos(warm(kPositions * kHeadSize / 2, Fill::kFloat)),
        sin(warm(kPositions * kHeadSize / 2, Fill::kFloat)),
        positions(Tensor::of(std::vector<int32_t>(kRows, kTokens - 1))),
        slots(Tensor::of(last_places())),
        q(warm(kRows * kQueryWidth)),
        k(warm(kRows * kPageTokens * kKeyWidth)),
        v(warm(kRows * kPageTokens * kKeyWidth)) {}
  static std::vector<int32_t> last_places() {
    std::vector<int32_t> places;
    for (int32_t row = 0; row < kRows; ++row)
      places.push_back(row * kPageTokens + (kTokens - 1) % kPageTokens);
    return places;
  }
  SplitHeads of(int launch, const void* qkv) const {
    return {Type::kBf16,
            kRows,
            kHeads,
            kKvHeads,
            kHeadSize,
            qkv,
            q_norm[launch],
            k_norm[launch],
            1e-6,
            cos[0],
            sin[0],
            positions.as<int32_t>(),
            nullptr,
            slots.as<int32_t>(),
            q[0],
            k[0],
            v[0]};
  }

  Tensor q_norm, k_norm, cos, sin, positions, slots, q, k, v;
};

Work heads() {
  const Heads heads;
  const Tensor qkv = warm(kRows * kFusedWidth);
  return {2 * qkv.bytes(), [=](int launch) { return split_heads(heads.of(launch, qkv[0]), nullptr); }};
}

Work adapted_heads(int32_t rank) {
  const Adapter adapter({kQueryWidth, kKeyWidth, kKeyWidth}, rank);
  const Heads heads;
  return {adapter.b.bytes() + 2 * adapter.y.bytes(), [=](int launch) {
            return lora_heads(adapter.of(launch), heads.of(launch, adapter.y[0]), nullptr);
          }};
}

// Every row has pages of its own.
Work paged() {
  std::vector<int32_t> tables, positions(kRows, kTokens - 1), slots, pages;
  for (int32_t row = 0; row < kRows; ++row) {
    tables.push_back(row);
    slots.push_back(row * kPagesOfRow * kPageTokens + kTokens - 1);
  }
  for (int32_t page = 0; page < kRows * kPagesOfRow; ++page) pages.push_back(page);
  const PagedPlan plan = plan_paged(tables, positions, slots, pages, kPagesOfRow, kHeads / kKvHeads, 1 << 20);
  if (plan.starts.back() != 0) throw std::runtime_error("rows of several parts");
  const int64_t stored = static_cast<int64_t>(pages.size()) * kPageTokens * kKeyWidth;
  const Tensor q = warm(kRows * kQueryWidth), out = warm(kRows * kQueryWidth), k = stream_of(stored),
               v = stream_of(stored), numbers = Tensor::of(pages), tiles = Tensor::of(plan.tiles),
               runs = Tensor::of(plan.runs), members = Tensor::of(plan.members);
  const auto tile_count = static_cast<int32_t>(plan.tiles.size());
  return {2 * kRows * kTokens * kKeyWidth * 2 + q.bytes() + out.bytes(), [=](int launch) {
            return paged_attention(
                {Type::kBf16, kHeads, kKvHeads, kHeadSize, kQueryWidth, q[0], k[launch], v[launch],
                 numbers.as<int32_t>(), tiles.as<PagedTile>(), runs.as<PagedRun>(), members.as<PagedMember>(),
                 tile_count, nullptr, nullptr, out[0], 0.088},
                nullptr);
          }};
}

Work sampler(Fill fill, int32_t k = 0, double p = 1) {
  const bool filtered = k > 0 || p < 1;
  std::vector<int32_t> outputs;
  std::vector<double> uniforms;
  for (int32_t row = 0; row < kRows; ++row) {
    outputs.push_back(row);
    uniforms.push_back((row + 0.5) / kRows);
  }
  const Tensor logits = stream_of(kRows * kVocabulary, fill), rows = Tensor::of(outputs),
               temperatures = Tensor::of(std::vector<double>(kRows, 1)),
               top_ps = Tensor::of(std::vector<double>(kRows, p)),
               min_ps = Tensor::of(std::vector<double>(kRows, 0)),
               top_ks = Tensor::of(std::vector<int32_t>(kRows, k)), numbers = Tensor::of(uniforms),
               tokens = Tensor::of(outputs), logprobs = warm(kRows, Fill::kFloat);
  return {logits.bytes(), [=](int launch) {
            return draw_tokens({static_cast<const float*>(logits[launch]), rows.as<int32_t>(), 0,
                                temperatures.as<double>(), top_ps.as<double>(), min_ps.as<double>(),
                                top_ks.as<int32_t>(), numbers.as<double>(), tokens.as<int32_t>(),
                                logprobs.as<float>(), kRows, static_cast<int32_t>(kVocabulary), filtered},
                               nullptr);
          }};
}

}  // namespace

std::vector<Row> decode_rows() {
  std::vector<Row> rows{{"decode rms_norm with residual", norm},
                        {"decode split_heads", heads},
                        {"decode paged_attention of 290 tokens", paged},
                        {"decode sampler", [] { return sampler(Fill::kFloat); }}};
  // Rows that are flat, and rows as models write them.
  for (const auto& [fill, name] :
       {std::pair(Fill::kFloat, ""), std::pair(Fill::kPeakedLogits, " of peaked logits")}) {
    rows.push_back({std::string("decode sampler, top-k and top-p") + name,
                    [fill = fill] { return sampler(fill, 50, 0.95); }});
    rows.push_back(
        {std::string("decode sampler, top-p") + name, [fill = fill] { return sampler(fill, 0, 0.95); }});
  }
  for (const int32_t rank : {16, 64}) {
    const std::string name = " of rank " + std::to_string(rank);
    rows.push_back({"decode lora_norm of o, down" + name, [=] { return adapted_norm(rank); }});
    rows.push_back({"decode lora_swiglu" + name, [=] { return adapted_swiglu(rank); }});
    rows.push_back({"decode lora_heads" + name, [=] { return adapted_heads(rank); }});
  }
  return rows;
}

}  // namespace troupe::bench
