"""Print the tables of the comparison's page, from the tables that ``compare.yaml`` left of several data sets.

python tests/benchmarks/summarise_comparisons.py TABLE.csv [TABLE.csv ...]

A file's stem names its data set. Scores are means over seeds with their deviation; a dead network is one that is no
better than one class everywhere.
"""

import csv
import sys
from pathlib import Path

import numpy as np


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def score(row: dict[str, str] | None) -> str:
    if row is None:
        return "-"
    words = f"{float(row['f1']):.3f}"
    if row["f1_deviation"]:
        words += f" ± {float(row['f1_deviation']):.3f}"
    dead = int(row["seeds"]) - int(row["learned"])
    return words + (f" ({dead} dead)" if dead else "")


def main() -> None:
    tables = {}
    for path in map(Path, sys.argv[1:]):
        with path.open(encoding="utf-8", newline="") as file:
            tables[path.stem] = {(row["constraint"], row["method"]): row for row in csv.DictReader(file)}
    every = {key: None for table in tables.values() for key in table}
    constraints = list(dict.fromkeys(constraint for constraint, _ in every))

    for constraint in constraints:
        methods = [method for other, method in every if other == constraint]
        found = {method: [table.get((constraint, method)) for table in tables.values()] for method in methods}

        def mean(method: str, key: str, found: dict[str, list[dict[str, str] | None]] = found) -> float:
            return float(np.mean([float(row[key]) for row in found[method] if row]))

        ordered = methods
        if constraint:
            ordered = sorted(methods, key=lambda method: -mean(method, "f1"))
        rows = [
            [
                method,
                *map(score, found[method]),
                f"{mean(method, 'f1'):.3f}",
                f"{mean(method, 'weights'):,.0f}",
                f"{mean(method, 'macs') / 1e6:.0f}",
                f"{1e3 * mean(method, 'latency_seconds'):.1f}",
                f"{mean(method, 'training_seconds'):.0f}",
            ]
            for method in ordered
        ]
        columns = ["mean", "weights", "million multiply-adds", "latency, ms", "training, s"]
        print(f"### {constraint or 'Without a budget'}\n")
        print(markdown(["method", *tables, *columns], rows) + "\n")


if __name__ == "__main__":
    main()
