"""A world of one cell whose months are a stationary Gaussian series: what windows and their halos do to persistence, exactly.

The velocity of a window is the regression of its path's direction on what it sees, with the true covariance. The sampler is then
an affine map of its noise, and zero and unit vectors give the covariance of what it draws without Monte Carlo.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from spf.config import StageSteps as Steps
from spf.interfaces import Condition
from spf.pyramid.spec import MONTHS_IN, PyramidSpec, Stage
from spf.pyramid.windows import Segment, Tile
from spf.sampling.sampler import cascade
from worlds.gaussian import UnitNoise

DECADES = 2
MONTHS = 120 * DECADES
WORLDS = {
    "monthly AR(1) 0.6 and a slow part": lambda lag: 0.6**lag + 0.05 * 0.995**lag,
    "0.9 AR(1) 0.86 and a slow part": lambda lag: 0.9 * 0.86**lag + 0.1 * 0.995**lag,
    "a damped oscillation of four years and AR(1) 0.6": lambda lag: (
        0.5 * 0.97**lag * (np.cos(np.pi * lag / 24) - np.log(0.97) * 24 / np.pi * np.sin(np.pi * lag / 24))
        + 0.5 * 0.6**lag
    ),
}


def truth(world: str) -> Tensor:
    """Covariance of all months."""
    month = np.arange(MONTHS)
    return torch.tensor(WORLDS[world](np.abs(month[:, None] - month[None])), dtype=torch.float64)


def means(timescale: str) -> Tensor:
    """Map from months to the steps of a timescale (step, month)."""
    length = MONTHS_IN[timescale]
    return torch.kron(torch.eye(MONTHS // length), torch.full((1, length), 1.0 / length)).double()


@dataclass(frozen=True)
class Place(Condition):
    """A condition that only says where a group's windows lie."""

    tiles: tuple[Tile, ...] = ()

    def chosen(self, index: Tensor) -> "Place":
        """The windows ``index``."""
        return Place(self.forcings, self.calendar, tiles=tuple(self.tiles[i] for i in index.tolist()))


def place(stage: Stage, segment: Segment, found: list[Tile]) -> Place:
    """The conditioner of `cascade`."""
    return Place(torch.empty(0), torch.empty(0), tiles=tuple(found))


@dataclass(frozen=True)
class WindowVelocity:
    """E[x_end - x_start | what a window sees], for windows anywhere in the record."""

    covariance: Tensor
    known: dict[tuple[str, float, Tile], Tensor] = field(default_factory=dict)

    def __call__(self, x: Tensor, t: Tensor, stage: Stage, condition: Place) -> Tensor:
        """As the `Velocity` protocol; halos get zeros, nobody uses them."""
        first = condition.tiles[0]
        gains = {tile: self._gain(stage, float(t[0]), tile) for tile in set(condition.tiles)}
        out = torch.zeros_like(x)
        own = slice(first.core_begin - first.begin, first.core_end - first.begin)
        gain = torch.stack([gains[tile] for tile in condition.tiles])
        out[:, 0, own, 0, 0] = torch.einsum("bij,bj->bi", gain, x[:, 0, :, 0, 0])
        return out

    def _gain(self, stage: Stage, time: float, tile: Tile) -> Tensor:
        key = (stage.key, time, tile)
        if key not in self.known:
            fields, ratio = means(stage.timescale), stage.factors[0]
            parent = means(stage.parent_timescale).repeat_interleave(ratio, 0) * (stage.index > 0)
            start, end, noise = 1 - stage.sigma_start, 1 - stage.sigma_end, 0.0
            at = time * end * fields + (1 - time) * start * parent
            going = end * fields - start * parent
            level = (1 - time) * stage.sigma_start + time * stage.sigma_end
            noise = level * (stage.sigma_end - stage.sigma_start)
            eye = torch.eye(len(fields), dtype=torch.float64)
            seen, own = slice(tile.begin, tile.end), slice(tile.core_begin, tile.core_end)
            state = (at @ self.covariance @ at.T + level**2 * eye)[seen, seen]
            cross = (going @ self.covariance @ at.T + noise * eye)[own, seen]
            self.known[key] = torch.linalg.solve(state, cross, left=False)
        return self.known[key]


def sampled_covariance(spec: PyramidSpec, world: str, n_steps: int = 8) -> Tensor:
    """Exact covariance of the months that the sampler draws with exact window velocities."""
    path = spec.path("month")
    segments = [Segment(0, MONTHS // s.months, s.months, 0) for s in path]
    offsets, total = {}, 0
    for stage in path:
        unit = max(1, (120 if stage.months >= 12 else 12) // stage.months)
        for start in range(0, MONTHS, unit * stage.months):
            offsets[stage.key, start // 12] = total
            total += unit
    steps = [Steps("runge_kutta", n_steps, 1.0)] * len(path)
    velocity = WindowVelocity(truth(world))
    x = cascade(
        spec, "month", segments, velocity, UnitNoise(offsets), place, range(total + 1), (1, 1, 1), steps, batch=2**20
    ).flatten(1)  # fmt: skip
    affine = x[1:] - x[:1]
    return affine.T @ affine


def correlation(covariance: Tensor, step: int, every: int) -> float:
    """Mean correlation of steps ``i - 1`` and ``i`` over i = step, step + every, ..."""
    index = torch.arange(step, len(covariance), every)
    deviation = covariance.diagonal().sqrt()
    return float((covariance[index - 1, index] / (deviation[index - 1] * deviation[index])).mean())
