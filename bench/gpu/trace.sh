#!/usr/bin/env bash
# What a layer's kernels take in the steps themselves: each one's time from its begin to the next one's, and to its own end, medians
# over the last layers of a row of troupe.mjs (its own time is a percent longer meanwhile).
#
#     bench/gpu/trace.sh CASE [OUT [OPTION…]]    such as decode:4b:256; the trace goes to OUT/CASE.tsv (default: build/trace)
#
# Needs a C++ compiler, CUPTI's header (of the toolkit, or of the nvidia-* wheels beside torch) and its library, which torch has.
set -euo pipefail
cd "$(dirname "$0")/../.."
case=$1
out=$(mkdir -p "${2:-build/trace}" && cd "${2:-build/trace}" && pwd)
wheels=$(python3 -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent.parent / "nvidia")')
toolkit=${CUDA_HOME:-/usr/local/cuda}
first() { local file; for file; do [ ! -e "$file" ] || { echo "$file"; return; }; done; }
header=$(first "$toolkit"/{,extras/CUPTI/}include/cupti.h "$wheels"/*/include/cupti.h)
library=$(first "$wheels"/*/lib/libcupti.so.* "$toolkit"/{,extras/CUPTI/}lib*/libcupti.so.*)
[ -n "$header" ] && [ -n "$library" ] || { echo "CUPTI was not found: its header beside a toolkit or in $wheels/*/include, its library in $wheels/*/lib" >&2; exit 1; }
headers=(-I"$(dirname "$header")")
[ -e "$(dirname "$header")/cuda.h" ] || headers+=(-I"$toolkit/include")
c++ -std=c++17 -O2 -shared -fPIC "${headers[@]}" -o "$out/libtrace.so" bench/gpu/trace/trace.cc "$library" -Wl,-rpath,"$(dirname "$library")"
CUDA_INJECTION64_PATH=$out/libtrace.so TRACE_OUT=$out/${case//:/-}.tsv TRACE_LAST=${TRACE_LAST:-2000} \
  node bench/gpu/troupe.mjs --device "${DEVICE:-cuda:0}" "$case" "${@:3}"
python3 bench/gpu/trace/layer.py "$out/${case//:/-}.tsv"
