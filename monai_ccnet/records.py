"""The record of one trained network and its scores, the input of calibrations and comparisons."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import monai
import numpy as np
import torch

from monai_ccnet import __version__
from monai_ccnet.degradation.law import METRICS
from monai_ccnet.files import file_digest
from monai_ccnet.networks.scaling import scale_of
from monai_ccnet.networks.size import NetworkSize, network_size
from monai_ccnet.scales import Scale
from monai_ccnet.values import Value, check_numbers

__all__ = ["METRICS", "TrialRecord", "constant_score", "evaluated_record", "failure_words", "remedies"]

_PER_IMAGE = {  # from the counts of true positives, false positives, true negatives and false negatives
    "f1": lambda tp, fp, tn, fn: 2 * tp / (2 * tp + fp + fn),
    "jaccard": lambda tp, fp, tn, fn: tp / (tp + fp + fn),
    "accuracy": lambda tp, fp, tn, fn: (tp + tn) / (tp + fp + tn + fn),
    "sensitivity": lambda tp, fp, tn, fn: tp / (tp + fn),
    "specificity": lambda tp, fp, tn, fn: tn / (tn + fp),
}


@dataclass(frozen=True)
class TrialRecord(Value):
    """One trained network, or one whose training failed.

    Attributes:
        dataset: name of the data set.
        network_def: the network's MONAI config.
        multiplier: channels per channel of the full-size network, if it is the same for all stages.
        recipe: settings of ``train.yaml``, by their ids: those that were given and those derived from the data, without
            the data's location.
        size: exact sizes of the network.
        file_bytes: bytes of the file of weights that was written.
        weights_digest: SHA-256 digest of that file; ``None`` in records of earlier releases.
        scores: metrics on the test images, by name: means over images and foreground classes, as in the paper; ``None``
            where it is undefined.
        pooled: metrics over the pixels of all test images together, by name: means over foreground classes.
        per_image: each metric of each test image, mean over foreground classes; ``None`` where it is undefined.
        constant_score: F1 of the best constant prediction; a network that is no better has failed to learn.
        losses: mean training loss of each epoch.
        seconds: time of training and evaluation together, in seconds.
        versions: versions of the packages and of Python, and the kind of the machine.
        error: message of the error that stopped the training run, whose scores are then empty; ``None`` without one.
    """

    dataset: str
    network_def: dict[str, Any]
    multiplier: float | None
    recipe: dict[str, Any]
    size: NetworkSize
    file_bytes: int
    scores: dict[str, float | None]
    pooled: dict[str, float | None]
    per_image: dict[str, list[float | None]]
    constant_score: float
    losses: tuple[float, ...]
    seconds: float
    versions: dict[str, str]
    error: str | None = None
    weights_digest: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "losses", tuple(self.losses))
        if self.error is None and not ("f1" in self.scores and "f1" in self.per_image):
            raise ValueError("a record without an error needs the F1 of all test images and of each, `f1`.")
        given = {"file_bytes": self.file_bytes, "constant_score": self.constant_score, "seconds": self.seconds}
        check_numbers("a record", 0, multiplier=self.multiplier, **given)

    @property
    def has_learned(self) -> bool:
        """Whether the network's F1 exceeds that of the best constant prediction."""
        return self.error is None and (self.scores["f1"] or 0.0) > self.constant_score

    @property
    def scale(self) -> Scale:
        """Factor by which the network averages its input down: one number, or one for each axis."""
        return scale_of(self.network_def)

    def score(self, metric: str) -> float:
        """Return a score by its name.

        Raises:
            ValueError: if it is undefined.
        """
        if (score := self.scores.get(metric)) is None:
            raise ValueError(f"{metric} of a network on {self.dataset!r} is undefined: no test label has a foreground.")
        return score

    @property
    def failure(self) -> str | None:
        """What to say and to do if the network has not learned, judged from its losses; ``None`` if it has."""
        if self.has_learned:
            return None
        return failure_words(self.scores.get("f1"), self.constant_score, self.losses, "test")


def failure_words(f1: float | None, constant: float, losses: Sequence[float], part: str) -> str:
    """Return what is said of a network that has not learned, and what is likely to help.

    Args:
        f1: its F1, ``None`` if that is undefined.
        constant: F1 of the best constant answer.
        losses: mean training loss of each epoch.
        part: which images were judged, such as ``"test"``.
    """
    words = "undefined" if f1 is None else f"{f1:.4f}"
    return (
        f"FAILED: the network has not learned. Its F1 on the {part} images is {words}; the best constant answer has "
        f"{constant:.4f}. {remedies(losses)}"
    )


def remedies(losses: Sequence[float]) -> str:
    """Return what is likely to help a network that has not learned, judged from the losses of its epochs.

    >>> remedies([0.7, 0.5, 0.3, 0.2])
    'The loss is still falling: train for more steps (--max_epochs).'
    """
    quarter = max(1, len(losses) // 4)
    if len(losses) < 4:
        return "So few epochs tell little: train for more steps (--max_epochs)."
    first, before, last = (
        float(np.mean(part)) for part in (losses[:quarter], losses[-2 * quarter : -quarter], losses[-quarter:])
    )
    if last < 0.95 * before:
        return "The loss is still falling: train for more steps (--max_epochs)."
    if last > 0.9 * first:
        return (
            "The loss hardly fell: try --lambda_dice 1, a larger patch, a lower learning rate, or a leaky ReLU "
            "(--network_def::act)."
        )
    return (
        "The loss fell, and the answer is the background alone or nearly so: try --lambda_dice 1, a larger patch, or "
        "more steps (--max_epochs)."
    )


def evaluated_record(
    metrics: Mapping[str, float],
    details: Any,
    *,
    dataset: str,
    network_def: Mapping[str, Any],
    input_shape: Sequence[int] | None,
    weights_file: str | os.PathLike,
    multiplier: float | None = None,
    recipe: Mapping[str, Any] | None = None,
    losses: Sequence[float] = (),
    seconds: float = 0.0,
) -> TrialRecord:
    """Return the record of a network that was evaluated.

    Args:
        metrics: means over the test images, ``"f1"`` among them.
        details: true positives, false positives, true negatives and false negatives, ``(images, classes, 4)``, as
            ``monai.handlers.ConfusionMatrix`` leaves them.
        dataset: name of the data set.
        network_def: the network's MONAI config.
        input_shape: shape of the input for which the sizes are stated, ``(B, C, H, W[, D])``.
        weights_file: path of the file of weights.
        multiplier: channels per channel of the full-size network.
        recipe: settings of the training run, by their ids.
        losses: mean training loss of each epoch.
        seconds: time of training and evaluation, in seconds.
    """
    counts = _counts(details)
    per_image = {name: _class_mean(_ratio(score, counts)) for name, score in _PER_IMAGE.items()}
    totals = {name: _class_mean(_ratio(score, counts.sum(axis=0))[None])[0] for name, score in _PER_IMAGE.items()}
    return TrialRecord(
        dataset=dataset,
        network_def=dict(network_def),
        multiplier=multiplier,
        recipe=dict(recipe or {}),
        size=network_size(network_def, input_shape),
        file_bytes=os.path.getsize(weights_file),
        weights_digest=file_digest(weights_file),
        scores={name: _defined(value) for name, value in metrics.items()},
        pooled={name: _defined(value) for name, value in totals.items()},
        per_image={name: list(map(_defined, values)) for name, values in per_image.items()},
        constant_score=constant_score(details),
        losses=tuple(losses),
        seconds=seconds,
        versions={
            "monai_ccnet": __version__,
            "monai": monai.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        },
    )


def _counts(details: Any) -> np.ndarray:
    """Return true positives, false positives, true negatives and false negatives, ``(images, classes, 4)``."""
    return np.asarray(torch.as_tensor(details).cpu(), dtype=np.float64)


def _ratio(score: Any, counts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(score(*np.moveaxis(counts, -1, 0)))


def _class_mean(values: np.ndarray) -> list[float]:
    """Return the mean over the classes that an image has, NaN if it has none."""
    return [float(np.mean(row[~np.isnan(row)])) if not np.isnan(row).all() else math.nan for row in values]


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def constant_score(details: Any) -> float:
    """Return the F1 of the best constant prediction, the mean over images and foreground classes.

    Args:
        details: true positives, false positives, true negatives and false negatives, ``(images, classes, 4)``.
    """
    tp, fp, tn, fn = np.moveaxis(_counts(details), -1, 0)
    present, pixels = tp + fn, tp + fp + tn + fn
    scores = []
    for answer in range(present.shape[1]):
        f1 = np.where(present > 0, 0.0, np.nan)
        f1[:, answer] = 2 * present[:, answer] / (present[:, answer] + pixels[:, answer])
        means = [value for value in _class_mean(f1) if not math.isnan(value)]
        scores.append(float(np.mean(means)) if means else 0.0)
    return max(scores, default=0.0)
