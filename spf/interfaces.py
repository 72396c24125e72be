"""The three things that can be swapped: one-method protocols."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from spf.pyramid.spec import Stage


@dataclass(frozen=True)
class Condition:
    """What a batch of windows is conditioned on.

    Attributes:
        forcings: Encoded forcings (batch, forcing, time, forcing_lat, forcing_lon).
        calendar: Absolute calendar id of each step (batch, time): month 1-12, year in decade 13-22, decade 0.
        source: Number of the Earth system model (batch,), 0 where it is unknown; none where all are.
        phase: Place of the windows' first step in its parent's block; one for the batch.
    """

    forcings: Tensor
    calendar: Tensor
    source: Tensor | None = None
    phase: int = 0

    def chosen(self, index: Tensor) -> "Condition":
        """The rows ``index`` of the batch."""
        source = None if self.source is None else self.source[index]
        return Condition(self.forcings[index], self.calendar[index], source, self.phase)


class Velocity(Protocol):
    """dx/dt at flow time t of a stage."""

    def __call__(self, x: Tensor, t: Tensor, stage: Stage, condition: Condition | None) -> Tensor:
        """x (batch, var, time, lat, lon), t (batch,) in [0, 1] -> velocity like x."""
        ...


class Noise(Protocol):
    """Unit Gaussian noise for named windows."""

    def __call__(self, shape: Sequence[int], stage: Stage, keys: Sequence[tuple[int, int]]) -> Tensor:
        """One noise field of ``shape`` per (member, window start) key, stacked."""
        ...


Solver = Callable[[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor], Tensor]
