"""Fitting laws to the records of training runs and the profiles of their data sets."""

from __future__ import annotations

import functools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from monai_ccnet import bundle_root
from monai_ccnet.complexity.ceiling import LabelCeiling
from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints import choose_scale
from monai_ccnet.degradation import (
    WIDTH_MEASURES,
    DegradationModel,
    DegradationPoint,
    Prediction,
    WidthLaw,
    WidthPoint,
)
from monai_ccnet.degradation.width import UNKNOWN_GAIN
from monai_ccnet.networks.family import NetworkFamily
from monai_ccnet.networks.scaling import inner_def
from monai_ccnet.records import TrialRecord
from monai_ccnet.scales import Scale, halvings
from monai_ccnet.training.sweeps import MULTIPLIERS, load_records
from monai_ccnet.values import load_values

__all__ = [
    "OMEGAS",
    "RECORDS",
    "SEVERAL_PATIENTS",
    "calibrate",
    "calibrate_width",
    "degradation_points",
    "load_width_records",
    "network_family",
    "planned_scales",
    "predict_left_out",
    "profiles_for",
    "refit",
    "refit_width",
    "scale_gains",
    "width_points",
]

RECORDS = bundle_root() / "docs" / "calibration"  # <network>.jsonl, of records and profiles; not in the wheel
WIDTH_RECORDS = bundle_root() / "docs" / "law"  # <network>.jsonl, of records and ceilings; not in the wheel
# Data sets of several patients, to which the laws in width are fitted: those of one subject lose less, and with them a
# law is too sure of people's images.
SEVERAL_PATIENTS = (
    "sunnybrook_lv",
    "busi",
    "melanoma",
    "wbc_cellavision",
    "dsb2018_fluorescence",
    "chase_db1",
    "hippocampus_3d",
)
OMEGAS = tuple(step / 20 for step in range(21))  # shares of JPEG complexity in its mix with foreground density


def network_family(network_def: Mapping[str, Any]) -> str:
    """Return the name of the class that a config builds, whatever the scale at which it works."""
    return str(inner_def(network_def)["_target_"]).rsplit(".", 1)[-1]


def degradation_points(
    records: Iterable[TrialRecord], complexities: Mapping[str, float], metric: str = "f1"
) -> list[DegradationPoint]:
    """Return training runs of one network as points for its law, with scores relative to the full-size network's mean.

    Args:
        records: records of training runs of one network, at multiplier 1 and below; failed runs are skipped.
        complexities: complexity of each data set, by its name.
        metric: name of a score of the records.

    Raises:
        ValueError: if records are of several networks, or a data set lacks its full-size network or its complexity.
    """
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    records = [record for record in records if record.error is None]
    if len(families := {network_family(record.network_def) for record in records}) > 1:
        raise ValueError(f"a law belongs to one network, the records are of {sorted(families)}: fit one for each.")
    for record in records:
        groups[record.dataset].append(record)
    points = []
    for dataset, trials in groups.items():
        full = [record for record in trials if record.multiplier == 1 and record.has_learned]
        if not full or dataset not in complexities:
            what = "profile" if full else "full-size network (multiplier 1) that learned"
            raise ValueError(f"data set {dataset!r} has no {what}: add it, or leave out the data set.")
        reference = float(np.mean([record.score(metric) for record in full]))
        for record in trials:
            points.append(
                DegradationPoint(
                    dataset,
                    complexities[dataset],
                    max(1.0, full[0].size.weights / record.size.weights),
                    record.score(metric) / reference,
                    record.has_learned,
                )
            )
    return points


def calibrate(
    records: Sequence[TrialRecord],
    profiles: Iterable[ComplexityProfile],
    *,
    metric: str = "f1",
    curvature: float | None = 0.0,
    omegas: Sequence[float] = (),
    source: str = "",
) -> list[DegradationModel]:
    """Fit a law for each measure of complexity, and return the laws, the best first.

    The best law has the smallest leave-one-out error of the relative scores. Two data sets give no such error; the
    order is then that of the profiles. Laws with a negative slope come last: they say that more complex images degrade
    less, which fits by chance among many measures and few data sets. A measure that is equal on all data sets at full
    scale, such as the lost detail of a label, is skipped.

    Args:
        records: records of training runs of one network on at least two data sets.
        profiles: profiles of these data sets, by one measure or several; those with equal settings belong to one
            measure.
        metric: name of a score of the records.
        curvature: curvature c of h_c; 0 is the paper's line, ``None`` fits it.
        omegas: shares of JPEG complexity to try in its mix with foreground density (JB, Eq. 5 of the paper), if there
            are profiles by both and at least four data sets. The best mix gives one more law. It is chosen anew without
            each data set that is left out, so that its error is comparable with the others.
        source: origin of the records.
    """
    given: dict[str, Any] = {"metric": metric, "curvature": curvature, "source": source}
    groups = _by_settings(profiles)
    models = [_fitted(records, group, **given) for group in groups if len({profile.at(1) for profile in group}) > 1]
    if not models:
        raise ValueError("the profiles of all data sets are equal: measure others with measure_dataset.")
    if len(models[0].dataset_slopes) > 3:
        models += _best_mix(records, groups, omegas, **given)
    return sorted(models, key=lambda model: (model.slope < 0, model.left_out_error or 0.0))


def width_points(
    records: Iterable[TrialRecord],
    measure: str = "mean",
    metric: str = "f1",
    complexities: Mapping[str, float] | None = None,
) -> list[WidthPoint]:
    """Return training runs of one network as points for its law in width; failed runs are skipped.

    Args:
        records: records of training runs of one network, of any widths; those of a data set at one scale.
        measure: what counts as width, as in :meth:`NetworkFamily.width`.
        metric: name of a score of the records.
        complexities: complexity of each data set by its name, where the law is to use it.
    """
    points = []
    for record in records:
        if record.error is None and record.scores.get(metric) is not None:
            complexity = 0.0 if complexities is None else complexities[record.dataset]
            width = _width(_inner(record), measure)
            points.append(WidthPoint(record.dataset, width, record.score(metric), record.has_learned, complexity))
    return points


def _inner(record: TrialRecord) -> str:
    return json.dumps(inner_def(record.network_def), sort_keys=True)


@functools.cache
def _width(network_def: str, measure: str) -> float:
    family = NetworkFamily.of(json.loads(network_def))
    return family.width(family.channels, measure)


def calibrate_width(
    records: Sequence[TrialRecord], *, metric: str = "f1", measures: Sequence[str] = WIDTH_MEASURES, source: str = ""
) -> list[WidthLaw]:
    """Fit a law in width for each measure of width, and return the laws, those with the largest evidence first.

    Where all networks have one shape, so that the measures agree, the order is that of the measures.

    Args:
        records: records of training runs of one network on at least two data sets, each at one scale.
        metric: name of a score of the records.
        measures: measures of width.
        source: origin of the records.

    Raises:
        ValueError: if the records are of several networks, or too few.
    """
    records = [record for record in records if record.error is None]
    families = {name: NetworkFamily.of(json.loads(name)) for name in {_inner(record) for record in records}}
    kinds = {(network_family(each.network_def), each.spatial_dims, len(each.channels)) for each in families.values()}
    if len(kinds) != 1:
        raise ValueError(f"a law belongs to one network, the records are of {sorted(kinds)}: fit one for each.")
    network, dims, stages = kinds.pop()
    given = {"metric": metric, "network": network, "spatial_dims": dims, "stages": stages, "source": source}
    fitted = [
        WidthLaw.with_evidence(width_points(records, measure, metric), measure=measure, **given) for measure in measures
    ]
    return [law for law, _ in sorted(fitted, key=lambda each: -round(each[1], 1))]


def _by_settings(profiles: Iterable[ComplexityProfile]) -> list[list[ComplexityProfile]]:
    groups: dict[str, list[ComplexityProfile]] = defaultdict(list)
    for profile in profiles:
        groups[repr(sorted(profile.settings.items()))].append(profile)
    return list(groups.values())


def _fitted(
    records: Sequence[TrialRecord],
    profiles: Sequence[ComplexityProfile],
    *,
    metric: str,
    curvature: float | None,
    source: str,
) -> DegradationModel:
    """Return the law of one measure."""
    points = degradation_points(records, {profile.dataset: profile.at(1) for profile in profiles}, metric)
    fitted = DegradationModel.fit(
        points,
        metric=metric,
        network=network_family(records[0].network_def),
        settings=profiles[0].settings,
        source=source,
        curvature=curvature,
    )
    dims = {inner_def(record.network_def).get("spatial_dims") for record in records}
    scales = {record.scale for record in records}
    return replace(
        fitted,
        scale=scales.pop() if len(scales) == 1 else None,
        full_weights=max(record.size.weights for record in records),
        spatial_dims=dims.pop() if len(dims) == 1 else None,
    )


def _best_mix(
    records: Sequence[TrialRecord],
    groups: Iterable[Sequence[ComplexityProfile]],
    omegas: Sequence[float],
    **given: Any,
) -> list[DegradationModel]:
    """Return the law of the best mix JB, alone in a list, or an empty list if there is nothing to mix."""
    profiles = [profile for group in groups for profile in group]
    mixes = [mix for omega in omegas if (mix := _mixed(profiles, omega))]
    if not mixes:
        return []

    def best(kept: Sequence[TrialRecord]) -> DegradationModel:
        names = {record.dataset for record in kept}
        differing = [mix for mix in mixes if len({each.at(1) for each in mix if each.dataset in names}) > 1]
        models = [_fitted(kept, mix, **given) for mix in differing or mixes]
        return min(models, key=lambda model: model.left_out_error or 0.0)

    model, errors = best(records), {}
    for name in model.dataset_slopes:
        others = best([record for record in records if record.dataset != name])
        complexities = {profile.dataset: profile.at(1) for profile in profiles_for(others, profiles)}
        own = [record for record in records if record.dataset == name]
        errors[name] = others.error_on(degradation_points(own, complexities, given["metric"]))
    return [replace(model, left_out_errors=errors)]


def _mixed(profiles: Iterable[ComplexityProfile], omega: float) -> list[ComplexityProfile]:
    """Return JB of each data set that has profiles by both of its parts."""
    parts: dict[str, dict[str, ComplexityProfile]] = defaultdict(dict)
    for profile in profiles:
        parts[profile.settings["measure"]][profile.dataset] = profile
    both = [name for name in parts["jpeg"] if name in parts["foreground"]]
    return [parts["jpeg"][name].mixed_with(parts["foreground"][name], omega) for name in both]


def profiles_for(model: DegradationModel, profiles: Iterable[ComplexityProfile]) -> list[ComplexityProfile]:
    """Return the profiles that a law holds for; those of a mix JB are computed from its parts.

    Args:
        model: one of the laws that :func:`calibrate` returned.
        profiles: profiles that :func:`calibrate` was given.
    """
    profiles = list(profiles)
    if model.settings.get("measure") == "jb":
        profiles += _mixed(profiles, model.settings["omega"])
    return [profile for profile in profiles if profile.settings == model.settings]


def refit(network: str, metric: str = "f1", *, curvature: float | None = 0.0) -> list[DegradationModel]:
    """Repeat the fit of the law that :meth:`DegradationModel.calibrated` returns, from a checkout of the source.

    Args:
        network: name of the network family, such as ``"plain_unet"``.
        metric: name of the score, ``"f1"`` or ``"iu"``.
        curvature: curvature c of h_c; 0 is the paper's line, ``None`` fits it.

    Returns:
        A law for each measure, the best first, which is the one that is shipped.

    Raises:
        FileNotFoundError: if there are no records of the network, as in an installed wheel.
    """
    path = RECORDS / f"{network}.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: the records of the calibration come with a checkout of the source, not with a wheel."
        )
    records = [record for record in load_records(path) if record.multiplier in MULTIPLIERS]
    profiles = load_values(path, ComplexityProfile)
    source = f"monai_ccnet's own calibration, {len(records)} training runs"
    return calibrate(records, profiles, metric=metric, curvature=curvature, omegas=OMEGAS, source=source)


def refit_width(network: str, metric: str = "f1", without: Sequence[str] = ()) -> list[WidthLaw]:
    """Repeat the fit of the law that :meth:`WidthLaw.calibrated` returns, from a checkout of the source.

    Args:
        network: name of the network family, such as ``"plain_unet"``.
        metric: name of the score, ``"f1"`` or ``"iu"``.
        without: data sets that are left out, so that the law can be judged on them.

    Returns:
        A law for each measure of width, the best first, which is the one that is shipped.

    Raises:
        FileNotFoundError: if there are no records of the network, as in an installed wheel.
    """
    planned = planned_scales(network)
    names = {*SEVERAL_PATIENTS} - {*without}
    every = [record for record in load_width_records(network) if record.dataset in names]
    records = [record for record in every if record.scale == planned[record.dataset]]
    sets = len({record.dataset for record in records})
    source = f"monai_ccnet's own {len(records)} trainings on {sets} data sets of several patients by the planned recipe"
    gains: Any = scale_gains(every, planned, metric)
    return [replace(law, **gains) for law in calibrate_width(records, metric=metric, source=source)]


def scale_gains(
    records: Iterable[TrialRecord], planned: Mapping[str, Scale], metric: str = "f1"
) -> dict[str, tuple[float, float]]:
    """Return what networks gain at ``"coarser"`` and ``"finer"`` scales than the planned one, as a law holds it.

    Each factor of two in resolution counts, a data set by the mean over its networks. One made data set of
    :data:`~monai_ccnet.degradation.width.UNKNOWN_GAIN` stands beside them, so that a few cannot look too sure.

    Args:
        records: records of trainings at any scales; only networks that learned at the planned one and another count.
        planned: planned scale of each data set.
        metric: name of a score of the records.
    """
    scores: dict[tuple[str, str], dict[Scale, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.error is None and record.has_learned:
            scores[record.dataset, _inner(record)][record.scale].append(record.score(metric))
    gains: dict[str, dict[str, list[float]]] = {"coarser": defaultdict(list), "finer": defaultdict(list)}
    for (name, _), found in scores.items():
        for scale in set(found) - {planned[name]} if planned[name] in found else ():
            doublings = halvings(scale) - halvings(planned[name])
            gain = math.log(np.mean(found[scale]) / np.mean(found[planned[name]])) / abs(doublings)
            gains["coarser" if doublings > 0 else "finer"][name].append(gain)
    return {which: _with_unknown([float(np.mean(own)) for own in each.values()]) for which, each in gains.items()}


def _with_unknown(gains: Sequence[float]) -> tuple[float, float]:
    mean, deviation = UNKNOWN_GAIN
    count = len(gains) + 1
    centre = (sum(gains) + mean) / count
    squares = sum((gain - centre) ** 2 for gain in gains) + (mean - centre) ** 2 + deviation**2
    return centre, math.sqrt(squares / count * (1 + 1 / count))


def load_width_records(network: str) -> list[TrialRecord]:
    """Return the records behind a law in width, at all scales, from a checkout of the source."""
    path = WIDTH_RECORDS / f"{network}.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: the records of the law come with a checkout of the source, not with a wheel."
        )
    return load_records(path)


def planned_scales(network: str) -> dict[str, Scale]:
    """Return the scale that the labels of each data set choose, at which its networks count for the law."""
    family = NetworkFamily.of(inner_def(load_width_records(network)[0].network_def))
    ceilings = load_values(WIDTH_RECORDS / f"{network}.jsonl", LabelCeiling)
    return {ceiling.dataset: choose_scale(ceiling, family.coarsest)[0] for ceiling in ceilings}


def predict_left_out(
    points: Sequence[DegradationPoint], fitted: Sequence[DegradationPoint], *, curvature: float | None = 0.0
) -> list[tuple[DegradationPoint, Prediction]]:
    """Predict the score of each network by the law of all the other data sets.

    Args:
        points: networks to predict.
        fitted: networks to fit the law to; those of a point's own data set are left out for it.
        curvature: curvature c of h_c; ``None`` fits it.
    """
    models = {
        name: DegradationModel.fit([point for point in fitted if point.dataset != name], curvature=curvature)
        for name in dict.fromkeys(point.dataset for point in points)
    }
    return [(point, models[point.dataset].predict_interval(point.complexity, point.compression)) for point in points]
