"""What compress.yaml, measure.yaml and the overlay call: constraints, checks, training, and what a run leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine

from monai_ccnet import figures
from monai_ccnet.complexity import (
    ComplexityProfile,
    LabelCeiling,
    measure_ceiling,
    measure_dataset,
    measure_settings,
)
from monai_ccnet.configs import running_workflow
from monai_ccnet.constraints import (
    AccuracyFloor,
    Budget,
    CompressionPlan,
    ComputeBudget,
    DiskBudget,
    LatencyBudget,
    MemoryBudget,
    Outlook,
    choose_scale,
    least_needed,
    trade_off,
)
from monai_ccnet.data import (
    DataReading,
    DatasetFolder,
    load_image,
)
from monai_ccnet.degradation import Law, WidthLaw
from monai_ccnet.files import check_writable, file_digest
from monai_ccnet.locks import hold
from monai_ccnet.networks import NetworkFamily
from monai_ccnet.records import TrialRecord
from monai_ccnet.reporting import save_html_report, save_report, save_trade_off
from monai_ccnet.scales import Scale, per_axis, scale_words
from monai_ccnet.training import check_data, finish_run, finish_stage, forget_run, read_run, segment_examples

__all__ = [
    "NO_PICTURES",
    "ceiling_for",
    "check_constraints",
    "check_run",
    "constraints_from",
    "default_confidence",
    "distributed",
    "hold_plan",
    "measure_by_law",
    "measure_settings_for",
    "save_measured",
    "save_run",
    "scale_windows",
    "train_planned",
]

DEFAULT_FLOOR = 0.95
_CONFIDENCE = 0.9


NO_PICTURES = 'No pictures: pip install "monai_ccnet[figures]" for them.'


def constraints_from(
    input_shape: Sequence[int] | None = None,
    *,
    budget_bytes: Sequence[int] | int | None = None,
    budget_memory_bytes: int | None = None,
    budget_macs: Sequence[int] | int | None = None,
    budget_latency_seconds: float | None = None,
    min_score: Sequence[float] | float | None = None,
    confidence: float | None = None,
    bits_per_weight: int = 32,
    count: str = "parameters",
    weights_format: str = "torch",
    default: float | None = DEFAULT_FLOOR,
    default_confidence: float | None = None,
) -> list[Budget | AccuracyFloor]:
    """Return the constraints that a run's settings ask for.

    Args:
        input_shape: ``(B, C, H, W[, D])`` for which memory, multiply-adds and latency are limited.
        budget_bytes: largest size of the file of weights; several are several constraints, as are the next.
        budget_memory_bytes: most memory for weights and activations.
        budget_macs: most multiply-adds.
        budget_latency_seconds: longest time on this machine.
        min_score: least score relative to the full-size network's.
        confidence: probability with which it is to be reached; ``None`` if the prediction alone is to reach it.
        bits_per_weight: number of bits of a stored weight.
        count: kind of weights that the disk budget counts beside the file.
        weights_format: format of the file, ``"torch"`` or ``"safetensors"``.
        default: the floor if nothing else is asked for; ``None`` for none.
        default_confidence: probability with which that floor is to be kept.

    Raises:
        ValueError: if a confidence is given beside budgets alone.

    >>> print(*constraints_from(budget_bytes=250_000))
    at most 250,000 bytes on disk (parameters at 32 bits, and the file)
    >>> print(*constraints_from())
    at least 95.0% of the full-size network's score
    """
    shape = tuple(input_shape or ())
    asked: list[Budget | AccuracyFloor] = []
    asked += [DiskBudget(each, bits_per_weight, count, weights_format) for each in _several(budget_bytes)]
    asked += [MemoryBudget(each, shape) for each in _several(budget_memory_bytes)]
    asked += [ComputeBudget(each, shape) for each in _several(budget_macs)]
    asked += [LatencyBudget(each, shape) for each in _several(budget_latency_seconds)]
    asked += [AccuracyFloor(each, confidence) for each in _several(min_score)]
    if asked and confidence is not None and min_score is None:
        raise ValueError(
            f"confidence {confidence} says how surely a floor is kept: give min_score too, or no confidence."
        )
    return asked or [AccuracyFloor(each, confidence or default_confidence) for each in _several(default)]


def default_confidence(family: NetworkFamily, law: Law) -> float | None:
    """Return the probability with which the default floor is to be kept; ``None`` where the law cannot tell.

    That is 0.9, as far as another training of the full-size network itself keeps the floor so often.

    Args:
        family: the network.
        law: the law that predicts.
    """
    if not isinstance(law, WidthLaw) or law.settings or not family.channels:
        return None
    surest = Outlook(family, None, None, law).probability(family.channels, DEFAULT_FLOOR)
    return _CONFIDENCE if surest is not None and surest >= _CONFIDENCE else None


def _several(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, Sequence) else [given]


def measure_settings_for(
    law: Law, measure: str | None = None, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return ``measure`` and its settings: those that a law holds for, unless others are given.

    Args:
        law: the law that predicts.
        measure: a measure; ``None`` for the law's.
        settings: settings of the measure, which take the place of the law's.
    """
    known = {key: value for key, value in law.settings.items() if key != "source"} or dict(_SHOWN_MEASURE)
    if measure is not None and measure != known.get("measure"):
        known = {"measure": measure}
    return {**known, **(settings or {})}


_SHOWN_MEASURE = {"measure": "boundary"}  # of a report, where no law needs one


def measure_by_law(
    items: Any,
    law: Law,
    *,
    measure: str | None = None,
    settings: Mapping[str, Any] | None = None,
    **given: Any,
) -> ComplexityProfile:
    """Return the profile of a data set by the measure that a law holds for, or by another one.

    Args:
        items: images and labels, as in :func:`~monai_ccnet.complexity.measure_dataset`.
        law: the law that predicts.
        measure: another measure.
        settings: settings of the measure; other arguments of ``measure_dataset`` may be among them.
        given: other arguments of ``measure_dataset``.
    """
    return measure_dataset(items, **{**given, **measure_settings_for(law, measure, settings)})


def check_run(
    output_dir: str | os.PathLike,
    reading: DataReading,
    measured: Mapping[str, Any],
    scales: Sequence[int],
    force: bool = False,
) -> None:
    """Refuse a folder whose run is on other data or by another measure, and keep what was read.

    Args:
        output_dir: folder of the run.
        reading: what was read of the data set.
        measured: the measure and its settings, as :func:`measure_settings_for` returns them.
        scales: scales at which the data set is measured.
        force: whether an earlier run in the folder is forgotten.

    Raises:
        OSError: if the folder cannot be written to.
        ValueError: if a training run was begun in the folder on other data, or after another measurement.
    """
    settings = dict(measured)
    asked = measure_settings(settings.pop("measure"), **settings), tuple(sorted(set(scales)))
    forget_run(output_dir, force)
    check_data(output_dir, reading)
    profile_file = Path(output_dir) / "complexity.json"
    if profile_file.exists() and read_run(output_dir):
        known = ComplexityProfile.load(profile_file)
        if (known.settings, known.scales) != asked:
            raise ValueError(
                f"{output_dir} holds a run by {known.settings} at {known.scales}, asked for is {asked[0]} at "
                f"{asked[1]}: choose another output_dir, or start again with --force True."
            )


def check_constraints(family: NetworkFamily, budgets: Mapping[str, Any]) -> None:
    """Refuse a constraint that cannot be, and bytes below what the smallest network of a family needs.

    That is before anything is measured; what depends on the patch and the scale is refused when the network is planned.

    Args:
        family: the network.
        budgets: what :func:`constraints_from` is given.

    Raises:
        ValueError: if a constraint cannot be.
        InfeasibleConstraintError: if no width fits; the message says what can be had.
    """
    for each in constraints_from(family.input_shape, **budgets):
        if isinstance(each, DiskBudget):
            least_needed(family, each)


def ceiling_for(
    scale: int | Sequence[int] | str,
    items: Any,
    *,
    name: str,
    smallest_structure: float | None = None,
    folder: str | os.PathLike | None = None,
    label_key: str = "label",
) -> LabelCeiling | None:
    """Return what the labels of another bundle keep at each scale, ``None`` where its scale is given as a number.

    Args:
        scale: scale that is asked for.
        items: its training items.
        name: name of the data set.
        smallest_structure: size of the smallest structure that must not vanish.
        folder: folder that keeps the result; ``None`` for none.
        label_key: key of the label in an item.
    """
    if not isinstance(scale, str):
        return None
    saved = None if folder is None else Path(folder) / "ceiling.json"
    return measure_ceiling(items, name=name, label_key=label_key, smallest_structure=smallest_structure, saved=saved)


_WINDOWS = ("roi_size", "patch_size", "spatial_size", "image_size")


def scale_windows(scale: int | Sequence[int]) -> None:
    """Multiply the crops and windows of the running config, of another bundle, by the scale at which its network works.

    These are the whole numbers under roi_size, patch_size, spatial_size and image_size, wherever they stand, or under
    the ids that these refer to. What changed is printed.

    Raises:
        ValueError: if there is none, or what was built before would be built anew, so that the bundle's own ids have to
            be given.
    """
    parser = running_workflow().parser
    built = [
        name
        for name, each in parser.ref_resolver.resolved_content.items()
        if isinstance(each, (torch.nn.Module, Engine))
    ]
    if built:
        raise ValueError(
            f"scale_roi comes too late for {', '.join(built)}, which the bundle's own initialize has built: give its "
            "own ids for crops and windows instead, multiplied by the scale."
        )
    found = dict(_windows(parser.get()))
    places = {str(value)[1:] if str(value).startswith("@") else place for place, value in found.items()}
    changed = []
    for place in sorted(places):
        value = parser.get(place)
        lengths = value if isinstance(value, list) else [value]
        if not all(isinstance(each, int) and not isinstance(each, bool) for each in lengths):
            continue
        factors = per_axis(scale, len(lengths))
        wider = [length * by if length > 0 else length for length, by in zip(lengths, factors, strict=True)]
        parser[place] = wider if isinstance(value, list) else wider[0]
        changed.append(f"{place} {value} -> {parser[place]}")
    if not changed:
        raise ValueError(
            f"scale_roi found no numbers under {', '.join(_WINDOWS)} in the bundle's config: give its own ids for "
            "crops and windows, multiplied by the scale."
        )
    print(f"Crops and windows at scale {scale_words(scale)}: {'; '.join(changed)}.")


def _windows(config: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Return the sizes of crops and windows in a config, by their ids."""
    for key, value in config.items() if isinstance(config, Mapping) else enumerate(config):
        here = f"{place}::{key}" if place else str(key)
        if key in _WINDOWS:
            yield here, value
        elif isinstance(value, (Mapping, list)):
            yield from _windows(value, here)


def train_planned(plan: CompressionPlan) -> TrialRecord:
    """Train and evaluate the planned network in the running config, each once; see ``monai_ccnet.training.finish_run``.

    Args:
        plan: whose network the config's ``network`` is.
    """
    parser = running_workflow().parser
    return finish_run(parser, plan.network_def, wait=parser.get_parsed_content("wait"))


def save_run(
    output_dir: str | os.PathLike,
    plan: CompressionPlan,
    record: TrialRecord,
    *,
    data: DatasetFolder,
    reading: DataReading,
    planning: Mapping[str, Any],
    full_size_score: float | None = None,
    pictures: bool = True,
) -> None:
    """Write what a run of ``compress.yaml`` leaves: plan, trade-off, report, pictures, page; and print the report.

    Args:
        output_dir: folder of the run.
        plan: the plan.
        record: the record of the network that was trained by it.
        data: the data set.
        reading: what was read of it.
        planning: arguments that the plan was made with, for the trade-off.
        full_size_score: the full-size network's own score, where it is known.
        pictures: whether to draw them.
    """
    folder = Path(output_dir)
    left = [folder / name for name in ("plan.json", "trade_off.csv", "report.json", "report.html")]
    plan.save(folder / "plan.json")
    plans = trade_off(plan.family, **{key: value for key, value in planning.items() if key != "widths"})
    save_trade_off(folder / "trade_off.csv", plans)
    words = save_report(folder / "report.json", plan, record, full_size_score, reading)
    print(*filter(None, [record.failure, plan, words]), sep="\n")
    if pictures:
        drawn = {"plan": figures.draw_plan(plan), "trade_off": figures.draw_trade_off(plans, plan)}
        if plan.ceiling is not None:
            drawn["ceiling"] = _drawn_ceiling(data, reading, plan.ceiling, plan.scale)
        if plan.complexity is not None:
            drawn["scales"] = _drawn_scales(data, reading, plan.complexity)
        segmented = segment_examples(running_workflow().parser, record.per_image["f1"])
        drawn["overlays"] = figures.draw_overlays({"this plan": segmented})
        for name, figure in drawn.items():
            figures.save_figure(folder / f"{name}.png", figure)
            left.append(folder / f"{name}.png")
    save_html_report(folder / "report.html", plan, record, full_size_score, reading)
    inputs = {name: file_digest(folder / name) for name in ("complexity.json", "record.json")}
    finish_stage(folder, "report", left, inputs=inputs)


def save_measured(
    output_dir: str | os.PathLike,
    data: DatasetFolder,
    reading: DataReading,
    profile: ComplexityProfile,
    table: str | os.PathLike,
    ceiling: LabelCeiling,
) -> None:
    """Draw what ``measure.yaml`` measured.

    Args:
        output_dir: folder of the run.
        data: the data set.
        reading: what was read of it.
        profile: complexity of the data set.
        table: the CSV file with one row an image.
        ceiling: what the training labels keep.
    """
    if not figures.has_matplotlib:
        print(NO_PICTURES)
        return
    folder = Path(output_dir)
    figures.save_figure(folder / "complexity.png", figures.draw_complexity(profile, table, folder=data.folder))
    figures.save_figure(folder / "scales.png", _drawn_scales(data, reading, profile))
    chosen, reason = choose_scale(ceiling)
    print(f"A network that takes any size {reason}.")
    figures.save_figure(folder / "ceiling.png", _drawn_ceiling(data, reading, ceiling, chosen))


def _drawn_scales(data: DatasetFolder, reading: DataReading, profile: ComplexityProfile) -> Any:
    shown = data.middle
    label = load_image(shown["label"], label=True, label_values=reading.label_values)
    return figures.draw_scales(shown["image"], profile, label=label)


def _drawn_ceiling(data: DatasetFolder, reading: DataReading, ceiling: LabelCeiling, scale: Scale) -> Any:
    """Draw the training item in the middle of the list, or the next one after it that holds a foreground."""
    labels = [file for file in reading.training if file.is_label]
    held = [set(file.values) - {"0"} != set() for file in labels] if len(labels) == len(data.training) else []
    middle = len(data.training) // 2
    order = [*range(middle, len(data.training)), *range(middle)]
    shown = data.training[next((index for index in order if held and held[index]), middle)]
    values = {int(value): number for value, number in reading.label_values.items()}
    return figures.draw_ceiling(shown["image"], shown["label"], ceiling, scale, values, reading.labels)


def hold_plan(plan_dir: str | os.PathLike, wait: bool = True) -> None:
    """Let no other run of the overlay work on the plan in a folder until the weights are written or the process ends.

    Args:
        plan_dir: folder of the plan; it is created.
        wait: whether to wait for another process, or else raise ``FolderBusyError``.

    Raises:
        FolderBusyError: if another process works there and ``wait`` is ``False``.
        OSError: if the folder cannot be written to.
    """
    check_writable(plan_dir)
    hold(plan_dir, wait)


def distributed(network: torch.nn.Module, device: Any) -> torch.nn.Module:
    """Return a network on its device, wrapped where a process group has been set up."""
    network, device = network.to(device), torch.device(device)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return network
    ids = [device] if device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(network, device_ids=ids)
