"""Search for the widths at which a quantity that falls with them crosses zero."""

from __future__ import annotations

from collections.abc import Callable

from monai_ccnet.constraints.allocation import Channels, Rule

__all__ = ["crossing"]


def crossing(channels_at: Rule, height: Callable[[Channels], float], smallest: Channels) -> tuple[Channels, Channels]:
    """Return the last channels at which a falling height is above 0 and the first at which it is not.

    The channels fall as ``x`` grows from 0, down to the smallest. If the height is never above 0, both results are the
    widest channels; if it always is, both are the smallest. Each height needs a network to be built, so few are
    computed: the next ``x`` is where the line through the last two heights is 0, or the middle if three such lines did
    not halve the interval.
    """
    known: dict[Channels, float] = {}

    def height_at(x: float) -> float:
        channels = channels_at(x)
        if channels not in known:
            known[channels] = height(channels)
        return known[channels]

    low, high = 0.0, 1.0
    if height_at(low) <= 0:
        return channels_at(low), channels_at(low)
    while channels_at(high) != smallest:
        high *= 2
    high = _reaches(channels_at, low, high)[1]
    if height_at(high) > 0:
        return smallest, smallest
    before, last, lines, length = low, high, 0, high - low
    while True:
        wide, narrow = channels_at(low), channels_at(high)
        next_narrower = _leaves(channels_at, low, high)
        if channels_at(next_narrower) == narrow:
            return wide, narrow
        next_wider = _reaches(channels_at, next_narrower, high)[0]
        x, rise = (low + high) / 2, height_at(last) - height_at(before)
        if lines < 3 and rise != 0:
            x = last - height_at(last) * (last - before) / rise
        x = min(max(x, next_narrower), next_wider)
        before, last, lines = last, x, lines + 1
        low, high = (x, high) if height_at(x) > 0 else (low, x)
        if high - low < length / 2:
            lines, length = 0, high - low


def _leaves(channels_at: Rule, low: float, high: float) -> float:
    """Return the first x at which the channels differ from those at the low end."""
    wide = channels_at(low)
    return _edge(lambda x: channels_at(x) != wide, low, high)[1]


def _edge(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Return the last x at which a condition does not hold yet and the first at which it does, by bisection."""
    while high - low > 1e-13 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def _reaches(channels_at: Rule, low: float, high: float) -> tuple[float, float]:
    """Return the last x at which the channels differ from those at the high end, and the first at which they do not."""
    narrow = channels_at(high)
    return _edge(lambda x: channels_at(x) == narrow, low, high)
