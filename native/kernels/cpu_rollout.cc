// Rollout's operations on the CPU: the KV slab, attention over its pages, the sampler.
#include <ATen/Parallel.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>

#include "kernels/cpu_kernels.h"
#include "kernels/reference/heads.h"

namespace troupe::kernels {
namespace {

// A page: [layers, kv_heads, block]; the slab: [pages, layers, kv_heads, block].
cpu::Pages layer_of(const KvStore& store, int64_t layer) {
  const KvShape& shape = store.shape;
  cpu::Pages pages{shape.dtype, nullptr, store.data.stride(0), shape.kv_heads, shape.head_dim};
  pages.data = static_cast<char*>(store.data.data_ptr()) +
               layer * shape.kv_heads * pages.block() * static_cast<int64_t>(store.data.element_size());
  return pages;
}

cpu::PagedRows rows_of(const RowPlan& plan) {
  return {plan.rows(),       plan.positions.data(), plan.tables.data(),
          plan.pages.data(), plan.table_width,      plan.slots.data()};
}

// Memory that is taken from the system where it is touched, and only then.
at::Tensor lazy_memory(int64_t elements, at::ScalarType dtype) {
  const auto bytes = static_cast<size_t>(elements) * c10::elementSize(dtype);
  if (bytes == 0) return at::empty({0}, dtype);
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TORCH_CHECK_WITH(OutOfMemoryError, memory != MAP_FAILED, "cannot allocate memory: the system refused ",
                   bytes, " bytes for the KV cache");
#ifdef MADV_HUGEPAGE
  madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return at::from_blob(
      memory, {elements}, [bytes](void* begin) { munmap(begin, bytes); }, dtype);
}

}  // namespace

int64_t CpuKernels::do_kv_page_elements(const KvShape& shape) const {
  const cpu::Pages pages{shape.dtype, nullptr, 0, shape.kv_heads, shape.head_dim};
  return shape.layers * shape.kv_heads * pages.block();
}

KvStore CpuKernels::do_make_kv_store(const KvShape& shape, int64_t pages) const {
  const int64_t elements = do_kv_page_elements(shape);
  return {shape, pages, lazy_memory(pages * elements, shape.dtype).view({pages, elements})};
}

void CpuKernels::do_copy_kv_pages(KvStore& store, PageCopies copies) const {
  auto* const pages = static_cast<char*>(store.data.data_ptr());
  const int64_t bytes = kv_page_bytes(store.shape);
  at::parallel_for(0, static_cast<int64_t>(copies.size()), 1, [&](int64_t begin, int64_t end) {
    for (const auto& [from, to] : copies.subspan(begin, end - begin))
      std::memcpy(pages + to * bytes, pages + from * bytes, bytes);
  });
}

void CpuKernels::do_discard_kv_pages(KvStore& store, std::span<const int32_t> pages) const {
  const auto unit = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto bytes = static_cast<uintptr_t>(store.data.stride(0)) * store.data.element_size();
  const auto base = reinterpret_cast<uintptr_t>(store.data.data_ptr());
  // Neighbouring pages at once: what lies between their first and last whole page of the system.
  for (size_t i = 0; i < pages.size();) {
    size_t next = i + 1;
    while (next < pages.size() && pages[next] == pages[next - 1] + 1) ++next;
    const uintptr_t begin = (base + pages[i] * bytes + unit - 1) / unit * unit;
    const uintptr_t end = (base + (pages[next - 1] + 1) * bytes) / unit * unit;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    i = next;
  }
}

at::Tensor CpuKernels::do_rotate_and_store(const at::Tensor& qkv, const HeadLayout& layout,
                                           const HeadNorm& norm, const RotaryTables& tables, KvStore& store,
                                           int64_t layer, const RowPlan& plan) const {
  Heads heads = split_heads(qkv, layout);
  if (norm.defined()) {
    heads.q = do_rms_norm(heads.q, {}, norm.q, norm.eps).y;
    heads.k = do_rms_norm(heads.k, {}, norm.k, norm.eps).y;
  }
  // Without norms in place: nobody reads the raw product again.
  rotate(heads.q, plan.device.positions, tables, /*inverse=*/false);
  rotate(heads.k, plan.device.positions, tables, /*inverse=*/false);
  table_.store_keys_values(layer_of(store, layer), rows_of(plan), view_of(heads.k), view_of(heads.v));
  return heads.q;
}

at::Tensor CpuKernels::do_paged_attention(const at::Tensor& q, const KvStore& store, int64_t layer,
                                          const RowPlan& plan, double scale) const {
  const at::Tensor plain = rows_contiguous(q);
  at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  table_.paged_attention(layer_of(store, layer), rows_of(plan), q.size(1), scale, view_of(plain),
                         out.data_ptr());
  return out;
}

void CpuKernels::do_sample(const at::Tensor& logits, int64_t first_output, const RowPlan& plan, int64_t begin,
                           int64_t end, at::Tensor samples) const {
  const int64_t vocabulary = logits.size(1);
  const at::Tensor plain = rows_contiguous(logits);
  auto* const ids = samples.select(0, 0).mutable_data_ptr<int32_t>();
  auto* const logprobs = samples.select(0, 1).mutable_data_ptr<int32_t>();
  const auto* const first = static_cast<const char*>(plain.const_data_ptr());
  const auto row_bytes = plain.stride(0) * static_cast<int64_t>(plain.element_size());
  const int64_t grain = 1 + 16'384 / vocabulary;
  at::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const Sampling& sampling = plan.sampling[i];
      const cpu::DrawnToken drawn = table_.sample(
          plain.scalar_type(), first + (plan.draws[i] - first_output) * row_bytes, vocabulary,
          {sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, plan.uniforms[i]});
      ids[i - begin] = drawn.token;
      logprobs[i - begin] = std::bit_cast<int32_t>(static_cast<float>(drawn.logprob));
    }
  });
}

}  // namespace troupe::kernels
