// The varlen calls of flash attention: ATen's FA2 for bf16 on a GPU, the same arithmetic in plain operators
// elsewhere (float32 and float64, and the emulation), segment by segment.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/reference/dense_attention.h"

namespace troupe::kernels::cuda {
namespace {

bool has_flash(const at::Tensor& q) {
  return q.is_cuda() && q.scalar_type() == at::kBFloat16 && q.size(2) % 8 == 0 && q.size(2) <= 256;
}

// FA2 takes a call in which every query is alone for another one, which needs as many queries as segments.
int64_t longest_query(const TreeCall& call) { return std::max<int64_t>(2, call.longest_query); }

// f(queries' begin, end, keys' begin, end) of each segment that has both.
template <typename F>
void for_segments(const TreeCall& call, const F& f) {
  for (size_t s = 0; s + 1 < call.queries.size(); ++s) {
    if (call.queries[s] == call.queries[s + 1] || call.keys[s] == call.keys[s + 1]) continue;
    f(call.queries[s], call.queries[s + 1], call.keys[s], call.keys[s + 1]);
  }
}

FlashResult plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const TreeCall& call, double scale) {
  const int64_t heads = q.size(1);
  FlashResult result{at::zeros(q.sizes(), q.options()),
                     at::full({heads, q.size(0)}, INFINITY, q.options().dtype(wide_type(q)))};
  for_segments(call, [&](int64_t q_begin, int64_t q_end, int64_t k_begin, int64_t k_end) {
    const DenseAttention segment = dense_attention(
        heads_first(q.slice(0, q_begin, q_end)), heads_repeated(k.slice(0, k_begin, k_end), heads),
        heads_repeated(v.slice(0, k_begin, k_end), heads), call.causal, scale);
    result.logsumexp.slice(1, q_begin, q_end).copy_(segment.logsumexp);
    result.out.slice(0, q_begin, q_end).copy_(segment.out.transpose(0, 1));
  });
  return result;
}

FlashGradient plain_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& v, const FlashResult& forward, const TreeCall& call,
                             double scale) {
  const int64_t heads = q.size(1), key_heads = k.size(1);
  FlashGradient result{at::zeros(q.sizes(), q.options()), at::zeros(k.sizes(), k.options()),
                       at::zeros(v.sizes(), v.options())};
  for_segments(call, [&](int64_t q_begin, int64_t q_end, int64_t k_begin, int64_t k_end) {
    const auto queries = [&](const at::Tensor& x) { return heads_first(x.slice(0, q_begin, q_end)); };
    const auto keys = [&](const at::Tensor& x) { return heads_repeated(x.slice(0, k_begin, k_end), heads); };
    const DenseGradient segment = dense_attention_backward(
        queries(grad), queries(q), keys(k), keys(v),
        {queries(forward.out), forward.logsumexp.slice(1, q_begin, q_end)}, call.causal, scale);
    result.q.slice(0, q_begin, q_end).copy_(segment.q.transpose(0, 1));
    result.k.slice(0, k_begin, k_end).copy_(heads_folded(segment.k, key_heads));
    result.v.slice(0, k_begin, k_end).copy_(heads_folded(segment.v, key_heads));
  });
  return result;
}

}  // namespace

FlashResult flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const TreeCall& call, double scale) {
  if (!has_flash(q)) {
    FlashResult result;
    one_operator("troupe::flash_attention", {q, k, v}, [&] {
      result = plain_attention(q, k, v, call, scale);
      return std::vector{result.out, result.logsumexp};
    });
    return result;
  }
  auto result =
      at::_flash_attention_forward(q, k, v, call.device_queries, call.device_keys, longest_query(call),
                                   call.longest_key, /*dropout_p=*/0.0, call.causal,
                                   /*return_debug_mask=*/false, scale);
  at::Tensor logsumexp = std::get<1>(result);
  TORCH_CHECK(logsumexp.dim() == 2 && logsumexp.size(0) == q.size(1) && logsumexp.size(1) == q.size(0),
              "flash attention's logsumexp should be [heads, rows] = [", q.size(1), ", ", q.size(0),
              "], not ", logsumexp.sizes(),
              ": this libtorch is not one of those that Troupe knows (2.11 to 2.14)");
  return {std::get<0>(result), std::move(logsumexp)};
}

FlashGradient flash_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                       const at::Tensor& v, const FlashResult& forward, const TreeCall& call,
                                       double scale) {
  if (!has_flash(q)) {
    FlashGradient result;
    one_operator("troupe::flash_attention_backward", {grad, q, k, v, forward.out, forward.logsumexp}, [&] {
      result = plain_backward(grad, q, k, v, forward, call, scale);
      return std::vector{result.q, result.k, result.v};
    });
    return result;
  }
  // Without dropout there is no state of random numbers; the operator wants tensors all the same.
  const at::Tensor seed = at::empty({2}, q.options().dtype(at::kUInt64)),
                   unused = at::empty({}, seed.options());
  auto [grad_q, grad_k, grad_v] = at::_flash_attention_backward(
      grad, q, k, v, forward.out, forward.logsumexp, call.device_queries, call.device_keys,
      longest_query(call), call.longest_key, /*dropout_p=*/0.0, call.causal, seed, unused, scale);
  return {std::move(grad_q), std::move(grad_k), std::move(grad_v)};
}

}  // namespace troupe::kernels::cuda
