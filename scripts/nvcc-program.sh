#!/usr/bin/env bash
# Links a program of the CUDA kernels and other files with nvcc, and runs it on the GPU that is there.
#
#     scripts/nvcc-program.sh FILE… -- [ARGUMENT…]
#
# With BUILD=PROGRAM it only builds that program, which needs nothing but a driver; for the GPU that ARCH names (sm_90).
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
files=(native/kernels/cuda/*.cu native/kernels/cuda/paged_plan.cc)
while [ "$1" != -- ]; do files+=("$1"); shift; done
shift
nvcc=$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")
arch=native
[ -z "${BUILD:-}" ] || arch=${ARCH:-sm_90}
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -I {} sh -c \
  '"$1" -std=c++20 -O3 -arch="$4" -Inative -x cu -c "$2" -o "$3/$(basename "$2").o"' _ "$nvcc" {} "$scratch" "$arch"
"$nvcc" -arch="$arch" -cudart static -Xcompiler -static-libstdc++,-static-libgcc "$scratch"/*.o -o "${BUILD:-$scratch/program}"
[ -n "${BUILD:-}" ] || "$scratch/program" "$@"
