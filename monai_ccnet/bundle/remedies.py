"""What a network needs at coarser scales, and what can be had of one that cannot be narrowed."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
from monai.data.utils import dense_patch_slices
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE

from monai_ccnet.complexity import LabelCeiling, measure_ceiling
from monai_ccnet.data import open_dataset
from monai_ccnet.files import read_json
from monai_ccnet.networks import NetworkFamily
from monai_ccnet.networks.building import arguments_of, class_of, target_of
from monai_ccnet.networks.finding import without_a_stage
from monai_ccnet.networks.size import disk_bytes, forward_macs, memory_bytes
from monai_ccnet.scales import per_axis, scale_words

__all__ = [
    "at_scales",
    "billions",
    "fetched_words",
    "labels_at_scales",
    "scale_lines",
    "smaller_ones",
    "smaller_words",
    "without_unknown",
]

_SCALES = (2, 4)
_BITS = (32, 16, 8)


def labels_at_scales(dataset_dir: str | os.PathLike | None) -> LabelCeiling | None:
    """Return what the training labels of a data set keep at coarser scales, ``None`` without one.

    Args:
        dataset_dir: folder with a ``dataset.json``.
    """
    if dataset_dir is None:
        return None
    data = open_dataset(dataset_dir)
    return measure_ceiling(data.training, scales=_SCALES, name=data.name)


def at_scales(
    family: NetworkFamily, input_shape: Sequence[int], overlap: Any = 0.25, labels: LabelCeiling | None = None
) -> dict[str, Any]:
    """Return multiply-adds and peak memory of the full network for its windows, and at coarser scales.

    At a scale the windows have as many pixels of the image as before; where that leaves the network too few, they have
    as many pixels for the network, and so a larger part of the image. With labels, ``windows_per_image`` is the number
    of windows of this second kind over the median image.

    Args:
        family: the network.
        input_shape: shape of a batch of its windows, ``(B, C, H, W[, D])``.
        overlap: share by which windows overlap, or one for each axis.
        labels: what the labels of a data set keep, which says the scales along each axis.

    Raises:
        ValueError: if the network cannot take such an input.
    """
    known = labels if labels is not None and len(labels.size) == family.spatial_dims else None

    def needs(scale: int | Sequence[int]) -> dict[str, Any]:
        network_def, factors = family.at(family.channels, scale), per_axis(scale, family.spatial_dims)
        larger = [length * by for length, by in zip(input_shape[2:], factors, strict=True)]
        shape = list(input_shape)
        try:
            if family.has_fixed_size:
                family.check_input_shape(shape, scale)
            macs = forward_macs(network_def, shape)
        except ValueError:  # too few pixels would be left
            if scale == 1:
                raise
            shape[2:] = larger
            macs = forward_macs(network_def, shape)
        found: dict[str, Any] = {"input_shape": shape, "macs": macs, "memory_bytes": memory_bytes(network_def, shape)}
        if known is not None:
            found["windows_per_image"] = _windows_over(known.size, larger, overlap)
        return found

    scales: dict[str, Any] = {}
    for scale in _SCALES if known is None else known.scales:
        scales[scale_words(scale)] = {**needs(scale), "windows": math.prod(per_axis(scale, family.spatial_dims))}
        if known is not None:
            scales[scale_words(scale)]["labels_keep"] = round(known.worst(scale), 4)
    return {**needs(1), "scales": scales}


def _windows_over(size: Sequence[int], window: Sequence[int], overlap: Any) -> int:
    """Return the number of windows that MONAI's sliding window inference lays over an image."""
    shares = overlap if isinstance(overlap, Sequence) else [overlap] * len(size)
    padded = [max(length, part) for length, part in zip(size, window, strict=True)]
    steps = [
        part if part == length else max(1, int(part * (1 - share)))
        for length, part, share in zip(padded, window, shares, strict=True)
    ]
    return len(dense_patch_slices(padded, window, steps))


def billions(macs: float) -> str:
    """Return a number of multiply-adds in billions, in words."""
    return f"{macs / 1e9:,.1f}" if macs >= 1e8 else f"{macs / 1e9:.2g}"


def scale_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what :func:`at_scales` found, in words."""
    lines = []
    for scale, each in found["scales"].items():
        line = f"At 1/{scale} of the resolution: {billions(each['macs'])} billion, "
        line += f"{each['memory_bytes'] / 1e6:,.0f} MB"
        if each["input_shape"] == found["input_shape"]:
            line += f", or one window in the place of {each['windows']}"
        else:
            line += f" for {' x '.join(map(str, each['input_shape']))}, one window in the place of {each['windows']}"
        if "labels_keep" in each:
            line += f": {each['windows_per_image']} windows over the median image in the place of "
            line += f"{found['windows_per_image']}; labels keep {each['labels_keep']:.4f} of their Dice"
        lines.append(f"{line}.")
    return lines


def smaller_ones(network_def: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the bytes of the file of smaller networks of the same class, at 32, 16 and 8 bits, by what they change.

    These are the smaller backbones of a FlexibleUNet, or the network with one stage fewer, where its class takes that.

    Args:
        network_def: the network's MONAI config, with references resolved.
    """
    if issubclass(class_of(target_of(network_def)), monai.networks.nets.FlexibleUNet):
        changed = {name: {**network_def, "backbone": name} for name in _backbones_below(network_def["backbone"])}
    else:
        lengths = {len(each) for each in arguments_of(network_def).values() if isinstance(each, (list, tuple))}
        fewer = filter(None, (without_a_stage(network_def, length) for length in sorted(lengths, reverse=True)))
        first = next(fewer, None)
        changed = {} if first is None else {"one stage fewer": first}
    return {name: {str(bits): disk_bytes(each, bits) for bits in _BITS} for name, each in changed.items()}


def _backbones_below(backbone: str) -> list[str]:
    """Return the backbones of the same kind with a lower number.

    >>> _backbones_below("efficientnet-b2"), _backbones_below("resnet10")
    (['efficientnet-b0', 'efficientnet-b1'], [])
    """
    kind, number = re.fullmatch(r"(.*?)(\d*)", backbone).groups()  # type: ignore[union-attr]
    names = [name for name in FLEXUNET_BACKBONE.register_dict if re.fullmatch(rf"{re.escape(kind)}\d+", name)]
    return [name for name in names if number and int(name.removeprefix(kind)) < int(number)]


def smaller_words(smaller: Mapping[str, Mapping[str, int]]) -> str:
    """Return what :func:`smaller_ones` found, in words."""
    each = [f"{name}: {taken['32']:,} bytes, {taken['8']:,} at 8 bits" for name, taken in smaller.items()]
    return "; ".join(each)


def without_unknown(name: str, network_def: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], str]:
    """Return a config without the arguments that its class no longer takes, and words on what to do about them.

    Args:
        name: id of the network's config in the bundle.
        network_def: the network's MONAI config, with references resolved.
        folder: folder of the bundle.
    """
    try:
        parameters = inspect.signature(class_of(target_of(network_def))).parameters
    except ValueError:  # a class that cannot be imported here says so when it is built
        return dict(network_def), ""
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    unknown = [key for key in network_def if key not in parameters and key[:1] != "_" and not takes_all]
    if not unknown:
        return dict(network_def), ""
    written = folder / "configs" / "metadata.json"
    version = read_json(written, "correct it").get("monai_version") if written.is_file() else None
    words = f"{target_of(network_def).rsplit('.', 1)[-1]} of MONAI {monai.__version__} takes no {', '.join(unknown)}: "
    words += f"delete that from {name} in the bundle's configs" + (f", or use its MONAI {version}" if version else "")
    return {key: value for key, value in network_def.items() if key not in unknown}, words


def fetched_words(error: BaseException, folder: Path) -> str:
    """Return what to do about a file that is missing because a checkout of the bundle has no large files."""
    listed, missing = folder / "large_files.yml", Path(str(getattr(error, "filename", None) or ""))
    if not missing.name or not listed.is_file() or missing.name not in listed.read_text():
        return ""
    name = folder.resolve().name
    return f". It is one of the bundle's large files: python -m monai.bundle download --name {name} --bundle_dir ."
