"""The Lightning module: flow-matching loss on stages' windows, AdamW on a schedule that follows the budget."""

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from spf.config import TrainingConfig
from spf.interfaces import Condition
from spf.learning.data import Batch
from spf.learning.ema import MovingAverage
from spf.network.backbone import Backbone
from spf.pyramid.operators import pool_rows
from spf.pyramid.spec import Stage


def schedule(fraction: float, step: int, warmup_steps: int, floor: float = 0.02) -> float:
    """Learning rate over its peak: linear warm-up in steps, cosine in the fraction of the budget that is spent."""
    rise = min(1.0, (step + 1) / max(1, warmup_steps))
    fall = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, fraction))))
    return rise * fall


def condition_of(batch: Batch) -> Condition:
    """What the windows of a batch are conditioned on."""
    return Condition(batch.forcings, batch.calendar, batch.source, batch.phase)


def weighted_error(predicted: Tensor, target: Tensor, rows: Tensor) -> Tensor:
    """Area-weighted mean squared error of (batch, var, time, lat, lon), rows (lat,) weighing by area."""
    weights = (rows / rows.mean()).reshape(1, 1, 1, -1, 1)
    return ((predicted - target).square() * weights).mean()


def mean_over_samples(losses: Sequence[Tensor], batches: Sequence[Batch]) -> Tensor:
    """Mean of the losses of some batches, weighted by their numbers of windows."""
    sizes = [len(batch.t) for batch in batches]
    return torch.stack([loss * size for loss, size in zip(losses, sizes, strict=True)]).sum() / sum(sizes)


class FlowModule(L.LightningModule):
    """Trains a backbone; ``elapsed`` (seconds) and ``spent`` (fraction of the budget) are kept up to date by the clock.

    Args:
        backbone: The network.
        row_weights: Area weight of each full-grid row (lat,).
        config: Budget and rates.
    """

    def __init__(self, backbone: Backbone, row_weights: Tensor, config: TrainingConfig) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        self.stages = backbone.spec.stages()
        self.weights = {s.pooling: pool_rows(row_weights, s.pooling) for s in self.stages.values()}
        self.average = MovingAverage(backbone)
        self.elapsed, self.spent, self.tokens = 0.0, 0.0, 0
        self.last: list[tuple[str, float]] = []
        if config.compile:
            # in place, so that names stay the same; dynamic: one graph for all blocks and stages, whatever their tokens
            for block in backbone.blocks:
                block.compile(dynamic=True)

    def training_step(self, batch: Batch | Sequence[Batch], batch_idx: int) -> Tensor:
        """Mean squared error of the path target, which noise enters with weight -1 at every stage; a mean over windows."""
        parts = [batch] if isinstance(batch, Batch) else list(batch)
        answers = self.backbone.packed([self.arguments(part) for part in parts])
        losses = [self.loss(part, predicted) for part, predicted in zip(parts, answers, strict=True)]
        for part, loss in zip(parts, losses, strict=True):
            if not torch.isfinite(loss):
                raise ValueError(
                    f"training step {self.global_step}: the loss at stage {part.stage} is not finite; lower the learning rate"
                )
        self.last = [(part.stage, float(loss.detach())) for part, loss in zip(parts, losses, strict=True)]
        self.tokens += sum(part.x_t[:, 0].numel() // self._cells_per_token(part) for part in parts)
        return mean_over_samples(losses, parts)

    def _cells_per_token(self, batch: Batch) -> int:
        return self.backbone.patches[self.stages[batch.stage].index] ** 2

    def loss(self, batch: Batch, predicted: Tensor) -> Tensor:
        """Area-weighted mean squared error of a prediction of the batch's target."""
        return weighted_error(predicted, batch.target, self.weights[self.stages[batch.stage].pooling].to(predicted))

    def arguments(self, batch: Batch) -> tuple[Tensor, Tensor, Stage, Condition]:
        """What the backbone is called with for a batch: state, flow time, stage, condition."""
        return batch.x_t, batch.t, self.stages[batch.stage], condition_of(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW without weight decay on biases, norms and embeddings' scales."""
        decayed = [p for p in self.backbone.parameters() if p.ndim > 1]
        others = [p for p in self.backbone.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=(0.9, 0.95))

    def on_train_batch_start(self, batch: Batch | Sequence[Batch], batch_idx: int) -> None:
        """Set the learning rate for this step."""
        rate = self.config.learning_rate * schedule(self.spent, self.global_step, self.config.warmup_steps)
        optimizer = self.optimizers()
        for group in getattr(optimizer, "param_groups", []):
            group["lr"] = rate

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let the average follow before anything can take a snapshot."""
        super().optimizer_step(*args, **kwargs)
        self.average.update(self.backbone)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The average travels in the snapshot."""
        checkpoint["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the average."""
        self.average.load_state_dict(checkpoint["average"])
