"""The table of measures, and any of them on any image or label at any scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_ccnet.complexity.clutter import feature_congestion, subband_entropy
from monai_ccnet.complexity.edges import edge_information, spatial_information
from monai_ccnet.complexity.energy import shannon_entropy, signal_energy
from monai_ccnet.complexity.foreground import foreground_density, jb_complexity
from monai_ccnet.complexity.frequency import median_frequency
from monai_ccnet.complexity.jpeg import jpeg_complexity
from monai_ccnet.complexity.keypoints import sift_keypoints, surf_keypoints
from monai_ccnet.complexity.pictures import as_array, to_pictures
from monai_ccnet.complexity.scales import at_scale

__all__ = ["MEASURES", "SCALES", "Measure", "complexity_at_scales", "measure_settings", "needs"]

SCALES = (1, 2, 4, 8, 16)
_PICTURE_SETTINGS: dict[str, Any] = {"intensity": "auto", "channels": "auto", "axes": "xy"}


@dataclass(frozen=True)
class Measure:
    """A measure: a function of one 8-bit picture, what it looks at, and its settings with their defaults.

    ``reference`` among the settings means that the measure is a number of bytes relative to either the ``"raw"`` 8-bit
    image or the ``"file"`` that it was read from.
    """

    function: Callable[..., float]
    source: str
    settings: Mapping[str, Any]


def _restored_density(mask: np.ndarray) -> float:
    """Foreground density of a 0/255 mask that was subsampled and restored: what is at least half foreground counts."""
    return foreground_density(mask >= 128)


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
    "foreground": Measure(_restored_density, "label", {}),
}
_JB_DEFAULTS = {"omega": 0.7}


def measure_settings(measure: str, **settings: Any) -> dict[str, Any]:
    """Return all the settings that a number depends on: the defaults of ``measure``, updated with ``settings``.

    Args:
        measure: a key of :data:`MEASURES`, or ``"jb"``, the mix of ``"jpeg"`` and ``"foreground"``.
        settings: any of the settings of the measure, see :func:`to_pictures` and the measure's own function.

    Raises:
        ValueError: for an unknown measure or setting, with those allowed.
    """
    if measure not in {*MEASURES, "jb"}:
        raise ValueError(f"unknown measure {measure!r}; known are {sorted({*MEASURES, 'jb'})}.")
    kind = MEASURES["jpeg" if measure == "jb" else measure]
    known = {**kind.settings, **(_PICTURE_SETTINGS if kind.source == "image" else {})}
    known.update(_JB_DEFAULTS if measure == "jb" else {})
    if unknown := set(settings) - set(known):
        raise ValueError(f"measure {measure!r} has no setting {sorted(unknown)}; it has {sorted(known)}.")
    if settings.get("reference", "raw") not in ("raw", "file"):
        raise ValueError(f"reference must be 'raw' or 'file', got {settings['reference']!r}.")
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return {"measure": measure, **known, **plain}


def needs(measure: str) -> tuple[str, ...]:
    """Return what a measure looks at: ``("image",)``, ``("label",)`` or both."""
    return ("image", "label") if measure == "jb" else (MEASURES[measure].source,)


def complexity_at_scales(
    image: Any = None,
    label: Any = None,
    *,
    settings: Mapping[str, Any] | None = None,
    scales: Sequence[int] = SCALES,
    file_bytes: int | None = None,
) -> dict[int, float]:
    """Measure one image, or one label, at several scales.

    At scale ``s`` the image is subsampled by ``s`` along each spatial axis and restored, see
    :func:`~monai_ccnet.complexity.scales.at_scale`. A volume is the mean over its axial slices, a many-channel image
    the mean over its channels.

    Args:
        image: array or tensor of shape ``(C, H, W)`` or ``(C, H, W, D)``; not needed where the measure is of the label.
        label: class indices of shape ``(1, H, W)`` or ``(1, H, W, D)``, or a channel a class without the background;
            all that is above 0 is foreground. Not needed where the measure is of the image.
        settings: as :func:`measure_settings` returns them; JPEG with its defaults if ``None``.
        scales: whole numbers from 1.
        file_bytes: size of the file the image was read from, where the settings say ``reference="file"``.

    Returns:
        The complexity at each scale.

    Raises:
        ValueError: if an input is missing, of a wrong shape, or holds NaN or infinite values.

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
        raise ValueError(f"measure {measure!r} looks at the {kind.source}, and none was given.")
    given = as_array(looked_at)
    own = {key: settings[key] for key in kind.settings if key != "reference"}
    if kind.source == "image":
        pictures = to_pictures(given, **{key: settings[key] for key in _PICTURE_SETTINGS})
    else:
        pictures = [_label_picture(given)]
    relative_to = 1.0
    if settings.get("reference") == "file":
        if not file_bytes:
            raise ValueError(
                "reference='file' needs the file that the image was read from: give file paths, not arrays."
            )
        relative_to = file_bytes / given.size
    is_volume = given.ndim == 4
    return {
        scale: float(np.mean([_measure(kind, at_scale(p, scale, volume=is_volume), is_volume, own) for p in pictures]))
        / relative_to
        for scale in scales
    }


def _measure(kind: Measure, view: np.ndarray, is_volume: bool, own: Mapping[str, Any]) -> float:
    return float(np.mean([kind.function(plane, **own) for plane in view])) if is_volume else kind.function(view, **own)


def _label_picture(label: np.ndarray) -> np.ndarray:
    if label.ndim not in (3, 4) or label.size == 0:
        raise ValueError(
            f"a label must have the shape (1, H, W) or (1, H, W, D) with no empty axis, got {label.shape}."
        )
    if label.dtype.kind == "f" and not np.isfinite(label).all():
        raise ValueError("the label holds NaN or infinite values: repair it first.")
    foreground = (label > 0).any(axis=0).astype(np.uint8) * np.uint8(255)
    return np.ascontiguousarray(np.moveaxis(foreground, -1, 0)) if foreground.ndim == 3 else foreground
