"""Export of a trained network to a file that runs without this package: TorchScript, torch.export, ONNX."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from monai.utils import optional_import

from monai_ccnet.constraints import DiskBudget, InfeasibleConstraintError
from monai_ccnet.files import atomically
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
    """

    path: str
    format: str
    file_bytes: int
    input_shape: tuple[int, ...]
    max_difference: float

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
    with atomically(path) as file:
        file.write(content)
    return ExportedNetwork(str(path), format, os.path.getsize(path), tuple(input_shape), difference)


def load_exported(path: str | os.PathLike, format: str = "onnx") -> Program:
    """Return a function from images ``(B, C, H, W[, D])`` on the CPU to logits, computed by what a file holds.

    It uses as many threads as torch does, so that :func:`~monai_ccnet.networks.compare_latency` is fair.
    """
    return _format(format).load(Path(path).read_bytes())


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
