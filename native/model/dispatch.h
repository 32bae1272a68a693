// Where a kernel's code is chosen: the one place. Everything that computes asks `cpu_kernels` with a tensor
// that it works on, and takes the reference (kernels_reference.h) where the answer is null.
#pragma once

#include <ATen/ATen.h>

#include "model/cpu/table.h"

namespace troupe::kernels {

// The CPU kernels for the machine's instruction set; null for tensors on other devices, in other dtypes than
// float64, float32 and bfloat16, and on machines that no instruction set was built for. ATEN_CPU_CAPABILITY
// lowers the instruction set, as it does in ATen.
const cpu::Table* cpu_kernels(const at::Tensor& x);

// The dtype of sums and statistics: float64 for float64, else float32.
inline at::ScalarType accumulate_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// A [T, size] or [T, heads, size] tensor as the CPU kernels take it; its last dimension must be contiguous.
cpu::View view_of(const at::Tensor& x);

// The tensor itself where its last dimension is contiguous, else a contiguous copy.
at::Tensor rows_contiguous(const at::Tensor& x);

}  // namespace troupe::kernels
