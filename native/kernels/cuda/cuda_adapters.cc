// Adapters of several policies in one batch of the rollout engine, on the CUDA kernels (lora.cu).
#include "kernels/cuda/cuda_kernels.h"

namespace troupe::kernels::cuda {
namespace {

// Up to so many rows times rank own kernels take less time than ATen's products, one for all A and one for each B, on the
// tensor cores and without them (docs/cuda.md, "Adapters in one launch").
constexpr int64_t kFewOnTensorCores = 1024 * kMostFusedRank, kFewWithout = 256 * 16;

// null: no adapter, to which any number of rows are few.
bool few(int64_t rows, const LoraLinear* linear) {
  if (!linear || linear->terms.empty()) return true;
  const at::Tensor& a = linear->terms[0].a;
  const int64_t rank = a.size(0);
  const bool tensor_cores = a.scalar_type() == at::kBFloat16 && rank % 4 == 0 && rank <= kMostFusedRank;
  return rows * rank <= (tensor_cores ? kFewOnTensorCores : kFewWithout);
}

// Columns of a fused product: q, k or v, gate or up.
struct Columns {
  int64_t begin, count;
};

// The terms of a batch, in as few launches as they fit into. Terms that are added together are of one launch.
class Launches {
 public:
  Launches(const at::Tensor& y, const at::Tensor& x) : y_(y), x_(x) {}

  void add(const LoraRows& part) {
    Lora& lora = with_room(part.linear->terms.size());
    int32_t projected = 0;
    for (const LoraTerm& term : part.linear->terms)
      add(lora, term, part.linear->scale, part.begin, part.end, projected);
  }
  // A term for each of `columns`, of rank 0 where the adapter (null: none) has none. False: it has others.
  bool add(const LoraLinear* linear, int64_t begin, int64_t end, std::span<const Columns> columns) {
    Lora& lora = with_room(columns.size());
    size_t found = 0;
    int32_t projected = 0;
    for (const Columns& wanted : columns) {
      const LoraTerm* own = nullptr;
      for (size_t i = 0; linear && i < linear->terms.size(); ++i) {
        const LoraTerm& term = linear->terms[i];
        if (term.begin == wanted.begin && term.b.size(0) == wanted.count) own = &term;
      }
      found += own != nullptr;
      if (own) {
        add(lora, *own, linear->scale, begin, end, projected);
      } else {
        lora.terms[lora.count++] = {nullptr,
                                    nullptr,
                                    begin,
                                    end,
                                    0,
                                    static_cast<int32_t>(wanted.begin),
                                    static_cast<int32_t>(wanted.count),
                                    0,
                                    0};
      }
    }
    return !linear || found == linear->terms.size();
  }
  bool all(const std::function<bool(const Lora&)>& holds) const {
    return std::ranges::all_of(launches_, holds);
  }

  // Calls f(lora) for each launch, which then has all that it needs.
  template <typename F>
  void run(const RowPlan& plan, const char* what, const F& f) {
    for (Lora& lora : launches_) {
      TORCH_CHECK(plan.device.counters.defined() && lora_counters(lora) <= plan.device.counters.numel(),
                  "the step's plan has too few counters for its adapters");
      const at::Tensor projected =
          at::empty({lora_splits(lora), x_.size(0), lora.projected_width}, x_.options().dtype(wide_type(x_)));
      lora.projected = projected.data_ptr();
      lora.counters = reinterpret_cast<uint32_t*>(plan.device.counters.data_ptr<int32_t>());
      check(f(lora), what);
    }
  }

 private:
  Lora& with_room(size_t terms) {
    TORCH_CHECK(terms <= kMaxTerms, "an adapter of ", terms, " terms in one product");
    if (launches_.empty() || static_cast<size_t>(launches_.back().count) + terms > kMaxTerms)
      launches_.push_back({type_of(x_),
                           x_.size(0),
                           x_.size(1),
                           y_.size(1),
                           x_.data_ptr(),
                           y_.data_ptr(),
                           nullptr,
                           nullptr,
                           0,
                           0,
                           {}});
    return launches_.back();
  }
  static void add(Lora& lora, const LoraTerm& term, double scale, int64_t begin, int64_t end,
                  int32_t& projected) {
    TORCH_CHECK(term.a.is_contiguous() && term.b.is_contiguous(), "an adapter's A and B must be contiguous");
    const auto rank = static_cast<int32_t>(term.a.size(0));
    lora.terms[lora.count++] = {term.a.data_ptr(),
                                term.b.data_ptr(),
                                begin,
                                end,
                                rank,
                                static_cast<int32_t>(term.begin),
                                static_cast<int32_t>(term.b.size(0)),
                                projected,
                                scale};
    projected += rank;
    lora.projected_width = std::max(lora.projected_width, projected);
  }

  const at::Tensor &y_, &x_;
  std::vector<Lora> launches_;
};

// Terms for every row and all of `columns`, so that what follows the sum can be computed with it. False: something has
// no such term, or many rows, for which these kernels are not the fastest.
bool cover(Launches& launches, const Adapters& adapters, std::span<const Columns> columns) {
  int64_t row = 0;
  bool some = false;
  const auto add = [&](const LoraLinear* linear, int64_t begin, int64_t end, bool always) {
    if (begin == end) return true;
    row = end;
    return (always || few(end - begin, linear)) && launches.add(linear, begin, end, columns);
  };
  for (const LoraRows& part : adapters.parts) {
    if (part.begin == part.end) continue;
    if (part.begin < row || !add(nullptr, row, part.begin, false) ||
        !add(part.linear, part.begin, part.end, part.always_fused))
      return false;
    some = some || !part.linear->terms.empty();
  }
  return some && add(nullptr, row, adapters.x.size(0), false) &&
         launches.all([](const Lora& lora) { return lora_fits(lora); });
}

}  // namespace

void CudaKernels::do_add_lora(at::Tensor& y, const Adapters& adapters, const RowPlan& plan) const {
  const On on(adapters.x);
  Launches launches(y, adapters.x);
  for (const LoraRows& part : adapters.parts) {
    if (part.begin == part.end || part.linear->terms.empty()) continue;
    if (few(part.end - part.begin, part.linear) || part.always_fused) {
      launches.add(part);
    } else {
      at::Tensor rows = y.slice(0, part.begin, part.end);
      do_lora(rows, adapters.x.slice(0, part.begin, part.end), *part.linear);
    }
  }
  launches.run(plan, "lora", [&](const Lora& lora) { return cuda::lora(lora, on); });
}

at::Tensor CudaKernels::do_adapted_swiglu(at::Tensor& gate_up, const Adapters& adapters,
                                          const RowPlan& plan) const {
  const int64_t size = gate_up.size(1) / 2;
  const Columns columns[] = {{0, size}, {size, size}};
  Launches launches(gate_up, adapters.x);
  if (size % 8 != 0 || !cover(launches, adapters, columns))
    return ReferenceKernels::do_adapted_swiglu(gate_up, adapters, plan);
  const On on(gate_up);
  at::Tensor gated = at::empty({gate_up.size(0), size}, gate_up.options());
  launches.run(plan, "lora_swiglu",
               [&](const Lora& lora) { return lora_swiglu(lora, gated.data_ptr(), on); });
  return gated;
}

at::Tensor CudaKernels::do_adapted_rotate_and_store(at::Tensor& qkv, const Adapters& adapters,
                                                    const HeadLayout& layout, const HeadNorm& norm,
                                                    const RotaryTables& tables, KvStore& store, int64_t layer,
                                                    const RowPlan& plan) const {
  const int64_t queries = layout.query_heads * layout.dim, keys = layout.key_heads * layout.dim;
  const Columns columns[] = {{0, queries}, {queries, keys}, {queries + keys, keys}};
  const On on(qkv);
  at::Tensor q = at::empty({qkv.size(0), layout.query_heads, layout.dim}, qkv.options());
  const SplitHeads heads = stored_heads(qkv, q, layout, norm, tables, store, layer, plan);
  Launches launches(qkv, adapters.x);
  if (!cover(launches, adapters, columns) ||
      !launches.all([&](const Lora& lora) { return lora_heads_fit(lora, heads); }))
    return ReferenceKernels::do_adapted_rotate_and_store(qkv, adapters, layout, norm, tables, store, layer,
                                                         plan);
  launches.run(plan, "lora_heads", [&](const Lora& lora) { return lora_heads(lora, heads, on); });
  return q;
}

}  // namespace troupe::kernels::cuda
