"""Public data sets of the paper, converted from their distributed folders to Decathlon folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import Image, UnidentifiedImageError

from monai_ccnet.files import folder_atomically, read_json, write_json

__all__ = ["chase_db1", "drive", "isic_2017"]

Pairs = list[tuple[Path, Path]]  # each an image and its mask

_FOREGROUND = 127  # masks are distributed as 0 and 255


def drive(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    image_size: Sequence[int] | None = (512, 512),
    n_jobs: int | None = None,
) -> Path:
    """Convert DRIVE (Staal et al., 2004): retinal vessels, 20 training and 20 test images, as distributed.

    Args:
        source: the folder with ``training/images/21_training.tif``, ``training/1st_manual/21_manual1.gif`` and the
            like under ``test``. Downloads without ``test/1st_manual`` lack the test masks and raise an error.
        folder: path of the Decathlon folder to write; an existing one is kept.
        image_size: ``(height, width)`` in pixels to resize to, by default the paper's; ``None`` keeps the size.
        n_jobs: number of processes, as joblib counts them.

    Returns:
        ``folder``, with ``dataset.json``, RGB images and masks of 0 and 1, all PNG.

    Raises:
        FileNotFoundError: if a folder, an image or a mask is missing; the message names it.
        ValueError: if a file is not an image, or ``folder`` holds this data set at another size.
    """
    root = Path(source)
    parts = {
        part: _pairs(
            root / part / "images", f"*_{part}.tif", root / part / "1st_manual", f"_{part}.tif", "_manual1.gif"
        )
        for part in ("training", "test")
    }
    return _convert(folder, "drive", "retinal vessel", parts, image_size, n_jobs)


def chase_db1(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    image_size: Sequence[int] | None = (976, 976),
    n_jobs: int | None = None,
) -> Path:
    """Convert CHASE_DB1 (Fraz et al., 2012): retinal vessels, 20 training and 8 test images.

    Args:
        source: the folder with ``Image_01L.jpg``, ``Image_01L_1stHO.png`` and so on; masks are the first observer's.
        folder: path of the Decathlon folder to write, which is returned; errors are those of :func:`drive`.
        image_size: ``(height, width)`` in pixels to resize to, by default the paper's; ``None`` keeps the size.
        n_jobs: number of processes, as joblib counts them.
    """
    pairs = _pairs(Path(source), "Image_*.jpg", Path(source), ".jpg", "_1stHO.png")
    if len(pairs) != 28:
        raise FileNotFoundError(
            f"CHASE_DB1 has 28 images, Image_01L.jpg to Image_14R.jpg, and {source} holds {len(pairs)}: "
            "unpack the whole archive there."
        )
    return _convert(
        folder, "chase_db1", "retinal vessel", {"training": pairs[:20], "test": pairs[20:]}, image_size, n_jobs
    )


def isic_2017(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    image_size: Sequence[int] | None = (320, 320),
    validation_share: float = 0.2,
    seed: int = 0,
    n_jobs: int | None = None,
) -> Path:
    """Convert ISIC 2017 (Codella et al., 2018): melanoma, split as in section 5.1 of the paper.

    Its training and validation images are merged; a random share of them, by default a fifth, is for validation. Its
    test images are kept as they are.

    Args:
        source: the folder with ``ISIC-2017_Training_Data/ISIC_0000000.jpg``,
            ``ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png``, and the like for ``Validation`` and
            ``Test_v2``.
        folder: path of the Decathlon folder to write, which is returned; errors are those of :func:`drive`.
        image_size: ``(height, width)`` in pixels to resize to, by default the paper's; ``None`` keeps the size.
        validation_share: share of the merged images that is for validation, in [0, 1).
        seed: seed of the random choice of the validation images.
        n_jobs: number of processes, as joblib counts them.
    """
    if not 0 <= validation_share < 1:
        raise ValueError(f"validation_share must lie in [0, 1), got {validation_share}.")
    root = Path(source)
    given = {
        part: _pairs(
            root / f"ISIC-2017_{part}_Data",
            "ISIC_*.jpg",
            root / f"ISIC-2017_{part}_Part1_GroundTruth",
            ".jpg",
            "_segmentation.png",
        )
        for part in ("Training", "Validation", "Test_v2")
    }
    merged = sorted(given["Training"] + given["Validation"], key=lambda pair: pair[0].name)
    order = np.random.default_rng(seed).permutation(len(merged))
    count = round(validation_share * len(merged))
    parts = {
        "training": [merged[index] for index in sorted(order[count:])],
        "validation": [merged[index] for index in sorted(order[:count])],
        "test": given["Test_v2"],
    }
    return _convert(folder, "melanoma", "lesion", parts, image_size, n_jobs)


def _pairs(images: Path, pattern: str, masks: Path, suffix: str, mask_suffix: str) -> Pairs:
    """Return the images of a folder in the order of their names, each with its mask, whose name has another ending."""
    for each in (images, masks):
        if not each.is_dir():
            raise FileNotFoundError(f"the folder {each} is missing: unpack the archive so that it exists.")
    found = sorted(images.glob(pattern))
    if not found:
        raise FileNotFoundError(f"{images} holds no {pattern}: give the folder of the data set as distributed.")
    pairs = [(image, masks / (image.name.removesuffix(suffix) + mask_suffix)) for image in found]
    if missing := [mask for _, mask in pairs if not mask.is_file()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileNotFoundError(f"the mask {missing[0]}{more} is missing: unpack the archive again.")
    return pairs


def _convert(
    folder: str | os.PathLike,
    name: str,
    foreground: str,
    parts: Mapping[str, Pairs],
    image_size: Sequence[int] | None,
    n_jobs: int | None,
) -> Path:
    """Write images and masks as PNG, and the list of them, unless the folder holds them already."""
    folder = Path(folder)
    sources = {part: [pair[0].name for pair in pairs] for part, pairs in parts.items()}
    made_of = {"image_size": None if image_size is None else list(image_size), "sources": sources}
    if (folder / "dataset.json").is_file():
        known = read_json(folder / "dataset.json")
        if known.get("name") != name or {key: known.get(key) for key in made_of} != made_of:
            raise ValueError(
                f"{folder} holds {known.get('name')!r} of size {known.get('image_size')} or of other images, but "
                f"{name!r} of size {made_of['image_size']} was requested: choose another folder, or delete that one."
            )
        return folder
    with folder_atomically(folder) as beside:
        suffixes = {"training": "Tr", "validation": "Va", "test": "Ts"}
        listed = {part: _write_part(beside, suffixes[part], pairs, image_size, n_jobs) for part, pairs in parts.items()}
        description = {
            "name": name,
            "tensorImageSize": "2D",
            "modality": {"0": "red", "1": "green", "2": "blue"},
            "labels": {"0": "background", "1": foreground},
            **{f"num{part.capitalize()}": len(items) for part, items in listed.items()},
            **made_of,
        }
        write_json(beside / "dataset.json", description | {part: items for part, items in listed.items() if items})
    return folder


def _write_part(
    folder: Path, suffix: str, pairs: Iterable[tuple[Path, Path]], image_size: Sequence[int] | None, n_jobs: int | None
) -> list[dict[str, str]]:
    for what in ("images", "labels"):
        (folder / f"{what}{suffix}").mkdir()
    return Parallel(n_jobs=n_jobs)(delayed(_write_pair)(folder, suffix, *pair, image_size) for pair in pairs)


def _write_pair(
    folder: Path, suffix: str, image_path: Path, mask_path: Path, image_size: Sequence[int] | None
) -> dict[str, str]:
    """Write an image and its mask as PNG, of one size, and return their entry in the list."""
    image, mask = _opened(image_path, "RGB"), _opened(mask_path, "L")
    if image.size != mask.size:
        raise ValueError(
            f"{image_path} has {image.size[0]} x {image.size[1]} pixels and its mask {mask_path} "
            f"{mask.size[0]} x {mask.size[1]}: they must be equal; unpack the archive again."
        )
    mask = Image.fromarray((np.asarray(mask) > _FOREGROUND).astype(np.uint8))
    if image_size is not None:
        height, width = image_size
        image = image.resize((width, height), Image.Resampling.BILINEAR)  # averages all covered pixels when shrinking
        mask = mask.resize((width, height), Image.Resampling.NEAREST)
    entry = {what: f"{what}s{suffix}/{image_path.stem}.png" for what in ("image", "label")}
    image.save(folder / entry["image"])
    mask.save(folder / entry["label"])
    return entry


def _opened(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}): download or unpack it again.") from error
