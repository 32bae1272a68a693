#!/usr/bin/env bash
# Everything that needs a GPU, on one, without a network: facts of the device, the tests (test/gpu), then the tables.
#
#     bench/gpu/run.sh [OUT]        results go to OUT (default bench/results/gpu), each row as it is measured
#
# Takes Node, node_modules and the addon from .gpu (pack.sh) if that folder is there, else what `npm ci` made. Needs
# python3 with a CUDA torch; transformers and PEFT for the peer's rows. Environment:
#     LIMIT    seconds for all of it (default 470): what does not fit is written down as not run
#     PARTS    any of facts, build, tests, troupe, peer (default: facts tests troupe peer)
#     CASES, PEER_CASES   rows of the tables (troupe.mjs, peer.py)
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-bench/results/gpu}
mkdir -p "$out"
out=$(cd "$out" && pwd)
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
begin=$SECONDS
limit=${LIMIT:-470}
left() { echo $((limit - SECONDS + begin)); }
# Seconds that a part may take: so many, or what is left.
at_most() { local rest; rest=$(left); echo $((rest < $1 ? (rest > 1 ? rest : 1) : $1)); }
say() { echo "[$((SECONDS - begin)) s] $*" | tee -a "$out/log.txt"; }
parts=" ${PARTS:-facts tests troupe peer} "
wants() { [[ $parts == *" $1 "* ]]; }

torch=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])') || exit 1
if [ -d .gpu ]; then
  python3 bench/gpu/unpack.py .gpu . /tmp/troupe-node || exit 1
  export PATH=/tmp/troupe-node/bin:$PATH
  # A carried addon was linked against another folder.
  export LD_LIBRARY_PATH=$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  say "unpacked: node $(node --version)"
fi
if wants build; then
  say "building the addon against $torch"
  cmake -S . -B build/gpu -DCMAKE_BUILD_TYPE=Release -DTROUPE_LIBTORCH="$torch" \
    -DTROUPE_BUILT_FROM="$(node -p 'require("./scripts/sources.cjs").sourcesHash(process.cwd())')" \
    -DTROUPE_NODE_ADDON_API=node_modules/node-addon-api -DCMAKE_JS_INC=node_modules/node-api-headers/include \
    -DCMAKE_JS_SRC= -DCMAKE_JS_LIB= >"$out/build.txt" 2>&1 &&
    timeout "$(at_most 240)" cmake --build build/gpu --parallel "$(nproc)" >>"$out/build.txt" 2>&1 &&
    mkdir -p build/Release && cp build/gpu/troupe.node build/gpu/troupe_cuda.so build/Release/
  say "build ended with $?"
fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv | tee -a "$out/log.txt"
node build/js/cli/main.js doctor 2>&1 | tee -a "$out/log.txt"

if wants facts; then
  timeout "$(at_most 40)" python3 bench/gpu/facts.py --out "$out/facts.jsonl" 2>&1 | tail -40
  say facts
fi
if wants tests; then
  timeout "$(at_most 150)" node node_modules/vitest/vitest.mjs run --project gpu --no-color >"$out/tests.txt" 2>&1
  status=$?
  grep -E '✓|×|Tests|AssertionError|Error:' "$out/tests.txt" | head -80
  say "tests ended with $status"
fi
if wants troupe; then
  share=$(wants peer && echo $(($(left) * 6 / 10)) || left)
  cases=${CASES:-rates decode:4b:256 train:4b:r16:8192 voting:4b:r16:4 observer:4b:r16 decode:4b:32 decode:4b:1024 grpo:4b:r16:8 train:4b:r64:8192 train:0.6b:full:8192 train:0.6b:r16:8192 decode:0.6b:256 voting:0.6b:r16:4 observer:0.6b:full grpo:0.6b:full:8 train:1.7b:r16:8192 voting:1.7b:r64:4 decode:1.7b:256 decode:0.6b:32 decode:0.6b:1024}
  # shellcheck disable=SC2086
  node bench/gpu/troupe.mjs $cases --until "$share" --out "$out/troupe.jsonl" 2>>"$out/errors.txt"
  say tables
fi
if wants peer; then
  cases=${PEER_CASES:-train:4b:r16:4096 voting:4b:r16:4 train:0.6b:full:4096 decode:4b:256 train:4b:r64:4096 grpo:4b:r16:8 voting:0.6b:r16:4 decode:0.6b:256 train:1.7b:r16:4096}
  # shellcheck disable=SC2086
  timeout "$(at_most 400)" python3 bench/gpu/peer.py $cases --until $(($(left) - 30)) --out "$out/peer.jsonl" 2>>"$out/errors.txt"
  say peer
fi
node bench/gpu/tables.mjs "$out" | tee "$out/tables.md"
