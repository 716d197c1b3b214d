"""One table of all methods, from the tables that ``compare.yaml`` left of several data sets.

    python tests/benchmarks/summarise_comparisons.py TABLE.csv [TABLE.csv ...]

prints it as CSV, and writes it with ``-o``. A file's stem names its data set. That of the page:

    C=bundles/complexity_guided_compression/docs/comparison
    python tests/benchmarks/summarise_comparisons.py $C/epithelium.csv $C/mni_gm.csv $C/bacteria.csv -o $C/methods.csv

Scores are means over seeds with their standard deviation. A network failed to learn if it is no better than one class
everywhere. The last columns are means over the data sets; within a constraint the best method comes first.
"""

from collections.abc import Iterable

import numpy as np
from csv_tables import command_line, csv_file, save_or_print, saved_rows

Row = dict[str, str]


def score(name: str, row: Row | None) -> dict[str, str]:
    found = row or {}
    deviation = found.get("f1_deviation")
    return {
        f"{name}_f1": f"{float(found['f1']):.3f}" if found else "",
        f"{name}_standard_deviation": f"{float(deviation):.3f}" if deviation else "",
        f"{name}_failed_to_learn": str(int(found["seeds"]) - int(found["learned"])) if found else "",
    }


def mean(rows: Iterable[Row | None], column: str) -> float:
    return float(np.mean([float(row[column]) for row in rows if row]))


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("tables", type=csv_file, nargs="+", metavar="TABLE.csv")
    given = parser.parse_args()
    tables = {path.stem: {(row["constraint"], row["method"]): row for row in saved_rows(path)} for path in given.tables}
    every = list(dict.fromkeys(key for table in tables.values() for key in table))
    rows = []
    for constraint in dict.fromkeys(constraint for constraint, _ in every):
        found = {key: [table.get(key) for table in tables.values()] for key in every if key[0] == constraint}
        if constraint:
            found = dict(sorted(found.items(), key=lambda item: -mean(item[1], "f1")))
        for (_, method), own in found.items():
            row = {"constraint": constraint, "method": method}
            for name, each in zip(tables, own, strict=True):
                row |= score(name, each)
            rows.append(
                {
                    **row,
                    "mean_f1": f"{mean(own, 'f1'):.3f}",
                    "weights": f"{mean(own, 'weights'):.0f}",
                    "million_multiply_adds": f"{mean(own, 'macs') / 1e6:.0f}",
                    "latency_ms": f"{1e3 * mean(own, 'latency_seconds'):.1f}",
                    "training_seconds": f"{mean(own, 'training_seconds'):.0f}",
                }
            )
    save_or_print(rows, given.output)


if __name__ == "__main__":
    main()
