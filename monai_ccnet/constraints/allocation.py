"""Three rules for the widths of a network's stages; each turns one number into channels.

The number is 0 for the full-size network. The larger it is, the narrower is every stage, down to the smallest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from monai_ccnet.degradation import inverse_log_compression
from monai_ccnet.networks.family import NetworkFamily

__all__ = ["ALLOCATIONS", "Channels", "Rule", "by_complexity", "ladder", "tapered", "uniform"]

Channels = tuple[int, ...]
Rule = Callable[[float], Channels]

ALLOCATIONS = ("taper", "complexity")

# Width of a stage per width of the stage above it, in a tapered network: the best of the values tried.
_TAPER = 0.84


def uniform(family: NetworkFamily, decades: float) -> Channels:
    """Return the widths for one multiplier of all stages, ``10 ** -decades``, rounded to the nearest possible widths.

    >>> unet = NetworkFamily.of({"_target_": "monai_ccnet.networks.PlainUNet"})
    >>> uniform(unet, 1.2)
    (4, 8, 16, 32, 65)
    """
    return family.nearest([10.0**-decades] * len(family.channels))


def tapered(family: NetworkFamily, decades: float) -> Channels:
    """Return widths that are each 0.84 times the one at twice the resolution; 0 decades give the full-size network.

    >>> unet = NetworkFamily.of({"_target_": "monai_ccnet.networks.PlainUNet"})
    >>> tapered(unet, 1.8)
    (33, 27, 23, 19, 16)
    """
    shares = [_TAPER ** math.log2(scale) / full for scale, full in zip(family.scales, family.channels, strict=True)]
    return family.nearest([min(1.0, 10.0**-decades * share / min(shares)) for share in shares])


def ladder(family: NetworkFamily, allocation: str | None, decades: float = 0.15) -> list[Channels]:
    """Return the networks from the smallest to the full-size one in steps of a rule.

    Args:
        family: the network.
        allocation: ``"taper"``, or ``None`` for one multiplier of all stages.
        decades: decades of width from one step to the next; 0.15 halves the weights.

    >>> unet = NetworkFamily.of({"_target_": "monai_ccnet.networks.PlainUNet"})
    >>> ladder(unet, "taper")[3:6]
    [(4, 3, 3, 2, 2), (6, 5, 4, 3, 3), (8, 7, 6, 5, 4)]
    """
    rule = uniform if allocation is None else tapered
    steps, found = 0, dict[Channels, None]()
    while rule(family, steps * decades) != family.smallest:
        found[rule(family, steps * decades)] = None
        steps += 1
    return [family.smallest, *reversed(found)]


def by_complexity(
    family: NetworkFamily, loss: float, losses_per_decade: Sequence[float], curvature: float = 0.0
) -> Channels:
    """Return the widths at which every stage loses the same share of the score (sections 4.1 and 4.2 of the paper).

    Where the law predicts almost no loss at a scale, a stage keeps at least half the width of the one before it.

    Args:
        family: family of the network.
        loss: share of the score that each stage loses, 0 for the full-size network.
        losses_per_decade: share of the score that each stage loses per decade of its weights, above 0.
        curvature: curvature c of h_c.

    Returns:
        Width of each stage in channels, rounded up.
    """
    compressions = [inverse_log_compression(loss / per_decade, curvature) for per_decade in losses_per_decade]
    widths = [full * compression**-0.5 for full, compression in zip(family.channels, compressions, strict=True)]
    widths = list(itertools.accumulate(widths, lambda above, width: max(width, above / 2)))
    return family.nearest([min(1.0, w / full) for w, full in zip(widths, family.channels, strict=True)], up=True)
