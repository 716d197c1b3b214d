"""Weights read back from a file: checked before a network gets any of them, and nothing in the file is run."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.utils import optional_import

from monai_ccnet.files import shown
from monai_ccnet.networks.int8 import SCALES, float_state, reads_int8
from monai_ccnet.networks.scaling import unwrapped
from monai_ccnet.networks.storage import like_state

safetensors, _ = optional_import("safetensors.torch")

__all__ = ["WeightsError", "check_archive", "load_weights", "read_tensors", "read_weights"]

_REMEDY = "give a file that save_weights wrote, or train again"


class WeightsError(ValueError):
    """A file does not hold what it should: the weights of a network, or an exported one. The message names the file."""


def load_weights(network: torch.nn.Module, path: str | os.PathLike, digest: str | None = None) -> torch.nn.Module:
    """Load what :func:`save_weights` wrote, at any number of bits, into a network of the same config; no code is run.

    Args:
        network: network of that config, also a wrapped one, as ``torch.compile`` and DataParallel make it.
        path: path of the file.
        digest: SHA-256 digest that the file must have, as the record of a network states it.

    Returns:
        The network, changed in place; after an error it is unchanged.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: if it is no file of weights, or holds those of another network, or some that are not finite; or
            its digest is another.
    """
    inner = reads_int8(unwrapped(network))
    state = read_weights(path, digest)
    try:
        floats = float_state(inner, state)
    except ValueError as error:
        raise WeightsError(f"{os.fspath(path)}: {error}") from error
    mine = inner.state_dict()
    if reason := "; ".join(_differences(mine, floats)):
        raise WeightsError(
            f"{os.fspath(path)} holds the weights of another network than this {type(inner).__name__}: {reason}. Build "
            "the network of the config, or of the plan, with which they were trained."
        )
    for name, words in _unusable(mine, floats):
        raise WeightsError(f"{os.fspath(path)}: {name} holds {words}.")
    try:
        inner.load_state_dict(like_state(state, floats))
    except (RuntimeError, AttributeError, TypeError) as error:  # of modules with a state that is no tensor
        raise WeightsError(f"{os.fspath(path)} does not fit this {type(inner).__name__}: {error}") from error
    return network


def read_weights(path: str | os.PathLike, digest: str | None = None) -> dict[str, Any]:
    """Return the state dict of a file that :func:`save_weights` wrote, each tensor with memory of its own.

    Args:
        path: path of the file.
        digest: SHA-256 digest that the file must have.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: if it holds no state dict, or its digest is another.
    """
    name = os.fspath(path)
    state = read_tensors(path, digest)
    if not isinstance(state, Mapping) or not state:
        empty = "" if not isinstance(state, Mapping) else " without entries"
        raise WeightsError(f"{name} holds no state dict but a value of type {type(state).__name__}{empty}: {_REMEDY}.")
    for key, tensor in state.items():
        if isinstance(tensor, torch.Tensor):
            if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
                raise WeightsError(
                    f"{name}: {shown(key)} holds {tensor.dtype} numbers that are complex, sparse or quantized, and "
                    "weights are plain real numbers."
                )
            if tensor.nbytes > tensor.untyped_storage().nbytes():
                raise WeightsError(
                    f"{name}: {shown(key)} has the shape {tuple(tensor.shape)}, and the file holds fewer numbers."
                )
        elif not str(key).endswith("_extra_state"):
            raise WeightsError(
                f"{name} holds no state dict: its entry {shown(key)} is no tensor but of type {type(tensor).__name__}. "
                "Of a checkpoint save the state dict of the network alone, as by save_weights."
            )
    return like_state(
        state, {key: each.clone() if isinstance(each, torch.Tensor) else each for key, each in state.items()}
    )


def read_tensors(path: str | os.PathLike, digest: str | None = None) -> Any:
    """Return what a file of tensors holds, of torch or of safetensors; the checksums of its parts are verified.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: if it is no such file, is damaged, or its digest is another.
    """
    name = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {name}: {_REMEDY}.")
    content = Path(path).read_bytes()
    check_digest(name, content, digest)
    try:
        if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content):
            return safetensors.load(content)
        check_archive(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch passes on the errors of pickle, zip and its own reader
        raise WeightsError(
            f"{name} ({len(content):,} bytes) is no file of weights, or was cut off or damaged, or holds more than "
            f"tensors: {_REMEDY}."
        ) from error


def check_digest(name: str, content: bytes, digest: str | None) -> None:
    """Refuse a file whose SHA-256 digest is not the one that was recorded; ``None`` allows any.

    Raises:
        WeightsError: with the remedy.
    """
    if digest is not None and (found := hashlib.sha256(content).hexdigest()) != digest:
        raise WeightsError(
            f"{name} is not the file that was recorded: its SHA-256 digest is {found[:12]}..., recorded is "
            f"{digest[:12]}.... It was damaged or replaced: copy the original back, or train again with --force True."
        )


def check_archive(content: bytes) -> None:
    """Verify the checksums of a zip archive, which torch's own reader does not; other content is not looked at.

    Raises:
        zipfile.BadZipFile: if one is wrong.
    """
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{damaged} is damaged")


def _differences(mine: Mapping[str, Any], its: Mapping[str, Any]) -> list[str]:
    """Return in words the first three keys or shapes in which the state dict of a file differs from a network's."""
    words = [f"the file lacks {name}" for name in mine if name not in its]
    words += [f"the network has no {name!s:.80}" for name in its if name not in mine and name != SCALES]
    for name in mine:
        if name in its and hasattr(mine[name], "shape") and getattr(its[name], "shape", None) != mine[name].shape:
            words.append(
                f"{name} has shape {tuple(getattr(its[name], 'shape', ()))} in the file, {tuple(mine[name].shape)} in "
                "the network"
            )
    return words[:3]


def _unusable(mine: Mapping[str, Any], its: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the names of tensors that cannot be used, each with what it holds."""
    for name, tensor in its.items():
        if not (isinstance(tensor, torch.Tensor) and isinstance(mine.get(name), torch.Tensor)):
            continue
        if tensor.is_floating_point() != mine[name].is_floating_point():
            yield name, f"{tensor.dtype} where the network has {mine[name].dtype}: the file is of another kind"
        # Networks calculate in float32 at most.
        elif tensor.is_floating_point() and not tensor.to(torch.float32).isfinite().all():
            yield name, "numbers that are not finite: the training run diverged, train again"
