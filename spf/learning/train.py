"""Training within a budget of wall time or steps, resumable, on one process or several, through Lightning."""

import logging
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from spf.config import TrainingConfig
from spf.learning.data import WindowStream
from spf.learning.held_out import Checks, HeldOut
from spf.learning.logs import Log, Records, flow_module
from spf.learning.module import FlowModule
from spf.learning.packing import PackedStream
from spf.precision import precision_of

SNAPSHOT = "snapshot.ckpt"
SNAPSHOT_SECONDS = 120.0


class Windowing(L.LightningDataModule):
    """Hands Lightning the stream, from the step that training has reached, as the process's rank sees it."""

    def __init__(self, stream: WindowStream | PackedStream) -> None:
        super().__init__()
        self.stream = stream

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches are made whole by the stream."""
        if self.trainer is not None:
            self.stream.start_step, self.stream.rank = self.trainer.global_step, self.trainer.global_rank
        return DataLoader(self.stream, batch_size=None)


class Clock(Callback):
    """The first process's clock, which all follow; ends training at the wall-time or step budget, for all at one step.

    Time spent before a snapshot counts after a resume.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.elapsed, self.before, self._tick = 0.0, 0.0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start."""
        self.before, self._tick = self.elapsed, time.monotonic()
        self._tell(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, stop."""
        now = time.monotonic()
        # a rank that went by its own clock could stop a step before the others, which would wait for it for ever
        self.elapsed = trainer.strategy.broadcast(self.elapsed + now - self._tick)
        self._tick = now
        if self._tell(trainer, pl_module) >= 1:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Seconds spent."""
        return {"elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.elapsed = state_dict["elapsed"]

    def _tell(self, trainer: L.Trainer, pl_module: L.LightningModule) -> float:
        """Tell the module what is gone of the budget."""
        module = flow_module(pl_module)
        module.elapsed = self.elapsed
        module.spent = max(self.elapsed / (60 * self.config.minutes), trainer.global_step / self.config.max_steps)
        return module.spent


class Snapshots(Callback):
    """Saves, every two minutes, all that is needed to go on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._saved = folder, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count from here."""
        self._saved = flow_module(pl_module).elapsed

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time; all processes take part, the first one writes."""
        elapsed = flow_module(pl_module).elapsed
        if not trainer.should_stop and elapsed - self._saved > SNAPSHOT_SECONDS:
            self._saved = elapsed
            save_snapshot(trainer, self.folder)


def save_snapshot(trainer: L.Trainer, folder: Path) -> None:
    """Write Lightning's resume file whole or not at all."""
    part = folder / (SNAPSHOT + ".part")
    trainer.save_checkpoint(part, weights_only=False)
    if trainer.is_global_zero:
        part.replace(folder / SNAPSHOT)


def fit(
    module: FlowModule,
    stream: WindowStream | PackedStream,
    config: TrainingConfig,
    folder: Path,
    progress: bool = True,
    held_out: HeldOut | None = None,
) -> dict[str, Any]:
    """Train until the budget is spent, from the folder's snapshot where there is one.

    Where there are several processes, Lightning starts them (or torchrun or SLURM has), each runs this function on batches of its
    own, and gradients are averaged; every one ends with the same weights.

    Args:
        module: Holds the backbone, and afterwards its average (the best one, where members are held out).
        stream: Training windows.
        config: Budget.
        folder: Gets ``training.csv``, ``validation.csv`` where members are held out, and the snapshot.
        progress: Whether to show a bar on stderr.
        held_out: Windows that decide which weights are kept and when to stop.

    Returns:
        Steps, seconds and precision of the training, processes, throughput, memory, and what held-out members say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    precision = precision_of(config.precision)
    records, clock = Records(folder, config.tensorboard), Clock(config)
    checks = [Checks(held_out, records)] if held_out else []
    callbacks = [clock, *checks, Log(records, progress), Snapshots(folder)]  # a snapshot holds its own step's check
    snapshot = folder / SNAPSHOT
    with quiet_lightning():
        devices, nodes = processes(config.devices)
        trainer = L.Trainer(
            accelerator="auto", devices=devices, num_nodes=nodes, strategy=strategy_for(devices * nodes),
            precision=precision, max_steps=config.max_steps, max_epochs=-1, gradient_clip_val=1.0, callbacks=callbacks,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, default_root_dir=folder,
        )  # fmt: skip
        resume = str(snapshot) if snapshot.exists() else None
        trainer.fit(module, datamodule=Windowing(stream), ckpt_path=resume, weights_only=True)
    how = {
        "steps": trainer.global_step, "seconds": round(clock.elapsed, 1), "precision": precision,
        "processes": trainer.world_size, **_cost(module, clock.elapsed - clock.before, trainer.world_size),
    }  # fmt: skip
    for check in checks:
        module.average.weights = check.weights
        how.update(check.outcome())
    return how


def processes(devices: int) -> tuple[int, int]:
    """Devices on each node, and nodes: as asked, or what torchrun or SLURM have started, or every accelerator of this machine."""
    launched = _launched()
    accelerators = torch.cuda.device_count() if torch.cuda.is_available() else 1
    return devices or (launched[0] if launched else max(1, accelerators)), launched[1] if launched else 1


def _launched() -> tuple[int, int] | None:
    """Processes on each node and nodes of the launcher that has started this process, if one has."""
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    if SLURMEnvironment.detect():
        return int(os.environ.get("SLURM_NTASKS_PER_NODE", "1")), int(os.environ.get("SLURM_NNODES", "1"))
    return None


def strategy_for(n_processes: int) -> Strategy | str:
    """How processes share a step: each its own batches, the mean of all gradients."""
    if n_processes == 1:
        return "auto"
    # the last block's forcing stream has no gradient; priors are constants, the same in every process
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)


def is_first_process() -> bool:
    """Whether this process writes what all have learned."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _cost(module: FlowModule, seconds: float, n_processes: int) -> dict[str, float]:
    """Field tokens a second since this start, all processes together; peak memory of the first one."""
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    found = {
        "tokens_per_second": round(n_processes * module.tokens / max(seconds, 1e-9)),
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30, 2),
    }
    if torch.cuda.is_available():
        found["peak_gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's banners and its advice on loader workers, which does not fit a stream of whole batches."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
