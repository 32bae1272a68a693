#!/usr/bin/env bash
# Everything that needs a GPU, on one, without a network, in the order of its worth: the addon (carried, there, or built), the
# kernels' tests and times, the tests of the engine (test/gpu), the tables of Troupe and of its peer, facts of the device.
#
#     bench/gpu/run.sh [OUT]        results go to OUT (default bench/results/gpu/DATE-TIME), each row as it is measured
#
# Takes Node, node_modules and the addon from .gpu (pack.sh) if that folder is there, else what `npm ci` made. Needs
# python3 with a CUDA torch; transformers and PEFT for the peer's rows; nvcc for the kernels' tests and to build. A part or a
# row that fails ends nothing else; OUT/tables.md has the summary: parts, the project's targets, rows that were left, tables.
# Ends with 1 where a test failed. Environment:
#     LIMIT    seconds for all of it (default 460, 8 minutes with what is cut off last): what does not fit is written down as not run
#     PARTS    any of install, kernels, times, tests, troupe, peer, facts (default: all; install only where no addon can be loaded)
#     CASES, PEER_CASES   rows of the tables (troupe.mjs, peer.py)
#     DEVICE   default cuda:0; cpu tries the script out (scripts/check-benches.mjs)
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-bench/results/gpu/$(date +%F-%H%M)}
mkdir -p "$out"
out=$(cd "$out" && pwd)
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
device=${DEVICE:-cuda:0}
begin=$SECONDS
limit=${LIMIT:-460}
left() { echo $((limit - SECONDS + begin)); }
# Seconds that a part may take: so many, or what is left.
at_most() { local rest; rest=$(left); echo $((rest < $1 ? (rest > 1 ? rest : 1) : $1)); }
say() { echo "[$((SECONDS - begin)) s] $*" | tee -a "$out/log.txt"; }
parts=" ${PARTS:-kernels times tests troupe peer facts} "
wants() { [[ $parts == *" $1 "* ]]; }
failed=0
# part NAME SECONDS COMMAND…: what it prints goes to OUT/NAME.txt, how it ended to OUT/parts.jsonl.
part() {
  local name=$1 bound status started=$SECONDS
  bound=$(at_most "$2")
  shift 2
  timeout --kill-after=10 "$bound" "$@" >"$out/$name.txt" 2>&1
  status=$?
  printf '{"part":"%s","status":%d,"seconds":%d,"limit":%d}\n' "$name" $status $((SECONDS - started)) "$bound" >>"$out/parts.jsonl"
  say "$name ended with $status"
  return $status
}

# rows FILE CASE…: each case has a row, also one that a part came to its end before.
rows() {
  local file=$1 name
  shift
  for name; do
    grep -qsE "\"case\": ?\"$name\"" "$file" || printf '{"case":"%s","error":"not run: no time left"}\n' "$name" >>"$file"
  done
}

torch=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])' 2>/dev/null)
if [ -d .gpu ]; then
  python3 bench/gpu/unpack.py .gpu . /tmp/troupe-node || exit 1
  export PATH=/tmp/troupe-node/bin:$PATH
  say "unpacked: node $(node --version)"
fi
doctor() { node build/js/cli/main.js doctor 2>&1; }
# The install step: it takes a carried addon (a prebuild), else builds one.
if wants install || ! doctor >/dev/null; then
  part install 240 env LIBTORCH="$torch" node scripts/install.mjs --native-only || failed=1
  tail -3 "$out/install.txt"
fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv 2>&1 | tee -a "$out/log.txt"
doctor | tee -a "$out/log.txt"

if wants kernels; then
  part kernels 120 test/kernels/cuda/run_on_gpu.sh || failed=1
  grep -E 'FAILED|failed$|error' "$out/kernels.txt" | tail -20
fi
if wants times; then
  part times 90 bench/gpu/kernel_times.sh --out "$out/times.jsonl" || failed=1
  grep -E 'error' "$out/times.txt" | tail -20
fi
if wants tests; then
  part tests 150 env TROUPE_TEST_DEVICE="$device" node node_modules/vitest/vitest.mjs run --project gpu --maxWorkers=4 --no-color || failed=1
  grep -E '✓|×|Tests|AssertionError|Error:' "$out/tests.txt" | head -80
fi
if wants troupe; then
  # The project's targets (tables.mjs), whole steps of every shape and parameters, what else the tables of docs/cuda-measurements.md have.
  targets="rates decode:4b:256 train:4b:r16:8192 voting:4b:r16:4 observer:0.6b:full train:0.6b:full:8192 observer:4b:r16"
  steps="grpo:4b:r16:8 grpo:4b:r64:8 voting:4b:r64:4 grpo:0.6b:full:8 voting:0.6b:full:4 grpo:0.6b:r16:8 voting:0.6b:r16:4"
  steps+=" grpo:1.7b:r16:8 voting:1.7b:r16:4 grpo:1.7b:r64:8 voting:1.7b:r64:4 grpo:0.6b:r64:8 voting:0.6b:r64:4"
  others="train:0.6b:r16:8192 decode:4b:32 decode:4b:1024 decode:4b:256:256:r64 decode:4b:256:960 train:4b:r64:8192 decode:0.6b:256 train:1.7b:r16:8192"
  others+=" decode:1.7b:256 decode:0.6b:32 decode:0.6b:1024"
  cases=${CASES:-$targets $steps $others}
  share=$(wants peer && echo $(($(left) * 6 / 10)) || left)
  # shellcheck disable=SC2086
  part troupe "$((share + 10))" node bench/gpu/troupe.mjs $cases --device "$device" --until="$share" --out "$out/troupe.jsonl"
  # shellcheck disable=SC2086
  rows "$out/troupe.jsonl" $cases
fi
if wants peer; then
  cases=${PEER_CASES:-voting:4b:r16:4 train:4b:r16:4096 train:0.6b:full:4096 decode:4b:256 grpo:4b:r16:8 train:4b:r64:4096 voting:0.6b:r16:4 decode:0.6b:256 train:1.7b:r16:4096 grpo:0.6b:full:8 grpo:1.7b:r16:8 voting:1.7b:r16:4 grpo:4b:r64:8 voting:4b:r64:4}
  # shellcheck disable=SC2086
  part peer 400 python3 bench/gpu/peer.py $cases --device "${device%:*}" --until=$(($(left) - 15)) --out "$out/peer.jsonl"
  # shellcheck disable=SC2086
  rows "$out/peer.jsonl" $cases
fi
if wants facts; then
  part facts 40 python3 bench/gpu/facts.py --out "$out/facts.jsonl"
  part products 40 python3 bench/gpu/products.py --out "$out/products.jsonl"
fi
node bench/gpu/tables.mjs "$out" | tee "$out/tables.md"
say "done"
exit $failed
