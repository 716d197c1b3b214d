"""Factors by which resolution is divided: one number, or one for each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from monai_ccnet.files import shown

__all__ = ["Scale", "as_scale", "halvings", "per_axis", "resolution_words", "scale_words"]

Scale = int | tuple[int, ...]  # one for each axis if they differ


def as_scale(scale: Any, name: str = "scale") -> Scale:
    """Return a scale as one number if it is the same along all axes, else as a tuple.

    Raises:
        ValueError: if it is not made of whole numbers from 1.

    >>> as_scale([2, 2]), as_scale([2, 2, 1])
    (2, (2, 2, 1))
    """
    values = tuple(scale) if isinstance(scale, Sequence) and not isinstance(scale, str) else (scale,)
    whole = [isinstance(each, Integral) and not isinstance(each, bool) and int(each) >= 1 for each in values]
    if not values or not all(whole):
        raise ValueError(f"{name} must be a whole number from 1, or one for each axis, got {shown(scale)}.")
    return int(values[0]) if len(set(values)) == 1 else tuple(map(int, values))


def per_axis(scale: int | Sequence[int], axes: int, name: str = "scale") -> tuple[int, ...]:
    """Return a scale along each axis.

    Raises:
        ValueError: if it is not made of whole numbers from 1, or given for another number of axes.
    """
    whole = as_scale(scale, name)
    if isinstance(scale, Sequence) and len(scale) != axes:
        raise ValueError(f"a {name} for {axes} axes has one number or {axes}, got {list(scale)}.")
    return (whole,) * axes if isinstance(whole, int) else whole


def halvings(scale: int | Sequence[int]) -> float:
    """Return how often a scale halves the resolution, in the mean of the axes.

    >>> halvings(4), halvings((2, 2, 1))
    (2.0, 0.6666666666666666)
    """
    found = as_scale(scale)
    axes = (found,) if isinstance(found, int) else found
    return sum(map(math.log2, axes)) / len(axes)


def scale_words(scale: int | Sequence[int]) -> str:
    """Return a scale in words.

    >>> scale_words(4), scale_words((2, 2, 1))
    ('4', '2 x 2 x 1')
    """
    found = as_scale(scale)
    return str(found) if isinstance(found, int) else " x ".join(map(str, found))


def resolution_words(scale: int | Sequence[int]) -> str:
    """Return the resolution that a scale leaves, in words.

    >>> resolution_words(1), resolution_words((2, 2, 1))
    ('full resolution', '1/2 x 2 x 1')
    """
    return "full resolution" if as_scale(scale) == 1 else f"1/{scale_words(scale)}"
