"""What the rule of captures says of the shared cells of measures.arrow, as it is and as it was (docs/alarms.md).

An approximation: `troupe alarms` reads every step and the outcome of every problem, which are not here. Here a window is
ten steps instead of five, a capture is seen at the end of its ten steps, and the interval of a fall is that of two
independent evaluations with 0.8 of their standard error, which is what pairing by problem gave in the cells whose
streams are at hand.

    python docs/lab/captures.py
"""

from collections import defaultdict
from pathlib import Path
from statistics import NormalDist

import pyarrow.ipc

HERE = Path(__file__).parent
SPAN = 10
PAIRING = 0.8
PROBLEMS = {"mini-programs": 60, "smollm2": 100}
SHARES = [("format", -1), ("code", 1), ("terse", 1), ("truncation", 1)]
CHANGE, FACTOR, LEAST_DROP = 0.2, 2, 0.05


def rows(name: str) -> list[dict]:
    with pyarrow.ipc.open_file(HERE / f"{name}.arrow") as file:
        return file.read_all().to_pylist()


# By cell and measure: subject, then step.
series = defaultdict(lambda: defaultdict(dict))
for row in rows("measures"):
    series[row["study"], row["cell"], row["measure"]][row["subject"]][row["step"]] = row["value"]


class Cell:
    def __init__(self, row: dict):
        self.row = row
        study = row["study"].removeprefix("lab-")
        self.name = f"{study} {row['cell'].removeprefix(study.removesuffix('-again') + '-')}"
        self.problems = PROBLEMS.get(study.removesuffix("-again"), 200)
        self.roles = list(self.of("mass_share"))
        self.accuracy = next(iter(self.of("accuracy").values()))

    def of(self, measure: str) -> dict[str, dict[int, float]]:
        return series[self.row["study"], self.row["cell"], measure]

    def changed(self, role: str, signals: list[tuple[str, int]], at: int) -> list[str]:
        """Signals of a role that have changed since the first ten steps, its length and its picks among them."""
        found = []
        for signal, direction in signals:
            values = self.of(signal).get(role, {})
            if 0 in values and at in values and direction * (values[at] - values[0]) >= CHANGE:
                found.append(signal)
        length = self.of("length").get(role, {})
        if length.get(0, 0) > 0 and at in length and not 1 / FACTOR < length[at] / length[0] < FACTOR:
            found.append("length")
        return found

    def picks_lost(self, role: str, at: int) -> list[str]:
        """Whether its picks beat random ones over the first 30 steps, and no longer over the last 30."""
        right, random = (self.of(measure).get(role, {}) for measure in ("pick_right", "random_right"))
        leads = [right[step] - random[step] for step in sorted(right) if step <= at and step in random]
        lost = len(leads) >= 6 and sum(leads[:3]) > 0 and sum(leads[-3:]) <= 0
        return ["picks"] if lost else []

    def fallen(self, done: int) -> bool:
        steps = [step for step in sorted(self.accuracy) if step <= done]
        peak, now = max(self.accuracy[step] for step in steps), self.accuracy[steps[-1]]
        variance = (peak * (1 - peak) + now * (1 - now)) / self.problems
        half = NormalDist().inv_cdf(1 - 0.025 / max(1, len(steps) - 1)) * PAIRING * variance**0.5
        return peak - now >= LEAST_DROP and peak - now > half

    def captured(self, at: int) -> list[str]:
        """The rule as it is: what the others have lost to the role that leads."""
        shares = {role: values[at] for role, values in self.of("mass_share").items() if at in values}
        leader = max(shares, key=shares.__getitem__)
        if shares[leader] < 0.5 or "format" in self.changed(leader, SHARES, at) or not self.fallen(at + SPAN):
            return []
        others = [role for role in self.roles if role != leader]
        return [f"{signal} of {role}" for role in others for signal in self.changed(role, SHARES, at) + self.picks_lost(role, at)]

    def captured_before(self, at: int) -> list[str]:
        """The rule as it was: any role's text, overlap too, whatever the accuracy."""
        policy = next(iter(self.of("dominance")))
        if self.of("dominance")[policy][at] < 0.8 or self.of("effective_roles")[policy][at] > 1.7:
            return []
        signals = [*SHARES, ("overlap", 1)]
        return [f"{signal} of {role}" for role in self.roles for signal in self.changed(role, signals, at)]

    def first(self, rule) -> str:
        """The end of the first ten steps, after the first ones, in which a rule holds."""
        steps = sorted(next(iter(self.of("dominance").values())))[1:]
        for at in steps:
            if found := rule(at):
                return f"{at + SPAN}: {', '.join(found)}"
        return "–"

    def at_end(self) -> str:
        return ", ".join(self.captured(max(next(iter(self.of("dominance").values()))))) or "–"


cells = [Cell(row) for row in rows("results") if row["sharing"] == "shared"]
print("| cell | label then | went wrong at | captured, before | captured, now | at the end, now |")
print("|---|---|---|---|---|---|")
silent = 0
for cell in cells:
    before, now = cell.first(cell.captured_before), cell.first(cell.captured)
    if before == now == "–":
        silent += 1
        continue
    onset = cell.row["onset"]
    print(f"| {cell.name} | {cell.row['label']} | {'–' if onset is None else onset} | {before} | {now} | {cell.at_end()} |")
print(f"\n{silent} of {len(cells)} shared cells have neither.")
