"""Records of a training: rows in CSV files, scalars for TensorBoard, a bar on stderr; written by the first process alone."""

import csv
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from spf.learning.module import FlowModule

TRAINING, TRAINING_COLUMNS = "training.csv", ("step", "seconds", "stage", "loss", "learning_rate")
VALIDATION, VALIDATION_COLUMNS = "validation.csv", ("step", "seconds", "stage", "loss", "prior_loss", "explained")
BOARD = "tensorboard"
_BAR = "{desc}: {percentage:3.0f}%|{bar:24}| {elapsed} spent, {remaining} left{postfix}"


class Records:
    """Files of one training, each row beginning with its step; a file that was not begun stays unwritten.

    Args:
        folder: Where they lie.
        tensorboard: Whether scalars are also written for TensorBoard, to the folder ``tensorboard``.

    Raises:
        ModuleNotFoundError: If TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        if tensorboard and importlib.util.find_spec(BOARD) is None:
            raise ModuleNotFoundError(
                "training.tensorboard is true but the package tensorboard is not installed; "
                "install it, or set training.tensorboard: false (training.csv and learning.png are written in any case)"
            )
        self.folder, self._wants_board = folder, tensorboard
        self._board: Any = None
        self._begun: set[str] = set()

    def begin(self, name: str, columns: Sequence[str], step: int) -> None:
        """Begin a file, or drop the rows that a killed run had written beyond its snapshot at ``step``."""
        path, kept = self.folder / name, [list(columns)]
        if path.exists() and step > 0:
            kept += [row for row in csv.reader(path.open()) if row and row[0].isdigit() and int(row[0]) <= step]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(kept)
        self._begun.add(name)
        if self._wants_board and self._board is None:
            from torch.utils.tensorboard import SummaryWriter  # an optional dependency

            self._board = SummaryWriter(str(self.folder / BOARD), purge_step=step + 1)

    def add(self, name: str, rows: Iterable[Sequence[object]]) -> None:
        """Append rows to a file that was begun."""
        if name in self._begun:
            with (self.folder / name).open("a", newline="") as file:
                csv.writer(file).writerows(rows)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values by name, for TensorBoard."""
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush."""
        if self._board is not None:
            self._board.close()


class Log(Callback):
    """Logs every step (a row for each of its batches; those of the first process) and shows progress with an ETA on stderr."""

    def __init__(self, records: Records, progress: bool) -> None:
        self.records, self.progress = records, progress

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open what the first process writes."""
        show = self.progress and trainer.is_global_zero
        self._bar = tqdm(total=100, desc="training", unit="%", disable=not show, bar_format=_BAR, leave=True)
        if trainer.is_global_zero:
            self.records.begin(TRAINING, TRAINING_COLUMNS, trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A row."""
        module = flow_module(pl_module)
        step, rate = trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"]
        self.records.add(
            TRAINING, [(step, f"{module.elapsed:.2f}", key, f"{loss:.6f}", f"{rate:.3e}") for key, loss in module.last]
        )
        self.records.scalars(step, {"learning_rate": rate, **{f"loss/{key}": loss for key, loss in module.last}})
        self._bar.n = min(100, round(100 * module.spent, 1))
        self._bar.set_postfix_str(f"step {step}, loss {module.last[-1][1]:.3f}", refresh=False)
        self._bar.update(0)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close."""
        self._bar.close()
        self.records.close()


def flow_module(module: L.LightningModule) -> FlowModule:
    """The module as the one that these callbacks know."""
    if not isinstance(module, FlowModule):
        raise TypeError(f"the training's callbacks drive a FlowModule, not a {type(module).__name__}")
    return module
