"""Reading images from files: one function for the whole package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from monai.transforms.io.array import LoadImage

__all__ = ["as_paths", "is_file", "list_images", "load_image"]


def is_file(image: Any) -> bool:
    """Tell whether an image is given as the path of its file, or as several paths, one per channel."""
    several = isinstance(image, (list, tuple)) and len(image) > 0
    return isinstance(image, (str, os.PathLike)) or (several and all(map(is_file, image)))


def as_paths(image: Any) -> list[str]:
    """Return the paths of an image that is given as one path or several."""
    return list(map(str, image)) if isinstance(image, (list, tuple)) else [str(image)]


def load_image(image: Any) -> Any:
    """Return the image of a file, or of several files, one per channel.

    Args:
        image: path of a file that MONAI can read, or a list of paths.

    Returns:
        A MetaTensor of shape ``(C, H, W)`` or ``(C, H, W, D)``, the first spatial axis along x.

    Raises:
        ValueError: if a file cannot be read; the message names the file and the reason.
    """
    try:
        return LoadImage(image_only=True, ensure_channel_first=True)(image)
    except Exception as error:  # MONAI's readers pass on the errors of their libraries
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise ValueError(f"{';'.join(as_paths(image))} cannot be read ({reason})") from error


def list_images(folder: str | os.PathLike) -> list[dict[str, str]]:
    """Return the files of a folder as a datalist, in the order of their names.

    Raises:
        FileNotFoundError: if there is no such folder, or no file in it.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    shown = [path for path in files if not path.name.startswith(".")]
    if not shown:
        raise FileNotFoundError(f"{folder} contains no images: add them, or give a `datalist`.")
    return [{"image": str(path)} for path in shown]
