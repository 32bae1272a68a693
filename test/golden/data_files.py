"""Writes data-files/: the same three rows as pyarrow and polars write them, in every packing, for the readers' tests.
python3 test/golden/data_files.py (pyarrow 26.0.1, polars 2.1.0)."""

import datetime
import decimal
import json
import pathlib

import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet

FOLDER = pathlib.Path(__file__).with_name("data-files")
FOLDER.mkdir(exist_ok=True)

# Longer than LZ4's blocks of 64 KiB, so that blocks refer to earlier ones.
LONG = "".join(f"{i % 1000} and " for i in range(20000))
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"What is {i} + 1?"}],
        "reward_model": {"ground_truth": str(i + 1), "style": "rule"},
        "tags": ["a", None, "é"],
        "big": 2**60 + i,
        "share": [1.5, float("nan"), None][i],
        "none": None,
        "day": datetime.datetime(2024, 1, 2),
        "long": LONG,
    }
    for i in range(3)
]

table = pa.Table.from_pylist(ROWS)
table = table.append_column("map", pa.array([[("k", 1), ("l", 2)]] * 3, pa.map_(pa.string(), pa.int32())))
table = table.append_column("word", pa.array(["x", "y", "x"]).dictionary_encode())
table = table.append_column("large", pa.array(["ü"] * 3, pa.large_string()))

for codec in ["none", "snappy", "zstd", "gzip", "brotli", "lz4"]:
    parquet.write_table(table, FOLDER / f"{codec}.parquet", compression=codec, row_group_size=2)

exact = table.append_column("exact", pa.array([decimal.Decimal("-3.10")] * 3, pa.decimal128(10, 2)))
short = exact.drop(["long"])
with pa.OSFile(str(FOLDER / "stream.arrow"), "wb") as out, pa.ipc.new_stream(out, short.schema) as writer:
    writer.write_table(short, max_chunksize=2)
with pa.OSFile(str(FOLDER / "file.arrow"), "wb") as out, pa.ipc.new_file(out, short.schema) as writer:
    writer.write_table(short, max_chunksize=2)
for codec in ["lz4", "zstd"]:
    feather.write_feather(exact, FOLDER / f"{codec}.feather", compression=codec)

frame = pl.DataFrame({"question": ["What is 1 + 1?", "longer than the twelve bytes of a view"], "answer": ["2", "3"]})
frame.write_ipc(FOLDER / "polars.arrow")
frame.write_ipc(FOLDER / "polars-zstd.arrow", compression="zstd")
frame.write_parquet(FOLDER / "polars.parquet")

lines = "".join(json.dumps(row) + "\n" for row in frame.to_dicts()).encode()
frames = [pa.Codec("zstd").compress(part, asbytes=True) for part in (lines[:40], lines[40:])]
(FOLDER / "two-frames.jsonl.zst").write_bytes(b"".join(frames))
