"""Predictions of a law for each network of a family on one data set."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints.allocation import Channels
from monai_ccnet.degradation import DegradationModel, Law, Prediction, WidthLaw
from monai_ccnet.networks.family import NetworkFamily
from monai_ccnet.networks.size import kernel_weights
from monai_ccnet.scales import resolution_words

__all__ = ["Outlook"]

# Least relative loss of score per decade of weights that a plan assumes, even if the law predicts less.
_LEAST_LOSS = 1e-4
_ROUNDING = 1e-6  # of a width: a network as small as the smallest that was measured is measured


@dataclass(frozen=True)
class Outlook:
    """Predicted scores of the networks of a family, given an allocation rule, a data set and a law.

    Attributes:
        family: network at any width.
        allocation: rule for the widths, ``"complexity"``, ``"taper"`` or ``None``, as in a plan.
        complexity: profile of the data set; without one a law in complexity predicts nothing.
        law: law that predicts the scores.
        counted_weights: kernel weights of the full-size network, where they were counted before.

    Raises:
        ValueError: if the profile's settings differ from the law's, it lacks a scale that the rule needs, or the rule
            needs another kind of law.
    """

    family: NetworkFamily
    allocation: str | None
    complexity: ComplexityProfile | None
    law: Law
    counted_weights: int | None = None

    def __post_init__(self) -> None:
        if self.allocation == "complexity" and isinstance(self.law, WidthLaw):
            raise ValueError(
                "allocation='complexity' shares a loss by complexity, and this law is one in width: give a "
                "DegradationModel (law='paper'), or allocation='taper'."
            )
        if self.complexity is None or not self.uses_complexity:
            return
        self.law.check_settings(self.complexity.settings)
        if missing := sorted(set(self.scales) - set(self.complexity.scales)):
            raise ValueError(
                f"the network has stages at the scales {self.scales}, the profile of {self.complexity.dataset!r} has "
                f"only {self.complexity.scales}: measure the data set with scale {', '.join(map(str, missing))} too."
            )

    @property
    def uses_complexity(self) -> bool:
        """Whether the law predicts from the complexity of the data set."""
        return isinstance(self.law, DegradationModel) or bool(self.law.settings)

    @property
    def predicts(self) -> bool:
        """Whether what the law needs is known."""
        return self.complexity is not None or not self.uses_complexity

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales whose complexity is needed: 1, or each stage's, times the scale at which the network works."""
        return self.family.stage_scales if self.allocation == "complexity" else (1,)

    @functools.cached_property
    def losses_per_decade(self) -> list[float]:
        """The loss of score per decade of weights at each of the scales."""
        assert self.complexity is not None
        assert isinstance(self.law, DegradationModel)
        return [max(_LEAST_LOSS, self.law.loss_per_decade(self.complexity.at(scale))) for scale in self.scales]

    @functools.cached_property
    def full_weights(self) -> int:
        """Kernel weights of the full-size network."""
        return self.counted_weights or kernel_weights(self.family.network_def)

    @property
    def covered_compression(self) -> float:
        """The largest compression that the law was measured at, for this network; infinite for a law in width."""
        return math.inf if isinstance(self.law, WidthLaw) else self.law.covered_compression(self.full_weights)

    def margin(self, channels: Channels) -> float:
        """Return by what share a network exceeds the smallest that was measured; below 0 none so small was."""
        if isinstance(self.law, WidthLaw):
            least = min(self.law.narrowest, self._width(self.family.channels))
            return self._width(channels) / least - 1 + _ROUNDING if least > 0 else math.inf
        return self.covered_compression / self.compression(channels) - 1

    @functools.cached_property
    def assumption(self) -> str | None:
        """How the network differs from those that were measured; ``None`` if it does not."""
        network_def, dims = self.family.network_def, self.family.spatial_dims
        if isinstance(self.law, WidthLaw):
            return self.law.assumption_for(network_def, dims, len(self.family.channels))
        other = self.law.assumption_for(network_def, dims, self.full_weights)
        if self.family.scale == self.law.scale:
            return other
        measured = "several scales" if self.law.scale is None else resolution_words(self.law.scale)
        words = (
            f"Assumption: the law was measured at {measured}, and is taken to hold at "
            f"{resolution_words(self.family.scale)} relative to the full-size network there."
        )
        return words if other is None else f"{words}\n{other}"

    def compression(self, channels: Channels) -> float:
        """Return full weights per weight of the network with these channels."""
        return max(1.0, self.full_weights / kernel_weights(self.family.at(channels, scale=1)))

    def score(self, channels: Channels) -> float:
        """Return the predicted score of the network with these channels, relative to the full-size network's."""
        predicted = self.predicted(channels)
        assert predicted is not None
        return predicted.score

    def predicted(self, channels: Channels) -> Prediction | None:
        """Return the prediction for the whole network, or for its most degraded stage by the rule ``"complexity"``.

        If the law is only assumed to hold for this network, as one in complexity is at a working scale at which it was
        not measured, the interval is unknown.
        """
        if not self.predicts or not channels:
            return None
        if isinstance(self.law, WidthLaw):
            found = self.law.predict_interval(*self._widths(channels), self._complexity)
        else:
            found = min(
                (self.law.predict_interval(*case) for case in self._cases(channels)), key=lambda each: each.score
            )
        return found if self.assumption is None else replace(found, low=None, high=None)

    def probability(self, channels: Channels, min_score: float) -> float | None:
        """Return the probability that a training of a network reaches a relative score; ``None`` where unknown."""
        if not self.predicts or not channels or self.assumption is not None:
            return None
        if isinstance(self.law, WidthLaw):
            return self.law.probability(min_score, *self._widths(channels), self._complexity)
        found = [self.law.probability(min_score, *case) for case in self._cases(channels)]
        known = [each for each in found if each is not None]
        return min(known) if len(known) == len(found) else None

    @property
    def _complexity(self) -> float:
        return self.complexity.at(1) if self.uses_complexity and self.complexity is not None else 0.0

    def _width(self, channels: Channels) -> float:
        assert isinstance(self.law, WidthLaw)
        return self.family.width(channels, self.law.measure)

    def _widths(self, channels: Channels) -> tuple[float, float]:
        return self._width(channels), self._width(self.family.channels)

    def _cases(self, channels: Channels) -> list[tuple[float, float]]:
        """Return complexity and compression of the network, or of each stage by the rule ``"complexity"``."""
        assert self.complexity is not None
        if self.allocation != "complexity":
            return [(self.complexity.at(1), self.compression(channels))]
        shares = self.family.multipliers(channels)
        return [(self.complexity.at(scale), share**-2) for scale, share in zip(self.scales, shares, strict=True)]
