// The instructions that C++ has no words for: asynchronous copies, ldmatrix and the bf16 product of
// 16×16 by 16×8. Under a host compiler each is what the PTX manual says that it does, by way of the warp's
// exchange.
#pragma once

#include "kernels/cuda/device.h"

namespace troupe::kernels::cuda {

#ifdef __CUDACC__

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
// Zeros where `inside` is false; `from` must be an address all the same.
__device__ __forceinline__ void copy16_or_zero(void* to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from),
               "r"(inside ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int n>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(n) : "memory");
}
// Four 8×8 matrices of 16-bit elements; lane 8 i + r gives the address of row r of matrix i. Register i of
// lane l holds elements (l / 4, 2 (l % 4)) and the next of matrix i.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same of the transposed matrices.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// c [16, 8] += a [16, 16] b [16, 8]. a: registers of the matrices (rows 0–7, k 0–7), (8–15, 0–7), (0–7,
// 8–15), (8–15, 8–15); b: of k 0–7 and 8–15, transposed; c: rows l / 4 and l / 4 + 8, columns 2 (l % 4) and
// the next.
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else

inline void copy16_or_zero(void* to, const void* from, bool inside) {
  if (inside)
    memcpy(to, from, 16);
  else
    memset(to, 0, 16);
}
inline void commit_copies() {}
template <int n>
void wait_copies() {}

namespace twin {

inline uint32_t pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }
inline float half_of(uint32_t pair, int which) { return float_of(which ? pair & 0xffff0000u : pair << 16); }

inline void load(uint32_t (&r)[4], const void* row, bool transposed, int line) {
  const auto* const mine = static_cast<const uint16_t*>(row);
  emulation::put(&mine, sizeof mine);
  emulation::meet_warp(line);
  const int lane = emulation::lane();
  const auto element = [](int matrix, int i, int j) {
    return (*static_cast<const uint16_t* const*>(emulation::see(8 * matrix + i)))[j];
  };
  for (int m = 0; m < 4; ++m) {
    const int i = lane / 4, j = lane % 4 * 2;
    r[m] = transposed ? pair(element(m, j, i), element(m, j + 1, i))
                      : pair(element(m, i, j), element(m, i, j + 1));
  }
}

}  // namespace twin

inline void load_matrices(uint32_t (&r)[4], const void* row, int line = __builtin_LINE()) {
  twin::load(r, row, false, line);
}
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row, int line = __builtin_LINE()) {
  twin::load(r, row, true, line);
}
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         int line = __builtin_LINE()) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  emulation::put(mine, sizeof mine);
  emulation::meet_warp(line);
  const auto left = [](int row, int k) {
    const auto* registers = static_cast<const uint32_t*>(emulation::see(row % 8 * 4 + k % 8 / 2));
    return twin::half_of(registers[row / 8 + k / 8 * 2], k % 2);
  };
  const auto right = [](int k, int column) {
    const auto* registers = static_cast<const uint32_t*>(emulation::see(column * 4 + k % 8 / 2));
    return twin::half_of(registers[4 + k / 8], k % 2);
  };
  const int lane = emulation::lane();
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) c[i] += left(row, k) * right(k, column);
  }
}

#endif

}  // namespace troupe::kernels::cuda
