"""Writes permutations.json: numpy's permutations, and the splits that `datasets` and sklearn make of rows.
python3 test/golden/permutations.py (numpy 2.4.6, datasets 5.2.0, scikit-learn; whichever version is installed)."""

import hashlib
import json
import pathlib

import numpy as np
from datasets import Dataset
from sklearn.model_selection import train_test_split

SEEDS = [0, 1, 42, 2**31, 2**32 - 1]
SIZES = [0, 1, 2, 3, 7, 64, 65, 1000]
# (rows, test size): 14116 rows are DAPO-Math-17k-Processed's English ones, 14995 DeepCoder's that pass the runtime filter.
SPLITS = [(10, 0.1), (11, 0.1), (11, 0.25), (33, 0.5), (12, 5), (100, 0.07), (14116, 0.1), (14995, 1000)]


def sha256(indices) -> str:
    return hashlib.sha256(",".join(map(str, indices)).encode()).hexdigest()


def split(count, size):
    rows = Dataset.from_dict({"i": list(range(count))})
    parts = rows.train_test_split(test_size=size, seed=42)
    train, test = train_test_split(list(range(count)), test_size=size, random_state=42)
    shuffled = rows.shuffle(seed=42)["i"]
    return {
        "rows": count,
        "holdout": size,
        "datasets": {"test": list(parts["test"]["i"]), "train": sha256(sorted(parts["train"]["i"]))},
        "shuffled": sha256(shuffled),
        "sklearn": {"test": test, "train": sha256(sorted(train))},
    }


permutations = [
    {
        "seed": seed,
        "count": count,
        "legacy": np.random.RandomState(seed).permutation(count).tolist(),
        "generator": np.random.default_rng(seed).permutation(count).tolist(),
    }
    for seed in SEEDS
    for count in SIZES
    if count < 1000 or seed == 42
]
large = {
    "seed": 42,
    "count": 200_000,
    "legacy": sha256(np.random.RandomState(42).permutation(200_000)),
    "generator": sha256(np.random.default_rng(42).permutation(200_000)),
}
golden = {"permutations": permutations, "large": large, "splits": [split(*one) for one in SPLITS]}
file = pathlib.Path(__file__).with_suffix(".json")
file.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
