"""Members set aside from training: how much better than before learning they are predicted, and which weights to keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from spf.learning.data import Batch, TrainingRun, WindowStream
from spf.learning.logs import VALIDATION, VALIDATION_COLUMNS, Records, flow_module
from spf.learning.module import FlowModule, mean_over_samples

CHECKS = 12
"""Checks over the whole budget."""
PATIENCE = 0.3
"""Fraction of the budget without improvement after which training stops."""
SEED = 20_150_101
"""Of the windows and noise of every check, whatever the training's seed: losses of two trainings can be compared."""
BATCHES_PER_STAGE = 1
_MOST_DRAWS = 300


def set_aside(runs: Sequence[TrainingRun], count: int) -> tuple[tuple[TrainingRun, ...], tuple[TrainingRun, ...]]:
    """The runs to learn from, and the last ``count`` members of each scenario (of each source).

    Raises:
        ValueError: If a scenario has no member left to learn from.
    """
    groups: dict[tuple[str, str], list[TrainingRun]] = {}
    for run in runs:
        groups.setdefault((str(run.source), run.scenario), []).append(run)
    for (_, scenario), members in groups.items():
        if len(members) <= count:
            raise ValueError(
                f"training.held_out {count} leaves no member of {scenario} to learn from ({len(members)} in all); "
                "choose fewer, or name more members in data.train"
            )
    aside = [run for members in groups.values() for run in members[len(members) - count :]]
    return tuple(run for run in runs if not any(run is other for other in aside)), tuple(aside)


@dataclass(frozen=True)
class HeldOut:
    """Fixed windows with fixed noise of members that are not learned from.

    Attributes:
        batches: Some for every stage that the stream draws.
        prior: Loss of the untrained network by stage key: what the measured covariances alone predict.
    """

    batches: tuple[Batch, ...]
    prior: Mapping[str, float]

    @classmethod
    def draw(cls, stream: WindowStream, untrained: FlowModule, per_stage: int = BATCHES_PER_STAGE) -> "HeldOut":
        """The first batches of each stage in a stream of held-out members.

        Args:
            stream: Of the held-out members.
            untrained: Before any training; starts from the prior.
            per_stage: Batches kept for each stage.
        """
        found: dict[str, list[Batch]] = {}
        for number in range(_MOST_DRAWS):
            batch = stream.batch(number)
            same = found.setdefault(batch.stage, [])
            if len(same) < per_stage:
                same.append(batch)
            if len(found) == len(untrained.stages) and all(len(some) == per_stage for some in found.values()):
                break
        batches = tuple(batch for key in untrained.stages for batch in found.get(key, []))
        return cls(batches, losses(batches, untrained, dict(untrained.backbone.named_parameters())))


@torch.no_grad()
def losses(batches: Sequence[Batch], module: FlowModule, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Loss by stage key of the module's network under other weights, which it does not keep."""
    found: dict[str, list[tuple[Tensor, Batch]]] = {}
    device = next(module.backbone.parameters()).device
    moved = {name: weight.to(device) for name, weight in weights.items()}
    for given in batches:
        batch = Batch._make(part.to(device) if isinstance(part, Tensor) else part for part in given)
        predicted = torch.func.functional_call(module.backbone, moved, module.arguments(batch))
        found.setdefault(batch.stage, []).append((module.loss(batch, predicted), batch))
    return {key: float(mean_over_samples(*zip(*pairs, strict=True))) for key, pairs in found.items()}


class Checks(Callback):
    """Looks at the held-out members at even parts of the budget with the averaged weights, keeps the best, stops when none comes.

    The first process computes and the others follow it, so that all stop at one step.

    Args:
        held_out: The windows.
        records: Gets ``validation.csv``.
    """

    def __init__(self, held_out: HeldOut, records: Records) -> None:
        self.held_out, self.records = held_out, records
        self.done, self.best, self.best_step, self.best_spent = 0, float("inf"), 0, 0.0
        self.weights: dict[str, Tensor] = {}
        self.explained: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the file."""
        if trainer.is_global_zero:
            self.records.begin(VALIDATION, VALIDATION_COLUMNS, trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check if one is due."""
        module = flow_module(pl_module)
        if module.spent * CHECKS < self.done:
            return
        self.done = int(min(1.0, module.spent) * CHECKS) + 1
        found: dict[str, float] = {}
        if trainer.is_global_zero:
            with trainer.precision_plugin.forward_context():
                found = losses(self.held_out.batches, module, module.average.weights)
        self._judge(trainer.strategy.broadcast(found), trainer.global_step, module)
        if module.spent - self.best_spent > PATIENCE:
            trainer.should_stop = True

    def _judge(self, found: Mapping[str, float], step: int, module: FlowModule) -> None:
        explained = {key: 1 - loss / self.held_out.prior[key] for key, loss in found.items()}
        self.records.add(
            VALIDATION,
            [
                (
                    step,
                    f"{module.elapsed:.2f}",
                    key,
                    f"{loss:.6f}",
                    f"{self.held_out.prior[key]:.6f}",
                    f"{explained[key]:.5f}",
                )
                for key, loss in found.items()
            ],
        )
        self.records.scalars(step, {f"explained/{key}": value for key, value in explained.items()})
        mean = sum(found.values()) / len(found)
        if mean < self.best:
            self.best, self.best_step, self.best_spent, self.explained = mean, step, module.spent, explained
            self.weights = {name: weight.detach().cpu().clone() for name, weight in module.average.weights.items()}

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        for name in _STATE:
            setattr(self, name, state_dict[name])

    def outcome(self) -> dict[str, Any]:
        """What the provenance says: the step whose weights are kept, and what they explain of each stage's prior loss."""
        return {
            "kept_step": self.best_step,
            "explained": {key: round(value, 5) for key, value in self.explained.items()},
        }


_STATE = ("done", "best", "best_step", "best_spent", "weights", "explained")
