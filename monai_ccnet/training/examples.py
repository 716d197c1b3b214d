"""Segmentations of a few test images by a trained network, for figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser

from monai_ccnet.complexity.pictures import as_radiologists_see
from monai_ccnet.data.images import as_paths, load_image
from monai_ccnet.names import named_in
from monai_ccnet.records import TrialRecord
from monai_ccnet.training.stages import load_trained
from monai_ccnet.training.sweeps import Trial
from monai_ccnet.training.trial import open_trial

__all__ = ["SegmentedImage", "from_worst_to_best", "segment_examples", "segment_sweep"]


class SegmentedImage(NamedTuple):
    """A test image, its label, and its segmentation by a network.

    Attributes:
        name: name of the image's file.
        image: image as it is in its file, a volume as radiologists see it, of shape ``(C, H, W)`` or ``(C, H, W, D)``.
        truth: class indices of shape ``(1, H, W)`` or ``(1, H, W, D)``.
        prediction: class indices of the same shape.
        f1: F1 of this image, mean over foreground classes; ``None`` where it is undefined.
        place: position among the test images, from 0.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    f1: float | None
    place: int


def segment_examples(
    parser: ConfigParser, scores: Sequence[float | None], images: int | Sequence[int] = 3
) -> list[SegmentedImage]:
    """Segment a few test images with a trained network, as in its evaluation.

    Args:
        parser: initialized parser of ``train.yaml`` and ``evaluate.yaml``, whose ``output_dir`` holds the weights.
        scores: F1 of each test image, ``None`` where it is undefined.
        images: positions among the test images, or their number, from the one with the worst F1 to the one with the
            best.

    Raises:
        FileNotFoundError: if the weights are missing.
    """
    preprocessing, inferer, postprocessing, network, device, datalist, weights_file = (
        parser.get_parsed_content(key)
        for key in (
            "validate::preprocessing",
            "validate::inferer",
            "validate::postprocessing",
            "test::network",
            "device",
            "test_datalist",
            "weights_file",
        )
    )
    network = load_trained(network, weights_file).to(device).eval()
    segmented = []
    for place in from_worst_to_best(scores, images) if isinstance(images, int) else images:
        item = preprocessing(datalist[place])
        with torch.inference_mode():
            answer = inferer(item["image"][None].to(device), network)[0]
        image, scored = load_image(datalist[place]["image"]), postprocessing({**item, "pred": answer})
        shown = [np.asarray(image), *(np.asarray(scored[key].cpu()) for key in ("label", "pred"))]
        pixels, truth, prediction = (as_radiologists_see(array, image.affine) for array in shown)
        segmented.append(
            SegmentedImage(
                name=os.path.basename(as_paths(datalist[place]["image"])[0]),
                image=pixels,
                truth=truth.argmax(axis=0, keepdims=True),
                prediction=prediction.argmax(axis=0, keepdims=True),
                f1=scores[place],
                place=place,
            )
        )
    return segmented


def segment_sweep(
    trials: Sequence[Trial], images: int = 2, widths: int = 4
) -> dict[str, dict[str, list[SegmentedImage]]]:
    """Segment the same test images of each data set with networks of several widths, as in the paper's Figs. 9-11.

    Args:
        trials: finished training runs; of several seeds the first is shown, and failed runs are skipped.
        images: number of images of each data set, from the worst to the best F1 of the widest network.
        widths: number of multipliers shown, evenly from the widest to the narrowest.

    Returns:
        The segmented images by data set and multiplier; :func:`monai_ccnet.figures.draw_overlays` draws those of one
        data set.
    """
    found: dict[str, dict[float, Trial]] = {}
    for trial in sorted(trials, key=lambda trial: -(trial.multiplier or 0.0)):
        record = TrialRecord.load(Path(trial.output_dir) / "record.json", named_in(trial.network_def))
        if record.error is None:
            found.setdefault(record.dataset, {}).setdefault(trial.multiplier or 0.0, trial)
    segmented: dict[str, dict[str, list[SegmentedImage]]] = {}
    for dataset, by_multiplier in found.items():
        shown: int | list[int] = images
        for multiplier in _evenly(list(by_multiplier), widths):
            trial = by_multiplier[multiplier]
            workflow = open_trial(trial.bundle_root, trial.output_dir, trial.network_def, **trial.recipe)
            workflow.initialize()
            record = TrialRecord.load(Path(trial.output_dir) / "record.json", named_in(trial.network_def))
            examples = segment_examples(workflow.parser, record.per_image["f1"], shown)
            segmented.setdefault(dataset, {})[f"{multiplier:g}\nof the width"] = examples
            shown = [each.place for each in examples]
    return segmented


def from_worst_to_best(scores: Sequence[float | None], count: int) -> list[int]:
    """Return the positions of ``count`` scores, evenly from the least to the greatest, undefined only if all are."""
    known = sorted((score, index) for index, score in enumerate(scores) if score is not None)
    return _evenly([index for _, index in known] or list(range(len(scores))), count)


def _evenly(items: list[Any], count: int) -> list[Any]:
    """Return ``count`` of the items, evenly spaced, with the first and the last.

    >>> _evenly([1.0, 0.75, 0.5, 0.25, 0.1875, 0.125, 0.0625], 4)
    [1.0, 0.5, 0.1875, 0.0625]
    """
    places = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[round(place)] for place in places]
