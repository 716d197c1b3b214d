"""The working scale of a network: as coarse as the labels allow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai_ccnet.complexity.ceiling import SCALES, LabelCeiling
from monai_ccnet.files import shown
from monai_ccnet.networks.family import NetworkFamily
from monai_ccnet.scales import Scale, as_scale, per_axis, resolution_words, scale_words

__all__ = ["LEAST_DICE", "choose_scale", "coarser_scales", "scales_needed", "working_scale"]

LEAST_DICE = 0.985  # that the labels of each class have to keep
_LEAST_KEPT = 0.01  # of a class's Dice, below which a scale that is asked for is refused
_MOST_VANISHED = 0.02  # of the structures, where the labels say how small they are; none, where the user says it
_PIXELS_KEPT = 2  # of each axis in the coarsest stage


def choose_scale(ceiling: LabelCeiling, coarsest: int | Sequence[int] = 1) -> tuple[Scale, str]:
    """Return the coarsest scale at which next to nothing of the labels is lost, and why.

    At that scale and all finer ones the labels of each class keep 0.985 of their Dice; of their structures no more than
    2 % vanish, and none if the smallest that counts was asked for; and each axis of the median image keeps two pixels
    of the network's coarsest stage; a shorter one is not divided.

    Args:
        ceiling: what the training labels keep.
        coarsest: factor by which the network's coarsest stage divides its input, or one for each axis.

    >>> import numpy as np
    >>> from monai_ccnet.complexity import measure_ceiling
    >>> label = [[[0] * 64] * 16 + [[1] * 64] * 48]
    >>> ceiling = measure_ceiling([np.array(label)])
    >>> print(*choose_scale(ceiling, coarsest=8), sep=": ")
    4: works at 1/4: labels keep 1.0000 of their Dice, none of 1 structures of 6.4 pixels and more vanishes (at 1/8...
    """
    axes = len(ceiling.size)
    if not ceiling.dice:
        return 1, "works at full resolution, since no label holds any foreground"
    chosen: Scale = 1
    refused = None
    for scale in ceiling.scales:
        refused = _refused(ceiling, scale, per_axis(coarsest, axes, "coarsest"))
        if refused is not None:
            break
        chosen = scale
    against = "" if refused is None else f" (at {resolution_words(scale)} {refused})"
    where = f"works at {resolution_words(chosen)}"
    if chosen == 1:
        return 1, f"{where}{against}"
    times = math.prod(per_axis(chosen, axes))
    return chosen, f"{where}: {_kept(ceiling, chosen)}{against}; {times} times fewer multiply-adds"


def _refused(ceiling: LabelCeiling, scale: Scale, coarsest: Sequence[int]) -> str | None:
    """Return what speaks against a scale, ``None`` if nothing does."""
    place, worst = ceiling.index(scale), ceiling.worst(scale)
    if worst < LEAST_DICE:
        first = scale == ceiling.scales[0]
        return f"labels would keep {worst:.4f} of their Dice" if first else f"they would keep {worst:.4f}"
    vanished = ceiling.vanished[place]
    if vanished > (0 if ceiling.is_asked else _MOST_VANISHED * ceiling.structures):
        return f"{vanished} of {ceiling.structures} structures of {ceiling.smallest_words} and more would vanish"
    for length, by, unit in zip(ceiling.size, per_axis(scale, len(coarsest)), coarsest, strict=True):
        least = min(length, _PIXELS_KEPT * unit)  # what is shorter stays as it is
        if length // by < least:
            return f"an axis of {length} pixels would have {length // by}, and the network needs {least}"
    return None


def _kept(ceiling: LabelCeiling, scale: Scale) -> str:
    vanished = ceiling.vanished[ceiling.index(scale)]
    which = f"{ceiling.structures} structures of {ceiling.smallest_words} and more"
    words = f"none of {which} vanishes" if not vanished else f"{vanished} of {which} vanish"
    words = words if ceiling.structures else f"no structure is of {ceiling.smallest_words} and more"
    if smaller := ceiling.vanished_specks[ceiling.index(scale)]:
        lost = f"{ceiling.largest_lost[ceiling.index(scale)]:.3g} {ceiling.unit}"
        words += f", {smaller} of {ceiling.specks} smaller ones do, the largest lost is of {lost}"
    return f"labels keep {ceiling.worst(scale):.4f} of their Dice, {words}"


def working_scale(
    scale: int | Sequence[int] | str, family: NetworkFamily, ceiling: LabelCeiling | None = None
) -> Scale:
    """Return the scale at which a network is to work.

    Args:
        scale: whole number from 1, or one for each axis; ``"auto"`` for :func:`choose_scale`, and ``"any"`` for the
            same to begin with.
        family: the network. One whose config says a scale keeps it.
        ceiling: what the training labels keep, needed for ``"auto"``.

    Raises:
        ValueError: if the scale is none of these, another one than the network's config says, cannot be chosen, or
            leaves nothing of a class.
    """
    if isinstance(scale, str) and scale not in ("auto", "any"):
        raise ValueError(
            f"scale must be a whole number from 1, one for each axis, 'auto' or 'any', got {shown(scale)}."
        )
    if isinstance(scale, str):
        if family.scale != 1 or family.has_fixed_size:
            return family.scale
        if ceiling is None:
            if scale == "any":
                return 1
            raise ValueError("scale='auto' needs ceiling= (measure_ceiling): give it, or the scale itself.")
        return choose_scale(ceiling, family.coarsest)[0]
    given = as_scale(per_axis(scale, family.spatial_dims))
    if given != 1 and family.scale not in (1, given):
        raise ValueError(
            f"the network's config says that it works at 1/{scale_words(family.scale)}, and scale is "
            f"{scale_words(given)}: give one of them."
        )
    chosen = family.scale if given == 1 else given
    if ceiling is not None and chosen in ceiling.scales and ceiling.worst(chosen) < _LEAST_KEPT:
        best = scale_words(choose_scale(ceiling, family.coarsest)[0])
        raise ValueError(
            f"at scale {scale_words(chosen)} a class keeps {ceiling.worst(chosen):.2f} of its Dice, so that no network "
            f"could learn it: give a finer scale; 'auto' takes {best}."
        )
    return chosen


def scales_needed(
    family: NetworkFamily, scale: int | Sequence[int] | str, ceiling: LabelCeiling | None = None
) -> list[int]:
    """Return the scales at which complexity is needed for a plan: each stage's, at each scale that it may work at.

    Args:
        family: the network.
        scale: scale that is asked for, as in :func:`working_scale`.
        ceiling: what the training labels keep.
    """
    chosen = working_scale(scale, family, ceiling)
    possible = [chosen, *coarser_scales(chosen, ceiling)] if scale == "any" else [chosen]
    factors = {max(per_axis(each, family.spatial_dims)) for each in possible}
    return sorted({factor * stage for factor in factors for stage in (1, *family.scales)})


def coarser_scales(scale: Scale, ceiling: LabelCeiling | None = None) -> list[Scale]:
    """Return the scales, of those whose ceiling is known or of 2, 4 and 8, that are coarser than a given one."""
    known: Sequence[Scale] = SCALES if ceiling is None else ceiling.scales
    axes = next((len(each) for each in (scale, *known) if not isinstance(each, int)), 1)
    return [each for each in known if math.prod(per_axis(each, axes)) > math.prod(per_axis(scale, axes))]
