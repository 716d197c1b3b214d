"""Foreground density of a label, and its mix with JPEG complexity."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from monai_ccnet.complexity.pictures import as_array

__all__ = ["foreground_density", "jb_complexity"]

Number = TypeVar("Number", float, np.ndarray)


def foreground_density(label: np.ndarray) -> float:
    """Return the share of a label that is foreground: B of Mishra et al., section 2.1.

    Args:
        label: a mask or class indices, array or tensor of any shape and real dtype; all above 0 is foreground.

    Returns:
        A share from 0 to 1, unitless.

    Raises:
        ValueError: if the label is empty, or holds complex numbers or NaN.

    >>> foreground_density(np.array([[0, 0], [0, 1]]))
    0.25
    """
    label = as_array(label)
    if label.dtype.kind not in "buif" or (label.dtype.kind == "f" and np.isnan(label).any()):
        raise ValueError(f"a label must hold real numbers and no NaN, got dtype {label.dtype}: repair it first.")
    if label.size == 0:
        raise ValueError(f"a label must hold at least one pixel, got the shape {label.shape}.")
    return float(np.count_nonzero(label > 0) / label.size)


def jb_complexity(jpeg: Number, foreground: Number, omega: float) -> Number:
    """Return the mix JB = omega J + (1 - omega) B of JPEG complexity and foreground density (section 2.2).

    >>> round(jb_complexity(0.1518, 0.0812, omega=0.7), 4)  # Table 2, U-Net
    0.1306
    """
    if not 0 <= omega <= 1:
        raise ValueError(f"omega must lie in [0, 1], got {omega}.")
    return omega * jpeg + (1 - omega) * foreground
