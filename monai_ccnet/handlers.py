"""Ignite handlers for training narrowed networks."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.data.utils import set_rnd
from monai.engines import Evaluator
from monai.handlers import CheckpointLoader, StatsHandler
from monai.utils import IgniteInfo, is_scalar, min_version, optional_import, set_determinism

from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.files import atomically
from monai_ccnet.networks.loading import WeightsError, load_weights, read_tensors
from monai_ccnet.networks.storage import save_weights
from monai_ccnet.records import evaluated_record

if TYPE_CHECKING:
    import ignite.distributed as idist
    from ignite.engine import Engine, Events
    from ignite.handlers import Checkpoint
    from ignite.handlers.checkpoint import BaseSaveHandler
else:
    Checkpoint, _ = optional_import("ignite.handlers", IgniteInfo.OPT_IMPORT_VERSION, min_version, "Checkpoint")
    BaseSaveHandler, _ = optional_import(
        "ignite.handlers.checkpoint",
        IgniteInfo.OPT_IMPORT_VERSION,
        min_version,
        "BaseSaveHandler",
        as_type="base",
    )
    Events, _ = optional_import("ignite.engine", IgniteInfo.OPT_IMPORT_VERSION, min_version, "Events")
    Engine, _ = optional_import(
        "ignite.engine", IgniteInfo.OPT_IMPORT_VERSION, min_version, "Engine", as_type="decorator"
    )
    idist, _ = optional_import("ignite.distributed", IgniteInfo.OPT_IMPORT_VERSION, min_version)

__all__ = [
    "CheckBudget",
    "EpochLosses",
    "EpochSeed",
    "KeepBest",
    "LoadWeights",
    "LogPlan",
    "RecordTrial",
    "ResumeTraining",
    "check_weights_file",
    "first_process_talks",
    "foreground_pixels",
    "forget_training",
    "plan_metrics",
]

_PREFIX = "training"
_RANK_STRIDE = 100_003  # between the seeds of processes, so that none repeats another's epochs


def foreground_pixels(outputs: Sequence[Mapping[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probability and label of each pixel and foreground class of a batch, flattened, for a ROC curve.

    The labels are of eight bits, since those of all test images are kept.

    Args:
        outputs: outputs of a MONAI evaluator, with one-hot ``label`` and ``probability``, each of shape
            ``(classes, H, W[, D])``.
    """
    probability, label = (
        torch.cat([torch.as_tensor(output[key])[1:].flatten().to(dtype).cpu() for output in outputs])
        for key, dtype in (("probability", torch.float32), ("label", torch.uint8))
    )
    return probability, label


def first_process_talks(handlers: Sequence[Any]) -> list[Any]:
    """Return the handlers; in all processes but the first, without those that print."""
    return [each for each in handlers if idist.get_rank() == 0 or not isinstance(each, StatsHandler)]


class EpochSeed:
    """Reseed all random generators at the start of each epoch, from a seed and the number of the epoch alone.

    A training run that is resumed from a checkpoint at the end of an epoch then draws the same numbers as an
    uninterrupted one, and ends with the same weights.

    Args:
        seed: seed of the training run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = int(seed)

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed Python, NumPy, torch and the random transforms of the engine's data set."""
        seed = self.seed + engine.state.epoch + _RANK_STRIDE * idist.get_rank()
        set_determinism(seed)
        dataset = getattr(engine.data_loader, "dataset", None)  # type: ignore[attr-defined]
        if dataset is not None:
            set_rnd(dataset, seed)


class EpochLosses:
    """Keep the mean training loss of each epoch, in ``losses``.

    A loss that is not finite ends the training run with an error: nothing that follows from it is worth keeping. Its
    state holds plain numbers, unlike that of MONAI's ``MetricLogger``, which a safe ``torch.load`` refuses.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self._total = 0.0
        self._count = 0

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._complete)

    def __call__(self, engine: Engine) -> None:
        """Count the loss of an iteration.

        Raises:
            ValueError: if it is not finite.
        """
        loss = float(engine.state.output[0]["loss"])  # type: ignore[index]
        if not math.isfinite(loss):
            raise ValueError(
                f"the training loss is {loss} in iteration {engine.state.iteration} (epoch {engine.state.epoch}): "
                "lower the learning rate, or check the images and labels."
            )
        self._total += loss
        self._count += 1

    def _start(self) -> None:
        self._total, self._count = 0.0, 0

    def _complete(self) -> None:
        self.losses.append(self._total / max(1, self._count))

    def state_dict(self) -> dict[str, list[float]]:
        """Return the losses of the epochs so far."""
        return {"losses": list(self.losses)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the losses of a state and continue after its epochs."""
        self.losses = list(state_dict["losses"])


class ResumeTraining:
    """Save a checkpoint of the whole training run at the end of epochs, and resume from the last one, if any.

    The checkpoint includes the trainer itself. It is complete and on the disk before an older one is deleted; the one
    before it is kept too where the disk has room, and is resumed from, with a word, if the last one is damaged. In
    several processes the first writes.

    Args:
        save_dir: folder of the checkpoints; :func:`forget_training` deletes them at the end.
        save_dict: objects with a state, by name: the network, the optimizer, the schedule and the like.
        interval: number of epochs from one checkpoint to the next.
    """

    def __init__(self, save_dir: str | os.PathLike, save_dict: Mapping[str, Any], interval: int = 1) -> None:
        self.save_dir = Path(save_dir)
        self.save_dict = dict(save_dict)
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        save_dict = {**self.save_dict, "trainer": engine}
        for checkpoint in reversed(_checkpoints(self.save_dir)):
            if _is_whole(checkpoint, set(save_dict)):
                CheckpointLoader(str(checkpoint), save_dict, map_location={"": "cpu"}).attach(engine)
                break
        saver = Checkpoint(
            save_dict,
            _CheckpointFiles(self.save_dir),
            filename_prefix=_PREFIX,
            global_step_transform=lambda trainer, _: trainer.state.epoch,
            n_saved=None,
        )
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), saver)


class _CheckpointFiles(BaseSaveHandler):
    """Write what Ignite's ``Checkpoint`` hands over, and then delete all others but the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
        if idist.get_rank() > 0:
            return
        path = self.folder / filename
        with atomically(path) as file:
            torch.save(checkpoint, file)
        has_room = shutil.disk_usage(self.folder).free > 2 * path.stat().st_size
        before = [each for each in _checkpoints(self.folder) if _epoch_of(each) < _epoch_of(path)]
        for each in _checkpoints(self.folder):  # a later one is damaged, or it would have been resumed from
            if each not in (path, *(before[-1:] if has_room else ())):
                each.unlink()

    def remove(self, filename: str) -> None:
        """Do nothing, since Ignite would call it before the new checkpoint is there."""


def forget_training(save_dir: str | os.PathLike) -> None:
    """Delete the checkpoints of a finished training run, whose weights are kept elsewhere."""
    for path in _checkpoints(Path(save_dir)):
        path.unlink(missing_ok=True)


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, in the order of their epochs."""
    return sorted((path for path in folder.glob(f"{_PREFIX}_*.pt") if _epoch_of(path) >= 0), key=_epoch_of)


def _epoch_of(path: Path) -> int:
    number = path.stem.rpartition("_")[2]
    return int(number) if number.isdecimal() else -1


def _is_whole(path: Path, names: set[str]) -> bool:
    """Tell whether a checkpoint can be resumed from, and say so if not."""
    try:
        content = read_tensors(path)
    except (WeightsError, OSError):
        content = None
    if isinstance(content, Mapping) and set(content) == names:
        return True
    print(f"{path} is damaged: the training goes on from the checkpoint before it, or begins again.")
    return False


class KeepBest:
    """Keep the weights of the best epoch, at any number of bits: beside a file, which they replace at the end.

    Attached to a MONAI evaluator, it takes the key metric, and the evaluator's own comparison or the rule of a
    ``CheckpointSaver``; a score that is no number never replaces one that is. Where the evaluator holds a copy of the
    network, such as a moving average, the copy is kept. Attached to a trainer, it raises an error if another network is
    trained.

    Args:
        network: network that is trained; the engines may hold it wrapped.
        path: path of the file, as in :func:`~monai_ccnet.networks.save_weights`.
        bits_per_weight: number of bits of a stored weight.
        rule: ``key_metric_name``, ``key_metric_negative_sign`` and ``key_metric_greater_or_equal``, as MONAI's
            ``CheckpointSaver`` takes them; ``None`` for the evaluator's own comparison.
        in_training: whether the trainer's own key metric is taken, and no evaluator's.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        path: str | os.PathLike,
        bits_per_weight: int = 32,
        rule: Mapping[str, Any] | None = None,
        in_training: bool = False,
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.best_so_far = self.path.with_suffix(f".best{self.path.suffix}")  # an interrupted run replaces no result
        self.bits_per_weight = bits_per_weight
        self.rule = rule
        self.in_training = in_training
        self.best: float | None = None
        self.trainer: Engine | None = None  # that runs
        self.judged: Engine | None = None  # the trainer whose network was the best so far
        self.is_trained: bool | None = None  # None without a trainer of MONAI's
        self.words = "after the last epoch, since no key metric was validated"

    @property
    def first_process(self) -> bool:
        """Whether this process writes."""
        return idist.get_rank() == 0

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer or evaluator."""
        if not isinstance(engine, Evaluator):
            self.is_trained = False
            engine.keeps_best_in = self.best_so_far  # type: ignore[attr-defined]  # said if it is interrupted
            engine.add_event_handler(Events.STARTED, self._check)
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), self._note)
        if self.in_training != isinstance(engine, Evaluator):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _held(self, engine: Engine) -> list[torch.nn.Module]:
        """Return an engine's network, which may wrap another, and all within it."""
        return list(getattr(engine, "network", self.network).modules())

    def _check(self, engine: Engine) -> None:
        self.trainer = engine
        held = self._held(engine)
        if not any(module is self.network for module in held):
            raise ValueError(
                f"the trainer's network, a {type(held[0]).__name__}, is not the planned one: let it refer to the id "
                "network of the config."
            )

    def _note(self, engine: Engine) -> None:
        self.is_trained = True

    def __call__(self, engine: Engine) -> None:
        """Write the file if this epoch is the best so far."""
        rule = self.rule or {}
        name = rule.get("key_metric_name") or getattr(engine.state, "key_metric_name", None)
        metric = None if name is None else engine.state.metrics[name]
        if not is_scalar(metric):
            return  # as MONAI's own, which warns
        score = float(metric) * (-1 if rule.get("key_metric_negative_sign") else 1)  # type: ignore[arg-type]
        if self._is_better(engine, score):
            self.best, self.judged = score, self.trainer
            network, of = self._validated(engine)
            self.words = f"after epoch {engine.state.epoch}, the best by {name} ({float(metric):.4g}){of}"  # type: ignore[arg-type]
            self._write(network)

    def _validated(self, engine: Engine) -> tuple[torch.nn.Module, str]:
        """Return the network that an engine validates, and a word if it is a copy of the one that is trained."""
        held = self._held(engine)
        if any(module is self.network for module in held):
            return self.network, ""
        for module in held:
            if type(module) is type(self.network) and _shapes(module) == _shapes(self.network):
                return module, " of the copy that is validated"
        raise ValueError(
            f"the validator's network, a {type(held[0]).__name__}, is neither the planned one nor a copy of it: let it "
            "refer to the id network of the config."
        )

    def _is_better(self, engine: Engine, score: float) -> bool:
        if self.best is None or math.isnan(score) or math.isnan(self.best):
            return self.best is None or not math.isnan(score)
        if self.rule is not None:
            return score >= self.best if self.rule.get("key_metric_greater_or_equal") else score > self.best
        return bool(engine.metric_cmp_fn(score, self.best))  # type: ignore[attr-defined]

    def _write(self, network: torch.nn.Module) -> None:
        if self.first_process:
            save_weights(network, self.best_so_far, self.bits_per_weight)

    def finish(self) -> None:
        """Put the best weights in the place of the file: those of the last epoch if no other was kept.

        Raises:
            RuntimeError: if nothing was trained.
        """
        if self.is_trained is False:
            raise RuntimeError(
                f"nothing was trained, so that {self.path} is not written: give training items, and at least one epoch."
            )
        if self.best is None:
            self._write(self.network)
        elif self.judged is not self.trainer:
            self.words += "; a training that came after it was never validated, and its weights are not in the file"
        if self.first_process:
            os.replace(self.best_so_far, self.path)


def _shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: each.shape for name, each in network.state_dict().items() if isinstance(each, torch.Tensor)}


class LoadWeights:
    """Load what :func:`~monai_ccnet.networks.save_weights` wrote, at any number of bits, before an engine runs.

    It takes the place of a ``CheckpointLoader``, which reads neither int8 kernels nor safetensors.

    Args:
        network: network of the same config.
        path: path of the file.
    """

    def __init__(self, network: torch.nn.Module, path: str | os.PathLike) -> None:
        self.network = network
        self.path = path

    def attach(self, engine: Engine) -> None:
        """Attach to any engine."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load them."""
        load_weights(self.network, self.path)
        engine.logger.info(f"Restored all variables from {os.fspath(self.path)}")


class CheckBudget:
    """Raise an error if the network is not the planned one, or its file of weights exceeds a disk budget of the plan.

    Args:
        plan: plan of the network, or the path of its JSON file.
        network: network that is trained; it may be wrapped for several processes.
        weights_file: path of the file that the training run saves at its end, to be checked, or ``None``; attach this
            handler after the one that saves it.
    """

    def __init__(
        self,
        plan: CompressionPlan | str | os.PathLike,
        network: torch.nn.Module,
        weights_file: str | os.PathLike | None = None,
    ) -> None:
        self.plan = _as_plan(plan)
        self.network = network
        self.weights_file = None if weights_file is None else Path(weights_file)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self)
        if self.weights_file is not None:
            engine.add_event_handler(Events.COMPLETED, self._check_file)

    def __call__(self, engine: Engine) -> None:
        """Compare the network's parameters with the plan's."""
        network = getattr(self.network, "module", self.network)
        found, planned = sum(p.numel() for p in network.parameters() if p.requires_grad), self.plan.size.parameters
        if found != planned:
            raise ValueError(
                f"the network has {found:,} trainable parameters and the plan {planned:,}: build it with "
                "monai_ccnet.networks.build_network(plan.network_def)."
            )

    def _check_file(self) -> None:
        assert self.weights_file is not None
        check_weights_file(self.plan, self.weights_file)


def check_weights_file(plan: CompressionPlan, weights_file: str | os.PathLike) -> None:
    """Raise an error if a file of weights exceeds a disk budget of a plan.

    Raises:
        FileNotFoundError: if there is no such file.
        InfeasibleConstraintError: if it is too large.
    """
    if not os.path.isfile(weights_file):
        raise FileNotFoundError(f"{weights_file} does not exist; attach CheckBudget after the handler that saves it.")
    plan.check_file_bytes(os.path.getsize(weights_file), str(weights_file))


def plan_metrics(plan: CompressionPlan) -> dict[str, float]:
    """Return the numbers of a plan by name: sizes, multipliers and, if known, complexity and predicted score."""
    numbers: dict[str, float | None] = {
        "parameters": plan.size.parameters,
        "weights": plan.size.weights,
        "planned_file_bytes": plan.size.file_bytes,
        "macs": plan.size.macs,
        "activation_bytes": plan.size.activation_bytes,
        "compression": plan.compression,
        "complexity": None if plan.complexity is None else plan.complexity.at(1),
        "predicted_score": None if plan.predicted is None else plan.predicted.score,
        "predicted_low": None if plan.predicted is None else plan.predicted.low,
        "predicted_high": None if plan.predicted is None else plan.predicted.high,
        **{f"multiplier_{stage}": multiplier for stage, multiplier in enumerate(plan.multipliers)},
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}


class LogPlan:
    """Add the numbers of a plan to an engine's metrics, which MONAI's stock handlers report.

    ``StatsHandler``, ``TensorBoardStatsHandler`` and ``MLFlowHandler`` report ``engine.state.metrics`` at the end of
    each epoch; attach this one before them. An evaluator then reports predicted and achieved side by side.

    Args:
        plan: plan of the network, or the path of its JSON file.
        full_size_score: the full-size network's own score, if known; an engine with the plan's metric then gets
            ``achieved_relative_score`` as well.
    """

    def __init__(self, plan: CompressionPlan | str | os.PathLike, full_size_score: float | None = None) -> None:
        self.plan = _as_plan(plan)
        self.full_size_score = full_size_score

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer or an evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Add to the metrics."""
        engine.state.metrics.update(plan_metrics(self.plan))
        metric = self.plan.degradation.metric
        if self.full_size_score is not None and metric in engine.state.metrics:
            engine.state.metrics["achieved_relative_score"] = engine.state.metrics[metric] / self.full_size_score


class RecordTrial:
    """Write the record of an evaluated network, for a calibration; any training code may have trained it.

    The evaluator needs a ``monai.handlers.ConfusionMatrix`` of the F1 score, named ``f1``, with ``compute_sample`` and
    without background, as in ``train.yaml``.

    Args:
        path: path of the JSON file to write, in the folder that ``load_records`` will read.
        dataset: name of the data set.
        network_def: MONAI config of the network. In a bundle's config, give an expression such as
            ``$@plan.network_def``, because a dictionary there would be built.
        weights_file: path of the file of its weights.
        multiplier: channels per channel of the full-size network; 1 for the full-size network itself.
        recipe: settings of the training run, in JSON types.
        input_shape: shape of the input for which the sizes are stated, ``(B, C, H, W[, D])``.
        history: handler that kept the losses of the training run, or ``None``.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        dataset: str,
        network_def: Mapping[str, Any],
        weights_file: str | os.PathLike,
        multiplier: float | None = None,
        recipe: Mapping[str, Any] | None = None,
        input_shape: Sequence[int] | None = None,
        history: EpochLosses | None = None,
    ) -> None:
        self.path = Path(path)
        self.dataset = dataset
        self.network_def = dict(network_def)
        self.weights_file = Path(weights_file)
        self.multiplier = multiplier
        self.recipe = dict(recipe or {})
        self.input_shape = input_shape
        self.history = history
        self._start = time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI evaluator."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.COMPLETED, self)

    def _begin(self) -> None:
        self._start = time.monotonic()

    def __call__(self, engine: Engine) -> None:
        """Write the record; in several processes the first does."""
        details = getattr(engine.state, "metric_details", {}).get("f1")
        if details is None or "f1" not in engine.state.metrics:
            raise ValueError(
                "RecordTrial needs a metric 'f1' of the evaluator, a monai.handlers.ConfusionMatrix with details, got "
                f"{sorted(engine.state.metrics)}."
            )
        if idist.get_rank() > 0:
            return
        evaluated_record(
            engine.state.metrics,
            details,
            dataset=self.dataset,
            network_def=self.network_def,
            input_shape=self.input_shape,
            weights_file=self.weights_file,
            multiplier=self.multiplier,
            recipe=self.recipe,
            losses=() if self.history is None else self.history.losses,
            seconds=round(time.monotonic() - self._start, 1),
        ).save(self.path)


def _as_plan(plan: CompressionPlan | str | os.PathLike) -> CompressionPlan:
    return plan if isinstance(plan, CompressionPlan) else CompressionPlan.load(plan)
