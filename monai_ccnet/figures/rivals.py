"""Figure of a comparison: score against size, one marker per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_ccnet.figures.canvas import PAGE_WIDTH, Figure, plain_log_axis

__all__ = ["draw_comparison"]

_MARKS = "os^vD<>pPXh*"


def draw_comparison(rows: Sequence[Mapping[str, Any]], against: str = "file_bytes") -> Figure:
    """Draw the F1 of each row with its standard deviation over the seeds.

    Args:
        rows: rows as :func:`~monai_ccnet.comparison.compare_table` returns them.
        against: size on the x-axis: ``"file_bytes"``, ``"macs"``, ``"memory_bytes"`` or ``"weights"``.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 5.2), layout="constrained")
    axes = figure.subplots()
    for index, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        found = sorted((row for row in rows if row["method"] == method), key=lambda row: row[against])
        first_ten = index < 10  # there are ten colours; the other markers are hollow
        axes.errorbar(
            [row[against] for row in found],
            [row["f1"] for row in found],
            [row["f1_deviation"] or 0.0 for row in found],
            fmt=_MARKS[index % len(_MARKS)] + (("-" if first_ten else "--") if len(found) > 1 else ""),
            color=f"C{index % 10}",
            markerfacecolor=f"C{index % 10}" if first_ten else "none",
            markersize=6,
            linewidth=1,
            capsize=2,
            label=method,
        )
    plain_log_axis(axes.xaxis, unit="B" if against.endswith("bytes") else "")
    axes.set_xlabel(
        {"file_bytes": "bytes of the file", "macs": "multiply-adds"}.get(against, against.replace("_", " "))
    )
    axes.set_ylabel("F1 on the test images (mean ± standard deviation)")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.03), min(high, 1.03))  # error bars may exceed the range of a score
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure
