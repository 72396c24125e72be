"""Training within a wall-time budget, resumable, through Lightning."""

import csv
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader
from tqdm import tqdm

from spf.config import TrainingConfig
from spf.learning.data import Batch, WindowStream
from spf.learning.module import FlowModule
from spf.precision import precision_of

SNAPSHOT = "snapshot.ckpt"
SNAPSHOT_SECONDS = 120.0


class Windowing(L.LightningDataModule):
    """Hands Lightning the window stream, from the step that training has reached."""

    def __init__(self, stream: WindowStream) -> None:
        super().__init__()
        self.stream = stream

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches are made whole by the stream."""
        if self.trainer is not None:
            self.stream.start_step, self.stream.rank = self.trainer.global_step, self.trainer.global_rank
        return DataLoader(self.stream, batch_size=None)


class Budget(Callback):
    """Stops at the wall time or step budget; shows progress with an ETA on stderr, logs every step to CSV, snapshots.

    Time spent before a snapshot counts after a resume.
    """

    def __init__(self, config: TrainingConfig, folder: Path, progress: bool) -> None:
        self.config, self.folder = config, folder
        self.elapsed, self._tick, self._saved = 0.0, 0.0, 0.0
        self._bar = tqdm(total=100, desc="training", unit="%", disable=not progress, bar_format=_BAR, leave=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._tick, self._saved = time.monotonic(), self.elapsed
        self._spend(trainer, pl_module)
        self._keep_log_until(trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, log, snapshot, stop."""
        now = time.monotonic()
        self.elapsed, self._tick = self.elapsed + now - self._tick, now
        module = self._spend(trainer, pl_module)
        self._log(trainer, module)
        self._bar.n = min(100, round(100 * module.spent, 1))
        self._bar.set_postfix_str(f"step {trainer.global_step}, loss {module.last[1]:.3f}", refresh=False)
        self._bar.update(0)
        if module.spent >= 1:
            trainer.should_stop = True
            self._bar.close()
        elif self.elapsed - self._saved > SNAPSHOT_SECONDS:
            self._saved = self.elapsed
            save_snapshot(trainer, self.folder)

    def state_dict(self) -> dict[str, Any]:
        """Seconds spent."""
        return {"elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.elapsed = state_dict["elapsed"]

    def _spend(self, trainer: L.Trainer, module: L.LightningModule) -> FlowModule:
        """Tell the module what fraction of the budget is gone."""
        if not isinstance(module, FlowModule):
            raise TypeError(f"the budget drives a FlowModule, not a {type(module).__name__}")
        module.spent = max(self.elapsed / (60 * self.config.minutes), trainer.global_step / self.config.max_steps)
        return module

    def _keep_log_until(self, step: int) -> None:
        """Begin the log, or drop the steps that a killed run had logged beyond its snapshot."""
        path, kept = self.folder / "training.csv", [LOG_COLUMNS]
        if path.exists() and step > 0:
            kept += [row for row in csv.reader(path.open()) if row and row[0].isdigit() and int(row[0]) <= step]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(kept)

    def _log(self, trainer: L.Trainer, module: FlowModule) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = [trainer.global_step, f"{self.elapsed:.2f}", module.last[0], f"{module.last[1]:.6f}", f"{rate:.3e}"]
        with (self.folder / "training.csv").open("a", newline="") as file:
            csv.writer(file).writerow(row)


LOG_COLUMNS = ["step", "seconds", "stage", "loss", "learning_rate"]
_BAR = "{desc}: {percentage:3.0f}%|{bar:24}| {elapsed} spent, {remaining} left{postfix}"


def save_snapshot(trainer: L.Trainer, folder: Path) -> None:
    """Write Lightning's resume file whole or not at all."""
    part = folder / (SNAPSHOT + ".part")
    trainer.save_checkpoint(part, weights_only=False)
    part.replace(folder / SNAPSHOT)


def fit(
    module: FlowModule, stream: WindowStream, config: TrainingConfig, folder: Path, progress: bool = True
) -> dict[str, Any]:
    """Train until the budget is spent, from the folder's snapshot where there is one.

    Args:
        module: Holds the backbone, and afterwards its average.
        stream: Training windows.
        config: Budget.
        folder: Gets ``training.csv`` and the snapshot.
        progress: Whether to show a bar on stderr.

    Returns:
        Steps, seconds and precision of the training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    precision = precision_of(config.precision)
    budget = Budget(config, folder, progress)
    snapshot = folder / SNAPSHOT
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator="auto", devices="auto", precision=precision, max_steps=config.max_steps, max_epochs=-1,
            gradient_clip_val=1.0, callbacks=[budget], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        resume = str(snapshot) if snapshot.exists() else None
        trainer.fit(module, datamodule=Windowing(stream), ckpt_path=resume, weights_only=True)
    return {"steps": trainer.global_step, "seconds": round(budget.elapsed, 1), "precision": precision}


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
