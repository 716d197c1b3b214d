"""Segmentations over their images, in the colours of the paper's Figs. 9-11."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_ccnet.complexity.pictures import as_array, to_pictures
from monai_ccnet.figures.canvas import PAGE_WIDTH, Figure, without_ticks
from monai_ccnet.training import SegmentedImage

__all__ = ["draw_overlays", "overlay"]

_MISSED, _ADDED, _AGREED = (235, 45, 45), (40, 200, 60), (250, 225, 50)
_OPACITY = 0.6


def overlay(image: Any, truth: Any, prediction: Any) -> np.ndarray:
    """Draw a label and a prediction over an image: yellow is correct, red is missed, green is added.

    A pixel of an object with the wrong class counts as missed: red.

    Args:
        image: image of shape ``(C, H, W)`` or ``(C, H, W, D)``, any real dtype, with its first axis along x as MONAI
            reads it; of channels that are not colours the first is shown.
        truth: class indices of shape ``(1, H, W)`` or ``(1, H, W, D)``, 0 the background.
        prediction: predicted class indices, of the same shape as ``truth``.

    Returns:
        A picture of shape ``(H, W, 3)``, RGB, ``uint8``, its rows along y; for a volume, the axial slice with the most
        foreground in ``truth``.

    Raises:
        ValueError: if the shapes of the image, the label and the prediction do not match.

    >>> image, truth = np.zeros((1, 2, 2)), np.array([[[1, 0], [1, 0]]])
    >>> picture = overlay(image, truth, np.array([[[1, 1], [0, 0]]]))
    >>> picture[0, 0].tolist(), picture[1, 0].tolist(), picture[0, 1].tolist(), picture[1, 1].tolist()
    ([150, 135, 30], [24, 120, 36], [141, 27, 27], [0, 0, 0])
    """
    picture, labels, found = _pictures(image, truth, prediction)
    blended = picture.astype(np.float64)
    agreed, missed = (labels > 0) & (labels == found), (labels > 0) & (labels != found)
    for mask, colour in ((agreed, _AGREED), (missed, _MISSED), ((labels == 0) & (found > 0), _ADDED)):
        blended[mask] = (1 - _OPACITY) * blended[mask] + _OPACITY * np.array(colour)
    return np.rint(blended).astype(np.uint8)


def draw_overlays(models: Mapping[str, Sequence[SegmentedImage]]) -> Figure:
    """Draw a few test images, and beside or below each its segmentations by several networks (Figs. 9-11).

    Args:
        models: segmentations of the same images by each network, by a name of the network, such as its width.

    Raises:
        ValueError: if there is nothing to draw, or the networks did not segment the same images.
    """
    shown = {tuple(each.name for each in segmented) for segmented in models.values()}
    if len(shown) != 1 or shown == {()}:
        raise ValueError(f"overlays need one network or more that segmented the same images, got {sorted(shown)}.")
    images = next(iter(models.values()))
    beside = len(images) < 1 + len(models)  # the orientation with fewer rows
    rows, columns = (len(images), 1 + len(models)) if beside else (1 + len(models), len(images))
    height = max(min(2.0, as_array(each.truth).shape[2] / as_array(each.truth).shape[1]) for each in images)
    panel = min(2.4, PAGE_WIDTH / columns)
    figure = Figure(figsize=(panel * columns + 0.3, rows * (panel * height + 0.35) + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    by_image = grid if beside else grid.T
    for axes_line, image, *segmented in zip(by_image, images, *models.values(), strict=True):
        axes_line[0].imshow(_pictures(image.image, image.truth, image.prediction)[0])
        axes_line[0].set_xlabel(image.name if len(image.name) < 22 else f"...{image.name[-18:]}", fontsize=8)
        for axes, each in zip(axes_line[1:], segmented, strict=True):
            axes.imshow(overlay(each.image, each.truth, each.prediction))
            axes.set_xlabel("F1 undefined" if each.f1 is None else f"F1 {each.f1:.3f}", fontsize=9)
    for axes, name in zip(by_image[0], ["image", *models], strict=True):
        axes.set_title(name, fontsize=9) if beside else axes.set_ylabel(name, fontsize=9)
    for axes in grid.ravel():
        without_ticks(axes)
    figure.suptitle("yellow: correct, red: missed, green: added", fontsize=10)
    return figure


def _pictures(image: Any, truth: Any, prediction: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the picture of an image, ``(H, W, 3)``, and its true and predicted classes, ``(H, W)``."""
    pixels, labels, found = as_array(image), as_array(truth), as_array(prediction)
    if not labels.shape == found.shape == (1, *pixels.shape[1:]):
        raise ValueError(
            f"a label and a prediction must have the shape (1, {', '.join(map(str, pixels.shape[1:]))}) of the image, "
            f"got {labels.shape} and {found.shape}."
        )
    picture = to_pictures(pixels)[0]
    labels, found = labels[0].T, found[0].T  # (H, W) or (D, H, W), as pictures are
    if labels.ndim == 3:
        shown = int(np.argmax((labels > 0).sum(axis=(1, 2))))
        picture, labels, found = picture[shown], labels[shown], found[shown]
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1), labels, found
