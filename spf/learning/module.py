"""The Lightning module: flow-matching loss on one stage's windows, AdamW on a schedule that follows the budget."""

import math
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


def schedule(fraction: float, step: int, warmup_steps: int, floor: float = 0.02) -> float:
    """Learning rate over its peak: linear warm-up in steps, cosine in the fraction of the budget that is spent."""
    rise = min(1.0, (step + 1) / max(1, warmup_steps))
    fall = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, fraction))))
    return rise * fall


class FlowModule(L.LightningModule):
    """Trains a backbone; ``spent`` (fraction of the budget) is kept up to date by the budget callback.

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
        self.spent = 0.0
        self.last: tuple[str, float] = ("", math.nan)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Area-weighted mean squared error of the path target, which noise enters with weight -1 at every stage."""
        stage = self.stages[batch.stage]
        predicted = self.backbone(
            batch.x_t, batch.t, stage, Condition(batch.forcings, batch.calendar, batch.source, batch.phase)
        )
        rows = self.weights[stage.pooling].to(predicted)
        weights = (rows / rows.mean()).reshape(1, 1, 1, -1, 1)
        loss = ((predicted - batch.target).square() * weights).mean()
        if not torch.isfinite(loss):
            raise ValueError(
                f"training step {self.global_step}: the loss at stage {batch.stage} is not finite; lower the learning rate"
            )
        self.last = (batch.stage, float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW without weight decay on biases, norms and embeddings' scales."""
        decayed = [p for p in self.backbone.parameters() if p.ndim > 1]
        others = [p for p in self.backbone.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=(0.9, 0.95))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
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
