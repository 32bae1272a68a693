#!/usr/bin/env bash
# The kernels' tests on the GPU that is there (BUILD, ARCH: scripts/nvcc-program.sh).
#
#     test/kernels/cuda/run_on_gpu.sh [SUBSTRING]
set -euo pipefail
cd "$(dirname "$0")/../../.."
# shellcheck disable=SC2046
scripts/nvcc-program.sh $(ls test/kernels/cuda/*.cc | grep -v emulation_test) -- "$@"
