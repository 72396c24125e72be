"""A Gaussian world whose optimal velocity is known exactly, and the exact law of whatever is sampled with it.

The month field is x ~ N(mean, sum_i T_i (x) S_i): a slow and a fast part, each with its own covariance in time and space.
Every stage's window and its parent are linear in x, so with Phi = E[x_end - x_start | x_t] the sampler is an affine map of its
noise. Feeding it the zero vector and every unit vector gives that map, hence mean and covariance without Monte Carlo.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from spf.interfaces import Condition
from spf.pyramid.operators import pool_space, pool_time, upsample
from spf.pyramid.path import endpoints
from spf.pyramid.spec import MONTHS_IN, PyramidSpec, Stage
from spf.pyramid.windows import Segment
from spf.sampling.plan import unit_steps

DAYS = torch.tensor([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=torch.float64)
LAT, LON, DECADES = 4, 8, 2
DECADE, YEAR = 1, 3
"""The decade that the year window refines, and the year of it that the month window refines."""


@dataclass(frozen=True)
class GaussianWorld:
    """Mean (month, cell) and covariance parts [(time, time), (cell, cell)] of 240 months on a 4 x 8 grid, noleap days."""

    mean: Tensor
    parts: tuple[tuple[Tensor, Tensor], ...]
    rows: Tensor
    gains: dict[str, Tensor]

    def linear(self, timescale: str, pooling: int, key: str) -> tuple[Tensor, Tensor, Tensor]:
        """Time map (step, month), space map (cell, cell) and gain (step, cell) of the window at a stage."""
        time = time_map(timescale)
        cells = torch.eye(LAT * LON, dtype=torch.float64).reshape(-1, LAT, LON)
        space = pool_space(cells, pooling, self.rows).flatten(1).T
        gain = self.gains[key].expand(time.shape[0], LAT // pooling, LON // pooling).flatten(1)
        return time, space, gain

    def window_law(self, stage: Stage) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the stage's window, divided by the gain; flattened (step, lat, lon)."""
        a = self.linear(stage.timescale, stage.pooling, stage.key)
        return self._mean(a), self._cov(a, a)

    def joint_law(self, stage: Stage, pooling_before: int) -> tuple[Tensor, Tensor]:
        """Mean and covariance of [window, repeated parent]."""
        a = self.linear(stage.timescale, stage.pooling, stage.key)
        mean_a, cov_aa = self._mean(a), self._cov(a, a)
        if stage.index == 0:
            zero = torch.zeros_like(cov_aa)
            return torch.cat([mean_a, torch.zeros_like(mean_a)]), torch.block_diag(cov_aa, zero)
        key = f"{stage.index - 1}-{stage.parent_timescale}"
        time, space, gain = self.linear(stage.parent_timescale, pooling_before, key)
        own, above = segment_of(stage.timescale), segment_of(stage.parent_timescale)
        begin = (own.start - above.start) // above.months
        under = slice(begin, begin + -(-(own.stop - own.start) // above.months))
        time, gain = time[under], gain[under]
        b = (time, space, gain)
        up = self._up(time.shape[0], pooling_before, stage.factors)
        cross, inner = self._cov(a, b) @ up.T, up @ self._cov(b, b) @ up.T
        cov = torch.cat([torch.cat([cov_aa, cross], 1), torch.cat([cross.T, inner], 1)])
        return torch.cat([mean_a, up @ self._mean(b)]), cov

    def _mean(self, a: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        time, space, gain = a
        return ((time @ self.mean @ space.T) / gain).flatten()

    def _cov(self, a: tuple[Tensor, Tensor, Tensor], b: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        total = sum(torch.kron(a[0] @ t @ b[0].T, a[1] @ s @ b[1].T) for t, s in self.parts)
        return total / (a[2].flatten()[:, None] * b[2].flatten()[None, :])

    def _up(self, steps: int, pooling: int, factors: tuple[int, int, int]) -> Tensor:
        h, w = LAT // pooling, LON // pooling
        unit = torch.eye(steps * h * w, dtype=torch.float64).reshape(-1, steps, h, w)
        return upsample(unit, factors).flatten(1).T


SPANS = {
    "decade": (0, 20), "lustrum": (0, 20), "year": (10 * DECADE, 10), "quarter": (10 * DECADE + YEAR, 1),
    "month": (10 * DECADE + YEAR, 1),
}  # fmt: skip
"""First year and years of the window at each timescale: both decades, the years of one, the months of one of these."""


def segment_of(timescale: str) -> Segment:
    """The window at a timescale."""
    (first, years), months = SPANS[timescale], MONTHS_IN[timescale]
    return Segment(12 * first, 12 * years // months, months, 0)


def time_map(timescale: str) -> Tensor:
    """Day-weighted map from 240 months to the window's steps."""
    segment = segment_of(timescale)
    month = torch.eye(240, dtype=torch.float64)[:, segment.start : segment.stop, None, None]
    days = DAYS.repeat(20)[segment.start : segment.stop]
    return pool_time(month, segment.months, days)[:, :, 0, 0].T


def make_world(spec: PyramidSpec, seed: int = 0, gains: bool = True) -> GaussianWorld:
    """A world with trend, seasons, red noise, correlated space and uneven gains."""
    rng = np.random.default_rng(seed)
    month = np.arange(240)
    lag = np.abs(month[:, None] - month[None])
    sphere = np.stack(np.meshgrid(np.linspace(-67.5, 67.5, LAT), np.arange(LON) * 45.0, indexing="ij"), -1).reshape(
        -1, 2
    )
    gap = np.abs(sphere[:, None] - sphere[None])
    gap[..., 1] = np.minimum(gap[..., 1], 360 - gap[..., 1])
    near = np.exp(-np.hypot(gap[..., 0] / 60, gap[..., 1] / 80))
    amplitude = np.exp(0.4 * rng.standard_normal(LAT * LON))
    season = 1 + 0.3 * np.cos(2 * np.pi * month / 12)
    fast = (0.6**lag) * season[:, None] * season[None]
    parts = [(fast, near * amplitude[:, None] * amplitude[None]), (0.98**lag, 0.3 * near**0.5)]
    mean = month[:, None] / 240 * amplitude[None] + np.cos(2 * np.pi * month / 12)[:, None] * rng.standard_normal(
        LAT * LON
    )
    cos = torch.tensor(np.cos(np.deg2rad(np.linspace(-67.5, 67.5, LAT))))
    gain = {}
    for key, stage in spec.stages().items():
        steps = {"month": 12, "quarter": 4}.get(stage.timescale, 1)
        shape = (steps, LAT // stage.pooling, LON // stage.pooling)
        gain[key] = torch.tensor(np.exp(0.3 * rng.standard_normal(shape)) if gains else np.ones(shape))
    as_tensors = tuple((torch.tensor(t), torch.tensor(s)) for t, s in parts)
    return GaussianWorld(torch.tensor(mean), as_tensors, cos, gain)


@dataclass(frozen=True)
class ExactVelocity:
    """E[x_end - x_start | x_t] of the world, for the one window of each stage that the plan refines."""

    world: GaussianWorld
    spec: PyramidSpec
    known: dict[tuple[str, float], tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, x: Tensor, t: Tensor, stage: Stage, condition: Condition | None) -> Tensor:
        """As the `Velocity` protocol; all t of the batch are equal."""
        key = (stage.key, float(t[0]))
        if key not in self.known:
            self.known[key] = self._affine(stage, float(t[0]))
        centre, drift, gain = self.known[key]
        return (drift + (x.flatten(1) - centre) @ gain.T).reshape(x.shape)

    def _affine(self, stage: Stage, time: float) -> tuple[Tensor, Tensor, Tensor]:
        """E[x_t], E[x_end - x_start] and the regression of the second on the first."""
        before = self.spec.pooling[max(0, stage.index - 1)]
        mean, cov = self.world.joint_law(stage, before)
        n = mean.numel() // 2
        eye = torch.eye(n, dtype=torch.float64)
        zero = torch.zeros_like(eye)
        stacked = [torch.cat(row) for row in ([eye, zero, zero], [zero, eye, zero], [zero, zero, eye])]
        fields, parent, noise = (s.reshape(3 * n, n, 1, 1, 1) for s in stacked)
        start, end = (m.reshape(3 * n, n).T for m in endpoints(fields, parent, noise, stage))
        law = torch.block_diag(cov, eye)
        at, going = (1 - time) * start + time * end, end - start
        centre = torch.cat([mean, torch.zeros(n, dtype=torch.float64)])
        gain = torch.linalg.solve(at @ law @ at.T, at @ law @ going.T).T
        return at @ centre, going @ centre, gain


@dataclass(frozen=True)
class UnitNoise:
    """Noise protocol: member 0 gets zeros everywhere, member i a one in the i-th of all numbers drawn on the path."""

    offsets: dict[tuple[str, int], int]

    def __call__(self, shape: tuple[int, ...], stage: Stage, keys: list[tuple[int, int]]) -> Tensor:
        """One field a key."""
        size = int(np.prod(shape))
        out = torch.zeros(len(keys), size, dtype=torch.float64)
        for row, (member, label) in enumerate(keys):
            place = member - 1 - self.offsets[stage.key, label]
            if 0 <= place < size:
                out[row, place] = 1.0
        return out.reshape(len(keys), *shape)


def one_window_plan(path: tuple[Stage, ...]) -> list[Segment]:
    """The window of each stage."""
    return [segment_of(s.timescale) for s in path]


def noise_for(path: tuple[Stage, ...]) -> tuple[UnitNoise, int]:
    """Unit noise over all numbers of a path, and how many there are."""
    offsets, total = {}, 0
    for stage, segment in zip(path, one_window_plan(path), strict=True):
        unit = unit_steps(stage)
        for start in range(segment.start, segment.stop, unit * segment.months):
            offsets[stage.key, start // 12] = total
            total += unit * (LAT // stage.pooling) * (LON // stage.pooling)
    return UnitNoise(offsets), total
