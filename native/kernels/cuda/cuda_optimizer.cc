// What the observer and the optimizer ask of the accumulators: one pass each, sums in float64, one copy back.
#include "kernels/cuda/cuda_kernels.h"

namespace troupe::kernels::cuda {
namespace {

// Ranges cut into pieces, on the device.
class Pieces {
 public:
  Pieces(std::span<const FlatRange> ranges, const at::Device& device)
      : ranges_(static_cast<int32_t>(ranges.size())) {
    std::vector<Piece> pieces;
    std::vector<int32_t> starts;
    for (size_t i = 0; i < ranges.size(); ++i) {
      starts.push_back(static_cast<int32_t>(pieces.size()));
      for (int64_t done = 0; done < ranges[i].size; done += kPieceElements)
        pieces.push_back({ranges[i].begin + done, std::min<int64_t>(kPieceElements, ranges[i].size - done),
                          static_cast<int32_t>(i), ranges[i].decays});
    }
    starts.push_back(static_cast<int32_t>(pieces.size()));
    count_ = static_cast<int32_t>(pieces.size());
    std::vector<int64_t> numbers(pieces.size() * sizeof(Piece) / sizeof(int64_t));
    std::memcpy(numbers.data(), pieces.data(), pieces.size() * sizeof(Piece));
    Upload upload;
    upload.add(numbers, pieces_);
    upload.add(starts, starts_);
    upload.send(device);
  }
  const Piece* data() const { return reinterpret_cast<const Piece*>(pieces_.data_ptr()); }
  int32_t count() const { return count_; }
  // What totals writes to, [ranges, width]: had before a kernel that must not have run if there is no memory for it.
  at::Tensor sums_like(const at::Tensor& parts) const {
    return at::empty({ranges_, parts.size(1)}, parts.options());
  }
  // parts [pieces, width] → [ranges, width] on the host.
  std::vector<double> totals(const at::Tensor& parts, const at::Tensor& sums, Stream stream) const {
    check(sum_pieces(parts.data_ptr<double>(), starts_.data_ptr<int32_t>(), ranges_,
                     static_cast<int32_t>(sums.size(1)), sums.data_ptr<double>(), stream),
          "sum_pieces");
    const at::Tensor host = to_host(sums);
    return {host.data_ptr<double>(), host.data_ptr<double>() + host.numel()};
  }

 private:
  int32_t ranges_, count_;
  at::Tensor pieces_, starts_;
};

Vectors vectors_of(Tensors tensors, std::span<const double> coefficients) {
  Vectors vectors{type_of(tensors[0]), static_cast<int32_t>(tensors.size()), {}, {}};
  for (size_t i = 0; i < tensors.size(); ++i) {
    vectors.data[i] = tensors[i].data_ptr();
    vectors.coefficient[i] = coefficients.empty() ? 1 : coefficients[i];
  }
  return vectors;
}

// Widths of products go by what the kernel writes: the vectors', momentum's and decay's, then the total's norm.
AdamWChange change_of(const std::vector<double>& totals, size_t vectors) {
  const size_t width = vectors + 3;
  AdamWChange change;
  for (size_t at = 0; at < totals.size(); at += width) {
    change.products.insert(change.products.end(), &totals[at], &totals[at + width - 1]);
    change.squared_norm += totals[at + width - 1];
  }
  return change;
}

}  // namespace

std::vector<double> CudaKernels::do_gram(Tensors vectors, std::span<const FlatRange> ranges) const {
  if (vectors.size() > kMaxVectors) return ReferenceKernels::do_gram(vectors, ranges);
  const On on(vectors[0]);
  const Pieces pieces(ranges, vectors[0].device());
  const auto width = static_cast<int64_t>(vectors.size() * vectors.size());
  // The lower triangle is not written, and not read.
  const at::Tensor parts = at::zeros({pieces.count(), width}, vectors[0].options().dtype(at::kDouble));
  const at::Tensor sums = pieces.sums_like(parts);
  check(gram_pieces(vectors_of(vectors, {}), pieces.data(), pieces.count(), parts.data_ptr<double>(), on),
        "gram");
  return pieces.totals(parts, sums, on);
}

AdamWChange CudaKernels::do_adamw_step(Tensors vectors, std::span<const double> coefficients,
                                       std::span<const FlatRange> ranges, const AdamWStep& step) const {
  if (vectors.size() > kMaxVectors)
    return ReferenceKernels::do_adamw_step(vectors, coefficients, ranges, step);
  const On on(step.theta);
  const Pieces pieces(ranges, step.theta.device());
  const AdamWUpdate update{step.theta.data_ptr(),
                           step.copy.defined() ? step.copy.data_ptr() : nullptr,
                           step.keep_total ? vectors[0].data_ptr() : nullptr,
                           {step.averages[0].data_ptr(), step.averages[1].data_ptr()},
                           {step.squares[0].data_ptr(), step.squares[1].data_ptr()},
                           step.decay_size,
                           step.learning_rate,
                           step.beta1,
                           step.beta2,
                           step.eps,
                           step.weight_decay,
                           step.clip,
                           1 - std::pow(step.beta1, static_cast<double>(step.step)),
                           1 - std::pow(step.beta2, static_cast<double>(step.step))};
  const auto width = static_cast<int64_t>(vectors.size()) + 3;
  const at::Tensor parts = at::empty({pieces.count(), width}, step.theta.options().dtype(at::kDouble));
  const at::Tensor sums = pieces.sums_like(parts);
  step.before_change();
  check(adamw_pieces(vectors_of(vectors, coefficients), update, pieces.data(), pieces.count(),
                     parts.data_ptr<double>(), on),
        "adamw_step");
  return step.measure ? change_of(pieces.totals(parts, sums, on), vectors.size()) : AdamWChange{};
}

double CudaKernels::do_squared_norm(Tensors vectors) const {
  const On on(vectors[0]);
  // One range for each vector; all of their sums come back together.
  std::vector<at::Tensor> sums;
  for (const at::Tensor& vector : vectors) {
    if (vector.numel() == 0) continue;
    const at::Tensor flat = vector.to(wide_type(vector)).contiguous().view(-1);
    const FlatRange range{0, flat.numel(), true};
    const Pieces pieces(std::span(&range, 1), flat.device());
    const at::Tensor parts = at::empty({pieces.count()}, flat.options().dtype(at::kDouble));
    check(gram_pieces(vectors_of(std::span(&flat, 1), {}), pieces.data(), pieces.count(),
                      parts.data_ptr<double>(), on),
          "squared_norm");
    sums.push_back(parts.sum());
  }
  return sums.empty() ? 0 : *to_host(at::stack(sums).sum()).const_data_ptr<double>();
}

}  // namespace troupe::kernels::cuda
