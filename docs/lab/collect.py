"""Collects the tables of studies (docs/study.md) into results.arrow and measures.arrow of this folder, the series as
means over ten steps.

    python docs/lab/collect.py runs/lab-arithmetic runs/lab-mini-programs runs/lab-smollm2
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

HERE = Path(__file__).parent
SPAN = 10
KEYS = ["study", "cell", "measure", "subject", "step"]


def plain(table: pa.Table) -> pa.Table:
    """Dictionaries as strings: those of two studies differ."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table[field.name].cast(pa.string()))
    return table


def read(study: Path, name: str) -> pa.Table:
    with pa.ipc.open_file(study / f"{name}.arrow") as file:
        table = plain(file.read_all())
    return table.add_column(0, "study", pa.array([study.name] * len(table)))


def write(table: pa.Table, name: str) -> None:
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(i, field.name, table[field.name].dictionary_encode())
    options = pa.ipc.IpcWriteOptions(compression="zstd", unify_dictionaries=True)
    with pa.ipc.new_file(HERE / f"{name}.arrow", table.schema, options=options) as file:
        file.write_table(table.combine_chunks())


studies = [Path(folder) for folder in sys.argv[1:]]
results = pa.concat_tables([read(study, "results") for study in studies], promote_options="default")
measures = pa.concat_tables([read(study, "measures") for study in studies])
# Accuracies keep their steps.
spans = pc.multiply(pc.floor(pc.divide(pc.cast(measures["step"], "float64"), SPAN)), SPAN)
step = pc.if_else(pc.equal(measures["measure"], "accuracy"), measures["step"], pc.cast(spans, "int32"))
measures = measures.set_column(measures.schema.get_field_index("step"), "step", step)
means = measures.group_by(KEYS, use_threads=False).aggregate([("value", "mean")])
value = pc.cast(means["value_mean"], "float32")
write(results, "results")
write(means.select(KEYS).append_column("value", value), "measures")
print(f"{len(results)} cells, {len(means)} means")
