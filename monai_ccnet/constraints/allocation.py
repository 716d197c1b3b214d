"""How the stages of a network share what is left of it: three rules, each a family and one number -> channels.

The number is 0 for the full-size network, and the larger it is the narrower is every stage, down to the smallest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from monai_ccnet.degradation import inverse_log_compression
from monai_ccnet.networks.family import NetworkFamily

__all__ = ["ALLOCATIONS", "Channels", "Rule", "by_complexity", "tapered", "uniform"]

Channels = tuple[int, ...]
Rule = Callable[[float], Channels]

ALLOCATIONS = ("taper", "complexity")

# Width of a stage per width of the stage above it, in a tapered network: what did best among those tried.
_TAPER = 0.84


def uniform(family: NetworkFamily, decades: float) -> Channels:
    """Return one multiplier for all stages, 10 to the power of minus ``decades``, to the nearest widths.

    >>> unet = NetworkFamily.of({"_target_": "monai_ccnet.networks.PlainUNet"})
    >>> uniform(unet, 1.2)
    (4, 8, 16, 32, 65)
    """
    return family.nearest([10.0**-decades] * len(family.channels))


def tapered(family: NetworkFamily, decades: float) -> Channels:
    """Return widths of which each is 0.84 times the one at twice its resolution; at 0 decades the full-size network.

    >>> unet = NetworkFamily.of({"_target_": "monai_ccnet.networks.PlainUNet"})
    >>> tapered(unet, 1.8)
    (33, 27, 23, 19, 16)
    """
    shares = [_TAPER ** math.log2(scale) / full for scale, full in zip(family.scales, family.channels, strict=True)]
    return family.nearest([min(1.0, 10.0**-decades * share / min(shares)) for share in shares])


def by_complexity(
    family: NetworkFamily, loss: float, losses_per_decade: Sequence[float], curvature: float = 0.0
) -> Channels:
    """Return the widths at which every stage loses the same share of the score (sections 4.1 and 4.2 of the paper).

    Where the law sees next to no loss at a scale, a stage is still at least half as wide as the one before it.

    Args:
        family: the network.
        loss: share of the score, 0 for the full-size network.
        losses_per_decade: of each stage, the share of the score that a decade of its weights carries; above 0.
        curvature: c of h_c.

    Returns:
        Widths, rounded up.
    """
    compressions = [inverse_log_compression(loss / per_decade, curvature) for per_decade in losses_per_decade]
    widths = [full * compression**-0.5 for full, compression in zip(family.channels, compressions, strict=True)]
    widths = list(itertools.accumulate(widths, lambda above, width: max(width, above / 2)))
    return family.nearest([min(1.0, w / full) for w, full in zip(widths, family.channels, strict=True)], up=True)
