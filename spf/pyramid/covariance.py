"""Measures couplings on training runs (`coupling` says what they are)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spf.pyramid.coupling import (
    CLASSES,
    NEAR,
    SMALL,
    Coupling,
    Part,
    Series,
    accompanied,
    around,
    pool_blocks,
    spread_blocks,
    surrounded,
)
from spf.pyramid.spec import Stage

MOST_PATTERNS = (0.6, 0.5)
"""Patterns over numbers in a field, and over fields measured, at most."""
TOGETHER = 24
"""Leading patterns whose covariances with one another count at all lags: with 8, 24, 48 of them the lag-one correlation of months
of Niño-3.4 on CESM2 is 0.87, 0.90, 0.92, with none 0.77, in the data 0.95; the matrices grow with the square."""
DETAIL_PATTERNS = 96
COMPANIONS = 64
SAMPLES_PER_COMPANION = 8
"""Steps measured for each pattern that detail is regressed on: a regression on more would follow chance."""
RIDGE = 15.0
"""Added to the sum of squares of each surrounding block's mean, in units of a cell's variance."""
LEAST_ROOM = 0.05
"""Share of a cell that patterns leave, at least."""


def measure_coupling(
    runs: Sequence[Series], stage: Stage, n_patterns: int, lags: int, taper: float, averages: Tensor | None = None
) -> Coupling:
    """Measure a stage on whole training runs.

    Args:
        runs: Normalised series; the longer the better.
        stage: The stage.
        n_patterns: Patterns of each part, at most.
        lags: Lags needed, the longest window's steps plus those of a parent.
        taper: Autocovariances are multiplied by exp(-(lag / taper)^2 / 2), which keeps them positive definite.
        averages: Weights (average, var, lat, lon), on the stage's grid, of averages that count among the leading patterns.
    """
    window = torch.exp(-0.5 * (torch.arange(lags) / taper) ** 2)
    means = [pool_blocks(run.fields, stage) for run in runs]
    parents = [pool_blocks(run.parent, stage) if stage.index else None for run in runs]
    none = means[0].new_zeros(0, *means[0][:, 0].shape)
    wide = none if averages is None else pool_blocks(averages, stage).to(none)
    mean = _measure_part(means, parents, [run.position for run in runs], stage, n_patterns, window, wide)
    if stage.cells == 1:
        return Coupling(mean)
    details = [run.fields - spread_blocks(m, stage) for run, m in zip(runs, means, strict=True)]
    surroundings = _surroundings(means, details, stage)
    near = [surrounded(m, surroundings, stage) for m in means]
    companions = _companions(means, [d - x for d, x in zip(details, near, strict=True)], mean.patterns)
    implied = [x + accompanied(m, mean.patterns, companions) for m, x in zip(means, near, strict=True)]
    followed = torch.as_tensor(sum(x.square().sum(1) for x in implied)) / sum(x.shape[1] for x in implied)
    left = [d - x for d, x in zip(details, implied, strict=True)]
    none = left[0].new_zeros(0, *left[0][:, 0].shape)
    detail = _measure_part(left, [None] * len(runs), [], stage, min(n_patterns, DETAIL_PATTERNS), window, none)
    return Coupling(mean, detail, surroundings, companions, followed)


def _companions(means: Sequence[Tensor], left: Sequence[Tensor], patterns: Tensor) -> Tensor:
    """Regression of what surroundings leave of the detail on the amplitudes of leading patterns."""
    patterns = patterns[: min(COMPANIONS, sum(m.shape[1] for m in means) // SAMPLES_PER_COMPANION)]
    cross: Tensor | float = 0.0
    square: Tensor | float = 0.0
    for m, detail in zip(means, left, strict=True):
        amplitude = torch.einsum("vthw,nvhw->nt", m, patterns)
        cross = cross + torch.einsum("vthw,nt->nvhw", detail, amplitude)
        square = square + amplitude @ amplitude.T
    cross, square = torch.as_tensor(cross), torch.as_tensor(square).double()
    found = torch.linalg.solve(square + 1e-12 * torch.eye(len(patterns)).to(square), cross.flatten(1).double())
    return found.to(cross).reshape(cross.shape)


def _surroundings(means: Sequence[Tensor], details: Sequence[Tensor], stage: Stage) -> Tensor:
    """Least squares with a ridge, cell by cell and variable by variable: (var, near, lat, lon)."""
    _, rh, rw = stage.factors
    gram: Tensor | float = 0.0
    cross: Tensor | float = 0.0
    for mean, detail in zip(means, details, strict=True):
        near = around(mean)
        cells = detail.unflatten(-1, (-1, rw)).unflatten(-3, (-1, rh))  # (var, step, row, r_h, column, r_w)
        gram = gram + torch.einsum("ivthw,jvthw->vhwij", near, near)
        cross = cross + torch.einsum("ivthw,vthawb->vhwiab", near, cells)
    both = torch.as_tensor(gram) + RIDGE * torch.eye(NEAR).to(means[0])
    found = torch.linalg.solve(both, torch.as_tensor(cross).flatten(-2)).unflatten(-1, (rh, rw))
    return found.permute(0, 3, 1, 4, 2, 5).flatten(-2).flatten(2, 3).contiguous()


def _measure_part(
    fields: Sequence[Tensor], parents: Sequence[Tensor | None], positions: Sequence[Tensor], stage: Stage,
    n_patterns: int, window: Tensor, averages: Tensor,
) -> Part:  # fmt: skip
    patterns = _patterns(fields, n_patterns, averages)
    amplitudes, rests = _split(fields, patterns)
    together = min(TOGETHER, len(patterns)) if len(averages) else 0
    axes, rest = _axes(rests, 1 - patterns.square().sum(0))
    rests = [torch.einsum("avhw,vthw->athw", axes, r) for r in rests]
    lagged = _autocovariance([r.flatten(2).transpose(1, 2) for r in rests], len(window))  # (axis, cell, lag)
    lagged = lagged / lagged[..., :1].clamp_min(1e-12)
    classes = _classes(lagged[..., 1] if len(window) > 1 else lagged[..., 0])
    slope, rest_slope = rest.new_zeros(len(patterns)), rest.new_zeros(len(axes))
    known = [p for p in parents if p is not None]
    if known:
        above, left = _split(known, patterns)
        slope = _slope(amplitudes, above, positions, stage.factors[0])
        left = [torch.einsum("avhw,vthw->athw", axes, p) for p in left]
        rest_slope = _slope([r.flatten(2) for r in rests], [p.flatten(2) for p in left], positions, stage.factors[0])
    return Part(
        patterns,
        _autocovariance(amplitudes, len(window)) * window,
        _cross_covariance([a[:together] for a in amplitudes], len(window)) * window,
        slope,
        axes,
        rest,
        classes.reshape(rest.shape).to(torch.uint8),
        torch.stack([_of_classes(c, k) for c, k in zip(lagged, classes, strict=True)]) * window,
        rest_slope,
    )


def _split(fields: Sequence[Tensor], patterns: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Amplitudes of the patterns (n, step), and the rests (var, step, lat, lon)."""
    amplitudes = [torch.einsum("vthw,nvhw->nt", x, patterns) for x in fields]
    held = [torch.einsum("nt,nvhw->vthw", a, patterns) for a in amplitudes]
    return amplitudes, [x - h for x, h in zip(fields, held, strict=True)]


def _of_classes(lagged: Tensor, classes: Tensor) -> Tensor:
    """Mean autocorrelation of each class (class, lag), of all cells where a class is empty."""
    each = [lagged[classes == i] for i in range(CLASSES)]
    return torch.stack([(x if len(x) else lagged).mean(0) for x in each])


def _patterns(fields: Sequence[Tensor], n_patterns: int, averages: Tensor) -> Tensor:
    """Principal components of all variables together, no mean removed, orthonormal: (n + averages, var, lat, lon).

    With averages (average, var, lat, lon) the leading ones span these too.
    """
    n_var, _, h, w = fields[0].shape
    samples = torch.cat([x.movedim(1, 0).flatten(1) for x in fields])
    samples = samples[:: max(1, len(samples) // 2048)]
    n = min(n_patterns, *(int(share * size) for share, size in zip(MOST_PATTERNS, samples.shape[::-1], strict=True)))
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the randomised decomposition only
        vectors = torch.svd_lowrank(samples, q=min(n + 8, *samples.shape), niter=3)[2][:, :n].T
    if not len(averages):
        return vectors.reshape(n, n_var, h, w).contiguous()
    first = TOGETHER - len(averages)
    span = torch.cat([vectors[:first], averages.flatten(1), vectors[first:]])[: n_var * h * w]
    return torch.linalg.qr(span.T.double())[0].T.reshape(-1, n_var, h, w).to(samples).contiguous()


def _cross_covariance(series: Sequence[Tensor], lags: int) -> Tensor:
    """Of every pair of (n, step) over all runs, the second one later by the lag, biased: (n, n, lag)."""
    total: Tensor | float = 0.0
    for x in series:
        steps = x.shape[1]
        products = [x[:, : steps - k] @ x[:, k:].T if k < steps else x.new_zeros(len(x), len(x)) for k in range(lags)]
        total = total + torch.stack(products, -1)
    return torch.as_tensor(total) / sum(x.shape[1] for x in series)


def _axes(rests: Sequence[Tensor], room: Tensor) -> tuple[Tensor, Tensor]:
    """Per cell: directions without covariance between variables (axis, var, lat, lon) and the variances (axis, lat, lon).

    A rest knows nothing of patterns, which take their share of whatever is in a cell: ``room`` (var, lat, lon) is what they leave.
    """
    total = sum(torch.einsum("vthw,uthw->hwvu", r, r) for r in rests)
    covariance = torch.as_tensor(total) / sum(r.shape[1] for r in rests)
    left = room.clamp_min(LEAST_ROOM).sqrt().permute(1, 2, 0)
    values, vectors = torch.linalg.eigh((covariance / (left[..., None] * left[..., None, :])).double())
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
