// What Troupe calls of cuBLASLt, declared here: its own header comes with a toolkit's libraries or with nvidia's wheel, and who has
// nvcc alone has neither. CUDA 12 and 13 have these numbers, structures and calls; scripts/check-cuda.mjs holds them against
// the header of the wheel (test/kernels/cublaslt_declarations.cc).
#pragma once

#include <cstddef>
#include <cstdint>

namespace troupe::kernels::cuda::lt {

constexpr int kSuccess = 0;         // cublasStatus_t
constexpr int kBf16 = 14;           // cudaDataType_t
constexpr int kFloat = 0;           // cudaDataType_t
constexpr int kComputeFloat = 68;   // cublasComputeType_t
constexpr int kTransposeA = 3;      // cublasLtMatmulDescAttributes_t, of int32_t
constexpr int32_t kTransposed = 1;  // cublasOperation_t
// cublasLtMatmulPreferenceAttributes_t
constexpr int kMostWorkspace = 1;            // uint64_t, bytes
constexpr int kReductionSchemes = 3;         // uint32_t, a mask
constexpr int kAlignments[] = {5, 6, 7, 8};  // uint32_t each, bytes: of A, B, C and D
// Parts of a sum are kept and added up in fp32. The other schemes would round them to bf16 between.
constexpr uint32_t kReductionInComputeType = 2;

struct Algorithm {  // cublasLtMatmulAlgo_t
  uint64_t data[8];
};
struct Heuristic {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

// Pointers to opaque things are the library's handles and descriptors. Each call returns a cublasStatus_t.
struct Functions {
  int (*cublasLtCreate)(void** handle);
  int (*cublasLtMatmulDescCreate)(void** product, int compute_type, int scale_type);
  int (*cublasLtMatmulDescDestroy)(void* product);
  int (*cublasLtMatmulDescSetAttribute)(void* product, int attribute, const void* value, size_t bytes);
  // Rows are the numbers that lie side by side; `stride` elements lead from one column to the next.
  int (*cublasLtMatrixLayoutCreate)(void** matrix, int type, uint64_t rows, uint64_t columns, int64_t stride);
  int (*cublasLtMatrixLayoutDestroy)(void* matrix);
  int (*cublasLtMatmulPreferenceCreate)(void** preference);
  int (*cublasLtMatmulPreferenceDestroy)(void* preference);
  int (*cublasLtMatmulPreferenceSetAttribute)(void* preference, int attribute, const void* value,
                                              size_t bytes);
  int (*cublasLtMatmulAlgoGetHeuristic)(void* handle, void* product, void* a, void* b, void* c, void* d,
                                        void* preference, int most, Heuristic* results, int* count);
  // d = alpha op(a) b + beta c.
  int (*cublasLtMatmul)(void* handle, void* product, const void* alpha, const void* a, void* layout_a,
                        const void* b, void* layout_b, const void* beta, const void* c, void* layout_c,
                        void* d, void* layout_d, const Algorithm* algorithm, void* workspace,
                        size_t workspace_bytes, void* stream);
};

// Calls f(name, function pointer to set) for each, in order.
template <typename F>
void for_functions(Functions& functions, const F& f) {
#define TROUPE_LT(name) f(#name, functions.name)
  TROUPE_LT(cublasLtCreate);
  TROUPE_LT(cublasLtMatmulDescCreate);
  TROUPE_LT(cublasLtMatmulDescDestroy);
  TROUPE_LT(cublasLtMatmulDescSetAttribute);
  TROUPE_LT(cublasLtMatrixLayoutCreate);
  TROUPE_LT(cublasLtMatrixLayoutDestroy);
  TROUPE_LT(cublasLtMatmulPreferenceCreate);
  TROUPE_LT(cublasLtMatmulPreferenceDestroy);
  TROUPE_LT(cublasLtMatmulPreferenceSetAttribute);
  TROUPE_LT(cublasLtMatmulAlgoGetHeuristic);
  TROUPE_LT(cublasLtMatmul);
#undef TROUPE_LT
}

}  // namespace troupe::kernels::cuda::lt
