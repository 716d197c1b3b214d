"""Sweeps of training runs, in any order, on any of joblib's backends, each run once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm

from monai_ccnet.complexity.ceiling import measure_ceiling
from monai_ccnet.configs import check_recipe, load_config
from monai_ccnet.constraints import family_of, working_scale
from monai_ccnet.data.folder import DatasetFolder, open_dataset, safe_name
from monai_ccnet.data.reading import DataReading, common_spacing, read_dataset
from monai_ccnet.ending import root_cause
from monai_ccnet.files import read_json
from monai_ccnet.locks import FolderBusyError
from monai_ccnet.networks.family import narrow
from monai_ccnet.networks.scaling import inner_def, is_at_scale, scale_of
from monai_ccnet.networks.size import network_size
from monai_ccnet.networks.widths import default_input_shape
from monai_ccnet.records import TrialRecord
from monai_ccnet.scales import scale_words
from monai_ccnet.starting import import_monai
from monai_ccnet.training.asked import recipe_of
from monai_ccnet.training.stages import read_run
from monai_ccnet.training.trial import full_network_def, run_trial
from monai_ccnet.values import load_values

__all__ = [
    "FAST_MULTIPLIERS",
    "MULTIPLIERS",
    "Trial",
    "def_on_data",
    "load_records",
    "loading_of",
    "plan_trials",
    "run_sweep",
]

MULTIPLIERS = (1.0, 0.75, 0.5, 0.25, 0.1875, 0.125, 0.0625)  # section 5.3 of the paper
FAST_MULTIPLIERS = (1.0, 0.25, 0.0625)  # section 6.4: with these on two data sets lambda changes by 2.4 %


class Trial(NamedTuple):
    """A training run to do: its network, data set and settings, and the folder for its results."""

    bundle_root: str
    output_dir: str
    network_def: dict[str, Any]
    multiplier: float | None
    recipe: dict[str, Any]
    cost: float  # multiply-adds of one image, for the progress of a sweep


def plan_trials(
    bundle_root: str | os.PathLike,
    output_dir: str | os.PathLike,
    dataset_dirs: Iterable[str | os.PathLike],
    *,
    multipliers: Sequence[float] = MULTIPLIERS,
    seeds: Sequence[int] = (0,),
    scale: int | Sequence[int] | str = 1,
    **recipe: Any,
) -> list[Trial]:
    """Return the training runs of a sweep: every data set at every multiplier with every seed, the cheapest first.

    The folder of a run is named after its data set, network, multiplier and seed, and after a digest of all that its
    result depends on: the images and labels, the network's config, the recipe and the other settings of ``train.yaml``
    that affect it. A changed recipe thus gives a new run; moved data, and other handlers or metrics, do not.

    Args:
        bundle_root: folder of the bundle whose ``train.yaml`` trains and whose ``evaluate.yaml`` scores.
        output_dir: folder of the sweep.
        dataset_dirs: Decathlon folders.
        multipliers: channels per channel of the full-size network, in (0, 1]; relative scores need 1 among them.
        seeds: seeds of the training runs.
        scale: scale at which the networks work, as in ``train.yaml``; ``"auto"`` is chosen for each data set.
        recipe: overrides of ``train.yaml`` by their ids; ``network_def`` among them names another network.

    Raises:
        ValueError: if two data sets have the same name.
    """
    check_recipe({key: value for key, value in recipe.items() if key != "network_def"})
    train = load_config(Path(bundle_root) / "configs" / "train.yaml")
    config = recipe_of(train, list(train))
    trials: list[Trial] = []
    names: dict[str, Path] = {}
    for folder in map(Path, dataset_dirs):
        data = open_dataset(folder, recipe.get("held_out_by", "auto"))
        name = data.name
        if names.setdefault(name, folder) != folder:
            raise ValueError(f"{names[name]} and {folder} are both named {name!r}: rename one in its dataset.json.")
        full = full_network_def(bundle_root, **recipe, dataset_dir=str(folder))
        if scale != 1:
            full = def_on_data(full, scale, data, recipe)
        read_as = {key: recipe[key] for key in ("label_values", "allow_overlap") if key in recipe}
        data_digest = read_dataset(data, **read_as).digest
        family = inner_def(full)["_target_"].rsplit(".", 1)[-1]
        if is_at_scale(full):
            family += f"-at{scale_words(scale_of(full)).replace(' ', '')}"
        input_shape = default_input_shape(full)
        for multiplier in dict.fromkeys(multipliers):
            network_def = narrow(full, multiplier)
            cost = float(network_size(network_def, input_shape).macs or 0)
            for seed in dict.fromkeys(seeds):
                given = recipe_of({**recipe, "seed": seed}, list(train))
                depends_on = [data_digest, network_def, given, config]
                digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:8]
                trials.append(
                    Trial(
                        str(bundle_root),
                        str(Path(output_dir) / f"{safe_name(name)}-{family}-{multiplier:g}-seed{seed}-{digest}"),
                        network_def,
                        float(multiplier),
                        {
                            **{k: v for k, v in recipe.items() if k != "network_def"},
                            "dataset_dir": str(folder),
                            "seed": seed,
                        },
                        cost,
                    )
                )
    return sorted(trials, key=lambda trial: trial.cost)


def def_on_data(
    network_def: Mapping[str, Any], scale: int | Sequence[int] | str, data: DatasetFolder, recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the config of a network as it works at a scale; ``"auto"`` is chosen by the labels of a data set.

    Args:
        network_def: the network's MONAI config, with references resolved.
        scale: scale, as in ``train.yaml``.
        data: the data set, whose training labels count.
        recipe: ids of ``train.yaml``, of which ``label_values``, ``spacing`` and ``smallest_structure`` are used.
    """
    family = family_of(network_def, scale=scale)
    ceiling = None
    if isinstance(scale, str):
        loading = loading_of(recipe, read_dataset(data, label_values=recipe.get("label_values"), allow_overlap=True))
        smallest = recipe.get("smallest_structure")
        ceiling = measure_ceiling(data.training, name=data.name, smallest_structure=smallest, loading=loading)
    return family.at(family.channels, working_scale(scale, family, ceiling))


def loading_of(recipe: Mapping[str, Any], reading: DataReading) -> dict[str, Any]:
    """Return how images and labels are read for measuring as trainings see them: ``label_values`` and ``spacing``.

    Args:
        recipe: ids of ``train.yaml``.
        reading: what was read of the data set.
    """
    spacing = recipe["spacing"] if "spacing" in recipe else common_spacing(reading)
    return {"label_values": recipe.get("label_values"), "spacing": spacing}


def run_sweep(
    trials: Sequence[Trial], *, n_jobs: int | None = None, backend: str | None = None, progress: bool = False
) -> list[TrialRecord]:
    """Do the training runs that are not finished, and return the records of all.

    An interrupted sweep continues when it is called again: finished runs are kept, and unfinished ones resume from
    their checkpoints. A failed run leaves a record with its error and is tried again at the next call; the others
    continue. Several processes may share one folder.

    Args:
        trials: training runs as :func:`plan_trials` returns them.
        n_jobs: number of runs at once, as joblib counts them; ``None`` is one, or the setting of
            ``joblib.parallel_config``.
        backend: name of joblib's backend: processes of this machine by default, or ``"dask"`` or ``"ray"`` once their
            client or ``ray.util.joblib.register_ray`` has been called.
        progress: whether to show the progress and the time left.

    Returns:
        One record per training run, in the same order.
    """
    records: dict[str, TrialRecord] = {}
    bar = tqdm(
        total=round(sum(trial.cost for trial in trials) / 1e6),
        desc="sweep",
        unit="MMAC",
        disable=not progress,
        bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed} elapsed, {remaining} left{postfix}",
    )
    with parallel_config(backend=backend) if backend is not None else contextlib.nullcontext(), bar:
        for wait in (False, True):  # first the runs that no other process does, then wait for the others
            left = [trial for trial in trials if trial.output_dir not in records]
            parallel = Parallel(
                n_jobs=n_jobs,
                return_as="generator_unordered",
                batch_size=1,
                pre_dispatch="n_jobs",
                initializer=import_monai,  # of backends that have processes of their own; the others ignore it
            )
            for trial, record in parallel(delayed(_try_trial)(trial, wait) for trial in left):
                if record is None:
                    continue
                records[trial.output_dir] = record
                bar.update(round(trial.cost / 1e6))
                which = record.dataset if trial.multiplier is None else f"{record.dataset} x{trial.multiplier:g}"
                word = "failed" if record.error else f"F1 {record.scores['f1'] or 0.0:.3f}"
                bar.set_postfix_str(f"{len(records)}/{len(trials)} training runs, {which} {word}")
    return [records[trial.output_dir] for trial in trials]


def _try_trial(trial: Trial, wait: bool) -> tuple[Trial, TrialRecord | None]:
    """Return the training run with its record, or with ``None`` if another process does it."""
    folder = Path(trial.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.INFO)
    try:
        with _printing_to(folder / "log.txt"):
            record = run_trial(
                trial.bundle_root,
                trial.output_dir,
                trial.network_def,
                multiplier=trial.multiplier,
                wait=wait,
                **trial.recipe,
            )
    except FolderBusyError:
        return trial, None
    except Exception as error:
        record = _failed(trial, error)
        if not _is_finished(folder):  # by another process, or another version
            record.save(folder / "record.json")
    finally:
        logging.disable(logging.NOTSET)
    return trial, record


@contextlib.contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Let what a run prints go to a file, so that it does not hide the progress of the sweep.

    MONAI's loggers keep the stream that they find for all later runs, so that they are given the screen at the end.
    """
    screen = sys.stdout
    with open(path, "a", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            yield
        finally:
            for logger in (logging.root, *logging.root.manager.loggerDict.values()):
                for handler in getattr(logger, "handlers", ()):
                    if isinstance(handler, logging.StreamHandler) and handler.stream is log:
                        handler.setStream(screen)


def _is_finished(folder: Path) -> bool:
    try:
        return "evaluation" in read_run(folder).get("stages", {})
    except ValueError:
        return (folder / "record.json").exists()


def _failed(trial: Trial, error: Exception) -> TrialRecord:
    words = "".join(traceback.format_exception_only(root_cause(error))).strip()
    return TrialRecord(
        dataset=open_dataset(trial.recipe["dataset_dir"]).name,
        network_def=trial.network_def,
        multiplier=trial.multiplier,
        recipe={key: value for key, value in trial.recipe.items() if key != "dataset_dir"},
        size=network_size(trial.network_def),
        file_bytes=0,
        scores={},
        pooled={},
        per_image={},
        constant_score=0.0,
        losses=(),
        seconds=0.0,
        versions={},
        error=words.replace(os.path.join(trial.recipe["dataset_dir"], ""), "").replace(f"{trial.output_dir}/", ""),
    )


def load_records(path: str | os.PathLike, trusted: Collection[str] = ()) -> list[TrialRecord]:
    """Return the records of training runs.

    Args:
        path: path of a folder with one JSON file per run, at any depth, read in the order of their names; or path of a
            ``.jsonl`` file with one record per line, in which other values are skipped.
        trusted: dotted names of networks that they may name, as in :meth:`TrialRecord.load`.

    Raises:
        ValueError: if a file or a line is invalid; the message names it.
    """
    if Path(path).suffix == ".jsonl":
        return load_values(path, TrialRecord, trusted)
    return [TrialRecord.load(file, trusted) for file in sorted(Path(path).rglob("*.json")) if _holds_record(file)]


def _holds_record(path: Path) -> bool:
    content = read_json(path)
    return isinstance(content, Mapping) and content.get("value_type") == TrialRecord.__name__
