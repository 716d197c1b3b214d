"""Tables of a comparison, one row per method and constraint."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ccnet.comparison.methods import FULL_SIZE, METHODS, Rival, folder_of
from monai_ccnet.constraints import Budget
from monai_ccnet.networks import read_weights, weights_name
from monai_ccnet.networks.latency import LatencyComparison, compare_latency
from monai_ccnet.posttraining import load_pruned

__all__ = ["compare_table", "rival_latencies"]


def rival_latencies(output_dir: str | os.PathLike, rivals: Iterable[Rival]) -> LatencyComparison:
    """Measure the rivals of one comparison in turns on this machine, one of each method and constraint.

    Args:
        output_dir: folder of the comparison.
        rivals: rivals as :func:`compare` returned them; the others are compared with the first.

    Returns:
        Latencies by method and constraint, as the rows of :func:`compare_table` find them.
    """
    networks: dict[str, Any] = {}
    shape = None
    for rival in rivals:
        folder = Path(output_dir) / folder_of(rival.method, rival.constraint, rival.seed)
        weights = folder / weights_name(rival.record.recipe.get("weights_format", "torch"))
        network_def, shape = rival.record.network_def, shape or rival.record.size.input_shape
        networks.setdefault(
            folder_of(rival.method, rival.constraint, 0),
            load_pruned(network_def, read_weights(weights, rival.record.weights_digest))
            if "importance" in METHODS[rival.method]
            else network_def,
        )
    return compare_latency(networks, shape or ())


def compare_table(rivals: Iterable[Rival], latencies: LatencyComparison | None = None) -> list[dict[str, Any]]:
    """Return one row per method and constraint: means over the seeds, with the standard deviation of the scores.

    Scores are F1 and IU, predicted and achieved. Predictions are relative to the mean of the full-size network's scores
    and therefore stated only if that network is among the rivals.

    Args:
        rivals: rivals as :func:`compare` returned them.
        latencies: latencies as :func:`rival_latencies` returns them; without them the column of latencies is empty.
    """
    groups: dict[tuple, list[Rival]] = {}
    for rival in rivals:
        groups.setdefault((rival.constraint, rival.method), []).append(rival)
    full = [rival.record.scores for (_, method), found in groups.items() for rival in found if method == FULL_SIZE]
    rows = []
    for (constraint, method), found in groups.items():
        latency = latencies.latencies[folder_of(method, constraint, 0)] if latencies is not None else None
        records = [rival.record for rival in found]
        size = records[0].size
        scores = {name: [record.score(name) for record in records] for name in ("f1", "iu")}
        expected = found[0].predicted if full else {}
        rows.append(
            {
                "constraint": constraint.words(constraint.limit)
                if isinstance(constraint, Budget)
                else str(constraint or ""),
                "method": method,
                "seeds": len(found),
                **{
                    f"predicted_{name}": expected[name] * float(np.mean([each[name] for each in full]))
                    if name in expected
                    else None
                    for name in scores
                },
                **{name: float(np.mean(values)) for name, values in scores.items()},
                **{f"{name}_deviation": _deviation(values) for name, values in scores.items()},
                "learned": sum(record.has_learned for record in records),
                "weights": size.weights,
                "file_bytes": records[0].file_bytes,
                "macs": size.macs,
                "memory_bytes": None if size.activation_bytes is None else size.state_bytes + size.activation_bytes,
                "latency_seconds": latency.median_seconds if latency is not None else None,
                "training_seconds": float(np.mean([rival.seconds for rival in found])),
            }
        )
    return rows


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
