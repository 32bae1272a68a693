// Adapters of several policies in one batch of the rollout engine, on the CUDA kernels (lora.cu).
#include "kernels/cuda/cuda_kernels.h"

namespace troupe::kernels::cuda {
namespace {

// Columns of a fused product: q, k or v, gate or up.
struct Columns {
  int64_t begin, count;
};

// The terms of a batch, in as few launches as they fit into. Those of gate and up are of one.
class Launches {
 public:
  Launches(at::Tensor& y, const Adapters& adapters) : y_(y) {
    // Columns of x Aᵀ are counted from y's first: both are of one product.
    if (adapters.projected.defined())
      first_projected_ = (static_cast<const char*>(adapters.projected.const_data_ptr()) -
                          static_cast<const char*>(y.const_data_ptr())) /
                         static_cast<int64_t>(y.element_size());
  }

  // The adapters as they are. False: of some the product has not computed x Aᵀ, beside y.
  bool add_all(const Adapters& adapters) {
    for (const LoraRows& part : adapters.parts) {
      if (!is_projected(part, adapters)) return false;
      if (part.begin == part.end || part.linear->terms.empty()) continue;
      Lora& lora = with_room(part.linear->terms.size());
      for (const LoraTerm& term : part.linear->terms) add(lora, term, part);
    }
    return true;
  }
  // A term for each of `columns`, of rank 0 where the adapter has none. False: it has others.
  bool add(const LoraRows& part, std::span<const Columns> columns) {
    Lora& lora = with_room(columns.size());
    size_t found = 0;
    for (const Columns& wanted : columns) {
      const LoraTerm* own = nullptr;
      for (const LoraTerm& term : part.linear->terms) {
        if (term.begin == wanted.begin && term.b.size(0) == wanted.count) own = &term;
      }
      found += own != nullptr;
      if (own) {
        add(lora, *own, part);
      } else {
        lora.terms[lora.count++] = {nullptr,
                                    part.begin,
                                    part.end,
                                    0,
                                    static_cast<int32_t>(wanted.begin),
                                    static_cast<int32_t>(wanted.count),
                                    0,
                                    0};
      }
    }
    return found == part.linear->terms.size();
  }
  size_t count() const { return launches_.size(); }
  bool all(const std::function<bool(const Lora&)>& holds) const {
    return std::ranges::all_of(launches_, holds);
  }
  void run(const char* what, const std::function<int(const Lora&)>& f) const {
    for (const Lora& lora : launches_) check(f(lora), what);
  }

 private:
  Lora& with_room(size_t terms) {
    TORCH_CHECK(terms <= kMaxTerms, "an adapter of ", terms, " terms in one product");
    if (launches_.empty() || static_cast<size_t>(launches_.back().count) + terms > kMaxTerms)
      launches_.push_back({y_.size(0), y_.size(1), y_.stride(0), y_.data_ptr(), 0, {}});
    return launches_.back();
  }
  void add(Lora& lora, const LoraTerm& term, const LoraRows& part) {
    lora.terms[lora.count++] = {term.b.data_ptr(),
                                part.begin,
                                part.end,
                                static_cast<int32_t>(term.a.size(0)),
                                static_cast<int32_t>(term.begin),
                                static_cast<int32_t>(term.b.size(0)),
                                static_cast<int32_t>(first_projected_ + term.projected),
                                static_cast<float>(part.linear->scale)};
  }

  at::Tensor& y_;
  int64_t first_projected_ = 0;
  std::vector<Lora> launches_;
};

bool fit(const at::Tensor& y, const Launches& launches) {
  return y.scalar_type() == at::kBFloat16 && launches.all([](const Lora& lora) { return lora_fits(lora); });
}

// Terms for every row and all of `columns`, so that what follows the sum can be computed with it. False: something has
// no such term.
bool cover(Launches& launches, const at::Tensor& y, const Adapters& adapters,
           std::span<const Columns> columns) {
  static const LoraLinear none;
  int64_t row = 0;
  const auto add = [&](const LoraRows& part) {
    if (part.begin == part.end) return true;
    const bool fits = part.begin >= row && is_projected(part, adapters) && launches.add(part, columns);
    row = part.end;
    return fits;
  };
  for (const LoraRows& part : adapters.parts) {
    if (!add({&none, row, std::max(row, part.begin)}) || !add(part)) return false;
  }
  return add({&none, row, y.size(0)}) && fit(y, launches);
}

}  // namespace

void CudaKernels::do_add_lora(at::Tensor& y, const Adapters& adapters) const {
  Launches launches(y, adapters);
  if (!launches.add_all(adapters) || !fit(y, launches)) return ReferenceKernels::do_add_lora(y, adapters);
  const On on(y);
  launches.run("lora", [&](const Lora& lora) { return cuda::lora(lora, on); });
}

at::Tensor CudaKernels::do_adapted_rms_norm(at::Tensor& x, at::Tensor& y, const Adapters& adapters,
                                            const at::Tensor& weight, double eps) const {
  const On on(y);
  at::Tensor normed = at::empty_like(x);
  Launches launches(y, adapters);
  const auto of = [&](const Lora& lora) {
    return LoraNorm{lora, x.data_ptr(), weight.const_data_ptr(), normed.data_ptr(), eps};
  };
  // A row is normed once, with all of its sum: by one launch.
  if (!launches.add_all(adapters) || !x.is_contiguous() || !fit(y, launches) || launches.count() != 1 ||
      !launches.all([&](const Lora& lora) { return lora_norm_fits(of(lora)); }))
    return ReferenceKernels::do_adapted_rms_norm(x, y, adapters, weight, eps);
  launches.run("lora_norm", [&](const Lora& lora) { return lora_norm(of(lora), on); });
  return normed;
}

at::Tensor CudaKernels::do_adapted_swiglu(at::Tensor& gate_up, const Adapters& adapters) const {
  const int64_t size = gate_up.size(1) / 2;
  const Columns columns[] = {{0, size}, {size, size}};
  Launches launches(gate_up, adapters);
  if (size % 8 != 0 || !cover(launches, gate_up, adapters, columns))
    return ReferenceKernels::do_adapted_swiglu(gate_up, adapters);
  const On on(gate_up);
  at::Tensor gated = at::empty({gate_up.size(0), size}, gate_up.options());
  launches.run("lora_swiglu", [&](const Lora& lora) { return lora_swiglu(lora, gated.data_ptr(), on); });
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
  Launches launches(qkv, adapters);
  if (!cover(launches, qkv, adapters, columns) ||
      !launches.all([&](const Lora& lora) { return lora_heads_fit(lora, heads); }))
    return ReferenceKernels::do_adapted_rotate_and_store(qkv, adapters, layout, norm, tables, store, layer,
                                                         plan);
  launches.run("lora_heads", [&](const Lora& lora) { return lora_heads(lora, heads, on); });
  return q;
}

}  // namespace troupe::kernels::cuda
