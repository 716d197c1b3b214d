"""Ignite handlers that serve the training of narrowed networks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.data.utils import set_rnd
from monai.handlers import CheckpointLoader
from monai.utils import IgniteInfo, min_version, optional_import, set_determinism

from monai_ccnet.values import atomically

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

__all__ = ["EpochLosses", "EpochSeed", "ResumeTraining", "forget_training"]

_PREFIX = "training"
_RANK_STRIDE = 100_003  # processes of one training draw differently, and no epoch repeats another process's


class EpochSeed:
    """Seed all randomness anew at the start of each epoch, from a seed and the number of the epoch alone.

    A training that is resumed from a checkpoint at the end of an epoch then draws what it would have drawn had it never
    stopped, and ends with the same weights.

    Args:
        seed: of the training.
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

    Its state holds plain numbers, unlike that of MONAI's ``MetricLogger``, which a safe ``torch.load`` refuses.
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
        """Count the loss of an iteration."""
        self._total += float(engine.state.output[0]["loss"])  # type: ignore[index]
        self._count += 1

    def _start(self) -> None:
        self._total, self._count = 0.0, 0

    def _complete(self) -> None:
        self.losses.append(self._total / max(1, self._count))

    def state_dict(self) -> dict[str, list[float]]:
        """Return the losses of the epochs so far."""
        return {"losses": list(self.losses)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on after the epochs of a state."""
        self.losses = list(state_dict["losses"])


class ResumeTraining:
    """Save all that a training needs to go on at the end of each epoch, and go on from the last such file, if any.

    The trainer itself is among what is saved. Ignite's ``Checkpoint`` does the saving; the files are written
    atomically, which those of MONAI's ``CheckpointSaver`` are not.

    Args:
        save_dir: folder of the checkpoints; one is kept, and :func:`forget_training` deletes it when its work is done.
        save_dict: what has a state, by name: the network, the optimizer, the schedule and the like.
        interval: epochs from one checkpoint to the next.
    """

    def __init__(self, save_dir: str | os.PathLike, save_dict: Mapping[str, Any], interval: int = 1) -> None:
        self.save_dir = Path(save_dir)
        self.save_dict = dict(save_dict)
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        save_dict = {**self.save_dict, "trainer": engine}
        if checkpoints := _checkpoints(self.save_dir):
            CheckpointLoader(str(checkpoints[-1]), save_dict, map_location={"": "cpu"}).attach(engine)
        saver = Checkpoint(
            save_dict,
            _AtomicSaver(self.save_dir),
            filename_prefix=_PREFIX,
            global_step_transform=lambda trainer, _: trainer.state.epoch,
            n_saved=1,
        )
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), saver)


class _AtomicSaver(BaseSaveHandler):
    """Write and remove what Ignite's ``Checkpoint`` hands over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
        with atomically(self.folder / filename) as file:
            torch.save(checkpoint, file)

    def remove(self, filename: str) -> None:
        (self.folder / filename).unlink(missing_ok=True)


def forget_training(save_dir: str | os.PathLike) -> None:
    """Delete the checkpoint of a training that is over and whose weights are kept elsewhere."""
    half_written = Path(save_dir).glob(f".{_PREFIX}_*")  # by a process that was killed as it wrote
    for path in (*_checkpoints(Path(save_dir)), *half_written):
        path.unlink()


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest last; a kill between two may leave both, each whole."""
    return sorted(folder.glob(f"{_PREFIX}_*.pt"), key=lambda path: path.stat().st_mtime_ns)
