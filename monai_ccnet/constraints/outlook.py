"""Predictions of a law for each network of a family on one data set."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints.allocation import Channels
from monai_ccnet.degradation import DegradationModel, Prediction
from monai_ccnet.networks.family import NetworkFamily
from monai_ccnet.networks.size import kernel_weights

__all__ = ["Outlook"]

# Least relative loss of score per decade of weights that a plan assumes, even if the law predicts less.
_LEAST_LOSS = 1e-4


@dataclass(frozen=True)
class Outlook:
    """Predicted scores of the networks of a family, given an allocation rule, a data set and a law.

    Attributes:
        family: network at any width.
        allocation: rule for the widths, ``"complexity"``, ``"taper"`` or ``None``, as in a plan.
        complexity: profile of the data set; without one nothing is predicted.
        law: law that predicts the scores.

    Raises:
        ValueError: if the profile's settings differ from the law's, or it lacks a scale that the rule needs.
    """

    family: NetworkFamily
    allocation: str | None
    complexity: ComplexityProfile | None
    law: DegradationModel

    def __post_init__(self) -> None:
        if self.complexity is None:
            return
        self.law.check_settings(self.complexity.settings)
        if missing := sorted(set(self.scales) - set(self.complexity.scales)):
            raise ValueError(
                f"the network has stages at the scales {self.scales}, the profile of {self.complexity.dataset!r} has "
                f"only {self.complexity.scales}: measure the data set with scale {', '.join(map(str, missing))} too."
            )

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales whose complexity is needed: 1, or each stage's, times the scale at which the network works."""
        return self.family.stage_scales if self.allocation == "complexity" else (1,)

    @functools.cached_property
    def losses_per_decade(self) -> list[float]:
        """The loss of score per decade of weights at each of the scales."""
        assert self.complexity is not None
        return [max(_LEAST_LOSS, self.law.loss_per_decade(self.complexity.at(scale))) for scale in self.scales]

    @functools.cached_property
    def full_weights(self) -> int:
        """Kernel weights of the full-size network."""
        return kernel_weights(self.family.network_def)

    @property
    def covered_compression(self) -> float:
        """The largest compression that the law was measured at, for this network."""
        return self.law.covered_compression(self.full_weights)

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

        If the law is only assumed to hold for this network, as it is at a working scale at which it was not measured,
        the interval is unknown.
        """
        if self.complexity is None:
            return None
        cases = [(self.complexity.at(1), self.compression(channels))]
        if self.allocation == "complexity":
            shares = self.family.multipliers(channels)
            pairs = zip(self.scales, shares, strict=True)
            cases = [(self.complexity.at(scale), share**-2) for scale, share in pairs]
        least = min((self.law.predict_interval(*case) for case in cases), key=lambda prediction: prediction.score)
        network_def = self.family.network_def
        assumed = self.law.assumption_for(network_def, self.family.spatial_dims, self.full_weights)
        return replace(least, low=None, high=None) if assumed or self.family.scale != self.law.scale else least
