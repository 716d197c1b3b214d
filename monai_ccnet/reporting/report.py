"""The report of a run: predicted and achieved scores side by side, as JSON and as plain text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.data.reading import DataReading
from monai_ccnet.files import csv_rows, write_json
from monai_ccnet.records import METRICS, TrialRecord

__all__ = ["report", "report_words", "save_report", "save_trade_off"]


def report(
    plan: CompressionPlan,
    record: TrialRecord,
    full_size_score: float | None = None,
    reading: DataReading | None = None,
) -> dict[str, Any]:
    """Return predicted and achieved scores side by side, with the constraints and the sizes.

    Args:
        plan: plan of the network.
        record: record of the trained network.
        full_size_score: the full-size network's own score on the plan's metric, if known; it turns the predicted
            score, which is relative, into an absolute one, and the achieved score into a relative one.
        reading: what was read of the data set.

    Raises:
        InfeasibleConstraintError: if the file that was written is above the plan's disk budget.
    """
    plan.check_file_bytes(record.file_bytes, "the file of weights")
    metric = plan.degradation.metric
    achieved = record.scores[metric]
    return {
        "failed": record.failure,
        "dataset": record.dataset,
        "data": None
        if reading is None
        else {
            "digest": reading.digest,
            "images": {part: len(reading.images(part)) for part in ("training", "validation", "test", "unlabelled")},
            "notes": reading.notes,
        },
        "metric": metric,
        "predicted": None
        if plan.predicted is None
        else {
            "relative_score": plan.predicted.score,
            "low": plan.predicted.low,
            "high": plan.predicted.high,
            "level": plan.predicted.level,
            "is_extrapolated": plan.is_extrapolated,
            "assumption": plan.assumption,
            "floor": plan.floor,
            "probability": plan.probability,
            "chance_of_failing": plan.chance_of_failing,
            "score": None if full_size_score is None else plan.predicted.score * full_size_score,
            "source": plan.degradation.source,
        },
        "achieved": {
            "score": achieved,
            "relative_score": None if full_size_score is None or achieved is None else achieved / full_size_score,
            "full_size_score": full_size_score,
            **record.scores,
        },
        "budget": plan.constraint.to_dict(),
        "constraints": [each.to_dict() for each in plan.constraints],
        "scale": plan.scale if isinstance(plan.scale, int) else list(plan.scale),
        "ceiling": None if plan.ceiling is None else plan.ceiling.to_dict(),
        "channels": list(plan.channels),
        "full_channels": list(plan.full_channels),
        "multipliers": list(plan.multipliers),
        "sizes": {
            "weights": plan.size.weights,
            "full_weights": plan.full_size.weights,
            "compression": plan.compression,
            "parameters": plan.size.parameters,
            "macs": plan.size.macs,
            "activation_bytes": plan.size.activation_bytes,
            "input_shape": list(plan.size.input_shape or ()),
            "training_bytes": plan.size.training_bytes,
            "image": None if plan.image_size is None else plan.image_size.to_dict(),
            "file_bytes": record.file_bytes,
            "full_file_bytes": plan.full_size.file_bytes,
        },
        "latency": None if plan.latency is None else plan.latency.to_dict(),
        "seconds": record.seconds,
        "recipe": record.recipe,
        "versions": record.versions,
    }


def report_words(content: dict[str, Any]) -> str:
    """Return a report as plain text."""
    achieved, sizes, metric = content["achieved"], content["sizes"], content["metric"].upper()
    scores = ", ".join(f"{name} {_score(achieved[name])}" for name in METRICS if name in achieved)
    lines = [
        f"Achieved on the test images of {content['dataset']}: {scores}.",
        f"File of weights: {sizes['file_bytes']:,} bytes, {sizes['compression']:.1f}x fewer weights than the full-size "
        f"network. Training and evaluation took {content['seconds']:,.0f} s.",
    ]
    predicted = content["predicted"]
    if predicted is not None and achieved["relative_score"] is not None:
        lines.append(
            f"Relative to the full-size network's {metric}: predicted {predicted['relative_score']:.1%}, "
            f"achieved {achieved['relative_score']:.1%}."
        )
    elif predicted is not None:
        lines.append(
            f"Predicted: {predicted['relative_score']:.1%} of the full-size network's {metric}. To compare, train and "
            "evaluate the full-size network and give its score as --full_size_score."
        )
    return "\n".join(lines)


def _score(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def save_report(
    path: str | os.PathLike,
    plan: CompressionPlan,
    record: TrialRecord,
    full_size_score: float | None = None,
    reading: DataReading | None = None,
) -> str:
    """Write the report as JSON, atomically, and return it as plain text; see :func:`report`."""
    content = report(plan, record, full_size_score, reading)
    write_json(path, content)
    return report_words(content)


def save_trade_off(path: str | os.PathLike, plans: Sequence[CompressionPlan]) -> None:
    """Write plans as a CSV table, one row per plan: widths, sizes, predicted score and its interval; atomically."""
    names = ("weights", "parameters", "file_bytes", "macs", "activation_bytes")
    with csv_rows(path, ["channels", "compression", *names, "predicted", "low", "high"]) as write_row:
        for plan in plans:
            predicted = plan.predicted
            interval = ("", "", "") if predicted is None else (predicted.score, predicted.low, predicted.high)
            sizes = [getattr(plan.size, name) for name in names]
            write_row(["-".join(map(str, plan.channels)), plan.compression, *sizes, *interval])
