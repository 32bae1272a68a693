// Holds native/kernels/cuda/cublaslt.h against NVIDIA's own header, where that is (scripts/check-cuda.mjs): it compiles or not.
#include <cublasLt.h>

#include <type_traits>

#include "kernels/cuda/cublaslt.h"

namespace lt = troupe::kernels::cuda::lt;

static_assert(lt::kSuccess == CUBLAS_STATUS_SUCCESS && lt::kBf16 == CUDA_R_16BF && lt::kFloat == CUDA_R_32F);
static_assert(lt::kComputeFloat == CUBLAS_COMPUTE_32F && lt::kTransposeA == CUBLASLT_MATMUL_DESC_TRANSA);
static_assert(lt::kTransposed == CUBLAS_OP_T);
static_assert(lt::kMostWorkspace == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(lt::kReductionSchemes == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
static_assert(lt::kReductionInComputeType == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
static_assert(lt::kAlignments[0] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
              lt::kAlignments[1] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES &&
              lt::kAlignments[2] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES &&
              lt::kAlignments[3] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);

static_assert(sizeof(lt::Algorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(lt::Heuristic) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(lt::Heuristic, algorithm) == offsetof(cublasLtMatmulHeuristicResult_t, algo));
static_assert(offsetof(lt::Heuristic, workspace) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(lt::Heuristic, status) == offsetof(cublasLtMatmulHeuristicResult_t, state));

// An argument or result is passed alike: a pointer as a pointer, a number as one of its size.
template <typename A, typename B>
constexpr bool kAlike = sizeof(A) == sizeof(B) && std::is_pointer_v<A> == std::is_pointer_v<B>;
template <typename A, typename B>
constexpr bool kSameCall = false;
template <typename A, typename... As, typename B, typename... Bs>
requires(sizeof...(As) ==
         sizeof...(Bs)) constexpr bool kSameCall<A (*)(As...), B (*)(Bs...)> = kAlike<A, B> &&
                                                                               (kAlike<As, Bs> && ...);

#define SAME(name) static_assert(kSameCall<decltype(lt::Functions::name), decltype(&::name)>)
SAME(cublasLtCreate);
SAME(cublasLtMatmulDescCreate);
SAME(cublasLtMatmulDescDestroy);
SAME(cublasLtMatmulDescSetAttribute);
SAME(cublasLtMatrixLayoutCreate);
SAME(cublasLtMatrixLayoutDestroy);
SAME(cublasLtMatmulPreferenceCreate);
SAME(cublasLtMatmulPreferenceDestroy);
SAME(cublasLtMatmulPreferenceSetAttribute);
SAME(cublasLtMatmulAlgoGetHeuristic);
SAME(cublasLtMatmul);
