"""Parts shared by all figures: a figure that needs no display, its file, and common axes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from monai.utils.module import optional_import

from monai_ccnet.files import atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    has_matplotlib = True
else:
    Figure, has_matplotlib = optional_import(
        "matplotlib.figure", name="Figure", descriptor="{}: figures need it; pip install 'monai_ccnet[figures]'"
    )

ticker, _ = optional_import("matplotlib.ticker")

__all__ = [
    "PAGE_WIDTH",
    "Figure",
    "has_matplotlib",
    "plain_log_axis",
    "save_figure",
    "scale_axis",
    "scale_name",
    "without_ticks",
]

PAGE_WIDTH = 5.2  # inches; letters of 10 points are then legible on a phone


def save_figure(path: str | os.PathLike, figure: Figure, dots_per_inch: int = 144) -> None:
    """Write a figure atomically, in the format of the file's extension."""
    kind = os.path.splitext(os.fspath(path))[1].lstrip(".") or "png"
    with atomically(path) as file:
        figure.savefig(file, format=kind, dpi=dots_per_inch)


def scale_name(scale: int) -> str:
    """Return the label of a scale on an axis.

    >>> scale_name(1), scale_name(4)
    ('1', '1/4')
    """
    return f"1/{scale}" if scale > 1 else "1"


def scale_axis(axes: Any, scales: Sequence[int]) -> None:
    """Set up the x-axis of scales, logarithmic to base 2, and the y-axis of complexities, from 0."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(scales, [scale_name(scale) for scale in scales])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("scale of the image")
    axes.grid(alpha=0.3)


def plain_log_axis(
    axis: Any, *, base: int = 10, subdivided: Sequence[float] = (1, 2, 5), unit: str | None = None
) -> None:
    """Label a logarithmic axis with plain numbers, 20 instead of 2 x 10^1; with a unit as 20 kB, with ``""`` 20 k."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(ticker.LogLocator(base, subdivided))
    axis.set_major_formatter(
        ticker.EngFormatter(unit) if unit is not None else ticker.FuncFormatter(lambda x, _: f"{x:,.10g}")
    )
    axis.set_minor_locator(ticker.NullLocator())


def without_ticks(axes: Any) -> None:
    """Remove the ticks from axes that show an image."""
    axes.set_xticks([])
    axes.set_yticks([])
