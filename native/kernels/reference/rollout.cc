// The reference's KV store and attention over its pages: [layers, 2, pages, kv_heads, 16, D], keys then
// values.
#include "kernels/reference/heads.h"
#include "kernels/reference/reference.h"

namespace troupe::kernels {
namespace {

// Keys (0) or values (1) of a layer, [pages, kv_heads, 16, D].
at::Tensor part_of(const KvStore& store, int64_t layer, int64_t which) {
  return store.data.select(0, layer).select(0, which);
}

// Keys or values of positions [0, length) behind a page table, one head for each query head, widened:
// [Hq, length, D].
at::Tensor gathered(const at::Tensor& part, const at::Tensor& pages, int64_t length, int64_t repeat) {
  const at::Tensor blocks = part.index_select(0, pages);  // [n, Hkv, 16, D]
  return blocks.transpose(0, 1)
      .flatten(1, 2)
      .narrow(1, 0, length)
      .to(wide_type(part))
      .repeat_interleave(repeat, 0);
}

// f(begin, end) for runs of neighbouring rows for which same(row, next) holds.
template <typename Same, typename F>
void for_runs(int64_t rows, const Same& same, const F& f) {
  for (int64_t begin = 0; begin < rows;) {
    int64_t end = begin + 1;
    while (end < rows && same(begin, end)) ++end;
    f(begin, end);
    begin = end;
  }
}

}  // namespace

KvStore ReferenceKernels::do_make_kv_store(const KvShape& shape, int64_t pages) const {
  const auto options = at::TensorOptions().dtype(shape.dtype).device(shape.device);
  return {shape, pages,
          at::empty({shape.layers, 2, pages, shape.kv_heads, kPageTokens, shape.head_dim}, options)};
}

int64_t ReferenceKernels::do_kv_page_elements(const KvShape& shape) const {
  return shape.layers * 2 * shape.kv_heads * kPageTokens * shape.head_dim;
}

void ReferenceKernels::do_copy_kv_pages(KvStore& store, PageCopies copies) const {
  for (const auto& [from, to] : copies) store.data.select(2, to).copy_(store.data.select(2, from));
}

void ReferenceKernels::do_discard_kv_pages(KvStore&, std::span<const int32_t>) const {}

void ReferenceKernels::plan_rows(RowPlan&) const {}

at::Tensor ReferenceKernels::do_rotate_and_store(const at::Tensor& qkv, const HeadLayout& layout,
                                                 const HeadNorm& norm, const RotaryTables& tables,
                                                 KvStore& store, int64_t layer, const RowPlan& plan) const {
  Heads heads = split_heads(qkv, layout);
  if (norm.defined()) {
    heads.q = do_rms_norm(heads.q, {}, norm.q, norm.eps).y;
    heads.k = do_rms_norm(heads.k, {}, norm.k, norm.eps).y;
  }
  const at::Tensor& positions = plan.device.positions;
  const at::Tensor k = rotated(heads.k, positions, tables, /*inverse=*/false);
  const auto writes = [&](int64_t row) { return plan.slots[row] >= 0; };
  for_runs(
      plan.rows(), [&](int64_t a, int64_t b) { return writes(a) == writes(b); },
      [&](int64_t begin, int64_t end) {
        if (!writes(begin)) return;
        const at::Tensor slots = plan.device.slots.slice(0, begin, end).to(at::kLong);
        const at::Tensor pages = slots.div(kPageTokens, "floor"), places = slots.remainder(kPageTokens);
        for (const auto& [which, rows] : {std::pair{0, k}, std::pair{1, heads.v}}) {
          part_of(store, layer, which).transpose(1, 2).index_put_({pages, places}, rows.slice(0, begin, end));
        }
      });
  return rotated(heads.q, positions, tables, /*inverse=*/false);
}

at::Tensor ReferenceKernels::do_paged_attention(const at::Tensor& q, const KvStore& store, int64_t layer,
                                                const RowPlan& plan, double scale) const {
  const int64_t heads = q.size(1), dim = q.size(2), repeat = heads / store.shape.kv_heads;
  at::Tensor out = at::empty({q.size(0), heads * dim}, q.options());
  for_runs(
      plan.rows(), [&](int64_t a, int64_t b) { return plan.tables[a] == plan.tables[b]; },
      [&](int64_t begin, int64_t end) {
        const auto last = std::max_element(plan.positions.begin() + begin, plan.positions.begin() + end);
        const int64_t length = *last + 1, pages = (length + kPageTokens - 1) / kPageTokens;
        const at::Tensor table = plan.device.pages.select(0, plan.tables[begin]).narrow(0, 0, pages);
        const at::Tensor keys = gathered(part_of(store, layer, 0), table, length, repeat);
        const at::Tensor values = gathered(part_of(store, layer, 1), table, length, repeat);
        const at::Tensor queries = q.slice(0, begin, end).transpose(0, 1).to(wide_type(q));  // [Hq, rows, D]
        const at::Tensor own = plan.device.positions.slice(0, begin, end).unsqueeze(1);
        const at::Tensor unseen = at::arange(length, own.options()).unsqueeze(0) > own;
        const at::Tensor scores =
            at::bmm(queries, keys.transpose(1, 2)).mul_(scale).masked_fill_(unseen, -INFINITY);
        const at::Tensor result = at::bmm(at::softmax(scores, -1), values).transpose(0, 1);
        out.slice(0, begin, end).copy_(result.reshape({end - begin, heads * dim}));
      });
  return out;
}

void ReferenceKernels::do_sample(const at::Tensor& all_logits, int64_t first_output, const RowPlan& plan,
                                 int64_t begin, int64_t end, at::Tensor samples) const {
  const auto& device = plan.device;
  const auto column = [&](const at::Tensor& x) { return x.slice(0, begin, end).unsqueeze(1); };
  const at::Tensor rows = device.draws.slice(0, begin, end).sub(first_output);
  const at::Tensor logits = all_logits.index_select(0, rows).to(at::kDouble);  // [draws, V]
  const at::Tensor set = column(device.temperatures), greedy = set.eq(0);
  const at::Tensor temperature = set.masked_fill(greedy, 1);
  const at::Tensor highest = logits.amax(-1, /*keepdim=*/true);
  const at::Tensor scaled = logits.sub(highest).div_(temperature);
  const at::Tensor weights = scaled.exp();
  const at::Tensor total = weights.sum(-1, /*keepdim=*/true);

  // Likeliest first; of equals the smaller id.
  const auto [sorted, ids] = at::sort(weights, /*stable=*/true, -1, /*descending=*/true);
  const at::Tensor place = at::arange(logits.size(1), ids.options()).unsqueeze(0);
  const at::Tensor top_k = column(device.top_ks), top_p = column(device.top_ps),
                   min_p = column(device.min_ps);
  at::Tensor kept = place.lt(top_k).logical_or_(top_k.eq(0));
  const at::Tensor left = sorted.mul(kept);
  const at::Tensor before = left.cumsum(-1).sub_(left);
  const at::Tensor mass = left.sum(-1, /*keepdim=*/true);
  kept.logical_and_(before.lt(top_p.mul(mass)).logical_or_(top_p.ge(1)).logical_or_(place.eq(0)));
  kept.logical_and_(sorted.ge(min_p).logical_or_(place.eq(0)));
  const at::Tensor filtered = top_k.gt(0).logical_or_(top_p.lt(1)).logical_or_(min_p.gt(0));

  const at::Tensor walk = at::where(filtered, sorted.mul(kept), weights);
  const at::Tensor walk_ids = at::where(filtered, ids, place);
  const at::Tensor sums = walk.cumsum(-1);
  const at::Tensor target = column(device.uniforms).mul(walk.sum(-1, /*keepdim=*/true));
  // The first whose sum lies above the target; rounding may leave none: then the last possible one.
  const at::Tensor last = walk.gt(0).mul(place).amax(-1, /*keepdim=*/true);
  const at::Tensor chosen = at::minimum(sums.le(target).sum(-1, /*keepdim=*/true), last);
  at::Tensor token = at::where(greedy, ids.narrow(1, 0, 1), walk_ids.gather(1, chosen));
  const at::Tensor logprob = scaled.gather(1, token).sub_(total.log());
  token = token.masked_fill(at::isfinite(total).logical_and_(at::isfinite(highest)).logical_not(), -1);
  samples.select(0, 0).copy_(token.squeeze(1));
  samples.select(0, 1).copy_(logprob.squeeze(1).to(at::kFloat).view(at::kInt));
}

void ReferenceKernels::do_take_drawn(const at::Tensor& ids, at::Tensor tokens) const {
  const at::Tensor draws = tokens.neg().sub_(1).clamp_(0, ids.size(0) - 1);
  tokens.copy_(at::where(tokens.lt(0), ids.index_select(0, draws).clamp_min_(0), tokens));
}

}  // namespace troupe::kernels
