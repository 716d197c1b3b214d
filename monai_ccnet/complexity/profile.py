"""How complex a data set is at each image scale."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_ccnet.complexity.foreground import jb_complexity
from monai_ccnet.complexity.measures import SCALES, complexity_at_scales, measure_settings, needs
from monai_ccnet.complexity.pictures import as_array
from monai_ccnet.values import Value

__all__ = ["PUBLISHED_SETTINGS", "ComplexityProfile", "measure_dataset"]

# The paper states the quality and no more; what was divided by what cannot be recovered from its numbers.
PUBLISHED_SETTINGS: dict[str, Any] = {"measure": "jpeg", "quality": 25, "source": "Mishra, Chen, Hu: Table 1"}

_PUBLISHED_JPEG: dict[str, tuple[float, ...]] = {  # Table 1, at scales 1, 2, 4, 8, 16
    "wing_disk": (0.0279, 0.0187, 0.0175, 0.0166, 0.0156),
    "drive": (0.0362, 0.0303, 0.0284, 0.0269, 0.0255),
    "melanoma": (0.0642, 0.0459, 0.0361, 0.0296, 0.0250),
    "lymph_node": (0.1518, 0.0857, 0.0655, 0.0496, 0.0375),
    "chase_db1": (0.2826, 0.2204, 0.1971, 0.1789, 0.1636),
}
_PUBLISHED_FOREGROUND: dict[str, tuple[float, ...]] = {
    "lymph_node": (0.0812, 0.0813, 0.0811, 0.0809, 0.0799)
}  # Table 2
_PUBLISHED_COUNTS = {"wing_disk": 889, "drive": 20, "melanoma": 2150, "lymph_node": 137, "chase_db1": 20}


@dataclass(frozen=True)
class ComplexityProfile(Value):
    """The mean complexity of a data set at each image scale, and the settings it was measured with.

    Attributes:
        dataset: name of the data set.
        settings: everything the numbers depend on; complexities compare only at equal settings.
        scales: subsampling along each axis, ascending, from 1.
        mean: mean complexity over the images at each scale, unitless.
        standard_error: standard error of each mean; ``None`` where it is not known, as for one image.
        count: number of images measured.
    """

    dataset: str
    settings: dict[str, Any]
    scales: tuple[int, ...]
    mean: tuple[float, ...]
    standard_error: tuple[float, ...] | None
    count: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", dict(self.settings))
        object.__setattr__(self, "scales", tuple(int(scale) for scale in self.scales))
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        if self.standard_error is not None:
            object.__setattr__(self, "standard_error", tuple(float(value) for value in self.standard_error))
        if not self.scales or list(self.scales) != sorted(set(self.scales)) or self.scales[0] < 1:
            raise ValueError(f"scales must be distinct, ascending and at least 1, got {self.scales}.")
        lengths = {len(self.scales), len(self.mean), len(self.standard_error or self.mean)}
        if len(lengths) != 1:
            raise ValueError(
                f"{len(self.scales)} scales need as many means and standard errors, got {sorted(lengths)}."
            )
        if not np.isfinite([*self.mean, *(self.standard_error or ())]).all() or min(self.mean) < 0:
            raise ValueError(f"complexities must be finite and not negative, got {self.mean}, {self.standard_error}.")
        if self.count < 1:
            raise ValueError(f"a profile needs at least one image, got count={self.count}.")

    def at(self, scale: int) -> float:
        """Return the mean complexity at a scale that was measured."""
        if scale not in self.scales:
            raise ValueError(
                f"the profile of {self.dataset!r} has the scales {self.scales}, and {scale} is needed: "
                f"measure the data set with scales=(..., {scale})."
            )
        return self.mean[self.scales.index(scale)]

    @classmethod
    def published(cls, dataset: str, measure: str = "jpeg", omega: float = 0.7) -> ComplexityProfile:
        """Return a profile of the paper: Table 1, or for the lymph node data set also Table 2.

        Args:
            dataset: ``"wing_disk"``, ``"drive"``, ``"melanoma"``, ``"lymph_node"`` or ``"chase_db1"``.
            measure: ``"jpeg"``; for ``"lymph_node"`` also ``"foreground"`` and ``"jb"``.
            omega: weight of JPEG in ``"jb"``: 0.7 for U-Net, 0.775 for CUMedVision, 0.95 for UCU-Net.

        >>> ComplexityProfile.published("lymph_node").at(2)
        0.0857
        """
        tables: dict[str, dict[str, tuple[float, ...]]] = {
            "jpeg": _PUBLISHED_JPEG,
            "foreground": _PUBLISHED_FOREGROUND,
            "jb": {
                name: tuple(
                    jb_complexity(jpeg, foreground, omega)
                    for jpeg, foreground in zip(_PUBLISHED_JPEG[name], densities, strict=True)
                )
                for name, densities in _PUBLISHED_FOREGROUND.items()
            },
        }
        if measure not in tables:
            raise ValueError(f"unknown measure {measure!r}; published are {sorted(tables)}.")
        if dataset not in tables[measure]:
            raise ValueError(f"no {measure!r} of data set {dataset!r} is published; known: {sorted(tables[measure])}.")
        settings = published_settings(measure, omega)
        return cls(dataset, settings, SCALES, tables[measure][dataset], None, _PUBLISHED_COUNTS[dataset])

    def __str__(self) -> str:
        values = ", ".join(
            f"{value:.4f} at 1/{scale}" if scale > 1 else f"{value:.4f}"
            for scale, value in zip(self.scales, self.mean, strict=True)
        )
        return f"{self.settings['measure']} complexity of {self.dataset} ({self.count} images): {values}"


def published_settings(measure: str, omega: float | None = None) -> dict[str, Any]:
    """Return the settings, as far as they are known, of the paper's numbers for a measure."""
    settings = PUBLISHED_SETTINGS | {"measure": measure}
    return settings | {"omega": omega} if measure == "jb" else settings


def measure_dataset(
    items: Iterable[Any],
    measure: str = "jpeg",
    scales: Sequence[int] = SCALES,
    *,
    name: str = "data set",
    image_key: str = "image",
    label_key: str = "label",
    saved: str | os.PathLike | None = None,
    progress: bool = False,
    **settings: Any,
) -> ComplexityProfile:
    """Measure the complexity of a data set at several scales.

    Args:
        items: a datalist (dicts of file paths), a MONAI dataset (dicts of channel-first arrays or tensors), or plain
            images: file paths, or arrays of shape ``(C, H, W)``, ``(C, H, W, D)`` or ``(H, W)``.
        measure: a key of :data:`~monai_ccnet.complexity.MEASURES`, or ``"jb"``.
        scales: subsampling along each axis, whole numbers from 1.
        name: what to call the data set.
        image_key: where an item that is a dict holds its image.
        label_key: where an item that is a dict holds its label.
        saved: a file to keep the profile in; if it holds one of this name with these settings and scales, nothing is
            measured again.
        progress: whether to show a progress bar.
        settings: of the measure, see :func:`measure_settings`.

    Returns:
        The profile: means and their standard errors over the images.

    Raises:
        ValueError: if there is no item, an item lacks what the measure looks at, or an image cannot be measured; the
            message names the item.

    >>> rng = np.random.default_rng(0)
    >>> profile = measure_dataset([rng.integers(0, 256, (1, 64, 64)) for _ in range(3)], scales=(1, 2))
    >>> profile.count, profile.scales
    (3, (1, 2))
    """
    full_settings = measure_settings(measure, **settings)
    scales = sorted(set(scales))
    if saved is not None and os.path.exists(saved):
        known = ComplexityProfile.load(saved)
        if (known.dataset, known.settings, known.scales) == (name, full_settings, tuple(scales)):
            return known
    count, mean, squares = 0, np.zeros(len(scales)), np.zeros(len(scales))
    for index, item in enumerate(_with_progress(items, progress)):
        try:
            values = _measure_item(item, full_settings, scales, {"image": image_key, "label": label_key})
        except (ValueError, OSError, RuntimeError) as error:
            raise ValueError(
                f"item {index} of {name!r} ({_describe(item, image_key)}) cannot be measured: {error}"
            ) from error
        count += 1  # Welford: nothing but the running mean and sum of squares is kept
        step = values - mean
        mean += step / count
        squares += step * (values - mean)
    if count == 0:
        raise ValueError(f"{name!r} is empty: there is nothing to measure.")
    standard_error = tuple(np.sqrt(squares / (count - 1) / count)) if count > 1 else None
    profile = ComplexityProfile(name, full_settings, tuple(scales), tuple(mean), standard_error, count)
    if saved is not None:
        profile.save(saved)
    return profile


def _measure_item(item: Any, settings: Mapping[str, Any], scales: Sequence[int], keys: Mapping[str, str]) -> np.ndarray:
    needed = needs(settings["measure"])
    if not isinstance(item, Mapping):
        item = {keys[needed[0]]: item}
    if missing := [keys[what] for what in needed if item.get(keys[what]) is None]:
        raise ValueError(f"measure {settings['measure']!r} needs {missing}, the item holds {sorted(map(str, item))}.")
    given = {what: item[keys[what]] for what in needed}
    file_bytes = _file_bytes(given.get("image")) if settings.get("reference") == "file" else None
    arrays = {what: _read(value) for what, value in given.items()}
    values = complexity_at_scales(**arrays, settings=settings, scales=scales, file_bytes=file_bytes)
    return np.array([values[scale] for scale in scales])


def _read(image: Any) -> np.ndarray:
    """Return a channel-first array of a file path, several paths (one a channel), an array or a tensor."""
    if _is_path(image) or (isinstance(image, (list, tuple)) and image and all(map(_is_path, image))):
        # Imported here because it takes seconds, which those who measure arrays need not wait for.
        from monai.transforms.io.array import LoadImage

        return as_array(LoadImage(image_only=True, ensure_channel_first=True)(image))
    array = as_array(image)
    return array[None] if array.ndim == 2 else array


def _is_path(image: Any) -> bool:
    return isinstance(image, (str, os.PathLike))


def _file_bytes(image: Any) -> int | None:
    """Return the bytes of the file behind a path or a MetaTensor, ``None`` where there is none."""
    paths = image if isinstance(image, (list, tuple)) else [image]
    paths = [path if _is_path(path) else getattr(path, "meta", {}).get("filename_or_obj") for path in paths]
    return sum(os.path.getsize(path) for path in paths) if all(map(_is_path, paths)) else None


def _describe(item: Any, image_key: str) -> str:
    image = item.get(image_key) if isinstance(item, Mapping) else item
    return str(image) if _is_path(image) else type(image).__name__


def _with_progress(items: Iterable[Any], progress: bool) -> Iterable[Any]:
    if not progress:
        return items
    from tqdm.auto import tqdm

    return tqdm(items, desc="measuring complexity", unit="image")
