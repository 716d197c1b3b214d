"""Quantization of a trained network to 8 bits: its kernels alone, or its activations too; every result is checked.

torch's own dynamic quantization does not quantize convolutions. With its quantized convolutions mapped by hand it runs,
but on non-negative inputs, such as those after a ReLU, its results were wrong by 40 % and more (torch 2.13, one kind of
CPU). This module therefore implements the small part that is needed, and leaves integer arithmetic to ONNX Runtime.
"""

from __future__ import annotations

import copy
import io
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from monai.utils import optional_import
from torch.nn.utils import parametrize

from monai_ccnet.files import atomically
from monai_ccnet.networks.int8 import dequantized, kernel_axes, quantized
from monai_ccnet.networks.scaling import uncompiled
from monai_ccnet.posttraining.channels import check_plain
from monai_ccnet.posttraining.export import manifest_of

onnx, _ = optional_import("onnx")
onnx_quantization, _ = optional_import("onnxruntime.quantization")

__all__ = ["check_quantized", "quantize_dynamic", "quantize_onnx", "quantize_weights"]


def quantize_weights(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a network whose kernels are int8, symmetric per output channel, in memory and in its state dict.

    Each kernel is converted to float32 when it is used. The network computes exactly what it computes after
    ``save_weights(network, path, bits_per_weight=8)`` and ``load_weights``; that file is a little smaller.

    Args:
        network: a trained network, of a compiled or parallel one the inner network; the copy is in eval mode and has no
            gradients.

    Raises:
        ValueError: if it has no kernels, or layers with weight_norm, spectral_norm or another parametrization.
    """
    network = uncompiled(network)
    check_plain(network, allowed=(_Int8,))
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for name, axis in kernel_axes(network).items():
        module = network.get_submodule(name.rpartition(".")[0])
        if not parametrize.is_parametrized(module, "weight"):
            parametrize.register_parametrization(module, "weight", _Int8(axis))
    check_quantized(network)
    return network


def quantize_dynamic(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a network whose kernels are int8 and whose layers receive their input at 8 bits.

    The range of each input tensor is determined when it arrives (Zafrir et al. 2019), so nothing is calibrated. Results
    are those of 8-bit arithmetic up to float32's rounding. The arithmetic itself is done in float32, so the network is
    smaller but not faster; for speed use :func:`quantize_onnx`.

    Args:
        network: a trained network, of a compiled or parallel one the inner network; the copy is in eval mode and has no
            gradients.

    Raises:
        ValueError: if it has no kernels.
    """
    network = quantize_weights(network)
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            module.register_forward_pre_hook(_at_8_bits)
    return network


def check_quantized(network: torch.nn.Module) -> int:
    """Return the number of kernels, convolutions' and linear layers', if all of them are int8.

    Raises:
        ValueError: if one is not, or there is none.
    """
    kernels = kernel_axes(network)
    modules = {name: network.get_submodule(name.rpartition(".")[0]) for name in kernels}
    left = [name for name, module in modules.items() if not _is_int8(module)]
    if left or not kernels:
        raise ValueError(f"{len(left)} of {len(kernels)} kernels are not int8: {', '.join(left[:3]) or 'none at all'}.")
    return len(kernels)


def quantize_onnx(
    path: str | os.PathLike, quantized_path: str | os.PathLike, images: Iterable[torch.Tensor] | None = None
) -> int:
    """Quantize an ONNX file to int8 with ONNX Runtime's own tools, and return the bytes of the file written.

    With images, the ranges of all activations are taken from them in advance, and convolutions and transposed
    convolutions are quantized. Without images, ranges are determined when the network runs, and only convolutions are
    quantized (``ConvInteger``): ONNX Runtime has no such transposed convolution.

    Args:
        path: path of the file that :func:`~monai_ccnet.posttraining.export_network` wrote.
        quantized_path: path of the file to write, atomically; :func:`~monai_ccnet.posttraining.load_exported` runs it.
        images: some of the training images, each ``(B, C, H, W[, D])`` as the network takes it.

    Raises:
        ValueError: if a convolution was not quantized.
    """
    kinds = onnx_quantization.QuantType
    with tempfile.TemporaryDirectory() as folder:
        prepared, made = str(Path(folder, "prepared.onnx")), str(Path(folder, "quantized.onnx"))
        onnx_quantization.shape_inference.quant_pre_process(str(path), prepared, skip_symbolic_shape=True)
        if images is None:
            onnx_quantization.quantize_dynamic(prepared, made, ["Conv"], per_channel=True, weight_type=kinds.QUInt8)
        else:
            onnx_quantization.quantize_static(
                prepared,
                made,
                _Reader(prepared, images),
                op_types_to_quantize=["Conv", "ConvTranspose"],
                per_channel=True,
                activation_type=kinds.QUInt8,
                weight_type=kinds.QInt8,
            )
        content = Path(made).read_bytes()
    _check_onnx(content, transposed=images is not None)
    manifest_of(quantized_path).unlink(missing_ok=True)  # of a file that was there before
    with atomically(quantized_path) as file:
        file.write(content)
    return os.path.getsize(quantized_path)


class _Int8(torch.nn.Module):
    """The parametrization of a kernel by codes and scales."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return dequantized(codes, scales, self.axis)

    def right_inverse(self, kernel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return quantized(kernel, self.axis)


def _is_int8(module: torch.nn.Module) -> bool:
    if not parametrize.is_parametrized(module, "weight"):
        return False
    return any(tensor.dtype == torch.int8 for tensor in module.parametrizations.weight.parameters())  # type: ignore[union-attr]


def _at_8_bits(module: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Round the input of a layer to 256 steps from its least to its greatest number, 0 among them."""
    x, *others = given
    low, high = torch.aminmax(x)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-low / scale).round().to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255), *others


class _Reader:
    """Hands images to ONNX Runtime's calibration, one at a time, as its ``CalibrationDataReader`` does."""

    def __init__(self, path: str, images: Iterable[torch.Tensor]) -> None:
        self.name, self.images = onnx.load(path).graph.input[0].name, iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self.images, None)
        return None if image is None else {self.name: image.numpy()}


def _check_onnx(content: bytes, transposed: bool) -> None:
    """Raise an error for a model with a convolution that is not quantized, or with no convolution."""
    graph = onnx.load(io.BytesIO(content)).graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    kinds = ("Conv", "ConvTranspose") if transposed else ("Conv",)
    convolutions = [node for node in graph.node if node.op_type in kinds]
    left = [node.name for node in convolutions if producers.get(node.input[1]) != "DequantizeLinear"]
    if left or not (convolutions or "ConvInteger" in producers.values()):
        raise ValueError(f"{len(left)} convolutions were not quantized, such as {left[:1] or 'any'}.")
