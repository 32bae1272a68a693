#!/usr/bin/env bash
# Times of Troupe's own kernels on the GPU that is there (BUILD, ARCH: scripts/nvcc-program.sh).
#
#     bench/gpu/kernel_times.sh [SUBSTRING…] [--out FILE]
set -euo pipefail
cd "$(dirname "$0")/../.."
scripts/nvcc-program.sh bench/gpu/kernel_times/*.cc -- "$@"
