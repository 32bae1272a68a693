"""Prints the tables of README.md from results.arrow and measures.arrow of this folder.

    python docs/lab/tables.py
"""

from collections import defaultdict
from pathlib import Path
from statistics import mean, median

import pyarrow.ipc

HERE = Path(__file__).parent


def rows(name: str) -> list[dict]:
    with pyarrow.ipc.open_file(HERE / f"{name}.arrow") as file:
        found = file.read_all().to_pylist()
    return [{**row, "study": row["study"].removeprefix("lab-")} for row in found]


results = rows("results")
series = defaultdict(dict)
for row in rows("measures"):
    series[row["study"], row["cell"], row["measure"], row["subject"]][row["step"]] = row["value"]


def group_of(row: dict) -> tuple:
    model = row.get("model") or row.get("rate") or ""
    return (row["study"], model, row["workflow"], row["sharing"] or "")


groups = defaultdict(list)
for row in results:
    groups[group_of(row)].append(row)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def arrow(first: str, last: str) -> str:
    return "–" if first == last == "–" else f"{first} → {last}"


def average(values: list) -> float | None:
    found = [value for value in values if value is not None]
    return mean(found) if found else None


def counted(labels: list[str]) -> str:
    return ", ".join(f"{labels.count(label)} {label}" for label in sorted(set(labels)))


def table(header: list[str], lines: list[list[str]]) -> None:
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for line in lines:
        print("| " + " | ".join(line) + " |")
    print()


def of(row: dict, measure: str) -> dict[str, dict[int, float]]:
    """Series of a cell by subject."""
    return {
        subject: values
        for (study, cell, name, subject), values in series.items()
        if (study, cell, name) == (row["study"], row["cell"], measure)
    }


def first_and_last(row: dict, measure: str, subject: str) -> tuple[float | None, float | None]:
    values = of(row, measure).get(subject, {})
    steps = sorted(values)
    return (values[steps[0]], values[steps[-1]]) if steps else (None, None)


print("### Accuracy\n")
table(
    ["study", "model or rate", "workflow", "sharing", "runs", "base %", "peak %", "at step", "end %", "drop", "greedy %", "cliffs", "labels"],
    [
        [
            *key,
            str(len(cells)),
            percent(average([cell["base"] for cell in cells])),
            percent(average([cell["peak"] for cell in cells])),
            str(int(median([cell["peak_step"] for cell in cells]))),
            percent(average([cell["terminal"] for cell in cells])),
            percent(average([cell["peak"] - cell["terminal"] for cell in cells])),
            arrow(*(percent(average([cell.get(f"greedy_{end}") for cell in cells])) for end in ("base", "terminal"))),
            str(sum(cell["onset"] is not None for cell in cells)),
            counted([cell["label"] or "none" for cell in cells]),
        ]
        for key, cells in groups.items()
    ],
)

print("### Isolated against shared, paired by seed\n")
lines = []
for (study, model, workflow, sharing), cells in groups.items():
    if sharing != "isolated":
        continue
    shared = {cell.get("seed"): cell for cell in groups[study, model, workflow, "shared"]}
    pairs = [(cell, shared[cell.get("seed")]) for cell in cells if cell.get("seed") in shared]
    lines.append(
        [
            study,
            model,
            workflow,
            str(sum(isolated["peak"] > other["peak"] for isolated, other in pairs)) + f"/{len(pairs)}",
            percent(average([isolated["peak"] - other["peak"] for isolated, other in pairs])),
            str(sum(isolated["terminal"] > other["terminal"] for isolated, other in pairs)) + f"/{len(pairs)}",
            percent(average([isolated["terminal"] - other["terminal"] for isolated, other in pairs])),
            percent(average([cell["against_single"] for cell in cells])),
            percent(average([other["against_single"] for _, other in pairs])),
        ]
    )
table(
    [
        "study",
        "model or rate",
        "workflow",
        "isolated peaks higher",
        "by",
        "ends higher",
        "by",
        "isolated − single, end",
        "shared − single, end",
    ],
    lines,
)

print("### Gradients of the roles: first ten steps → last ten steps, means over seeds\n")
lines = []
for key, cells in groups.items():
    roles = sorted({subject for cell in cells for subject in of(cell, "role_norm")})
    for role in roles:
        line = [*key, role]
        for measure in ("mass_share", "role_norm", "amplification", "entropy", "kl", "format"):
            ends = [first_and_last(cell, measure, role) for cell in cells]
            line.append(arrow(*(number(average([end[i] for end in ends])) for i in (0, 1))))
        lines.append(line)
table(
    [
        "study",
        "model or rate",
        "workflow",
        "sharing",
        "role",
        "mass share",
        "norm",
        "amplification",
        "entropy, nats",
        "KL (k3)",
        "well-formed",
    ],
    lines,
)

print("### Cosines between roles of a shared policy: first ten steps → last ten steps, means over seeds\n")
lines = []
for key, cells in groups.items():
    for pair in sorted({subject for cell in cells for subject in of(cell, "role_cosine")}):
        ends = [first_and_last(cell, "role_cosine", pair) for cell in cells]
        lines.append([*key, pair, arrow(*(number(average([end[i] for end in ends])) for i in (0, 1)))])
table(["study", "model or rate", "workflow", "sharing", "roles", "cosine"], lines)

print("### Picks: share of right ones where candidates differ, and what a random pick has, first ten steps → last ten steps\n")
lines = []
for key, cells in groups.items():
    for role in sorted({subject for cell in cells for subject in of(cell, "pick_right")}):
        line = [*key, role]
        for measure in ("pick_right", "random_right"):
            ends = [first_and_last(cell, measure, role) for cell in cells]
            line.append(arrow(*(percent(average([end[i] for end in ends])) for i in (0, 1))))
        lines.append(line)
table(["study", "model or rate", "workflow", "sharing", "role", "right %", "a random pick %"], lines)
