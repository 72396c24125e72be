"""What is measured of a stage before any learning: patterns, persistence, the parent's share, how detail follows means.

Every stage is scaled to unit variance per cell. Its fields split into the mean over each spatial block, which hangs on the
parent, and the detail inside blocks. Detail is smooth: most of it follows from the means of the blocks around, and some from the
leading patterns of all means. Each part, detail without what so follows, is a sum of leading patterns of all variables together
(principal components of the training departures) and a rest. A pattern's amplitude is a stationary series with its measured
autocovariance; so is the rest of a cell, along the two (or more) directions in which its variables do not covary, with the mean
autocorrelation of cells that are as persistent. The parent is a multiple of the mean over its steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from spf.pyramid.operators import upsample
from spf.pyramid.spec import Stage

CLASSES = 6
"""Classes of cells by persistence."""
SMALL = 1e-6
MOST_PATTERNS = (0.6, 0.5)
"""Patterns over numbers in a field, and over fields measured, at most."""
DETAIL_PATTERNS = 96
COMPANIONS = 64
SAMPLES_PER_COMPANION = 8
"""Steps measured for each pattern that detail is regressed on: a regression on more would follow chance."""
RIDGE = 5.0
"""Added to the sum of squares of each of the eight surrounding blocks' means, in units of a cell's variance."""


@dataclass(frozen=True)
class Part:
    """One part (block means, or detail) of a stage's fields; n patterns, V variables, lags 0 ... L - 1.

    Attributes:
        patterns: Orthonormal (n, var, lat, lon).
        covariance: Autocovariance of their amplitudes by lag in steps (n, lag).
        slope: Regression of the parent on the mean over its steps, per pattern (n,); 0 where there is no parent.
        axes: Directions in which the rest of a cell has uncorrelated variables (axis, var, lat, lon), orthonormal per cell.
        rest: Variance left along each axis (axis, lat, lon).
        persistence: Class of each axis and cell (axis, lat, lon), integers.
        correlation: Autocorrelation of the rest by axis, class and lag (axis, class, lag).
        rest_slope: As ``slope``, per axis (axis,).
    """

    patterns: Tensor
    covariance: Tensor
    slope: Tensor
    axes: Tensor
    rest: Tensor
    persistence: Tensor
    correlation: Tensor
    rest_slope: Tensor


@dataclass(frozen=True)
class Coupling:
    """How a stage's fields hang on their parent, on each other and in time.

    Attributes:
        mean: Of the block means, on the parent's grid (the stage's own at stage 0 or where space does not refine).
        detail: Of what they and their surroundings leave, on the stage's grid; None where blocks are single cells.
        surroundings: Regression of a cell's detail on the means of the eight blocks around its own, less its own's
            (var, 8, lat, lon); None where there is no detail.
        companions: Detail that comes with a unit amplitude of each leading pattern of the means, beyond what its surroundings
            imply (n, var, lat, lon); None where there is no detail.
        followed: Variance of the detail that follows from both (var, lat, lon); None where there is no detail.
    """

    mean: Part
    detail: Part | None = None
    surroundings: Tensor | None = None
    companions: Tensor | None = None
    followed: Tensor | None = None


@dataclass(frozen=True)
class Series:
    """Normalised fields of one run at one stage, in time order, with their repeated parents.

    Attributes:
        fields: (var, step, lat, lon).
        parent: The same shape; zeros at stage 0.
        position: Place of each step in its parent's block (step,).
    """

    fields: Tensor
    parent: Tensor
    position: Tensor


def white_coupling(stage: Stage, n_var: int, grid: tuple[int, int]) -> Coupling:
    """Unit variance in every cell and nothing else, for a stage on ``grid`` (lat, lon): what an emulator knows without data."""
    _, rh, rw = stage.factors

    def part(h: int, w: int) -> Part:
        axes = torch.eye(n_var)[:, :, None, None].expand(n_var, n_var, h, w).contiguous()
        rest, classes = torch.ones(n_var, h, w), torch.zeros(n_var, h, w, dtype=torch.uint8)
        return Part(
            torch.zeros(0, n_var, h, w), torch.zeros(0, 1), torch.zeros(0), axes, rest, classes,
            torch.ones(n_var, CLASSES, 1), torch.zeros(n_var),
        )  # fmt: skip

    mean = part(grid[0] // rh, grid[1] // rw)
    if stage.cells == 1:
        return Coupling(mean)
    nothing = torch.zeros(n_var, *grid)
    return Coupling(mean, part(*grid), torch.zeros(n_var, 8, *grid), torch.zeros(0, n_var, *grid), nothing)


def pool_blocks(x: Tensor, stage: Stage) -> Tensor:
    """Unweighted means over spatial blocks: (..., lat, lon) -> (..., lat / r_h, lon / r_w)."""
    _, rh, rw = stage.factors
    *lead, h, w = x.shape
    return x.reshape(*lead, h // rh, rh, w // rw, rw).mean((-3, -1))


def spread_blocks(x: Tensor, stage: Stage) -> Tensor:
    """Inverse direction of `pool_blocks`: repeat in space."""
    return upsample(x, (1, *stage.factors[1:]))


def around(mean: Tensor) -> Tensor:
    """Means of the eight blocks around each block less its own: (..., lat, lon) -> (8, ..., lat, lon).

    Longitude is periodic; a row beyond a pole is taken like the last one.
    """
    south = torch.cat([mean[..., :1, :], mean[..., :-1, :]], -2)
    north = torch.cat([mean[..., 1:, :], mean[..., -1:, :]], -2)
    rows = [(south, (1, 0, -1)), (mean, (1, -1)), (north, (1, 0, -1))]
    return torch.stack([row.roll(shift, -1) - mean for row, shifts in rows for shift in shifts])


def follow(mean: Tensor, surroundings: Tensor, patterns: Tensor, companions: Tensor, stage: Stage) -> Tensor:
    """The detail that block means (..., var, step, lat, lon) imply by surroundings and patterns, on the stage's grid."""
    return _surrounded(mean, surroundings, stage) + _accompanied(mean, patterns, companions)


def _surrounded(mean: Tensor, surroundings: Tensor, stage: Stage) -> Tensor:
    """Detail by the means of the blocks around."""
    out = torch.zeros(())
    for j, difference in enumerate(around(mean)):
        out = out + spread_blocks(difference, stage) * surroundings[:, j, None]
    return out


def _accompanied(mean: Tensor, patterns: Tensor, companions: Tensor) -> Tensor:
    """Detail by the amplitudes of leading patterns."""
    amplitude = torch.einsum("...vthw,nvhw->...nt", mean, patterns[: len(companions)])
    return torch.einsum("...nt,nvhw->...vthw", amplitude, companions)


def measure_coupling(runs: Sequence[Series], stage: Stage, n_patterns: int, lags: int, taper: float) -> Coupling:
    """Measure a stage on whole training runs.

    Args:
        runs: Normalised series; the longer the better.
        stage: The stage.
        n_patterns: Patterns of each part, at most.
        lags: Lags needed, the longest window's steps plus those of a parent.
        taper: Autocovariances are multiplied by exp(-(lag / taper)^2 / 2), which keeps them positive definite.
    """
    window = torch.exp(-0.5 * (torch.arange(lags) / taper) ** 2)
    means = [pool_blocks(run.fields, stage) for run in runs]
    parents = [pool_blocks(run.parent, stage) if stage.index else None for run in runs]
    mean = _measure_part(means, parents, [run.position for run in runs], stage, n_patterns, window)
    if stage.cells == 1:
        return Coupling(mean)
    details = [run.fields - spread_blocks(m, stage) for run, m in zip(runs, means, strict=True)]
    surroundings = _surroundings(means, details, stage)
    surrounded = [_surrounded(m, surroundings, stage) for m in means]
    companions = _companions(means, [d - x for d, x in zip(details, surrounded, strict=True)], mean.patterns)
    implied = [x + _accompanied(m, mean.patterns, companions) for m, x in zip(means, surrounded, strict=True)]
    followed = torch.as_tensor(sum(x.square().sum(1) for x in implied)) / sum(x.shape[1] for x in implied)
    left = [d - x for d, x in zip(details, implied, strict=True)]
    detail = _measure_part(left, [None] * len(runs), [], stage, min(n_patterns, DETAIL_PATTERNS), window)
    return Coupling(mean, detail, surroundings, companions, followed)


def _companions(means: Sequence[Tensor], left: Sequence[Tensor], patterns: Tensor) -> Tensor:
    """Regression of what surroundings leave of the detail on the amplitudes of leading patterns, which are uncorrelated."""
    patterns = patterns[: min(COMPANIONS, sum(m.shape[1] for m in means) // SAMPLES_PER_COMPANION)]
    cross: Tensor | float = 0.0
    square: Tensor | float = 0.0
    for m, detail in zip(means, left, strict=True):
        amplitude = torch.einsum("vthw,nvhw->nt", m, patterns)
        cross = cross + torch.einsum("vthw,nt->nvhw", detail, amplitude)
        square = square + amplitude.square().sum(1)
    return torch.as_tensor(cross) / torch.as_tensor(square).clamp_min(1e-12).reshape(-1, 1, 1, 1)


def _surroundings(means: Sequence[Tensor], details: Sequence[Tensor], stage: Stage) -> Tensor:
    """Least squares with a ridge, cell by cell and variable by variable: (var, 8, lat, lon)."""
    _, rh, rw = stage.factors
    gram: Tensor | float = 0.0
    cross: Tensor | float = 0.0
    for mean, detail in zip(means, details, strict=True):
        near = around(mean)
        cells = detail.unflatten(-1, (-1, rw)).unflatten(-3, (-1, rh))  # (var, step, row, r_h, column, r_w)
        gram = gram + torch.einsum("ivthw,jvthw->vhwij", near, near)
        cross = cross + torch.einsum("ivthw,vthawb->vhwiab", near, cells)
    both = torch.as_tensor(gram) + RIDGE * torch.eye(8).to(means[0])
    found = torch.linalg.solve(both, torch.as_tensor(cross).flatten(-2)).unflatten(-1, (rh, rw))
    return found.permute(0, 3, 1, 4, 2, 5).flatten(-2).flatten(2, 3).contiguous()


def _measure_part(
    fields: Sequence[Tensor], parents: Sequence[Tensor | None], positions: Sequence[Tensor], stage: Stage,
    n_patterns: int, window: Tensor,
) -> Part:  # fmt: skip
    n_var, _, h, w = fields[0].shape
    patterns = _patterns(fields, n_patterns)
    n = len(patterns)
    amplitudes = [torch.einsum("vthw,nvhw->nt", x, patterns) for x in fields]
    rests = [x - torch.einsum("nt,nvhw->vthw", a, patterns) for x, a in zip(fields, amplitudes, strict=True)]
    axes, rest = _axes(rests)
    rests = [torch.einsum("avhw,vthw->athw", axes, r) for r in rests]
    covariance = _autocovariance(amplitudes, len(window)) * window
    lagged = _autocovariance([r.flatten(2).transpose(1, 2) for r in rests], len(window))  # (axis, cell, lag)
    lagged = lagged / lagged[..., :1].clamp_min(1e-12)
    classes = _classes(lagged[..., 1] if len(window) > 1 else lagged[..., 0])
    correlation = torch.stack(
        [
            torch.stack([c[k == i].mean(0) if bool((k == i).any()) else c.mean(0) for i in range(CLASSES)])
            for c, k in zip(lagged, classes, strict=True)
        ]
    )
    slope, rest_slope = fields[0].new_zeros(n), fields[0].new_zeros(n_var)
    if parents[0] is not None:
        known = [p for p in parents if p is not None]
        above = [torch.einsum("vthw,nvhw->nt", p, patterns) for p in known]
        slope = _slope(amplitudes, above, positions, stage.factors[0])
        left = [p - torch.einsum("nt,nvhw->vthw", a, patterns) for p, a in zip(known, above, strict=True)]
        left = [torch.einsum("avhw,vthw->athw", axes, p) for p in left]
        rest_slope = _slope([r.flatten(2) for r in rests], [p.flatten(2) for p in left], positions, stage.factors[0])
    shape = (n_var, h, w)
    return Part(
        patterns,
        covariance,
        slope,
        axes,
        rest,
        classes.reshape(shape).to(torch.uint8),
        correlation * window,
        rest_slope,
    )


def _patterns(fields: Sequence[Tensor], n_patterns: int) -> Tensor:
    """Principal components of all variables together, no mean removed: (n, var, lat, lon)."""
    n_var, _, h, w = fields[0].shape
    samples = torch.cat([x.movedim(1, 0).flatten(1) for x in fields])
    samples = samples[:: max(1, len(samples) // 2048)]
    n = min(n_patterns, *(int(share * size) for share, size in zip(MOST_PATTERNS, samples.shape[::-1], strict=True)))
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the randomised decomposition only
        vectors = torch.svd_lowrank(samples, q=min(n + 8, *samples.shape), niter=3)[2]
    return vectors[:, :n].T.reshape(n, n_var, h, w).contiguous()


def _axes(rests: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Per cell: directions without covariance between variables (axis, var, lat, lon) and the variances (axis, lat, lon)."""
    total = sum(torch.einsum("vthw,uthw->hwvu", r, r) for r in rests)
    covariance = torch.as_tensor(total) / sum(r.shape[1] for r in rests)
    values, vectors = torch.linalg.eigh(covariance.double())
    axes, rest = vectors.permute(3, 2, 0, 1).to(rests[0]), values.permute(2, 0, 1).to(rests[0])
    return axes.contiguous(), rest.clamp_min(SMALL)


def _autocovariance(series: Sequence[Tensor], lags: int) -> Tensor:
    """Biased autocovariance, hence positive definite, of (..., step) over all runs: (..., lag)."""
    total: Tensor | float = 0.0
    for x in series:
        n = x.shape[-1]
        products = [
            (x[..., : n - k] * x[..., k:]).sum(-1) if k < n else torch.zeros_like(x[..., 0]) for k in range(lags)
        ]
        total = total + torch.stack(products, -1)
    return torch.as_tensor(total) / sum(x.shape[-1] for x in series)


def _classes(lag_one: Tensor) -> Tensor:
    """Class of each cell (axis, cell) by quantiles of its lag-one correlation."""
    levels = torch.linspace(0, 1, CLASSES + 1)[1:-1]
    bounds = torch.quantile(lag_one, levels.to(lag_one), dim=1).T.contiguous()
    return torch.searchsorted(bounds, lag_one.contiguous())


def _slope(
    fields: Sequence[Tensor], parents: Sequence[Tensor], positions: Sequence[Tensor], ratio: int
) -> Tensor:  # fmt: skip
    """Regression of the parent on the mean over its steps, over whole blocks: (n, step[, cell]) -> (n,)."""
    cross: Tensor | float = 0.0
    square: Tensor | float = 0.0
    for x, p, position in zip(fields, parents, positions, strict=True):
        first = int((position == 0).nonzero()[0]) if bool((position == 0).any()) else 0
        n = (x.shape[1] - first) // ratio
        x, p = (y[:, first : first + n * ratio].unflatten(1, (n, ratio)).mean(2) for y in (x, p))
        cross = cross + (x * p).flatten(1).sum(1)
        square = square + x.square().flatten(1).sum(1)
    return torch.as_tensor(cross) / torch.as_tensor(square).clamp_min(1e-12)


def coupling_to_dict(coupling: Coupling) -> dict[str, Any]:
    """Plain dict of tensors."""
    return {k: v for k, v in asdict(coupling).items() if v is not None}


def coupling_from_dict(data: Mapping[str, Any]) -> Coupling:
    """Inverse of `coupling_to_dict`."""
    if not isinstance(data.get("mean"), Mapping) or set(data["mean"]) != set(Part.__dataclass_fields__):
        raise ValueError("checkpoint: couplings of another version of the package; train again")
    rest = {k: data[k] for k in ("surroundings", "companions", "followed") if k in data}
    return Coupling(Part(**data["mean"]), Part(**data["detail"]) if "detail" in data else None, **rest)
