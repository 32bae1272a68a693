"""Collects the tables of studies (docs/study.md) into results.arrow and measures.arrow of this folder, the series as
means over ten steps. A study is known by the name of its folder: it replaces what is here under that name, and the rows
of all others stay.

Cells that have not ended are left out, and named.

    python docs/lab/collect.py runs/lab-arithmetic-again runs/lab-arithmetic-hot-again
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


def kept(name: str, replaced: set[str]) -> list[pa.Table]:
    """What is here of other studies, if anything is. In memory, since the file is written anew."""
    path = HERE / f"{name}.arrow"
    if not path.exists():
        return []
    with pa.ipc.open_file(path) as file:
        table = plain(file.read_all())
    return [table.filter(pc.invert(pc.is_in(table["study"], pa.array(sorted(replaced)))))]


def means_over_spans(measures: pa.Table) -> pa.Table:
    spans = pc.multiply(pc.floor(pc.divide(pc.cast(measures["step"], "float64"), SPAN)), SPAN)
    evaluated = pc.is_in(measures["measure"], pa.array(["accuracy", "greedy_accuracy"]))
    step = pc.if_else(evaluated, measures["step"], pc.cast(spans, "int32"))
    measures = measures.set_column(measures.schema.get_field_index("step"), "step", step)
    means = measures.group_by(KEYS, use_threads=False).aggregate([("value", "mean")])
    return means.select(KEYS).append_column("value", pc.cast(means["value_mean"], "float32"))


def ended(study: Path) -> tuple[pa.Table, pa.Table]:
    """Rows of the cells that have ended, of both tables."""
    results, measures = read(study, "results"), read(study, "measures")
    done = pc.equal(results["state"], "ended")
    for cell in results.filter(pc.invert(done))["cell"].to_pylist():
        print(f"{study.name}: {cell} has not ended and is left out")
    results = results.filter(done)
    return results, measures.filter(pc.is_in(measures["cell"], results["cell"].combine_chunks()))


studies = [Path(folder) for folder in sys.argv[1:]]
names = {study.name for study in studies}
found = [ended(study) for study in studies]
results = pa.concat_tables([*kept("results", names), *(cells for cells, _ in found)], promote_options="default")
means = means_over_spans(pa.concat_tables([series for _, series in found]))
measures = pa.concat_tables([*kept("measures", names), means])
write(results, "results")
write(measures, "measures")
print(f"{len(results)} cells, {len(measures)} means")
