"""The table of measures, and a function that applies any of them to an image or a label at several scales."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_ccnet.complexity.ceiling import label_ceiling, restored_label
from monai_ccnet.complexity.clutter import feature_congestion, subband_entropy
from monai_ccnet.complexity.edges import edge_information, spatial_information
from monai_ccnet.complexity.energy import shannon_entropy, signal_energy
from monai_ccnet.complexity.foreground import foreground_density, jb_complexity
from monai_ccnet.complexity.frequency import median_frequency
from monai_ccnet.complexity.jpeg import jpeg_complexity
from monai_ccnet.complexity.keypoints import sift_keypoints, surf_keypoints
from monai_ccnet.complexity.label import (
    boundary_density,
    class_indices,
    label_at_scale,
    label_detail,
    label_jpeg_complexity,
)
from monai_ccnet.complexity.pictures import as_array, check_channel_first, in_ras, to_pictures
from monai_ccnet.complexity.scales import at_scale
from monai_ccnet.settings import unknown_setting

__all__ = ["MEASURES", "SCALES", "Measure", "complexity_at_scales", "measure_settings", "needs", "scales_with"]

SCALES = (1, 2, 4, 8, 16)
_PICTURE_SETTINGS: dict[str, Any] = {"intensity": "auto", "channels": "auto", "axes": "xy"}


@dataclass(frozen=True)
class Measure:
    """A measure: its function, whether it needs the image or the label, and its settings with their defaults.

    The function of a measure of images takes one 8-bit picture; that of a measure of labels takes class indices of
    shape ``(H, W)`` or ``(D, H, W)``. With ``compares`` it takes the classes at full scale, then those of the scale,
    which ``restored`` gives.

    ``reference`` among the settings means that the measure is a number of bytes relative to either the ``"raw"`` 8-bit
    image or the ``"file"`` that it was read from.
    """

    function: Callable[..., float]
    source: str
    settings: Mapping[str, Any]
    compares: bool = False
    restored: Callable[[np.ndarray, int], np.ndarray] = label_at_scale


MEASURES: dict[str, Measure] = {
    "jpeg": Measure(jpeg_complexity, "image", {"quality": 25, "subsampling": "4:2:0", "reference": "raw"}),
    "energy": Measure(signal_energy, "image", {"without_mean": False}),
    "edges": Measure(edge_information, "image", {"kernel": "sobel"}),
    "spatial_information": Measure(spatial_information, "image", {"statistic": "mean", "kernel": "sobel"}),
    "surf": Measure(surf_keypoints, "image", {"statistic": "count"}),
    "sift": Measure(sift_keypoints, "image", {"statistic": "count"}),
    "feature_congestion": Measure(feature_congestion, "image", {}),
    "subband_entropy": Measure(subband_entropy, "image", {}),
    "median_frequency": Measure(median_frequency, "image", {}),
    "entropy": Measure(shannon_entropy, "image", {}),
    "foreground": Measure(foreground_density, "label", {}),
    "boundary": Measure(boundary_density, "label", {"spacing": "pixels"}),
    "label_jpeg": Measure(label_jpeg_complexity, "label", {"quality": 25}),
    "label_detail": Measure(label_detail, "label", {}, compares=True),
    "label_ceiling": Measure(label_ceiling, "label", {}, compares=True, restored=restored_label),
}
_JB_DEFAULTS = {"omega": 0.7}


def measure_settings(measure: str, **settings: Any) -> dict[str, Any]:
    """Return all the settings that a number depends on: the defaults of ``measure``, updated with ``settings``.

    Args:
        measure: a key of :data:`MEASURES`, or ``"jb"``, the mix of ``"jpeg"`` and ``"foreground"``.
        settings: settings of the measure, see :func:`to_pictures` and the measure's own function.

    Raises:
        ValueError: if a measure or a setting is unknown; the message lists those allowed.
    """
    if measure not in {*MEASURES, "jb"}:
        raise ValueError(f"unknown measure {measure!r}; known are {sorted({*MEASURES, 'jb'})}.")
    kind = MEASURES["jpeg" if measure == "jb" else measure]
    known = {**kind.settings, **(_PICTURE_SETTINGS if kind.source == "image" else {})}
    known.update(_JB_DEFAULTS if measure == "jb" else {})
    for name in settings:
        if name not in known:
            raise unknown_setting(name, known, f"measure {measure!r}")
    if settings.get("reference", "raw") not in ("raw", "file"):
        raise ValueError(f"reference must be 'raw' or 'file', got {settings['reference']!r}.")
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return {"measure": measure, **known, **plain}


def scales_with(scales: Iterable[int]) -> list[int]:
    """Return the scales of the paper together with others, in ascending order.

    >>> scales_with((1, 32))
    [1, 2, 4, 8, 16, 32]
    """
    return sorted({*SCALES, *scales})


def needs(measure: str) -> tuple[str, ...]:
    """Return what a measure needs: ``("image",)``, ``("label",)`` or both."""
    return ("image", "label") if measure == "jb" else (MEASURES[measure].source,)


def complexity_at_scales(
    image: Any = None,
    label: Any = None,
    *,
    settings: Mapping[str, Any] | None = None,
    scales: Sequence[int] = SCALES,
    file_bytes: int | None = None,
    spacing: Sequence[float] | None = None,
) -> dict[int, float]:
    """Measure one image, or one label, at several scales.

    At scale ``s`` the image is subsampled by ``s`` along each spatial axis and restored, see
    :func:`~monai_ccnet.complexity.scales.at_scale`. The result for a volume is the mean over its axial slices, that for
    several channels the mean over the channels. A volume that is a MetaTensor is first turned by its affine, so that
    its slices are axial however it was stored; any other volume is taken to be in RAS orientation.

    Args:
        image: array or tensor of shape ``(C, H, W)`` or ``(C, H, W, D)``; not needed for a measure of labels.
        label: class indices of shape ``(1, H, W)`` or ``(1, H, W, D)``, or one channel of 0 and 1 per class without the
            background; see :func:`~monai_ccnet.complexity.label.class_indices`. Not needed for a measure of images.
        settings: settings as :func:`measure_settings` returns them; JPEG with its defaults if ``None``.
        scales: subsampling factors, whole numbers from 1.
        file_bytes: size in bytes of the image's file, needed with ``reference="file"``.
        spacing: spacing of the label's pixels along each of its axes, as they are given, in millimetres; needed with
            ``spacing="physical"``.

    Returns:
        The complexity at each scale.

    Raises:
        ValueError: if an input is missing, of a wrong shape or kind, or holds NaN or infinite values, a label holds
            what is no class, or the affine of a volume cannot be inverted.

    >>> image = np.random.default_rng(0).integers(0, 256, (1, 64, 64))
    >>> values = complexity_at_scales(image, scales=(1, 2, 4))
    >>> values[1] > values[2] > values[4]
    True
    """
    settings = dict(settings or measure_settings("jpeg"))
    measure = settings["measure"]
    if measure == "jb":
        omega = settings.pop("omega")
        jpeg = complexity_at_scales(
            image, settings={**settings, "measure": "jpeg"}, scales=scales, file_bytes=file_bytes
        )
        density = complexity_at_scales(label=label, settings=measure_settings("foreground"), scales=scales)
        return {scale: jb_complexity(jpeg[scale], density[scale], omega) for scale in scales}
    kind = MEASURES[measure]
    looked_at = image if kind.source == "image" else label
    if looked_at is None:
        raise ValueError(f"measure {measure!r} needs the {kind.source}, and none was given.")
    array = as_array(looked_at)
    check_channel_first(array, kind.source)  # before the axes of a volume are permuted
    space = getattr(looked_at, "meta", {}).get("space", "RAS")
    array, spacing = in_ras(array, getattr(looked_at, "affine", None), spacing, space)
    if kind.source == "image":
        return _of_image(array, kind, settings, scales, file_bytes)
    return _of_label(array, kind, settings, scales, spacing)


def _of_image(
    image: np.ndarray, kind: Measure, settings: Mapping[str, Any], scales: Sequence[int], file_bytes: int | None
) -> dict[int, float]:
    own = {key: settings[key] for key in kind.settings if key != "reference"}
    relative_to = 1.0
    if settings.get("reference") == "file":
        if not file_bytes:
            raise ValueError(
                "reference='file' needs the file that the image was read from: give file paths, not arrays."
            )
        relative_to = file_bytes / image.size
    pictures = to_pictures(image, **{key: settings[key] for key in _PICTURE_SETTINGS})
    volume = image.ndim == 4

    def measured(picture: np.ndarray, scale: int) -> float:
        view = at_scale(picture, scale, volume=volume)
        return float(np.mean([kind.function(plane, **own) for plane in (view if volume else [view])]))

    return {scale: float(np.mean([measured(p, scale) for p in pictures])) / relative_to for scale in scales}


def _of_label(
    label: np.ndarray,
    kind: Measure,
    settings: Mapping[str, Any],
    scales: Sequence[int],
    spacing: Sequence[float] | None,
) -> dict[int, float]:
    own = {key: settings[key] for key in kind.settings}
    if (unit := own.pop("spacing", "pixels")) == "physical":
        if spacing is None:
            raise ValueError("spacing='physical' needs the size of a pixel: give files or MetaTensors with it.")
        own["spacing"] = (spacing[-1], *spacing[:-1]) if label.ndim == 4 else tuple(spacing)
    elif unit != "pixels":
        raise ValueError(f"spacing must be 'pixels' or 'physical', got {unit!r}.")
    classes = class_indices(label)
    full = (classes,) if kind.compares else ()
    return {scale: kind.function(*full, kind.restored(classes, scale), **own) for scale in scales}
