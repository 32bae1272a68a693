# troupe_cuda.so: what needs libtorch_cuda (native/cuda/library.h), where libtorch has it. The kernels take nvcc, NCCL takes
# headers: scripts/cuda.mjs finds them and says what is missing, as `troupe doctor` does once more.
set(TROUPE_NVCC OFF CACHE STRING "nvcc of libtorch's CUDA, or OFF: without kernels")
set(TROUPE_NCCL_HEADERS OFF CACHE STRING "Folders of nccl.h, cusparse.h and crt/host_config.h, or OFF: without NCCL")

set(TROUPE_CUDA_ARCHITECTURES "" CACHE STRING "Architectures of the CUDA kernels; empty: those of the GPUs that are there")

add_library(troupe_cuda MODULE native/cuda/exports.cc)
set_target_properties(troupe_cuda PROPERTIES PREFIX "" BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "${TROUPE_RPATH}")
target_include_directories(troupe_cuda PRIVATE native)
target_compile_options(troupe_cuda PRIVATE ${TROUPE_OPTIONS})
target_link_options(troupe_cuda PRIVATE -fopenmp)
# libtorch_cuda brings the libraries of CUDA that it was made for, this one's included.
target_link_libraries(troupe_cuda PRIVATE libtorch -Wl,--no-as-needed torch_cuda c10_cuda -Wl,--as-needed)

if(TROUPE_NCCL_HEADERS)
  set_source_files_properties(native/cuda/nccl.cc PROPERTIES SKIP_PRECOMPILE_HEADERS ON SKIP_UNITY_BUILD_INCLUSION ON
    INCLUDE_DIRECTORIES "${TROUPE_NCCL_HEADERS}")
  target_sources(troupe_cuda PRIVATE native/cuda/nccl.cc)
  target_compile_definitions(troupe_cuda PRIVATE USE_C10D_NCCL)
endif()

if(TROUPE_NVCC)
  set(CMAKE_CUDA_COMPILER ${TROUPE_NVCC})
  set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # libtorch brings libcudart
  if(TROUPE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${TROUPE_CUDA_ARCHITECTURES})
  else()
    if(NOT TROUPE_PREBUILD)
      execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
        OUTPUT_VARIABLE TROUPE_GPUS OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
    string(REGEX MATCHALL "[0-9]+\\.[0-9]+" TROUPE_GPUS "${TROUPE_GPUS}")
    string(REPLACE "." "" TROUPE_GPUS "${TROUPE_GPUS}")
    list(REMOVE_DUPLICATES TROUPE_GPUS)
    list(TRANSFORM TROUPE_GPUS APPEND -real)
    if(NOT TROUPE_GPUS)
      set(TROUPE_GPUS 80-real 90-real 100)
    endif()
    set(CMAKE_CUDA_ARCHITECTURES ${TROUPE_GPUS})
  endif()
  enable_language(CUDA)
  # These targets were made before the language was enabled: some CMakes then find them without architectures, or with
  # C++'s standard.
  set(CMAKE_CUDA_STANDARD 17)
  set_target_properties(${PROJECT_NAME} troupe_cuda PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}"
    CUDA_STANDARD ${CMAKE_CUDA_STANDARD})
  # Objects of their own: the other files' options are not nvcc's.
  add_library(cuda_kernels OBJECT ${TROUPE_CUDA_KERNELS})
  target_include_directories(cuda_kernels PRIVATE native)
  target_compile_options(cuda_kernels PRIVATE -O3 -Xcompiler=-Wall,-fvisibility=hidden)
  target_link_libraries(troupe_cuda PRIVATE cuda_kernels)
  # CudaKernels, and what it stands on: a copy of its own, so that neither library exports anything to the other.
  file(GLOB TROUPE_CUDA_BASE CONFIGURE_DEPENDS native/kernels/*.cc native/kernels/reference/*.cc)
  list(FILTER TROUPE_CUDA_BASE EXCLUDE REGEX native/kernels/\(select|cpu_.*|tile_gemm\)\.cc)
  target_sources(troupe_cuda PRIVATE ${TROUPE_CUDA_CLASS} ${TROUPE_CUDA_BASE})
  target_include_directories(troupe_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_definitions(troupe_cuda PRIVATE TROUPE_CUDA)
  target_precompile_headers(troupe_cuda PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:${CMAKE_CURRENT_SOURCE_DIR}/native/precompiled.h>")
endif()
