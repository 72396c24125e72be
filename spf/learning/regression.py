"""Least squares from maps to maps: trains a deterministic network within a wall-time or step budget."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from spf.learning.ema import MovingAverage
from spf.learning.module import schedule
from spf.learning.train import quiet_lightning

CHECKS = 16
"""Looks at the held-out pairs, evenly over the budget."""
PAIRS_PER_LOOK = 48
"""Held-out pairs of a look at most: more of them would take longer than the training between two looks."""
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Pairs:
    """Inputs and what they should give.

    Members that share their inputs are one pair: the squared error to each of them is the one to their mean, times their
    number, plus a constant that no network can change.

    Attributes:
        inputs: (pair, channel, lat, lon).
        targets: Mean over the members (pair, var, lat, lon).
        members: How many (pair,).
    """

    inputs: Tensor
    targets: Tensor
    members: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def thinned(self, most: int) -> "Pairs":
        """Every n-th pair, so that there are at most ``most``."""
        chosen = slice(None, None, max(1, math.ceil(len(self) / most)))
        return Pairs(self.inputs[chosen], self.targets[chosen], self.members[chosen])


@dataclass(frozen=True)
class Regression:
    """How to fit.

    Attributes:
        minutes: Wall time.
        max_steps: Stop after so many steps even if time is left.
        batch: Pairs in a step.
        learning_rate: Peak of the schedule (warm-up, then cosine over the budget).
        warmup_steps: Steps of the warm-up.
        weight_decay: AdamW's.
        seed: Of the batches.
        stop_step: Leave the schedule here, before its end.
    """

    minutes: float = 5.0
    max_steps: int = 1_000_000
    batch: int = 8
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    weight_decay: float = 0.1
    seed: int = 0
    stop_step: int | None = None

    def __post_init__(self) -> None:
        if not (self.minutes > 0 and self.max_steps > 0):
            raise ValueError(f"regression: {self.minutes} minutes, {self.max_steps} steps; both must be positive")


class Batches(IterableDataset[Batch]):
    """An endless stream of batches (inputs, targets, members); batch i depends on (seed, i) alone."""

    def __init__(self, pairs: Pairs, size: int, seed: int) -> None:
        super().__init__()
        self.pairs, self.size, self.seed = pairs, min(size, len(pairs)), seed

    def __iter__(self) -> Iterator[Batch]:
        step = 0
        while True:
            rng = np.random.default_rng([self.seed, step])
            chosen = torch.from_numpy(rng.choice(len(self.pairs), self.size, replace=False))
            yield self.pairs.inputs[chosen], self.pairs.targets[chosen], self.pairs.members[chosen]
            step += 1


class RegressionModule(L.LightningModule):
    """Area-weighted squared error of a network; a moving average of its weights is what is kept.

    Args:
        network: Maps (batch, channel, lat, lon) to (batch, var, lat, lon).
        row_weights: Area weight of each row (lat,), mean 1.
        how: Rates; ``spent`` (fraction of the budget) is kept up to date by the callback.
    """

    def __init__(self, network: nn.Module, row_weights: Tensor, how: Regression) -> None:
        super().__init__()
        self.network, self.how = network, how
        self.row_weights = row_weights.reshape(-1, 1)
        self.average = MovingAverage(network)
        self.spent, self.last = 0.0, math.nan

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch.

        Raises:
            ValueError: If it is not finite.
        """
        inputs, targets, members = batch
        loss = weighted_mse(self.network(inputs), targets, members, self.row_weights)
        if not torch.isfinite(loss):
            raise ValueError(f"regression step {self.global_step}: the loss is not finite; lower the learning rate")
        self.last = float(loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW without weight decay on biases and norms."""
        groups = [
            {"params": [p for p in self.network.parameters() if p.ndim > 1], "weight_decay": self.how.weight_decay},
            {"params": [p for p in self.network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.how.learning_rate)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate for this step."""
        rate = self.how.learning_rate * schedule(self.spent, self.global_step, self.how.warmup_steps)
        for group in getattr(self.optimizers(), "param_groups", []):
            group["lr"] = rate

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let the average follow."""
        super().optimizer_step(*args, **kwargs)
        self.average.update(self.network)


def weighted_mse(predicted: Tensor, target: Tensor, members: Tensor, row_weights: Tensor) -> Tensor:
    """Mean squared error of (pair, var, lat, lon), each pair weighted with its members, each row with (lat, 1) of mean 1."""
    error = ((predicted - target).square() * row_weights.to(predicted)).mean((1, 2, 3))
    return (error * members).sum() / members.sum()


@dataclass
class Budget(Callback):
    """Stops at the budget, and looks at held-out pairs on the way.

    Attributes:
        how: The budget.
        held_out: Pairs that no step has seen, or None.
        progress: Whether to show a bar on stderr.
        looks: (step, loss of the averaged weights on the held-out pairs).
        best: Weights of the smallest of them.
    """

    how: Regression
    held_out: Pairs | None
    progress: bool
    looks: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._begin = time.monotonic()
        self._bar = tqdm(total=100, desc="training", unit="%", disable=not self.progress)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, look, stop."""
        if not isinstance(pl_module, RegressionModule):
            raise TypeError(f"the budget drives a RegressionModule, not a {type(pl_module).__name__}")
        pl_module.spent = max(self.elapsed / (60 * self.how.minutes), trainer.global_step / self.how.max_steps)
        self._bar.update(min(100, round(100 * pl_module.spent)) - self._bar.n)
        over = pl_module.spent >= 1 or trainer.global_step == self.how.stop_step
        if self.held_out is not None and (over or pl_module.spent * CHECKS >= len(self.looks) + 1):
            self._look(trainer.global_step, pl_module, self.held_out)
        if over:
            trainer.should_stop = True
            self._bar.close()

    @property
    def elapsed(self) -> float:
        """Seconds of training."""
        return time.monotonic() - self._begin

    def _look(self, step: int, module: RegressionModule, held_out: Pairs) -> None:
        loss = mean_squared_error(module.network, module.average.weights, held_out, module.row_weights)
        if not self.looks or loss < min(found for _, found in self.looks):
            self.best = {name: w.clone() for name, w in module.average.weights.items()}
        self.looks.append((step, loss))


def fit_regression(
    network: nn.Module,
    pairs: Pairs,
    row_weights: Tensor,
    how: Regression,
    held_out: Pairs | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Fit a network by least squares; it ends with the moving average of its weights, the best one on ``held_out`` if given.

    The result depends on the network's first weights and ``how.seed`` alone where ``max_steps`` ends it; a wall-time budget
    also depends on the machine.

    Args:
        network: Changed in place, left in evaluation mode on the CPU.
        pairs: To learn from.
        row_weights: Area weight of each row (lat,), mean 1.
        how: Budget and rates.
        held_out: Pairs for early stopping.
        progress: Whether to show a bar on stderr.

    Returns:
        ``steps``, ``seconds``, last ``loss``, ``kept_step`` and ``looks`` (step, held-out loss).
    """
    module = RegressionModule(network, row_weights, how)
    budget = Budget(how, held_out.thinned(PAIRS_PER_LOOK) if held_out else None, progress)
    network.train()
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator="auto", devices=1, max_steps=how.max_steps, max_epochs=-1, gradient_clip_val=1.0,
            callbacks=[budget], logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(Batches(pairs, how.batch, how.seed), batch_size=None))
    seconds, steps = budget.elapsed, trainer.global_step
    weights = budget.best or module.average.weights
    network.load_state_dict({name: w.cpu() for name, w in weights.items()}, strict=False)
    network.cpu().eval()
    kept = min(budget.looks, key=lambda look: look[1])[0] if budget.looks else steps
    return {
        "steps": steps,
        "seconds": round(seconds, 1),
        "loss": module.last,
        "kept_step": kept,
        "looks": [[step, round(loss, 6)] for step, loss in budget.looks],
    }


@torch.inference_mode()
def predict(network: nn.Module, inputs: Tensor, batch: int = 64) -> Tensor:
    """Outputs (pair, var, lat, lon) of inputs (pair, channel, lat, lon)."""
    return torch.cat([network(part) for part in inputs.split(batch)])


def mean_squared_error(network: nn.Module, weights: Mapping[str, Tensor], pairs: Pairs, row_weights: Tensor) -> float:
    """Area-weighted error of a network with other weights over all pairs; its mode is restored."""
    was_training, device = network.training, next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        answers = [
            torch.func.functional_call(network, dict(weights), (part.to(device),)) for part in pairs.inputs.split(64)
        ]
    network.train(was_training)
    return float(weighted_mse(torch.cat(answers).cpu(), pairs.targets, pairs.members, row_weights))
