"""The working scale of a training run, and the patch that follows from it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from monai.bundle.config_parser import ConfigParser

from monai_ccnet.configs import as_described, resolved, running_workflow
from monai_ccnet.constraints import choose_scale, family_of
from monai_ccnet.constraints import working_scale as scale_of_plan
from monai_ccnet.networks.building import build_network, network_def_of
from monai_ccnet.networks.scaling import AtScale, is_at_scale, scale_of, wrapped_def
from monai_ccnet.scales import Scale, as_scale, per_axis, resolution_words, scale_words
from monai_ccnet.training.stages import read_run

__all__ = [
    "check_activation_known",
    "check_scale_known",
    "config_to_use",
    "def_at_scale",
    "default_patch",
    "network_def_in",
    "working_scale",
]

_PATCHES = {2: (96, 96), 3: (64, 64, 32)}  # pixels of the working scale


def working_scale(scale: int | Sequence[int] | str) -> Scale:
    """Return the scale at which the network of the running config works; ``"auto"`` is chosen by its ``ceiling``.

    Args:
        scale: whole number from 1, one for each axis, or ``"auto"``.

    Raises:
        ValueError: if it is none of these.
    """
    if not isinstance(scale, str):
        return as_scale(scale)
    parser = running_workflow().parser
    network_def = network_def_in(parser)
    chosen: Scale
    if "_target_" not in network_def:
        chosen, reason = 1, "works at full resolution: it is given by an expression, and then --scale is a number"
    else:
        family = family_of(network_def, parser.get("widths"), "any")  # nothing is narrowed, so any network will do
        ceiling = parser.get_parsed_content("ceiling")
        chosen = scale_of_plan(scale, family, ceiling)
        best, reason = choose_scale(ceiling, family.coarsest)
        if best != chosen:
            reason = f"works at {resolution_words(chosen)}"
            reason += ", as its config says" if family.scale != 1 else ": it takes inputs of one size alone"
    if os.environ.get("RANK", "0") == "0":
        print(f"The network {reason}.")
    return chosen


def network_def_in(parser: ConfigParser) -> dict[str, Any]:
    """Return the config of the network of a parser, of which ``plan`` is one, with its references resolved."""
    if parser.get("plan") is not None:
        return dict(parser.get_parsed_content("plan").network_def)
    again = resolved(parser)
    if not isinstance(again.get("network_def"), Mapping):
        return {"network_def": str(again.get("network_def"))}
    described = ConfigParser({**again, "network_def": as_described(again["network_def"])})
    return network_def_of(described.get_parsed_content("network_def"))


def def_at_scale(network_def: Mapping[str, Any], scale: int | Sequence[int]) -> dict[str, Any]:
    """Return the config of a network as it works at a scale; one that says a scale stays as it is.

    The divisor of its input is found as :class:`~monai_ccnet.networks.AtScale` finds it.
    """
    if is_at_scale(network_def) or as_scale(scale) == 1 or "_target_" not in network_def:
        return dict(network_def)
    return wrapped_def(network_def, scale, AtScale(build_network(network_def, device="meta"), scale).divisor)


def config_to_use(
    known: Mapping[str, Any] | None,
    described: Mapping[str, Any],
    scale: Any,
    weights_file: str | os.PathLike,
    activation: Any = None,
) -> dict[str, Any]:
    """Return the config of the network that ``inference.yaml`` uses, at its scale.

    Args:
        known: config that the training run left, or the plan's; ``None`` if there is neither.
        described: config that is taken then.
        scale: scale that a run, a plan or the command says, ``None`` if none of them does.
        weights_file: path of the weights.
        activation: activation that the command says.

    Raises:
        ValueError: if weights are there and nothing says their scale or their activation, or the command says another
            scale than the run, or an activation beside it.
    """
    if scale is None and os.path.exists(weights_file):
        check_scale_known(scale)
    if known and activation is not None:
        raise ValueError(_KNOWN_ACTIVATION)
    if not known and described.get("act", "") is None and os.path.exists(weights_file):
        raise ValueError(_UNKNOWN_ACTIVATION)
    wanted, own = 1 if scale is None else as_scale(scale), scale_of(known or described)
    if known and wanted != own:
        raise ValueError(
            f"the network was trained at 1/{scale_words(own)}, and scale is {scale_words(wanted)}: leave it out."
        )
    return def_at_scale(known or described, wanted)


def default_patch(scale: int | Sequence[int], spatial_dims: int) -> list[int]:
    """Return a patch where nothing says with which one a network was trained: 96 pixels, in 3-D 64 x 64 x 32.

    Args:
        scale: factor by which the network averages its input down.
        spatial_dims: number of spatial axes.

    Returns:
        Lengths in pixels of the input, as many of the working scale.
    """
    return [length * by for length, by in zip(_PATCHES[spatial_dims], per_axis(scale, spatial_dims), strict=True)]


def check_activation_known() -> None:
    """Refuse to guess the activation of a network whose weights the running config evaluates, or to change it.

    Raises:
        ValueError: if a run or a plan says it and the config was given one too, or nothing says it.
    """
    parser = running_workflow().parser
    known = parser.get("plan") is not None or bool(read_run(parser.get_parsed_content("output_dir")))
    network_def = parser.get("network_def")
    is_given = "ACTIVATIONS" not in str(parser.get("activation"))
    if known and is_given:
        raise ValueError(_KNOWN_ACTIVATION)
    takes_it = isinstance(network_def, Mapping) and network_def.get("act") == "@activation"
    if not known and takes_it and not is_given and os.path.exists(parser.get_parsed_content("weights_file")):
        raise ValueError(_UNKNOWN_ACTIVATION)


_KNOWN_ACTIVATION = "plan.json or run.json says with which activation the network was trained: leave --activation out."
_UNKNOWN_ACTIVATION = (
    "no plan.json or run.json says with which activation the network was trained, and weights do not tell: give "
    "--activation, RELU for networks of the paper's recipe and of release 0.1, or "
    """"['LEAKYRELU',{'negative_slope':0.2}]" for those of the planned one."""
)


def check_scale_known(scale: Any) -> None:
    """Refuse to choose a scale where a network is used: its weights do not tell at which one it was trained.

    Raises:
        ValueError: if the scale is not a number.
    """
    if isinstance(scale, str) or scale is None:
        raise ValueError(
            "no plan.json or run.json says at which scale the network was trained, and weights do not tell: give "
            "--scale, 1 for full resolution."
        )
    as_scale(scale)
