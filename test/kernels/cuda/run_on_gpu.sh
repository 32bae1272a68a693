#!/usr/bin/env bash
# Compiles the kernels and their tests with nvcc for the GPU that is there and runs them on it.
#
#     test/kernels/cuda/run_on_gpu.sh [SUBSTRING]
#
# With BUILD=FILE it only builds that program, which needs nothing but a driver; for the GPU that ARCH names (sm_90).
set -euo pipefail
cd "$(dirname "$0")/../../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
nvcc=$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")
arch=native
[ -z "${BUILD:-}" ] || arch=${ARCH:-sm_90}
sources=$(ls native/kernels/cuda/*.cu native/kernels/cuda/paged_plan.cc test/kernels/cuda/*.cc | grep -v emulation_test)
printf '%s\n' $sources | xargs -P "$(nproc)" -I {} sh -c \
  '"$1" -std=c++20 -O2 -arch="$4" -Inative -x cu -c "$2" -o "$3/$(basename "$2").o"' _ "$nvcc" {} "$out" "$arch"
"$nvcc" -arch="$arch" -cudart static -Xcompiler -static-libstdc++,-static-libgcc "$out"/*.o -o "${BUILD:-$out/tests}"
[ -n "${BUILD:-}" ] || "$out/tests" "$@"
