"""Gaussian and mixture worlds of one stage or one path, with every conditional mean in closed form.

The oracle knows signal coefficients e (end of a stage) and s (start) and the projection P = Up Down alone. It shares no line with
`spf.pyramid.path`, nor with `worlds.gaussian`.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spf.pyramid.operators import pool_rows, pool_space, pool_time, upsample
from spf.pyramid.spec import PyramidSpec, Stage

DOUBLE = torch.float64
NOLEAP = torch.tensor([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=DOUBLE)


def randn(*shape, seed=0):
    """Unit Gaussian numbers of a seed, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@dataclass(frozen=True)
class Law:
    """A Gaussian, or one component of a mixture, of flattened windows."""

    mean: Tensor
    cov: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Oracle:
    """Closed-form conditional means at one stage whose windows are a mixture of laws; P takes fields to repeated parents."""

    stage: Stage
    laws: tuple[Law, ...]
    p: Tensor
    known: dict[float, list[tuple[Tensor, ...]]] = field(default_factory=dict)

    def __call__(self, x, t):
        """Exact velocity at states (batch, var, time, lat, lon), all at one flow time."""
        return self._mixed(x, float(t), 1)[0][0]

    def means(self, x, t):
        """E[velocity | x], E[fields | x], E[noise | x] and the probability of each component (component, batch)."""
        (velocity, fields, noise), share = self._mixed(x, t, 3)
        return {"velocity": velocity, "fields": fields, "noise": noise, "share": share}

    def _mixed(self, x, t, n):
        """The first n conditional means (n, *x.shape), and the probability of each component."""
        flat, logs, parts = x.flatten(1), [], []
        for log_weight, centre, inverse, prior, gains in self.regressions(t):
            off = flat - centre
            parts.append((prior[:n].flatten() + off @ gains[: n * len(centre)].T).unflatten(1, (n, -1)))
            logs.append(log_weight - 0.5 * ((off @ inverse) * off).sum(1))
        share = torch.softmax(torch.stack(logs), 0)
        return sum(p[:, None, None] * part for p, part in zip(share, parts, strict=True)).movedim(1, 0).reshape(
            n, *x.shape
        ), share

    def regressions(self, t):
        """Per component: log weight, centre and inverse covariance of x, then means of (velocity, fields, noise) and gains on x."""
        if t not in self.known:
            e, s = 1 - self.stage.sigma_end, 1 - self.stage.sigma_start
            sigma, eye = t * (1 - e) + (1 - t) * (1 - s), torch.eye(len(self.p), dtype=DOUBLE)
            m, drift = t * e * eye + (1 - t) * s * self.p, e * eye - s * self.p
            self.known[t] = []
            for law in self.laws:
                cov = m @ law.cov @ m.T + sigma**2 * eye
                with_x = torch.cat([drift @ law.cov @ m.T + sigma * (s - e) * eye, law.cov @ m.T, sigma * eye])
                inverse = torch.linalg.inv(cov)
                prior = torch.stack([drift @ law.mean, law.mean, 0 * law.mean])
                log_weight = math.log(law.weight) - 0.5 * torch.logdet(cov)
                self.known[t].append((log_weight, m @ law.mean, inverse, prior, with_x @ inverse))
        return self.known[t]


def as_matrix(linear, shape):
    """The matrix of a linear map of windows (var, time, lat, lon)."""
    unit = torch.eye(math.prod(shape), dtype=DOUBLE).reshape(-1, *shape)
    return linear(unit).flatten(1).T


def mixture(n):
    """Stages of one block of n cells, refined from one cell, and the exact velocities; components of uneven shape and weight."""
    path = PyramidSpec((2, 1), (2 / 3, 0.0)).path({4: "decade", 40: "year"}[n])
    rt, rh, rw = path[1].factors
    rows, days = torch.tensor([1.0, 0.6], dtype=DOUBLE), torch.linspace(1.0, 1.2, rt, dtype=DOUBLE)
    p = as_matrix(lambda x: upsample(pool_time(pool_space(x, rh, rows), rt, days), path[1].factors), (1, rt, rh, rw))
    lag = torch.arange(n)[:, None] - torch.arange(n)
    near, pattern = 0.5 + 0.5 * 0.7 ** lag.abs().double(), randn(n, seed=1)
    laws = tuple(
        Law(1.3 * (level + shape * pattern), 0.7 * spread**2 * near, weight)
        for weight, level, shape, spread in ((0.5, -1.0, 0.3, 0.6), (0.3, 0.6, -0.8, 0.4), (0.2, 1.8, 0.5, 0.8))
    )
    coarse = tuple(Law(p[:1] @ law.mean, p[:1] @ law.cov @ p[:1].T, law.weight) for law in laws)
    return path, Oracle(path[0], coarse, torch.zeros(1, 1, dtype=DOUBLE)), Oracle(path[1], laws, p)


def projection(stage, shape, rows, days):
    """P of a stage whose windows have this shape."""
    rt, rh, _ = stage.factors
    return as_matrix(lambda x: upsample(pool_time(pool_space(x, rh, rows), rt, days), stage.factors), shape)


def month_world():
    """Stages of the path to months and the exact velocity of each: one decade, its years, the months of the fourth; 4 x 8 cells.

    Trend and season in the mean; red noise with a season and a slow part in the covariance.
    """
    month, cells = torch.arange(120, dtype=DOUBLE), torch.cartesian_prod(torch.arange(4.0), torch.arange(8.0)).double()
    lag, near = (month[:, None] - month).abs(), torch.exp(-torch.cdist(cells, cells) / 2)
    season = 1 + 0.3 * torch.cos(month * math.pi / 6)
    parts = ((0.7 * 0.6**lag * season[:, None] * season, near), (0.98**lag, 0.3 * near**0.5))
    mean = month[:, None] / 120 + torch.cos(month * math.pi / 6)[:, None] * randn(32)
    rows, unit = torch.cos(torch.deg2rad(torch.linspace(-67.5, 67.5, 4, dtype=DOUBLE))), torch.eye(120, dtype=DOUBLE)
    years = pool_time(unit[:, :, None, None], 12, NOLEAP.repeat(10))[:, :, 0, 0].T
    in_time = {"decade": years.mean(0, keepdim=True), "year": years, "month": unit[36:48]}
    days = {"decade": torch.ones(1), "year": torch.ones(10), "month": NOLEAP}
    oracles = []
    for stage in PyramidSpec().path("month"):
        time, space = in_time[stage.timescale], as_matrix(lambda x: pool_space(x, stage.pooling, rows), (1, 1, 4, 8))  # noqa: B023
        law = Law(
            (time @ mean @ space.T).flatten(), sum(torch.kron(time @ a @ time.T, space @ b @ space.T) for a, b in parts)
        )
        shape = (1, len(time), 4 // stage.pooling, 8 // stage.pooling)
        p = projection(stage, shape, pool_rows(rows, stage.pooling), days[stage.timescale])
        oracles.append(Oracle(stage, (law,), p if stage.index else 0 * p))
    return oracles
