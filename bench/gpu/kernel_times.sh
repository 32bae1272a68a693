#!/usr/bin/env bash
# Compiles bench/gpu/kernel_times with nvcc for the GPU that is there and runs it: times of Troupe's own kernels.
#
#     bench/gpu/kernel_times.sh [SUBSTRING…] [--out FILE]
#
# With BUILD=FILE it only builds that program, which needs nothing but a driver; for the GPU that ARCH names (sm_90).
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
nvcc=$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")
arch=native
[ -z "${BUILD:-}" ] || arch=${ARCH:-sm_90}
sources="$(ls native/kernels/cuda/*.cu) native/kernels/cuda/paged_plan.cc $(ls bench/gpu/kernel_times/*.cc)"
printf '%s\n' $sources | xargs -P "$(nproc)" -I {} sh -c \
  '"$1" -std=c++20 -O3 -arch="$4" -Inative -x cu -c "$2" -o "$3/$(basename "$2").o"' _ "$nvcc" {} "$scratch" "$arch"
"$nvcc" -arch="$arch" -cudart static -Xcompiler -static-libstdc++,-static-libgcc "$scratch"/*.o -o "${BUILD:-$scratch/kernel_times}"
[ -n "${BUILD:-}" ] || "$scratch/kernel_times" "$@"
