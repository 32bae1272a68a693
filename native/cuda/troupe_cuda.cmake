# troupe_cuda.so: what needs libtorch_cuda (native/cuda/library.h), where libtorch has it. The kernels take nvcc, NCCL takes
# headers; what is missing is said here in a sentence, and by `troupe doctor` once more.

# CUDA's headers are in a toolkit or, most of them, in the wheels beside libtorch.
file(GLOB TROUPE_CUDA_WHEELS ${TROUPE_LIBTORCH}/../nvidia/*/include)
set(TROUPE_CUDA_PLACES $ENV{CUDA_HOME}/include $ENV{CUDA_PATH}/include /usr/local/cuda/include ${TROUPE_CUDA_WHEELS})
find_path(TROUPE_CUDA_INCLUDE crt/host_config.h HINTS ${TROUPE_CUDA_PLACES})
find_path(TROUPE_CUSPARSE_INCLUDE cusparse.h HINTS ${TROUPE_CUDA_PLACES})
# The wheel's is of the NCCL that libtorch was built with, a toolkit's need not be (nccl_problem() looks).
find_path(TROUPE_NCCL_INCLUDE nccl.h HINTS $ENV{NCCL_HOME}/include ${TROUPE_CUDA_WHEELS} ${TROUPE_CUDA_PLACES})
execute_process(COMMAND ${CMAKE_NM} -D --defined-only ${TROUPE_LIBTORCH}/lib/libtorch_cuda.so
  OUTPUT_VARIABLE TROUPE_CUDA_SYMBOLS ERROR_QUIET)
string(FIND "${TROUPE_CUDA_SYMBOLS}" "ProcessGroupNCCL" TROUPE_HAS_NCCL)
if(TROUPE_CUDA_INCLUDE AND TROUPE_CUSPARSE_INCLUDE AND TROUPE_NCCL_INCLUDE AND TROUPE_HAS_NCCL GREATER -1)
  set(TROUPE_NCCL ON)
else()
  set(TROUPE_NCCL OFF)
  message(WARNING "Without NCCL, tensors of several GPUs go by way of the CPUs' memory. It takes a libtorch that has "
    "NCCL, nccl.h (NCCL_HOME), and the headers of a CUDA toolkit (CUDA_HOME): crt/host_config.h, cusparse.h.")
endif()

set(TROUPE_CUDA_ARCHITECTURES "" CACHE STRING "Architectures of the CUDA kernels; empty: those of the GPUs that are there")
# scripts/native.mjs passes one of libtorch's CUDA, or OFF, and says what is missing at its end.
find_program(TROUPE_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin /opt/cuda/bin)
if(NOT TROUPE_NVCC)
  message(STATUS "No nvcc: ${PROJECT_NAME}_cuda.so is built without kernels.")
endif()

add_library(troupe_cuda MODULE native/cuda/exports.cc)
set_target_properties(troupe_cuda PROPERTIES PREFIX "" BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "${TROUPE_RPATH}")
target_include_directories(troupe_cuda PRIVATE native)
target_compile_options(troupe_cuda PRIVATE ${TROUPE_OPTIONS})
target_link_options(troupe_cuda PRIVATE -fopenmp)
# libtorch_cuda brings the libraries of CUDA that it was made for, this one's included.
target_link_libraries(troupe_cuda PRIVATE libtorch -Wl,--no-as-needed torch_cuda c10_cuda -Wl,--as-needed)

if(TROUPE_NCCL)
  set_source_files_properties(native/cuda/nccl.cc PROPERTIES SKIP_PRECOMPILE_HEADERS ON SKIP_UNITY_BUILD_INCLUSION ON
    INCLUDE_DIRECTORIES "${TROUPE_CUDA_INCLUDE};${TROUPE_CUSPARSE_INCLUDE};${TROUPE_NCCL_INCLUDE}")
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
