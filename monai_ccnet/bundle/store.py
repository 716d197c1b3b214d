"""A bundle's weights at fewer bits, without narrowing or training, and what that changes of its answers."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from monai_ccnet.bundle.audit import describe, importing
from monai_ccnet.files import HALF_WRITTEN, check_writable, file_digest, shown, write_json
from monai_ccnet.networks import WEIGHTS_FORMATS, build_network, load_weights, save_weights, weights_name
from monai_ccnet.networks.loading import WeightsError, read_tensors

__all__ = ["store"]

_NESTED = ("state_dict", "model", "network", "net", "model_state_dict")  # where checkpoints hold them


def store(
    bundle_dir: str | os.PathLike | None,
    output_dir: str | os.PathLike,
    *,
    weights: str | os.PathLike | None = None,
    bits_per_weight: int = 8,
    weights_format: str = "torch",
    seed: int = 0,
    force: bool = False,
) -> dict[str, Any]:
    """Write the weights of a bundle at fewer bits, and measure what that changes of its answers to random input.

    To name a bundle is to trust its expressions and its own classes; no code in the file of weights is run. The folder
    gets ``stored.pt`` or ``stored.safetensors``, which :func:`~monai_ccnet.networks.load_weights` reads, and
    ``stored.json``.

    Args:
        bundle_dir: folder of the bundle.
        output_dir: folder for the file.
        weights: file of the weights: a state dict, or a checkpoint that holds one; ``models/model.pt`` by default.
        bits_per_weight: number of bits of a stored weight: 16 or 8; 32 writes them without a checkpoint's frame.
        weights_format: format of the file, ``"torch"`` or ``"safetensors"``.
        seed: seed of the input, of normal noise in the shape of the bundle's windows.
        force: whether other weights that an earlier call left in the folder are replaced.

    Returns:
        Bytes before and after, the largest and the mean absolute difference of the answers relative to their standard
        deviation (of a single number: to it), and the share of pixels (of a classifier: images) whose class changes, in
        JSON types.

    Raises:
        FileNotFoundError: if there is no such bundle or file.
        FileExistsError: if the folder holds other weights that were stored.
        ValueError: if the network is not described by a config, or the file would replace the one that is read.
        WeightsError: if the file does not hold the network's weights.
    """
    if not bundle_dir:
        raise ValueError("name the bundle: monai-ccnet store FOLDER --output_dir O.")
    folder = Path(bundle_dir)
    source = Path(weights) if weights is not None else folder / "models" / "model.pt"
    with importing(folder):
        network_def, shape = describe(folder)
        if not isinstance(network_def, Mapping):
            raise ValueError("the network is an expression: describe it as a class with _target_ to store its weights.")
        network, again = build_network(network_def).eval(), build_network(network_def)
    _load(network, source)
    path = Path(output_dir) / weights_name(weights_format, "stored")
    if path.exists() and path.samefile(source):
        raise ValueError(f"{path} is the file that is read, and would be replaced: give another --output_dir.")
    check_writable(output_dir)
    with tempfile.TemporaryDirectory(prefix=".stored.", suffix=HALF_WRITTEN, dir=output_dir) as beside:
        made = Path(beside) / path.name
        written = save_weights(network, made, bits_per_weight)
        load_weights(again, made).eval()
        for each in (path.with_suffix(ending) for ending in WEIGHTS_FORMATS.values()):  # stored.json tells of one
            if each.exists() and not force and file_digest(each) != file_digest(made):
                raise FileExistsError(
                    f"{each} is there already and differs: give another --output_dir or --force true."
                )
        found = {
            "weights": source.name,
            "bytes_before": source.stat().st_size,
            "bytes_after": written,
            "bits_per_weight": bits_per_weight,
            **_difference(network, again, shape, seed),
        }
        made.replace(path)
    write_json(Path(output_dir) / "stored.json", found)
    changed = ""
    if "classes_changed" in found:
        changed = f"; {found['classes_changed']:.3%} of {found['classes_of']} change their class"
    print(
        f"{path}: {written:,} bytes at {bits_per_weight} bits, {source.name} has {found['bytes_before']:,}. On noise "
        f"of {' x '.join(map(str, found['input_shape']))} answers change by {found['mean_difference']:.2%} of their "
        f"standard deviation on average, {found['largest_difference']:.2%} at most{changed}. "
        "On images that may be more or less: evaluate before use."
    )
    return found


def _load(network: torch.nn.Module, path: Path) -> None:
    """Load a state dict, or that within a checkpoint, into a network."""
    state = read_tensors(path)
    for name in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
            break
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} holds {shown(type(state).__name__)}, and no state dict.")
    state = dict(state)
    try:
        if not any(name.startswith("module.") for name in network.state_dict()):
            consume_prefix_in_state_dict_if_present(state, "module.")
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} does not fit this {type(network).__name__}: {str(error)[:300]}") from error


def _difference(one: torch.nn.Module, other: torch.nn.Module, shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((1, *shape[1:]), generator=generator)
    with torch.no_grad():
        before, after = (_first(network(images)) for network in (one, other))
    difference, spread = (after - before).abs(), max(float(before.std() if before.numel() > 1 else before.abs()), 1e-12)
    changed: dict[str, Any] = {}
    if before.dim() > 2 or (before.dim() == 2 and before.shape[1] > 1):
        classes = [each.argmax(dim=1) if each.shape[1] > 1 else each > 0 for each in (before, after)]
        changed["classes_changed"] = float((classes[0] != classes[1]).float().mean())
        changed["classes_of"] = "pixels" if before.dim() > 2 else "images"
    if not math.isfinite(float(difference.max())):
        raise WeightsError("the network answers what is not finite: its weights cannot be compared.")
    return {
        "input_shape": list(images.shape),
        "mean_difference": float(difference.mean()) / spread,
        "largest_difference": float(difference.max()) / spread,
        **changed,
    }


def _first(answer: Any) -> torch.Tensor:
    """Return the first tensor of what a network answers."""
    while not isinstance(answer, torch.Tensor):
        answer = next(iter(answer.values() if isinstance(answer, Mapping) else answer))
    return answer
