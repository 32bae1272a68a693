#!/bin/sh
# Sets up the peers that the benchmarks compare with, in a virtual environment: PyTorch for the CPU, transformers
# and TRL, in the versions that the tables name. Prints the folder. An environment that is there already is used
# as it is; TROUPE_PEERS names another one.
set -eu

folder="${TROUPE_PEERS:-$(dirname "$0")/.venv}"
python="$folder/bin/python"

complete() {
  "$python" -c 'import accelerate, datasets, torch, transformers, trl
from trl import GRPOTrainer
assert torch.__version__.startswith("2.13."), torch.__version__
assert transformers.__version__.startswith("5.17."), transformers.__version__
assert trl.__version__.startswith("1.13."), trl.__version__' 2>&1
}

if [ -x "$python" ] && complete >/dev/null; then
  echo "$folder"
  exit 0
fi
if [ -n "${TROUPE_PEERS:-}" ]; then
  echo "TROUPE_PEERS=$folder holds no complete environment:" >&2
  complete >&2 || true
  exit 1
fi

python3 -m venv "$folder"
# First where the user's pip looks, then PyTorch's own index: the CPU build is a tenth of the size of the other.
"$python" -m pip install --quiet 'torch==2.13.0+cpu' >&2 ||
  "$python" -m pip install --quiet --index-url https://download.pytorch.org/whl/cpu 'torch==2.13.0' >&2
"$python" -m pip install --quiet 'transformers==5.17.*' 'trl==1.13.*' accelerate datasets requests >&2
complete >&2
echo "$folder"
