// RoPE, SwiGLU and the embedding's gradient, see table.h.
#pragma once

#include "kernels/cpu/table.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

void rope(const NormShape& shape, View x, const int32_t* positions, const void* cos, const void* sin,
          bool inverse);
void swiglu(c10::ScalarType dtype, int64_t rows, int64_t size, const void* gate_up, void* out);
void swiglu_backward(c10::ScalarType dtype, int64_t rows, int64_t size, const void* grad, const void* gate_up,
                     void* out);
void embedding_backward(c10::ScalarType dtype, int64_t rows, int64_t size, const void* grad,
                        const int64_t* tokens, void* accumulator);

void narrow_rows(int64_t rows, int64_t columns, const float* from, int64_t from_stride,
                 const c10::BFloat16* bias, c10::BFloat16* to, int64_t to_stride);

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
