"""Measuring a whole data set: streamed, in parallel, and stopped early if a tolerance is given."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from scipy import stats
from tqdm.auto import tqdm

from monai_ccnet.complexity.measures import SCALES, complexity_at_scales, measure_settings, needs
from monai_ccnet.complexity.pictures import as_array
from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.files import csv_rows, file_digest, files_of, relative_path

__all__ = ["measure_dataset"]

_LEAST_BEFORE_STOPPING = 30  # images; with fewer, the standard deviation is too uncertain


def measure_dataset(
    items: Iterable[Any],
    measure: str = "jpeg",
    scales: Sequence[int] = SCALES,
    *,
    name: str = "data set",
    folder: str | os.PathLike | None = None,
    image_key: str = "image",
    label_key: str = "label",
    saved: str | os.PathLike | None = None,
    table: str | os.PathLike | None = None,
    n_jobs: int | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    strict: bool = False,
    max_unreadable: float = 0.5,
    progress: bool = False,
    loading: Mapping[str, Any] | None = None,
    **settings: Any,
) -> ComplexityProfile:
    """Measure the complexity of a data set at several scales.

    Images are streamed and only running means are kept, so memory does not grow with the data set.

    Args:
        items: a datalist (dicts of file paths), a MONAI dataset (dicts of channel-first arrays or tensors), or plain
            images: file paths, or arrays of shape ``(C, H, W)``, ``(C, H, W, D)`` or ``(H, W)``.
        measure: a key of :data:`~monai_ccnet.complexity.MEASURES`, or ``"jb"``.
        scales: subsampling factors along each axis, whole numbers from 1.
        name: name of the data set.
        folder: folder of the data set; results name its files relative to it.
        image_key: key of the image in an item that is a dict.
        label_key: key of the label in an item that is a dict.
        saved: path of the JSON file to keep the profile in; if it holds one of the same name, files, settings and
            scales, nothing is measured again. Only lists of files and arrays are known again.
        table: path of the CSV file to write, one row per image: ``item`` (its number), ``file`` (empty for arrays) and
            a column ``1/<scale>`` for each scale.
        n_jobs: number of processes, as joblib counts them; ``None`` is one, or the setting of
            ``joblib.parallel_config``, which can also choose another backend. The result does not depend on it.
        tolerance: largest half-width of the 95 % interval of the mean, as a share of the mean: measuring stops as soon
            as this is reached at every scale. Items are then measured in random order. ``None`` measures all.
        seed: seed of the random order in which items are measured.
        strict: whether a file that cannot be read is an error; otherwise it is skipped with a warning and listed in
            the profile.
        max_unreadable: largest share of the images that may be skipped so.
        progress: whether to show a progress bar.
        loading: how files are read: ``label_values`` and ``spacing`` of :func:`monai_ccnet.data.load_image`.
        settings: settings of the measure; see :func:`measure_settings`.

    Returns:
        The profile: means and their standard errors over the images.

    Raises:
        ValueError: if there is no item, an item lacks the image or label that the measure needs, an image cannot be
            measured, or more than ``max_unreadable`` of the files cannot be read; the message names the item.

    >>> rng = np.random.default_rng(0)
    >>> profile = measure_dataset([rng.integers(0, 256, (1, 64, 64)) for _ in range(3)], scales=(1, 2))
    >>> profile.count, profile.scales
    (3, (1, 2))
    """
    full_settings = measure_settings(measure, **settings)
    scales = sorted(set(scales))
    keys = {"image": image_key, "label": label_key}
    digest = None
    if saved is not None and isinstance(items, (list, tuple)):
        read_as = [loading, tolerance, None if tolerance is None else seed]
        digest = _digest(items, full_settings["measure"], read_as, keys)
        if os.path.exists(saved) and (table is None or os.path.exists(table)):
            known = ComplexityProfile.load(saved)
            same = (known.dataset, known.settings, known.scales, known.digest)
            if same == (name, full_settings, tuple(scales), digest):
                return known
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be a share of the mean above 0, got {tolerance}.")
    ordered = _in_order(items, None if tolerance is None else seed)
    tasks = (delayed(_try_item)(index, item, full_settings, scales, keys, loading or {}) for index, item in ordered)
    results = Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
    bar = tqdm(
        results,
        desc="measuring complexity",
        unit="image",
        disable=not progress,
        total=len(items) if isinstance(items, Sized) else None,
    )
    count, mean, squares = 0, np.zeros(len(scales)), np.zeros(len(scales))
    unreadable: list[str] = []
    first_error = ""
    with (
        contextlib.closing(results),
        csv_rows(table, ["item", "file", *(f"1/{scale}" for scale in scales)]) as write_row,
    ):
        for measured in bar:
            described = f"item {measured.number} ({';'.join(measured.files) or measured.kind})"
            if measured.error is not None:
                if strict or not measured.is_file_error:
                    raise ValueError(f"{described} of {name!r} cannot be measured: {measured.error}")
                warnings.warn(f"{described} of {name!r} cannot be read and is skipped: {measured.error}", stacklevel=2)
                unreadable.append(f"item {measured.number} ({relative_path(measured.files, folder) or measured.kind})")
                first_error = first_error or measured.error
                continue
            write_row([measured.number, relative_path(measured.files, folder), *measured.values])
            count += 1  # Welford
            step = measured.values - mean
            mean += step / count
            squares += step * (measured.values - mean)
            if tolerance is not None and _is_known(count, mean, squares, tolerance):
                break
        if count == 0 and not unreadable:
            raise ValueError(f"there is nothing to measure in {name!r}: it is empty.")
        share = len(unreadable) / (count + len(unreadable))
        if count == 0 or share > max_unreadable:
            raise ValueError(
                f"{len(unreadable)} of {count + len(unreadable)} images of {name!r} cannot be read, such as "
                f"{unreadable[0]}: {first_error}. Replace them; at most {max_unreadable:.0%} may be left out "
                "(max_unreadable)."
            )
    profile = ComplexityProfile(
        dataset=name,
        settings=full_settings,
        scales=tuple(scales),
        mean=tuple(mean),
        standard_error=tuple(np.sqrt(squares / (count - 1) / count)) if count > 1 else None,
        count=count,
        unreadable=tuple(unreadable),
        digest=digest,
    )
    if saved is not None:
        profile.save(saved)
    return profile


def _is_known(count: int, mean: np.ndarray, squares: np.ndarray, tolerance: float) -> bool:
    """Tell whether the 95 % interval of each mean lies within the tolerance."""
    if count < _LEAST_BEFORE_STOPPING:
        return False
    quantile = stats.t.ppf(0.975, count - 1)
    return bool(np.all(quantile * np.sqrt(squares / (count - 1) / count) <= tolerance * np.abs(mean)))


def _in_order(items: Any, seed: int | None) -> Iterator[tuple[int, Any]]:
    """Return items with their numbers, in random order if there is a seed; each is read only when its turn comes."""
    if seed is None:
        yield from enumerate(items)
        return
    items = items if hasattr(items, "__getitem__") and hasattr(items, "__len__") else list(items)
    for index in np.random.default_rng(seed).permutation(len(items)):
        yield int(index), items[int(index)]


class _Measured(NamedTuple):
    """Result of an item: its values at each scale, or the error and whether it came from reading the files."""

    number: int
    kind: str
    files: list[str]
    values: np.ndarray
    error: str | None = None
    is_file_error: bool = False


def _try_item(
    index: int,
    item: Any,
    settings: Mapping[str, Any],
    scales: Sequence[int],
    keys: Mapping[str, str],
    loading: Mapping[str, Any],
) -> _Measured:
    looked_at = item.get(keys["image"], item.get(keys["label"])) if isinstance(item, Mapping) else item
    files = list(map(str, _as_list(looked_at))) if _holds_path(looked_at) else []
    result = _Measured(index, type(looked_at).__name__, files, np.full(len(scales), np.nan))
    try:
        given = _needed(item, settings, keys)
        try:
            loaded = {what: _loaded(value, what, loading) for what, value in given.items()}
        except Exception as error:  # a damaged file can raise any, and a lazy data set as well
            words = str(error).strip() or type(error).__name__
            return result._replace(error=words, is_file_error=any(map(_holds_path, given.values())))
        file_bytes = _file_bytes(given.get("image")) if settings.get("reference") == "file" else None
        pixdim = getattr(loaded.get("label"), "pixdim", None)
        values = complexity_at_scales(
            **{what: _with_channel(value) for what, value in loaded.items()},
            settings=settings,
            scales=scales,
            file_bytes=file_bytes,
            spacing=None if pixdim is None else [float(length) for length in pixdim],
        )
    except (ValueError, OSError) as error:
        return result._replace(error=str(error))
    return result._replace(values=np.array([values[scale] for scale in scales]))


def _needed(item: Any, settings: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """Return what the measure needs of an item: ``image``, ``label`` or both."""
    needed = needs(settings["measure"])
    if not isinstance(item, Mapping):
        item = {keys[needed[0]]: item}
    if missing := [keys[what] for what in needed if item.get(keys[what]) is None]:
        raise ValueError(
            f"measure {settings['measure']!r} needs {missing}, the item holds {sorted(map(str, item))}: add what is "
            "missing, or choose a measure of images alone, such as 'jpeg'."
        )
    return {what: item[keys[what]] for what in needed}


def _loaded(image: Any, what: str, loading: Mapping[str, Any]) -> Any:
    """Return the image of a path (or of several, one per channel) as a MetaTensor, anything else unchanged."""
    if _holds_path(image):
        # Imported here because the import takes seconds and arrays do not need it.
        from monai_ccnet.data.images import load_image

        return load_image(image, label=what == "label", **loading)
    return image


def _digest(items: Sequence[Any], measure: str, read_as: Any, keys: Mapping[str, str]) -> str:
    """Return a digest of what is measured: the files or arrays in their order, and how they are read."""
    digest = hashlib.sha256(json.dumps(read_as, sort_keys=True, default=str).encode())
    for item in items:
        for what in needs(measure):
            given = item.get(keys[what]) if isinstance(item, Mapping) else item
            if _holds_path(given):
                files = [each for path in _as_list(given) for each in files_of(path)]
                try:
                    digest.update(file_digest(*files).encode())
                except OSError:  # what cannot be read is found out where it is measured
                    digest.update(repr(given).encode())
            elif given is not None:
                array = as_array(given)
                digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _with_channel(image: Any) -> Any:
    """Return an image with its channels first; a tensor keeps its place in the world."""
    image = image if hasattr(image, "detach") else np.asarray(image)
    return image[None] if image.ndim == 2 else image


def _as_list(image: Any) -> list[Any]:
    return list(image) if isinstance(image, (list, tuple)) else [image]


def _is_path(image: Any) -> bool:
    return isinstance(image, (str, os.PathLike))


def _file_bytes(image: Any) -> int | None:
    """Return the bytes of the file behind a path or a MetaTensor, ``None`` where there is none."""
    parts = _as_list(image)
    paths = [part if _is_path(part) else getattr(part, "meta", {}).get("filename_or_obj") for part in parts]
    return (
        sum(os.path.getsize(file) for path in paths for file in files_of(str(path)))
        if all(map(_is_path, paths))
        else None
    )


def _holds_path(image: Any) -> bool:
    """Tell whether an image is given as the path of its file, or as several paths, one per channel."""
    return _is_path(image) or (isinstance(image, (list, tuple)) and len(image) > 0 and all(map(_is_path, image)))
