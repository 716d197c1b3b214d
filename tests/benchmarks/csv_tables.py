"""Tables of the results, read from and written to CSV files: never to a page, which people write."""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ccnet.files import write_table


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option of the CSV file that a table goes to."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("-o", "--output", type=csv_file, metavar="TABLE.csv", help="write the table, do not print it")
    return parser


def csv_file(text: str) -> Path:
    """Return the path of a CSV file, and refuse that of a page."""
    if not text.endswith(".csv"):
        raise argparse.ArgumentTypeError(f"{text} is not a CSV file")
    return Path(text)


def saved_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def save_or_print(rows: Sequence[Mapping[str, Any]], path: Path | None) -> None:
    """Write rows to a CSV file, or print them as one."""
    if path is not None:
        write_table(path, rows)
        return
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def deviation(scores: Sequence[float]) -> str:
    """Return the standard deviation of scores over seeds, empty if there is one seed only."""
    return f"{np.std(scores, ddof=1):.3f}" if len(scores) > 1 else ""
