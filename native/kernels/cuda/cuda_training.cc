// Training on the CUDA kernels: norms, gates, the embedding's gradient, and attention over the tree.
#include "kernels/cuda/cuda_kernels.h"

namespace troupe::kernels::cuda {

const char* CudaKernels::name() const {
#ifdef TROUPE_CUDA
  return "cuda";
#else
  return "emulated";
#endif
}

void CudaKernels::do_embedding_backward(const at::Tensor& grad, const at::Tensor& tokens, Offsets groups,
                                        Tensors grad_weight) const {
  const On on(grad);
  const at::Tensor rows = grad.contiguous(), ids = tokens.to(at::kLong).contiguous();
  for_groups(groups, grad_weight, [&](const Groups& some, size_t) {
    check(cuda::embedding_backward(type_of(rows), rows.data_ptr(), ids.data_ptr<int64_t>(), rows.size(1),
                                   some, on),
          "embedding_backward");
  });
}

RmsNorm CudaKernels::do_rms_norm(at::Tensor x, const at::Tensor& residual, const at::Tensor& weight,
                                 double eps) const {
  // x changes with a residual: a copy of it would be lost.
  if (residual.defined() && x.stride(-1) != 1 && x.size(-1) > 1)
    return ReferenceKernels::do_rms_norm(x, residual, weight, eps);
  const On on(x);
  const at::Tensor plain = rows_contiguous(x), plain_weight = weight.contiguous();
  const at::Tensor plain_residual = residual.defined() ? rows_contiguous(residual) : residual;
  RmsNorm result{at::empty(x.sizes(), x.options()),
                 at::empty(x.sizes().slice(0, x.dim() - 1), x.options().dtype(wide_type(x)))};
  check(cuda::rms_norm({type_of(x), x.size(0), x.dim() == 3 ? x.size(1) : 1, x.size(-1), rows_of(plain),
                        rows_of(plain_residual), plain_weight.data_ptr(), result.y.data_ptr(),
                        result.rstd.data_ptr(), eps},
                       on),
        "rms_norm");
  return result;
}

at::Tensor CudaKernels::do_rms_norm_backward(const RmsNormGradient& gradient) const {
  const at::Tensor& x = gradient.x;
  const On on(x);
  const at::Tensor grad = rows_contiguous(gradient.grad), plain = rows_contiguous(x),
                   weight = gradient.weight.contiguous(), rstd = gradient.rstd.contiguous(),
                   add = gradient.add.defined() ? rows_contiguous(gradient.add) : gradient.add;
  at::Tensor out = gradient.out.defined() ? gradient.out : at::empty(x.sizes(), x.options());
  NormBackward norm{type_of(x),
                    x.size(0),
                    x.dim() == 3 ? x.size(1) : 1,
                    x.size(-1),
                    rows_of(grad),
                    rows_of(plain),
                    rows_of(add),
                    rows_of(out),
                    weight.data_ptr(),
                    rstd.data_ptr(),
                    {},
                    nullptr,
                    0};
  if (gradient.grad_weight.empty()) {
    check(cuda::rms_norm_backward(norm, on), "rms_norm_backward");
    return out;
  }
  norm.partials =
      norm_partials(longest_group(gradient.groups) * norm.heads, norm.rows * norm.heads, norm.size);
  const at::Tensor partial =
      at::empty({std::min<int64_t>(kMaxGroups, static_cast<int64_t>(gradient.grad_weight.size())),
                 norm.partials, norm.size},
                rstd.options());
  norm.partial = partial.data_ptr();
  for_groups(gradient.groups, gradient.grad_weight, [&](const Groups& some, size_t) {
    norm.groups = some;
    check(cuda::rms_norm_backward(norm, on), "rms_norm_backward");
  });
  return out;
}

at::Tensor CudaKernels::do_swiglu(const at::Tensor& gate_up) const {
  const On on(gate_up);
  const at::Tensor plain = gate_up.contiguous();
  at::Tensor y = at::empty({gate_up.size(0), gate_up.size(1) / 2}, gate_up.options());
  check(cuda::swiglu(type_of(gate_up), plain.data_ptr(), y.data_ptr(), y.size(0), y.size(1), on), "swiglu");
  return y;
}

at::Tensor CudaKernels::do_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) const {
  const On on(gate_up);
  const at::Tensor plain = gate_up.contiguous(), plain_grad = grad.contiguous();
  at::Tensor out = at::empty(gate_up.sizes(), gate_up.options());
  check(cuda::swiglu_backward(type_of(gate_up), plain_grad.data_ptr(), plain.data_ptr(), out.data_ptr(),
                              grad.size(0), grad.size(1), on),
        "swiglu_backward");
  return out;
}

namespace {

// Of a batch's rows, q, k and v each a tensor of its own.
SplitHeads heads_of(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                    const RotaryTables& tables, const TreePlan& plan, const at::Tensor& q,
                    const at::Tensor& k, const at::Tensor& v) {
  SplitHeads heads = split_heads_of(qkv, layout, norm, tables, plan.positions);
  heads.place = plan.place.data_ptr<int64_t>();
  heads.q = q.data_ptr();
  heads.k = k.data_ptr();
  heads.v = v.data_ptr();
  return heads;
}

}  // namespace

Heads CudaKernels::do_rotate_heads(const at::Tensor& qkv, const HeadLayout& layout, const HeadNorm& norm,
                                   const RotaryTables& tables, const TreePlan& plan) const {
  const On on(qkv);
  Heads heads{at::empty({qkv.size(0), layout.query_heads, layout.dim}, qkv.options()),
              at::empty({qkv.size(0), layout.key_heads, layout.dim}, qkv.options()),
              at::empty({qkv.size(0), layout.key_heads, layout.dim}, qkv.options()),
              {},
              {}};
  check(split_heads(heads_of(qkv, layout, norm, tables, plan, heads.q, heads.k, heads.v), on), "split_heads");
  return heads;
}

at::Tensor CudaKernels::do_rotate_heads_backward(HeadsGradient& gradient, const at::Tensor& qkv, const Heads&,
                                                 const HeadLayout& layout, const HeadNorm& norm,
                                                 const RotaryTables& tables, const TreePlan& plan,
                                                 Offsets groups, Tensors grad_q_norm,
                                                 Tensors grad_k_norm) const {
  const On on(qkv);
  const at::Tensor q = gradient.q.contiguous(), k = gradient.k.contiguous(), v = gradient.v.contiguous();
  at::Tensor out = at::empty(qkv.sizes(), qkv.options());
  HeadsBackward args{heads_of(qkv, layout, norm, tables, plan, q, k, v), out.data_ptr(), {}, {}, nullptr, 0};
  if (!norm.defined() || grad_q_norm.empty()) {
    check(split_heads_backward(args, on), "split_heads_backward");
    return out;
  }
  args.partials = heads_partials(longest_group(groups), qkv.size(0));
  const at::Tensor partial = at::empty(
      {std::min<int64_t>(kMaxGroups, static_cast<int64_t>(grad_q_norm.size())), args.partials, 2, layout.dim},
      qkv.options().dtype(wide_type(qkv)));
  args.partial = partial.data_ptr();
  for_groups(groups, grad_q_norm, [&](const Groups& some, size_t first) {
    args.q_groups = args.k_groups = some;
    for (int32_t i = 0; i < some.count; ++i) args.k_groups.target[i] = grad_k_norm[first + i].data_ptr();
    check(split_heads_backward(args, on), "split_heads_backward");
  });
  return out;
}

namespace {

at::Tensor rows_of_call(const at::Tensor& x, int64_t begin, int64_t rows) { return x.narrow(0, begin, rows); }

// a and b [T, …], which are in the batch's order, breadth first; themselves where that is the same.
std::pair<at::Tensor, at::Tensor> in_tree_order(const at::Tensor& a, const at::Tensor& b,
                                                const TreePlan& plan, Stream stream) {
  const at::Tensor x[] = {a.contiguous(), b.contiguous()};
  if (plan.in_order) return {x[0], x[1]};
  const at::Tensor out[] = {at::empty(a.sizes(), a.options()), at::empty(b.sizes(), b.options())};
  const int64_t bytes = plan.rows == 0 ? 0 : static_cast<int64_t>(x[0].nbytes()) / plan.rows;
  check(gather_rows({{x[0].data_ptr(), x[1].data_ptr()},
                     {out[0].data_ptr(), out[1].data_ptr()},
                     plan.order.data_ptr<int64_t>(),
                     plan.rows,
                     bytes},
                    stream),
        "gather_rows");
  return {out[0], out[1]};
}

// Rows from `begin` on.
struct Placed {
  at::Tensor rows;
  int64_t begin;
};

// The parts of a gradient like `like`.
struct Summands {
  const at::Tensor& like;
  std::vector<Placed> parts;
};

// Each one's parts added up, rounded once.
std::vector<at::Tensor> totals(std::span<const Summands> all, Stream stream) {
  std::vector<at::Tensor> results;
  const size_t parts = all[0].parts.size();  // as many as the others have
  if (parts == 1) {
    for (const Summands& one : all) results.push_back(one.parts[0].rows);
    return results;
  }
  if (parts > kMaxParts) {  // of a tree of 7 levels or more
    for (const auto& [like, placed] : all) {
      const at::Tensor sum = at::zeros(like.sizes(), like.options().dtype(wide_type(like)));
      for (const Placed& part : placed) sum.narrow(0, part.begin, part.rows.size(0)).add_(part.rows);
      results.push_back(sum.to(like.scalar_type()));
    }
    return results;
  }
  std::vector<SumParts> sums;
  for (const auto& [like, placed] : all) {
    results.push_back(at::empty(like.sizes(), like.options()));
    SumParts sum{type_of(like), like.size(0), like.size(1) * like.size(2), 0, results.back().data_ptr(), {}};
    for (const Placed& part : placed)
      sum.parts[sum.count++] = {part.rows.data_ptr(), nullptr, part.begin, part.rows.size(0)};
    sums.push_back(sum);
  }
  check(sum_parts(sums.data(), static_cast<int>(sums.size()), stream), "sum_parts");
  return results;
}

// f(parts, count, whether they are the last) for at most kMaxParts parts at a time, once at least.
template <typename F>
void for_parts(const std::vector<AttentionPart>& parts, const F& f) {
  for (size_t begin = 0; begin == 0 || begin < parts.size(); begin += kMaxParts) {
    const size_t end = std::min<size_t>(parts.size(), begin + kMaxParts);
    f(std::span(parts).subspan(begin, end - begin), end == parts.size());
  }
}

}  // namespace

Attention CudaKernels::do_tree_attention(const Heads& heads, const TreePlan& plan, double scale) const {
  const On on(heads.q);
  const at::Tensor q = heads.q.contiguous(), k = heads.k.contiguous(), v = heads.v.contiguous();
  std::vector<FlashResult> results;
  std::vector<AttentionPart> parts;
  for (const TreeCall& call : plan.calls) {
    results.push_back(flash_attention(rows_of_call(q, call.query_begin, call.query_rows),
                                      rows_of_call(k, call.key_begin, call.key_rows),
                                      rows_of_call(v, call.key_begin, call.key_rows), call, scale));
    FlashResult& result = results.back();
    result = {result.out.contiguous(), result.logsumexp.contiguous()};
    if (results.size() > 1)
      parts.push_back(
          {result.out.data_ptr(), result.logsumexp.data_ptr(), call.query_begin, call.query_rows});
  }
  // In order, the parts are merged in place: one alone is the result.
  Attention merged{plan.in_order ? results[0].out : at::empty(q.sizes(), q.options()), results[0].logsumexp};
  if (plan.in_order && parts.empty()) return merged;
  for_parts(parts, [&](std::span<const AttentionPart> some, bool last) {
    MergeParts merge{type_of(q),
                     plan.rows,
                     static_cast<int32_t>(q.size(1)),
                     static_cast<int32_t>(q.size(2)),
                     static_cast<int32_t>(some.size()),
                     results[0].out.data_ptr(),
                     merged.logsumexp.data_ptr(),
                     last && !plan.in_order ? plan.order.data_ptr<int64_t>() : nullptr,
                     merged.out.data_ptr(),
                     {}};
    std::copy(some.begin(), some.end(), merge.parts);
    check(merge_parts(merge, on), "merge_parts");
  });
  return merged;
}

HeadsGradient CudaKernels::do_tree_attention_backward(const at::Tensor& grad, const Heads& heads,
                                                      const Attention& forward, const TreePlan& plan,
                                                      double scale) const {
  const On on(heads.q);
  const at::Tensor q = heads.q.contiguous(), k = heads.k.contiguous(), v = heads.v.contiguous();
  const auto [out_grad, out] = in_tree_order(grad, forward.out, plan, on);
  Summands sums[] = {{q, {}}, {k, {}}, {v, {}}};
  for (const TreeCall& call : plan.calls) {
    const auto queries = [&](const at::Tensor& x) {
      return rows_of_call(x, call.query_begin, call.query_rows);
    };
    const auto keys = [&](const at::Tensor& x) { return rows_of_call(x, call.key_begin, call.key_rows); };
    const FlashResult merged{queries(out),
                             forward.logsumexp.narrow(1, call.query_begin, call.query_rows).contiguous()};
    FlashGradient result =
        flash_attention_backward(queries(out_grad), queries(q), keys(k), keys(v), merged, call, scale);
    sums[0].parts.push_back({result.q.contiguous(), call.query_begin});
    sums[1].parts.push_back({result.k.contiguous(), call.key_begin});
    sums[2].parts.push_back({result.v.contiguous(), call.key_begin});
  }
  const std::vector<at::Tensor> gradients = totals(sums, on);
  return {gradients[0], gradients[1], gradients[2], {}};
}

}  // namespace troupe::kernels::cuda
