// What every .cu file starts from: CUDA under nvcc, the emulation under a host compiler; element types,
// 16-byte packs, sums over warps and blocks, and the one function that launches.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>
#include <unordered_map>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#else
#include "kernels/cuda/emulation/emulation.h"
#endif

#include "kernels/cuda/launch.h"

namespace troupe::kernels::cuda {

// The upper half of a float.
struct Bf16 {
  uint16_t bits;
};

template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

__device__ __forceinline__ uint32_t bits_of(float x) {
#ifdef __CUDACC__
  return __float_as_uint(x);
#else
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
#endif
}
__device__ __forceinline__ float float_of(uint32_t bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  float x;
  memcpy(&x, &bits, 4);
  return x;
#endif
}

__device__ __forceinline__ float widen(Bf16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }

template <typename T>
__device__ __forceinline__ T narrow(Accumulate<T> x) {
  return x;
}
// To the nearest, ties to even; NaN stays NaN.
template <>
__device__ __forceinline__ Bf16 narrow<Bf16>(float x) {
#ifdef __CUDACC__
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
  const uint32_t bits = bits_of(x);
  if (x != x) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
#endif
}
// Two neighbours in one register, the first in the low half: one instruction, where single numbers go to a slower unit.
__device__ __forceinline__ uint32_t narrow_pair(float first, float second) {
#ifdef __CUDACC__
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  uint32_t bits;
  memcpy(&bits, &pair, 4);
  return bits;
#else
  return narrow<Bf16>(first).bits | static_cast<uint32_t>(narrow<Bf16>(second).bits) << 16;
#endif
}
__device__ __forceinline__ float first_of(uint32_t pair) { return float_of(pair << 16); }
__device__ __forceinline__ float second_of(uint32_t pair) { return float_of(pair & 0xffff0000u); }

// Each number as it is once it is stored.
template <typename T, int N>
__device__ __forceinline__ void round_to(Accumulate<T> (&x)[N]) {
  if constexpr (std::is_same_v<T, Bf16> && N % 2 == 0) {
#pragma unroll
    for (int j = 0; j < N; j += 2) {
      const uint32_t pair = narrow_pair(x[j], x[j + 1]);
      x[j] = first_of(pair);
      x[j + 1] = second_of(pair);
    }
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] = widen(narrow<T>(x[j]));
  }
}

// N neighbours, read and written as one.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};
template <int N, typename T>
__device__ __forceinline__ void load(const T* from, Accumulate<T> (&to)[N]) {
  const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int j = 0; j < N; ++j) to[j] = widen(pack.at[j]);
}
template <int N, typename T>
__device__ __forceinline__ void store(const Accumulate<T> (&from)[N], T* to) {
  Pack<T, N> pack;
#pragma unroll
  for (int j = 0; j < N; ++j) pack.at[j] = narrow<T>(from[j]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Sum over neighbouring lanes, in every one of them. kLanes is a power of two.
template <int kLanes = 32, typename A>
__device__ __forceinline__ A lane_sum(A value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset >>= 1)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}
template <int kLanes = 32, typename A>
__device__ __forceinline__ A lane_max(A value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset >>= 1) {
    const A other = __shfl_xor_sync(0xffffffffu, value, offset);
    value = other > value ? other : value;
  }
  return value;
}
// Sum over a block of kWarps warps, in every thread.
template <int kWarps, typename A>
__device__ __forceinline__ A block_sum(A value) {
  value = lane_sum(value);
  if constexpr (kWarps == 1) return value;
  __shared__ A parts[kWarps];
  __syncthreads();  // the last sum has been read
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  A total = parts[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) total += parts[i];
  return total;
}

__device__ __forceinline__ unsigned char* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) unsigned char memory[];
  return memory;
#else
  return emulation::shared_memory;
#endif
}

// In a kernel of launch_early: returns when the kernels before it on its stream have ended, and what they wrote is seen.
__device__ __forceinline__ void wait_for_previous() {
#ifndef __CUDACC__
  emulation::wait_for_previous();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

// The blocks of a launch_early behind this kernel may be set up from here on, once all of its own have come here.
__device__ __forceinline__ void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

namespace internal {
std::atomic<int64_t>& launches();

#ifdef __CUDACC__
// Whether the kernel was compiled with wait_for_previous(), for the current device: of an older architecture's PTX it was not.
inline bool waits_for_previous(const void* kernel) {
  thread_local int known = -1;
  thread_local std::unordered_map<const void*, bool> waits;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (device != known) waits.clear();
  known = device;
  const auto found = waits.find(kernel);
  if (found != waits.end()) return found->second;
  cudaFuncAttributes attributes;
  if (cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess) return false;
  return waits[kernel] = attributes.ptxVersion >= 90;
}
#endif

template <bool early, typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared, Stream stream,
           Arguments... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return 0;
  ++launches();
#ifdef __CUDACC__
  // Without this a block gets 48 KB, of which some is the kernel's static memory.
  if (shared > 32 << 10) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    if (error != cudaSuccess) return error;
  }
  if (!early || !waits_for_previous(reinterpret_cast<const void*>(kernel))) {
    kernel<<<grid, threads, shared, static_cast<cudaStream_t>(stream)>>>(static_cast<Parameters>(args)...);
    return cudaGetLastError();
  }
  cudaLaunchAttribute serialization{};
  serialization.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  serialization.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &serialization;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(args)...);
#else
  emulation::LaunchLog* const log = emulation::current_launch_log();
  emulation::Runner* const runner = emulation::current_runner();
  if (log || runner) {
    const auto* const pointer = reinterpret_cast<const void*>(kernel);
    std::string bytes;
    (emulation::append_bytes(bytes, static_cast<Parameters>(args)), ...);
    if (log) log->add(pointer, {grid.x, grid.y, grid.z}, threads, shared, bytes);
    if (runner) return runner->run(pointer, grid, threads, shared, bytes);
  }
  // By reference: on the stack, and not among what kernels read of the heap.
  const auto body = [&] { kernel(static_cast<Parameters>(args)...); };
  return emulation::run(grid, threads, shared, std::cref(body));
#endif
}

}  // namespace internal

// kernel<<<grid, threads, shared, stream>>>(args...); an empty grid launches nothing.
template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared, Stream stream,
           Arguments... args) {
  return internal::launch<false>(kernel, grid, threads, shared, stream, args...);
}
// The same of a kernel that calls wait_for_previous() before it touches what others write or read: its blocks may be set up
// while the last ones of the kernel before it still run (programmatic dependent launch, CUDA C++ Programming Guide).
template <typename... Parameters, typename... Arguments>
int launch_early(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared, Stream stream,
                 Arguments... args) {
  return internal::launch<true>(kernel, grid, threads, shared, stream, args...);
}

// Whether a multiprocessor with this kernel's blocks is to give shared memory all that it can, as one with attention's does. To
// divide its memory anew it must be empty first, so that attention could not begin early behind the kernel.
template <typename... Parameters>
int prefer_shared_memory([[maybe_unused]] void (*kernel)(Parameters...), [[maybe_unused]] bool most) {
#ifdef __CUDACC__
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                              cudaFuncAttributePreferredSharedMemoryCarveout,
                              most ? cudaSharedmemCarveoutMaxShared : cudaSharedmemCarveoutDefault);
#else
  return 0;
#endif
}

constexpr int kInvalidValue = 1;  // cudaErrorInvalidValue

// Calls f with a value of the element type.
template <typename F>
int with_type(Type type, const F& f) {
  switch (type) {
    case Type::kBf16:
      return f(Bf16{});
    case Type::kFloat:
      return f(float{});
    case Type::kDouble:
      return f(double{});
  }
  return kInvalidValue;
}

inline unsigned blocks_for(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

// As packs of 16 bytes must be; null is.
inline bool aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

// Rows of the largest group; 0 without groups.
inline int64_t longest_group(const Groups& groups) {
  int64_t longest = 0;
  for (int32_t k = 0; k < groups.count; ++k) {
    const int64_t rows = groups.offset[k + 1] - groups.offset[k];
    longest = rows > longest ? rows : longest;
  }
  return longest;
}

}  // namespace troupe::kernels::cuda
