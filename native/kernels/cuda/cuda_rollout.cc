// The rollout engine on the CUDA kernels: keys and values stored by the kernel that rotates them, attention
// over pages, the sampler.
#include <cstring>
#include <type_traits>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/paged_plan.h"
#include "kernels/cuda/product_candidates.h"

namespace troupe::kernels::cuda {
namespace {

// Partial results of attention that exist at a time: 0.27 GB with 32 heads of 128.
constexpr int64_t kMostPartials = 16'384;

// What a step's launches depend on, in the plan's `launch` numbers: one header, then its chunks. Offsets count the
// numbers of the plan's `extra`, which go to the kernels: tiles, runs, members, starts.
struct StepLaunch {
  int32_t group, rows, runs, members, starts;
  int32_t filtered;  // 1: some draw filters
};
using Chunk = PagedPlan::Chunk;

template <typename T>
void append(std::vector<int32_t>& to, const T* values, size_t count) {
  static_assert(sizeof(T) % 4 == 0 && std::is_trivially_copyable_v<T>);
  const auto* const numbers = reinterpret_cast<const int32_t*>(values);
  to.insert(to.end(), numbers, numbers + count * sizeof(T) / 4);
}

StepLaunch header_of(const RowPlan& plan) {
  StepLaunch header;
  TORCH_CHECK(plan.launch.size() * 4 >= sizeof header, "the step's plan was not made by these kernels");
  std::memcpy(&header, plan.launch.data(), sizeof header);
  return header;
}

std::vector<Chunk> chunks_of(const RowPlan& plan) {
  std::vector<Chunk> chunks((plan.launch.size() * 4 - sizeof(StepLaunch)) / sizeof(Chunk));
  std::memcpy(chunks.data(), plan.launch.data() + sizeof(StepLaunch) / 4, chunks.size() * sizeof(Chunk));
  return chunks;
}

// The next of 64, 72, …, 128, 144, …, 256, …: at most an eighth more.
int32_t rounded_up(size_t count) {
  size_t quantum = 8;
  while (quantum * 16 < count) quantum *= 2;
  return static_cast<int32_t>((std::max<size_t>(count, 64) + quantum - 1) / quantum * quantum);
}

// Steps of about the same size then launch the same. A tile without rows does nothing. False: they would not, as
// where chunks end depends on the rows.
bool round_up(PagedPlan& work) {
  if (work.chunks.size() != 1) return false;
  work.tiles.resize(rounded_up(work.tiles.size()), PagedTile{});
  work.runs.resize(rounded_up(work.runs.size()), PagedRun{});
  work.members.resize(rounded_up(work.members.size()), PagedMember{});
  Chunk& chunk = work.chunks.front();
  chunk.tile_end = static_cast<int32_t>(work.tiles.size());
  if (chunk.partial_end > 0) chunk.partial_end = rounded_up(chunk.partial_end);  // else nothing is merged
  return true;
}

bool filters(const Sampling& one) {
  return one.temperature > 0 && (one.top_k > 0 || one.top_p < 1 || one.min_p > 0);
}

bool has_paged_tiles(Type type, int32_t size) {
  bool fits = false;
  check(paged_attention_fits(type, size, fits), "paged_attention");
  return fits;
}

}  // namespace

bool CudaKernels::records(const KvShape& shape) const {
  // Larger heads and fp64 take ATen's operators, which read the plan on the host.
  return shape.head_dim <= 256 && shape.dtype != at::kDouble;
}

std::vector<std::string> CudaKernels::slow_paths(const KvShape& shape) const {
  if (shape.dtype != at::kBFloat16)
    return {};  // these kernels are for bf16: its user knows what other types take
  const On on(at::empty({0}, at::TensorOptions().dtype(shape.dtype).device(shape.device)));
  std::vector<std::string> slow;
  const auto size = static_cast<int32_t>(shape.head_dim);
  const std::string heads = "heads of " + std::to_string(size);
  if (size > 256)
    slow.push_back("decoding attends by plain operators: no kernel takes " + heads + ", more than 256.");
  else if (!has_paged_tiles(Type::kBf16, size))
    slow.push_back(
        "decoding attends row by row, without tensor cores: they are for heads of 64, 128 and 256 that "
        "fit into a block's shared memory, and " +
        heads + " are not, on this device.");
  if (const std::string problem = no_product_candidates(); !problem.empty())
    slow.emplace_back(
        c10::str("the products of decoding are what cuBLAS takes first, without a choice: ", problem, "."));
  if (!accumulates_in_place(shape.device))
    slow.emplace_back(
        "gradients of weights are added up in two passes: this libtorch refuses to add a product of "
        "bf16 numbers to fp32 ones in place.");
  return slow;
}

void CudaKernels::plan_rows(RowPlan& plan) const {
  PagedPlan work = plan_paged(plan.tables, plan.positions, plan.slots, plan.pages, plan.table_width,
                              static_cast<int32_t>(plan.query_group), kMostPartials);
  if (plan.repeatable) plan.repeatable = round_up(work);
  append(plan.extra, work.tiles.data(), work.tiles.size());
  const auto runs = static_cast<int32_t>(plan.extra.size());
  append(plan.extra, work.runs.data(), work.runs.size());
  const auto members = static_cast<int32_t>(plan.extra.size());
  append(plan.extra, work.members.data(), work.members.size());
  const auto starts = static_cast<int32_t>(plan.extra.size());
  append(plan.extra, work.starts.data(), work.starts.size());
  const StepLaunch header{
      static_cast<int32_t>(plan.query_group),     static_cast<int32_t>(plan.rows()), runs, members, starts,
      std::ranges::any_of(plan.sampling, filters)};
  append(plan.launch, &header, 1);
  append(plan.launch, work.chunks.data(), work.chunks.size());
}

void CudaKernels::do_copy_kv_pages(KvStore& store, PageCopies copies) const {
  std::vector<int32_t> numbers;
  for (const auto& [from, to] : copies) numbers.insert(numbers.end(), {from, to});
  at::Tensor pairs;
  Upload upload;
  upload.add(numbers, pairs);
  upload.send(store.data.device());
  const On on(store.data);
  check(copy_pages({store.data.data_ptr(), pairs.data_ptr<int32_t>(), static_cast<int32_t>(copies.size()),
                    static_cast<int32_t>(2 * store.shape.layers), store.pages,
                    kv_page_bytes(store.shape) / (2 * store.shape.layers)},
                   on),
        "copy_pages");
}

SplitHeads stored_heads(const at::Tensor& qkv, const at::Tensor& q, const HeadLayout& layout,
                        const HeadNorm& norm, const RotaryTables& tables, const KvStore& store, int64_t layer,
                        const RowPlan& plan) {
  const at::Tensor pages = store.data.select(0, layer);  // [2, pages, Hkv, 16, D]
  SplitHeads heads = split_heads_of(qkv, layout, norm, tables, plan.device.positions);
  heads.slots = plan.device.slots.data_ptr<int32_t>();
  heads.q = q.data_ptr();
  heads.k = pages.select(0, 0).data_ptr();
  heads.v = pages.select(0, 1).data_ptr();
  return heads;
}

at::Tensor CudaKernels::do_rotate_and_store(const at::Tensor& qkv, const HeadLayout& layout,
                                            const HeadNorm& norm, const RotaryTables& tables, KvStore& store,
                                            int64_t layer, const RowPlan& plan) const {
  const On on(qkv);
  at::Tensor q = at::empty({qkv.size(0), layout.query_heads, layout.dim}, qkv.options());
  check(split_heads(stored_heads(qkv, q, layout, norm, tables, store, layer, plan), on), "split_heads");
  return q;
}

at::Tensor CudaKernels::do_paged_attention(const at::Tensor& q, const KvStore& store, int64_t layer,
                                           const RowPlan& plan, double scale) const {
  const On on(q);
  const auto heads = static_cast<int32_t>(q.size(1)), kv_heads = static_cast<int32_t>(store.shape.kv_heads),
             size = static_cast<int32_t>(q.size(2));
  const at::Tensor queries = q.stride(2) == 1 && q.stride(1) == size ? q : q.contiguous();
  const at::Tensor pages = store.data.select(0, layer);
  const void *const k = pages.select(0, 0).data_ptr(), *const v = pages.select(0, 1).data_ptr();
  at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  const int32_t* const numbers = plan.device.pages.data_ptr<int32_t>();
  if (!has_paged_tiles(type_of(q), size)) {
    if (size > 256) return ReferenceKernels::do_paged_attention(q, store, layer, plan, scale);
    check(paged_attention_rows(
              {type_of(q), q.size(0), heads, kv_heads, size, queries.stride(0), queries.data_ptr(), k, v,
               numbers, plan.device.tables.data_ptr<int32_t>(), plan.device.positions.data_ptr<int32_t>(),
               plan.table_width, out.data_ptr(), scale},
              on),
          "paged_attention_rows");
    return out;
  }
  const StepLaunch header = header_of(plan);
  TORCH_CHECK(header.group == heads / kv_heads && header.rows == q.size(0), "the step's plan is for ",
              header.rows, " rows and groups of ", header.group, " query heads, not for ", q.size(0), " and ",
              heads / kv_heads);
  const std::vector<Chunk> chunks = chunks_of(plan);
  const int32_t* const device = plan.device.extra.data_ptr<int32_t>();
  int64_t most = 0;
  for (const Chunk& chunk : chunks) most = std::max<int64_t>(most, chunk.partial_end - chunk.partial_begin);
  const at::Tensor partial = at::empty({most, heads, size}, q.options().dtype(at::kFloat)),
                   logsumexp = at::empty({most, heads}, partial.options());
  for (const Chunk& chunk : chunks) {
    check(cuda::paged_attention({type_of(q), heads, kv_heads, size, queries.stride(0), queries.data_ptr(), k,
                                 v, numbers, reinterpret_cast<const PagedTile*>(device) + chunk.tile_begin,
                                 reinterpret_cast<const PagedRun*>(device + header.runs),
                                 reinterpret_cast<const PagedMember*>(device + header.members),
                                 chunk.tile_end - chunk.tile_begin, partial.data_ptr<float>(),
                                 logsumexp.data_ptr<float>(), out.data_ptr(), scale},
                                on),
          "paged_attention");
    if (chunk.partial_begin == chunk.partial_end) continue;
    check(merge_paged(type_of(q), partial.data_ptr<float>(), logsumexp.data_ptr<float>(),
                      device + header.starts, chunk.partial_begin, chunk.row_begin, chunk.row_end, heads,
                      size, out.data_ptr(), on),
          "merge_paged");
  }
  return out;
}

void CudaKernels::do_sample(const at::Tensor& logits, int64_t first_output, const RowPlan& plan,
                            int64_t begin, int64_t end, at::Tensor samples) const {
  const at::Tensor tokens = samples.select(0, 0), bits = samples.select(0, 1);
  if (logits.scalar_type() != at::kFloat || tokens.stride(0) != 1)
    return ReferenceKernels::do_sample(logits, first_output, plan, begin, end, samples);
  const On on(logits);
  const at::Tensor plain = logits.contiguous();
  const RowPlan::Device& device = plan.device;
  check(draw_tokens({plain.data_ptr<float>(), device.draws.data_ptr<int32_t>() + begin,
                     static_cast<int32_t>(first_output), device.temperatures.data_ptr<double>() + begin,
                     device.top_ps.data_ptr<double>() + begin, device.min_ps.data_ptr<double>() + begin,
                     device.top_ks.data_ptr<int32_t>() + begin, device.uniforms.data_ptr<double>() + begin,
                     tokens.data_ptr<int32_t>(), static_cast<float*>(bits.data_ptr()),
                     static_cast<int32_t>(end - begin), static_cast<int32_t>(logits.size(1)),
                     header_of(plan).filtered != 0},
                    on),
        "draw_tokens");
}

void CudaKernels::do_take_drawn(const at::Tensor& ids, at::Tensor tokens) const {
  const On on(tokens);
  check(cuda::take_drawn(ids.data_ptr<int32_t>(), static_cast<int32_t>(ids.size(0)),
                         tokens.data_ptr<int32_t>(), static_cast<int32_t>(tokens.size(0)), on),
        "take_drawn");
}

}  // namespace troupe::kernels::cuda
