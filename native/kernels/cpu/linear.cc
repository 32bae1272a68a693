// Linear layers of few rows in float32 (docs/rollout.md). By AVX2 alone of all weights: there oneDNN's products reach two
// thirds of what the processor multiplies, and MKL's, of the head, half. With AVX-512 of weights that stay in a core's
// cache: there what oneDNN does beside a product takes longer than the product.
#include "kernels/cpu/linear.h"

#if defined(CPU_CAPABILITY_AVX2) || defined(CPU_CAPABILITY_AVX512)

#include <ATen/Parallel.h>

#include <algorithm>

#include "kernels/cpu/vector_gemm.h"
#include "kernels/scratch.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

constexpr int64_t kColumns = kPanelColumns;
constexpr int64_t kDepth = 256;  // a panel's part, 16 or 32 KiB, stays in the first cache
constexpr int64_t kRows = 192;   // that meet a panel at a time

// While a part of a panel is multiplied, the next one comes from memory: a share of its lines before each group of rows.
void fetch(const float* part, int64_t group, int64_t groups) {
  constexpr int64_t kLine = 16, kLines = kDepth * kColumns / kLine;
  for (int64_t line = group * kLines / groups; line < (group + 1) * kLines / groups; ++line)
    __builtin_prefetch(part + line * kLine);
}

}  // namespace

// An output's sum runs over the inputs in order, whatever rows stand beside it.
void float_linear(int64_t rows, int64_t inputs, int64_t outputs, const float* x, const float* panels,
                  const float* bias, float* y) {
  const int64_t blocks = (outputs + kColumns - 1) / kColumns, chunks = (rows + kRows - 1) / kRows;
  const int64_t grain = 1 + 200'000 / (std::min(rows, kRows) * inputs * kColumns);
  at::parallel_for(0, blocks * chunks, grain, [&](int64_t begin, int64_t end) {
    static thread_local Scratch<float> sums;
    sums.resize(kRows * kColumns);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i % chunks * kRows, column = i / chunks * kColumns;
      const int64_t count = std::min(kRows, rows - row), width = std::min(kColumns, outputs - column);
      for (int64_t k = 0; k < inputs; k += kDepth) {
        const float* const part = panels + column * inputs + k * kColumns;
        strip_gemm<2>(count, kColumns, std::min(kDepth, inputs - k), inputs, kColumns, k > 0,
                      x + row * inputs + k, part, sums.data(),
                      [&](int64_t group, int64_t groups) { fetch(part + kDepth * kColumns, group, groups); });
      }
      for (int64_t r = 0; r < count; ++r) {
        float* const to = y + (row + r) * outputs + column;
        for (int64_t j = 0; j < width; ++j)
          to[j] = sums.data()[r * kColumns + j] + (bias ? bias[column + j] : 0.0F);
      }
    }
  });
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY

#endif
