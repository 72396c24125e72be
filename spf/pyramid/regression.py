"""The matrices of the Gaussian prior: regressions along the steps of a window, of stationary series and their parents."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from spf.pyramid.coupling import SMALL
from spf.pyramid.path import noise_fall, noise_level
from spf.pyramid.spec import Stage


@dataclass(frozen=True)
class Regression:
    """What multiplies rows of steps, at some flow times (time, ...) or, after `at`, at one.

    Attributes:
        target: From a pattern's amplitudes to their expected target (time, pattern, step, step).
        clean: To the expected clean amplitudes, the same shape.
        values: Eigenvalues of the state's correlation (time, axis, class, step).
        vectors: Eigenvectors, in columns (time, axis, class, step, step).
        turned: From eigenvectors to the target, per variance (time, axis, class, step, step).
        lost: The same of the noise that the target loses.
        cleared: To the clean fields, per variance.
        white: Variance of the noise in a cell (time,).
        unknown: Share of the rest's variance that the state leaves unknown (time,).
    """

    target: Tensor
    clean: Tensor
    values: Tensor
    vectors: Tensor
    turned: Tensor
    lost: Tensor
    cleared: Tensor
    white: Tensor
    unknown: Tensor

    def at(self, i: int) -> "Regression":
        """Those of one flow time."""
        return Regression(*(getattr(self, f.name)[i] for f in fields(self)))

    def of(self, kinds: Sequence[tuple[int, int]]) -> "Regression":
        """With (time, kind, ...) instead of (time, axis, class, ...), for some axes and classes."""
        axis, kind = (list(each) for each in zip(*kinds, strict=True))
        names = ("values", "vectors", "turned", "lost", "cleared")
        return replace(self, **{name: getattr(self, name)[:, axis, kind] for name in names})


def regress(
    stage: Stage, series: tuple[Tensor, Tensor], rest: tuple[Tensor, Tensor], times: Tensor, steps: int, phase: int,
    noise: float, white: float,
) -> Regression:  # fmt: skip
    """Matrices of a part.

    Every cell's rest, with variance r, has the answer (r B - noise level)(r A + noise level^2)^-1; A is diagonalised once a class,
    so that a cell costs a few small products.

    Args:
        stage: Gives the levels.
        series: Autocovariance of patterns' amplitudes (pattern, lag), regression of their parents (pattern,).
        rest: Autocorrelation of the rest (axis, class, lag), regression of its parents (axis,).
        times: Distinct flow times.
        steps: Of the window.
        phase: Place of the first step in its parent's block.
        noise: Variance of unit noise along a pattern.
        white: The same in a cell.
    """
    (covariance, slope), (correlation, rest_slope) = ([part.to(times) for part in parts] for parts in (series, rest))
    level = noise_level(times, stage).to(times)
    target, clean = _patterns(stage, covariance, slope, times, steps, phase, noise)
    state, cross, own = moments(stage, correlation, rest_slope[:, None], times, steps, phase)
    # single precision has given NaN here: at flow time 0 only whole parents are in the state, and many eigenvalues are 0
    values, vectors = (part.to(times) for part in torch.linalg.eigh(state.double()))
    values, cleared = values.clamp_min(0), own @ vectors
    noisy = white * level.square()
    seen = values + noisy.reshape(-1, 1, 1, 1) + SMALL
    known = (cleared.square() / seen[..., None, :]).sum((-1, -2)).mean((1, 2))
    lost = (white * level).reshape(-1, 1, 1, 1, 1) * vectors.transpose(-1, -2)
    turned, back = ((matrix @ vectors).transpose(-1, -2) for matrix in (cross, own))
    unknown = (1 - known / (correlation[..., 0].mean() * steps)).clamp(0, 1)
    return Regression(target, clean, values, vectors, turned, lost, back, noisy, unknown)


def _patterns(
    stage: Stage, covariance: Tensor, slope: Tensor, times: Tensor, steps: int, phase: int, noise: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """E[target | state] and E[clean | state] of each pattern's amplitude, for rows (time, pattern, step, step) each."""
    if not len(covariance):
        return (times.new_zeros(len(times), 0, steps, steps),) * 2
    state, cross, clean = moments(stage, covariance, slope, times, steps, phase)
    level, eye = noise_level(times, stage).reshape(-1, 1, 1, 1), torch.eye(steps).to(state)
    # in double precision, as series that hardly change are nearly singular
    state = (state + (noise * level.square() + SMALL) * eye).double()
    sought = torch.cat([(cross - noise * level * eye).transpose(-1, -2), clean.transpose(-1, -2)], -1)
    solved = torch.linalg.solve(state, sought.double()).to(times)  # the state's covariance is symmetric
    return solved[..., :steps], solved[..., steps:]


def moments(
    stage: Stage, lagged: Tensor, slope: Tensor, times: Tensor, steps: int, phase: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance of the clean part of the state, and of clean target and clean fields with it: (time, ..., step, step) each.

    Args:
        stage: Gives the levels.
        lagged: Autocovariance (..., lag).
        slope: Of the parent (...,).
        times: Flow times.
        steps: In the window.
        phase: Place of the first step in its block.
    """
    own, mixed, above = block_moments(lagged, steps, stage.factors[0], phase)
    base = torch.stack([own, mixed, mixed.transpose(-1, -2), above])
    slope = slope.expand(own.shape[:-2])
    t, fall = times.reshape(-1, *[1] * slope.ndim), noise_fall(stage)
    lead = slope * (1 - stage.sigma_start)
    alpha, beta = (t * (1 - stage.sigma_end)).expand(len(times), *slope.shape), (1 - t) * lead
    gain, lead, none = (1 - stage.sigma_end) / fall, lead / fall, torch.zeros_like(beta)
    state = torch.stack([alpha**2, alpha * beta, alpha * beta, beta**2])
    cross = torch.stack([gain * alpha, gain * beta, -lead * alpha, -lead * beta])
    clean = torch.stack([alpha, beta, none, none])
    found = torch.einsum("mkt...,k...ij->mt...ij", torch.stack([state, cross, clean]), base)
    return found[0], found[1], found[2]


def block_moments(lagged: Tensor, steps: int, ratio: int, phase: int) -> tuple[Tensor, Tensor, Tensor]:
    """Covariances (..., step, step) of a stationary series with itself, with the means over its blocks, and of those.

    Args:
        lagged: Autocovariance (..., lag); zero beyond.
        steps: In the window.
        ratio: Steps in a block.
        phase: Place of the window's first step in its block; blocks may reach beyond the window.
    """
    blocks = math.ceil((phase + steps) / ratio)
    whole = torch.arange(blocks * ratio, device=lagged.device)
    lag = (whole[:, None] - whole[None]).abs()
    full = torch.where(lag < lagged.shape[-1], lagged[..., lag.clamp_max(lagged.shape[-1] - 1)], lagged.new_zeros(()))
    inside = slice(phase, phase + steps)
    own = full[..., inside, inside]
    if ratio == 1:
        return own, own, own
    means = full.unflatten(-1, (blocks, ratio)).mean(-1).repeat_interleave(ratio, -1)
    above = means.unflatten(-2, (blocks, ratio)).mean(-2).repeat_interleave(ratio, -2)
    return own, means[..., inside, inside], above[..., inside, inside]
