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
        joint_target: From the leading patterns' amplitudes, all steps of the first and so on, to their expected target (time,
            pattern step, pattern step).
        joint_clean: To their expected clean amplitudes, the same shape.
        target: From another pattern's amplitudes to their expected target (time, pattern, step, step).
        clean: To the expected clean amplitudes, the same shape.
        values: Eigenvalues of the state's correlation (time, axis, class, step).
        vectors: Eigenvectors, in columns (time, axis, class, step, step).
        turned: From eigenvectors to the target, per variance (time, axis, class, step, step).
        lost: The same of the noise that the target loses.
        cleared: To the clean fields, per variance.
        white: Variance of the noise in a cell (time,).
        unknown: Share of the rest's variance that the state leaves unknown (time,).
    """

    joint_target: Tensor
    joint_clean: Tensor
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
    stage: Stage, series: tuple[Tensor, Tensor, Tensor], rest: tuple[Tensor, Tensor], times: Tensor, steps: int, phase: int,
    noise: float, white: float,
) -> Regression:  # fmt: skip
    """Matrices of a part.

    Every cell's rest, with variance r, has the answer (r B - noise level)(r A + noise level^2)^-1; A is diagonalised once a class,
    so that a cell costs a few small products.

    Args:
        stage: Gives the levels.
        series: Covariances of the leading patterns' amplitudes (k, k, lag), autocovariance of all (pattern, lag), regression of
            their parents (pattern,).
        rest: Autocorrelation of the rest (axis, class, lag), regression of its parents (axis,).
        times: Distinct flow times.
        steps: Of the window.
        phase: Place of the first step in its parent's block.
        noise: Variance of unit noise along a pattern.
        white: The same in a cell.
    """
    together, covariance, slope, correlation, rest_slope = (part.to(times) for part in (*series, *rest))
    level, k = noise_level(times, stage).to(times), len(together)
    joint = _joint(stage, together, slope[:k], times, steps, phase, noise)
    target, clean = _patterns(stage, covariance[k:], slope[k:], times, steps, phase, noise)
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
    return Regression(*joint, target, clean, values, vectors, turned, lost, back, noisy, unknown)


def _patterns(
    stage: Stage, covariance: Tensor, slope: Tensor, times: Tensor, steps: int, phase: int, noise: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """E[target | state] and E[clean | state] of each pattern's amplitude, for rows (time, pattern, step, step) each."""
    if not len(covariance):
        return (times.new_zeros(len(times), 0, steps, steps),) * 2
    level = noise_level(times, stage).reshape(-1, 1, 1, 1)
    return _solved(moments(stage, covariance, slope, times, steps, phase), level, noise)


def _joint(
    stage: Stage, together: Tensor, slope: Tensor, times: Tensor, steps: int, phase: int, noise: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same of the leading patterns together, for rows (time, pattern step, pattern step) each."""
    k = len(together)
    if not k:
        return (times.new_zeros(len(times), 0, 0),) * 2
    both = torch.cat([together.flip(-1)[..., :-1].transpose(0, 1), together], -1)  # lags -L + 1 ... L - 1
    own, mixed, above = (
        m.transpose(1, 2).reshape(k * steps, k * steps)
        for m in block_moments(both, steps, stage.factors[0], phase, True)
    )
    slope = slope.repeat_interleave(steps)
    mixed, above = mixed * slope, slope[:, None] * above * slope
    found = _mixture(stage, (own, mixed, above), times.new_ones(()), times)
    return _solved(found, noise_level(times, stage).reshape(-1, 1, 1), noise)


def _solved(found: tuple[Tensor, Tensor, Tensor], level: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """What rows of the state, with noise added to its covariance, are multiplied by for target and clean fields."""
    state, cross, clean = found
    eye = torch.eye(state.shape[-1]).to(state)
    # in double precision, as series that hardly change are nearly singular
    state = (state + (noise * level.square() + SMALL) * eye).double()
    sought = torch.cat([(cross - noise * level * eye).transpose(-1, -2), clean.transpose(-1, -2)], -1)
    solved = torch.linalg.solve(state, sought.double()).to(cross)  # the state's covariance is symmetric
    return solved[..., : len(eye)], solved[..., len(eye) :]


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
    return _mixture(stage, block_moments(lagged, steps, stage.factors[0], phase), slope, times)


def _mixture(
    stage: Stage, found: tuple[Tensor, Tensor, Tensor], slope: Tensor, times: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `moments`, of covariances of fields with themselves, with the means over their blocks, and of those."""
    own, mixed, above = found
    base = torch.stack([own, mixed, mixed.transpose(-1, -2), above])
    slope = slope.expand(own.shape[:-2])
    t, fall = times.reshape(-1, *[1] * slope.ndim), noise_fall(stage)
    lead = slope * (1 - stage.sigma_start)
    alpha, beta = (t * (1 - stage.sigma_end)).expand(len(times), *slope.shape), (1 - t) * lead
    gain, lead, none = (1 - stage.sigma_end) / fall, lead / fall, torch.zeros_like(beta)
    state = torch.stack([alpha**2, alpha * beta, alpha * beta, beta**2])
    cross = torch.stack([gain * alpha, gain * beta, -lead * alpha, -lead * beta])
    clean = torch.stack([alpha, beta, none, none])
    mixed_in = torch.einsum("mkt...,k...ij->mt...ij", torch.stack([state, cross, clean]), base)
    return mixed_in[0], mixed_in[1], mixed_in[2]


def block_moments(
    lagged: Tensor, steps: int, ratio: int, phase: int, signed: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Covariances (..., step, step) of a stationary series with itself, with the means over its blocks, and of those.

    Args:
        lagged: Autocovariance (..., lag); zero beyond.
        signed: Whether lags go from -L + 1 to L - 1, those of a later second series being positive, instead of from 0.
        steps: In the window.
        ratio: Steps in a block.
        phase: Place of the window's first step in its block; blocks may reach beyond the window.
    """
    blocks = math.ceil((phase + steps) / ratio)
    whole = torch.arange(blocks * ratio, device=lagged.device)
    lag = whole[None] - whole[:, None]
    lag, beyond = (lag + lagged.shape[-1] // 2, lagged.shape[-1]) if signed else (lag.abs(), lagged.shape[-1])
    full = torch.where((lag >= 0) & (lag < beyond), lagged[..., lag.clamp(0, beyond - 1)], lagged.new_zeros(()))
    inside = slice(phase, phase + steps)
    own = full[..., inside, inside]
    if ratio == 1:
        return own, own, own
    means = full.unflatten(-1, (blocks, ratio)).mean(-1).repeat_interleave(ratio, -1)
    above = means.unflatten(-2, (blocks, ratio)).mean(-2).repeat_interleave(ratio, -2)
    return own, means[..., inside, inside], above[..., inside, inside]
