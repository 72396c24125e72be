"""What is known before any learning: the velocity of a Gaussian world with measured patterns and persistence.

Every stage is scaled to unit variance per cell. Its fields split into the mean over each spatial block, which hangs on the
parent, and the detail inside blocks. Each part is a sum of leading patterns of all variables together (principal components of
the training departures) and a rest. A pattern's amplitude is a stationary series with its measured autocovariance; so is the
rest of a cell, along the two (or more) directions in which its variables do not covary, with the mean autocorrelation of cells
that are as persistent. The parent is a multiple of the mean over its steps, within or beyond the window. In that world the
optimal velocity is linear: one small matrix over the steps of a window for each pattern and each class of cells. The network
learns what differs: forcing, other correlations, non-Gaussian shapes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spf.pyramid.operators import upsample
from spf.pyramid.path import noise_fall, noise_level
from spf.pyramid.spec import Stage

CLASSES = 6
"""Classes of cells by persistence."""
SMALL = 1e-6


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
        detail: Of what they leave, on the stage's grid; None where blocks are single cells.
    """

    mean: Part
    detail: Part | None


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

    return Coupling(part(grid[0] // rh, grid[1] // rw), part(*grid) if rh * rw > 1 else None)


def pool_blocks(x: Tensor, stage: Stage) -> Tensor:
    """Unweighted means over spatial blocks: (..., lat, lon) -> (..., lat / r_h, lon / r_w)."""
    _, rh, rw = stage.factors
    *lead, h, w = x.shape
    return x.reshape(*lead, h // rh, rh, w // rw, rw).mean((-3, -1))


def spread_blocks(x: Tensor, stage: Stage) -> Tensor:
    """Inverse direction of `pool_blocks`: repeat in space."""
    return upsample(x, (1, *stage.factors[1:]))


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
    if stage.factors[1] * stage.factors[2] == 1:
        return Coupling(mean, None)
    details = [run.fields - spread_blocks(m, stage) for run, m in zip(runs, means, strict=True)]
    return Coupling(mean, _measure_part(details, [None] * len(runs), [], stage, n_patterns, window))


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
    n = max(0, min(n_patterns, samples.shape[1] // 4, len(samples) // 4))
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


class Prior(nn.Module):
    """Expected path target given the state, in the Gaussian world of one stage.

    Args:
        stage: The stage.
        coupling: Measured.
    """

    def __init__(self, stage: Stage, coupling: Coupling) -> None:
        super().__init__()
        self.stage, self.parts = stage, ("mean",) if coupling.detail is None else ("mean", "detail")
        for part in self.parts:
            for name, value in vars(getattr(coupling, part)).items():
                self.register_buffer(f"{part}_{name}", value, persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor, phase: Tensor | int = 0) -> Tensor:
        """State (batch, var, time, lat, lon) and flow time (batch,) -> target of the same shape, float32 or wider.

        Args:
            x: The state.
            t: Flow time.
            phase: Place of the first step in its parent's block; of the whole batch.
        """
        mean = pool_blocks(x, self.stage)
        out = spread_blocks(self._part("mean", mean, t, int(phase)), self.stage)
        if "detail" in self.parts:
            detail = x - spread_blocks(mean, self.stage)
            fine = self._part("detail", detail, t, int(phase))
            out = out + fine - spread_blocks(pool_blocks(fine, self.stage), self.stage)
        return out

    def _part(self, part: str, x: Tensor, t: Tensor, phase: int) -> Tensor:
        """Regression along time of each pattern, and of each class of cells for the rest."""
        law = Part(**{name: getattr(self, f"{part}_{name}").to(x) for name in Part.__dataclass_fields__})
        cells = self.stage.factors[1] * self.stage.factors[2]
        noise = 1.0 / cells if part == "mean" else 1.0
        within = noise if part == "mean" else 1.0 - 1.0 / cells
        times, where = torch.unique(t.to(x), return_inverse=True)
        amplitude = torch.einsum("bvthw,nvhw->bnt", x, law.patterns)
        rest = x - torch.einsum("bnt,nvhw->bvthw", amplitude, law.patterns)
        matrices = self._pattern_matrices(law, times, x.shape[2], noise, phase)
        amplitude = torch.einsum("bnij,bnj->bni", matrices[where], amplitude)
        left = self._rest(law, rest, times, where, within, phase)
        left = left - torch.einsum("bnt,nvhw->bvthw", torch.einsum("bvthw,nvhw->bnt", left, law.patterns), law.patterns)
        return left + torch.einsum("bnt,nvhw->bvthw", amplitude, law.patterns)

    def _pattern_matrices(self, law: Part, times: Tensor, steps: int, noise: float, phase: int) -> Tensor:
        """E[target | state] of each pattern's amplitude, (time, n, step, step)."""
        if not len(law.patterns):
            return law.slope.new_zeros(len(times), 0, steps, steps)
        state, cross = self._moments(law.covariance, law.slope, times, steps, phase)
        level = noise_level(times, self.stage).reshape(-1, 1, 1, 1)
        eye = torch.eye(steps).to(state)
        state, cross = state + (noise * level.square() + SMALL) * eye, cross - noise * level * eye
        return torch.linalg.solve(state, cross, left=False)

    def _rest(self, law: Part, x: Tensor, times: Tensor, where: Tensor, noise: float, phase: int) -> Tensor:
        """The same for every cell along its axes: with variance r, (r B - noise level)(r A + noise level^2)^-1.

        A is diagonalised once a class, so that a cell costs two small products.
        """
        steps = x.shape[2]
        state, cross = self._moments(law.correlation, law.rest_slope[:, None], times, steps, phase)
        values, vectors = torch.linalg.eigh(state)  # (time, axis, class, step[, step])
        turned = cross @ vectors
        x = torch.einsum("avhw,bvthw->bathw", law.axes, x)
        level = noise_level(times, self.stage).to(x)[where].reshape(-1, 1, 1)
        out = torch.empty_like(x)
        flat_x, flat_out = x.flatten(3), out.flatten(3)
        for axis in range(x.shape[1]):
            kind, variance = law.persistence[axis].flatten(), law.rest[axis].flatten()
            for c in range(law.correlation.shape[1]):
                chosen = (kind == c).nonzero()[:, 0]
                if not len(chosen):
                    continue
                q, b, a = vectors[where, axis, c], turned[where, axis, c], values[where, axis, c]
                r = variance[chosen][None, None]
                spectral = (q.transpose(1, 2) @ flat_x[:, axis][..., chosen]) / (
                    r * a.clamp_min(0)[:, :, None] + noise * level.square() + SMALL
                )
                flat_out[:, axis, :, chosen] = r * (b @ spectral) - noise * level * (q @ spectral)
        return torch.einsum("avhw,bathw->bvthw", law.axes, out)

    def _moments(self, lagged: Tensor, slope: Tensor, times: Tensor, steps: int, phase: int) -> tuple[Tensor, Tensor]:
        """Covariance of the clean part of the state, and of the clean target with it: (time, ..., step, step) each.

        Args:
            lagged: Autocovariance (..., lag).
            slope: Of the parent (...,).
            times: Flow times.
            steps: In the window.
            phase: Place of the first step in its block.
        """
        stage, ratio = self.stage, self.stage.factors[0]
        own, mixed, above = block_moments(lagged, steps, ratio, phase)
        fall = noise_fall(stage)
        slope = slope[..., None, None] * (1 - stage.sigma_start)
        t = times.reshape(-1, *[1] * own.ndim)
        alpha, beta = t * (1 - stage.sigma_end), (1 - t) * slope
        gain, lead = (1 - stage.sigma_end) / fall, slope / fall
        state = alpha**2 * own + alpha * beta * (mixed + mixed.transpose(-1, -2)) + beta**2 * above
        cross = gain * (alpha * own + beta * mixed) - lead * (alpha * mixed.transpose(-1, -2) + beta * above)
        return state, cross


def block_moments(lagged: Tensor, steps: int, ratio: int, phase: int) -> tuple[Tensor, Tensor, Tensor]:
    """Covariances (..., step, step) of a stationary series with itself, with the means over its blocks, and of those.

    Args:
        lagged: Autocovariance (..., lag); zero beyond.
        steps: In the window.
        ratio: Steps in a block.
        phase: Place of the window's first step in its block; blocks may reach beyond the window.
    """
    blocks = math.ceil((phase + steps) / ratio)
    whole = torch.arange(blocks * ratio)
    lag = (whole[:, None] - whole[None]).abs()
    full = torch.where(lag < lagged.shape[-1], lagged[..., lag.clamp_max(lagged.shape[-1] - 1)], lagged.new_zeros(()))
    inside = slice(phase, phase + steps)
    own = full[..., inside, inside]
    if ratio == 1:
        return own, own, own
    means = full.unflatten(-1, (blocks, ratio)).mean(-1).repeat_interleave(ratio, -1)
    above = means.unflatten(-2, (blocks, ratio)).mean(-2).repeat_interleave(ratio, -2)
    return own, means[..., inside, inside], above[..., inside, inside]


def coupling_to_dict(coupling: Coupling) -> dict[str, Any]:
    """Plain dict of tensors."""
    return {k: v for k, v in asdict(coupling).items() if v is not None}


def coupling_from_dict(data: Mapping[str, Any]) -> Coupling:
    """Inverse of `coupling_to_dict`."""
    if not isinstance(data.get("mean"), Mapping) or set(data["mean"]) != set(Part.__dataclass_fields__):
        raise ValueError("checkpoint: couplings of another version of the package; train again")
    return Coupling(Part(**data["mean"]), Part(**data["detail"]) if "detail" in data else None)
