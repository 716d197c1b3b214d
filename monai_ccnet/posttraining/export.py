"""Export of a trained network to a file that runs without this package: TorchScript, torch.export, ONNX."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from monai.utils import OptionalImportError, optional_import

from monai_ccnet.constraints import DiskBudget, InfeasibleConstraintError
from monai_ccnet.files import atomically
from monai_ccnet.networks.loading import WeightsError, check_archive, check_digest
from monai_ccnet.values import Value

onnxruntime, _has_onnxruntime = optional_import("onnxruntime")
_, _has_onnxscript = optional_import("onnxscript")

__all__ = ["FORMATS", "ExportedNetwork", "Format", "export_network", "load_exported"]

Program = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ExportedNetwork(Value):
    """An exported network, and the result of its check.

    Attributes:
        path: path of the file.
        format: name of the format, a key of :data:`FORMATS`.
        file_bytes: size of the file in bytes.
        input_shape: shape of the input that it was checked with, ``(B, C, H, W[, D])``; ``B`` may be any number.
        max_difference: largest difference of its logits from the network's own on a random image, relative to the
            largest logit or to 1.
        digest: SHA-256 digest of the file.
    """

    path: str
    format: str
    file_bytes: int
    input_shape: tuple[int, ...]
    max_difference: float
    digest: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(self.input_shape))


def export_network(
    network: torch.nn.Module,
    path: str | os.PathLike,
    input_shape: Sequence[int],
    *,
    format: str = "onnx",
    budget: DiskBudget | None = None,
    tolerance: float = 1e-4,
) -> ExportedNetwork:
    """Export a network, run what was written, and keep it only if it computes the same and fits the budget.

    Beside the file its manifest is written, a JSON file of the returned value: ``model.onnx.json``.

    Args:
        network: trained network; it is exported in eval mode, and its own mode is restored.
        path: path of the file to write, atomically; after an error an existing file is unchanged.
        input_shape: shape of the input, ``(B, C, H, W[, D])``. Every format takes any ``B``; TorchScript also takes
            images of other sizes.
        format: name of the format, a key of :data:`FORMATS`.
        budget: budget that the file itself must not exceed; weights are stored at 32 bits.
        tolerance: largest allowed difference of the logits, relative to the largest logit or to 1.

    Raises:
        InfeasibleConstraintError: if the file is above the budget.
        ValueError: if the format is unknown, or the exported network computes other logits.
        OptionalImportError: if the format's packages are missing; ``pip install monai_ccnet[onnx]`` brings ONNX's.
    """
    written, image = _format(format), _random_image(input_shape)
    modes = [(module, module.training) for module in network.modules()]
    device = next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
    try:
        network.cpu().eval()
        with torch.no_grad():
            expected = network(image)
            content = written.write(network, torch.cat([image, image]) if len(image) == 1 else image)
    finally:
        network.to(device)
        for module, training in modes:
            module.training = training
    if budget is not None and len(content) > budget.max_bytes:
        raise InfeasibleConstraintError(
            f"as {format} the network takes {len(content):,} bytes, the budget is {budget.max_bytes:,}: plan a smaller "
            "network, or save its weights alone, at fewer bits."
        )
    difference = _difference(written.load(content)(image), expected)
    if not difference <= tolerance:
        raise ValueError(
            f"exported as {format} the network's logits differ by {difference:.2g} of the largest, more than the "
            f"tolerance of {tolerance:.2g}: nothing is written. Try another format."
        )
    manifest_of(path).unlink(missing_ok=True)  # of another file, until this one is whole
    with atomically(path) as file:
        file.write(content)
    digest = hashlib.sha256(content).hexdigest()
    made = ExportedNetwork(Path(path).name, format, len(content), tuple(input_shape), difference, digest)
    made.save(manifest_of(path))
    return replace(made, path=str(path))


def manifest_of(path: str | os.PathLike) -> Path:
    """Return the path of the manifest of an exported network's file."""
    return Path(f"{os.fspath(path)}.json")


def load_exported(path: str | os.PathLike, format: str | None = None, *, trusted: bool = False) -> Program:
    """Return a function from images ``(B, C, H, W[, D])`` on the CPU to logits, computed by what a file holds.

    It uses as many threads as torch does, so that :func:`~monai_ccnet.networks.compare_latency` is fair. Where the
    manifest lies beside the file, its digest must hold.

    Args:
        path: path of the file.
        format: name of the format, a key of :data:`FORMATS`; the file itself tells if it is left out.
        trusted: whether you trust the file with your account: torch unpickles what is in the format ``torch_export``,
            by which a file can run any code. ONNX and TorchScript hold programs that compute and nothing else.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: if it is no exported network, or was damaged, or is of another format than ``format``.
        ValueError: if it is of the format ``torch_export``, and ``trusted`` is ``False``.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}: give one that export_network wrote.")
    name, content = os.fspath(path), Path(path).read_bytes()
    if manifest_of(path).is_file():
        check_digest(name, content, ExportedNetwork.load(manifest_of(path)).digest)
    found = format_of(name, content)
    if format is not None and _format(format) != _format(found):
        raise WeightsError(f"{name} is of the format {found}, asked for is {format}.")
    if found == "torch_export" and not trusted:
        raise ValueError(
            f"{name} is of the format torch_export, which torch unpickles, and that can run any code: give "
            "trusted=True if you trust whoever made it, or export to ONNX or TorchScript."
        )
    try:
        return _format(found).load(content)
    except OptionalImportError:
        raise
    except Exception as error:  # each format's reader has errors of its own
        raise WeightsError(f"{name} cannot be read as {found}: export the network again.") from error


def format_of(name: str, content: bytes) -> str:
    """Return the format of an exported network, a key of :data:`FORMATS`, by its bytes.

    Raises:
        WeightsError: if it is none of them, or was damaged.
    """
    members: list[str] = []
    try:
        check_archive(content)
        if content[:2] == b"PK":
            members = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except Exception as error:  # zipfile passes on errors of several kinds
        raise WeightsError(f"{name} ({len(content):,} bytes) was damaged: export the network again.") from error
    if any(each.endswith("/archive_format") for each in members):
        return "torch_export"
    if any("/code/" in each for each in members) and any(each.endswith("/constants.pkl") for each in members):
        return "torchscript"
    if not members and content[:1] == b"\x08":  # its first field, the version of its representation
        return "onnx"
    raise WeightsError(f"{name} ({len(content):,} bytes) is no exported network: give a file of export_network.")


def _torchscript(network: torch.nn.Module, images: torch.Tensor) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    return file.getvalue()


def _load_torchscript(content: bytes) -> Program:
    return torch.jit.load(io.BytesIO(content), map_location="cpu")


def _program(network: torch.nn.Module, images: torch.Tensor) -> bytes:
    file = io.BytesIO()
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=_ANY_NUMBER), file)
    return file.getvalue()


def _load_program(content: bytes) -> Program:
    program = torch.export.load(io.BytesIO(content)).module()
    return lambda images: program(images)  # it is a module, but one that refuses eval()


def _onnx(network: torch.nn.Module, images: torch.Tensor) -> bytes:
    if not (_has_onnxscript and _has_onnxruntime):
        onnxruntime.InferenceSession  # noqa: B018 (raises with the reason, if it is this one)
        raise ModuleNotFoundError("exporting to ONNX needs onnxscript: pip install monai_ccnet[onnx].")
    program = torch.onnx.export(
        network,
        (images,),
        dynamo=True,
        dynamic_shapes=_ANY_NUMBER,
        input_names=["image"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    return program.model_proto.SerializeToString()


def _load_onnx(content: bytes) -> Program:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


class Format(NamedTuple):
    """Two functions: from a network and example images to the content of a file, and from that to a function."""

    write: Callable[[torch.nn.Module, torch.Tensor], bytes]
    load: Callable[[bytes], Program]


FORMATS: dict[str, Format] = {
    "torchscript": Format(_torchscript, _load_torchscript),
    "torch_export": Format(_program, _load_program),
    "onnx": Format(_onnx, _load_onnx),
}
_ANY_NUMBER = ({0: torch.export.Dim.AUTO},)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ValueError(f"format must be one of {sorted(FORMATS)}, got {name!r}.")
    return FORMATS[name]


def _random_image(input_shape: Sequence[int]) -> torch.Tensor:
    return torch.randn(tuple(input_shape), generator=torch.Generator().manual_seed(0))


def _difference(logits: torch.Tensor, expected: torch.Tensor) -> float:
    return ((logits - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
