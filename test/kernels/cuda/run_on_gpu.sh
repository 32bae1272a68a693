#!/usr/bin/env bash
# Compiles the kernels and their tests with nvcc for the GPU that is there and runs them on it.
set -euo pipefail
cd "$(dirname "$0")/../../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
nvcc=$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")
sources=$(ls native/kernels/cuda/*.cu native/kernels/cuda/paged_plan.cc test/kernels/cuda/*.cc | grep -v emulation_test)
printf '%s\n' $sources | xargs -P "$(nproc)" -I {} sh -c \
  '"$1" -std=c++20 -O2 -arch=native -Inative -x cu -c "$2" -o "$3/$(basename "$2").o"' _ "$nvcc" {} "$out"
"$nvcc" -arch=native "$out"/*.o -o "$out/tests"
"$out/tests" "$@"
