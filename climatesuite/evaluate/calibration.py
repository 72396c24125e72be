"""Whether an ensemble is calibrated in one region: ranks, spread, exceedances, tails, and what a perfect ensemble would show.

Pure functions on forecast ``x [M, T, P]`` and truth ``y [N, T, P]`` (T steps, P cells) with cell weights ``w [P]`` that sum to 1.
None of the numbers has a useful law of its own: cells and years are correlated, members few. :func:`against_perfect` therefore lets
members of the ensemble play the truth, so whatever correlation there is, is in the interval, too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gamma

from climatesuite.evaluate import kernels
from climatesuite.evaluate.kernels import Array

EVENT_QUANTILE = 0.9
TAIL_QUANTILE = 0.95
RETURN_YEARS = 20
LEAST_BLOCKS = 60
"""Yearly maxima below which a return level is the empirical quantile, as a fitted tail is worse."""
DRAWS = 20
SMALL_IS_GOOD = ("reliability index", "reliability")
"""Statistics of which only large values speak against an ensemble."""
Statistic = Callable[[Array, Array, Array], dict[str, float]]
"""``x [M, T, P], y [N, T, P], w [P]`` to numbers by name."""


@dataclass(frozen=True)
class Verdict:
    """A statistic beside what a perfect ensemble shows.

    Attributes:
        value: Of the ensemble against the truth, mean over draws.
        perfect: Mean over draws in which own members play the truth.
        low: 5 % of these draws, high: 95 %.
    """

    value: float
    perfect: float
    low: float
    high: float

    def agrees(self, is_small_good: bool) -> bool | None:
        """Whether a perfect ensemble shows such a value; None where there is none to judge."""
        if not np.isfinite([self.value, self.low, self.high]).all():
            return None
        return bool((is_small_good or self.low <= self.value) and self.value <= self.high)


def against_perfect(
    x: Array, y: Array, w: Array, statistic: Statistic, draws: int = DRAWS, seed: int = 0
) -> dict[str, Verdict]:
    """Statistics of an ensemble against the truth, and of the same ensemble against N of its own members.

    In every draw N members step aside and play the truth; the others are scored against the truth and against them, so both
    have equally many members. Members are taken for exchangeable: where the truth's members share an error of the forced
    response that own members do not share, the interval is somewhat narrow.

    Args:
        x: ``[M, T, P]``, M >= N + 2.
        y: ``[N, T, P]``.
        w: ``[P]``.
        statistic: What to compute.
        draws: How many.
        seed: Of the draws.

    Raises:
        ValueError: If there are too few members.
    """
    size, n_truth = x.shape[0], y.shape[0]
    if size < n_truth + 2:
        raise ValueError(f"{size} members: expected at least {n_truth + 2}, two more than the truth has")
    rng = np.random.default_rng(seed)
    found, perfect = [], []
    for _ in range(draws):
        order = rng.permutation(size)
        rest, played = x[order[n_truth:]], x[order[:n_truth]]
        found.append(statistic(rest, y, w))
        perfect.append(statistic(rest, played, w))
    out = {}
    for name in found[0]:
        ours, own = (np.array([d[name] for d in each]) for each in (found, perfect))
        low, high = np.percentile(own, [5.0, 95.0])
        out[name] = Verdict(float(ours.mean()), float(own.mean()), float(low), float(high))
    return out


def rank_statistics(x: Array, y: Array, w: Array) -> dict[str, float]:
    """``reliability index``: sum of abs(share - 1 / (M + 1)) over ranks; ``mean rank``: 0 lowest, 1 highest, 0.5 calibrated;
    ``outer ranks``: share below or above all members over its share if calibrated, above 1 is too narrow."""
    shares = kernels.rank_shares(x, y, w).sum(axis=(0, 1))
    shares /= shares.sum()
    size = x.shape[0]
    return {
        "reliability index": float(np.abs(shares - 1.0 / (size + 1)).sum()),
        "mean rank": float(shares @ np.arange(size + 1)) / size,
        "outer ranks": float(shares[0] + shares[-1]) * (size + 1) / 2.0,
    }


def spread_statistics(x: Array, y: Array, w: Array) -> dict[str, float]:
    """``spread-skill``: sqrt((M + 1) / M x spread^2 / error^2), each pooled first; below 1 is too narrow."""
    size = x.shape[0]
    spread = float((kernels.variance(x) @ w).mean())
    error = float((((x.mean(axis=0) - y) ** 2) @ w).mean())
    return {"spread–skill": float(np.sqrt((size + 1) / size * spread / error)) if error > 0 else float("nan")}


def exceedance_curve(x: Array, y: Array, w: Array) -> tuple[Array, Array]:
    """The reliability diagram of exceeding the local 90 % quantile of all members and steps.

    Returns:
        ``weight [M + 1]`` of cells, steps and truth members in which k of M members exceed (sum 1), and the share of these
        in which the truth does ``[M + 1]``, NaN where there are none.
    """
    size = x.shape[0]
    limit = np.quantile(x.reshape(-1, x.shape[-1]), EVENT_QUANTILE, axis=0)
    votes = (x > limit).sum(axis=0)
    happened = (y > limit).mean(axis=0)
    cells = np.broadcast_to(w, votes.shape)
    weight = np.bincount(votes.ravel(), cells.ravel(), minlength=size + 1)
    events = np.bincount(votes.ravel(), (cells * happened).ravel(), minlength=size + 1)
    share = np.divide(events, weight, out=np.full(size + 1, np.nan), where=weight > 0)
    return weight / weight.sum(), share


def brier_parts(weight: Array, share: Array) -> dict[str, float]:
    """Murphy's (1973) parts of the Brier score of the forecasts k / M: score = reliability - resolution + uncertainty, exactly.

    Args:
        weight: ``[M + 1]``, share: ``[M + 1]``, of :func:`exceedance_curve`.
    """
    there, forecast = weight > 0, np.arange(weight.size) / (weight.size - 1)
    weight, share, forecast = weight[there], share[there], forecast[there]
    base = float(weight @ share)
    reliability, resolution = float(weight @ (forecast - share) ** 2), float(weight @ (share - base) ** 2)
    uncertainty = base * (1.0 - base)
    return {
        "reliability": reliability, "resolution": resolution, "uncertainty": uncertainty,
        "score": reliability - resolution + uncertainty, "observed": base, "forecast": float(weight @ forecast),
    }  # fmt: skip


def exceedance_statistics(x: Array, y: Array, w: Array) -> dict[str, float]:
    """``reliability``: mean square of forecast minus observed frequency over the classes k / M of the probability of exceeding
    the local 90 % quantile, 0 is best; ``observed over forecast``: ratio of the frequencies, 1 is calibrated."""
    parts = brier_parts(*exceedance_curve(x, y, w))
    ratio = parts["observed"] / parts["forecast"] if parts["forecast"] > 0 else float("nan")
    return {"reliability": parts["reliability"], "observed over forecast": ratio}


def tail_statistics(x: Array, y: Array, w: Array) -> dict[str, float]:
    """``95 % quantile``: area mean of the local quantile of N members minus the truth's; pools of equal size."""
    ours, theirs = (np.quantile(v.reshape(-1, v.shape[-1]), TAIL_QUANTILE, axis=0) for v in (x[: y.shape[0]], y))
    return {"95 % quantile": float((ours - theirs) @ w)}


def return_statistics(x: Array, y: Array, w: Array) -> dict[str, float]:
    """``20-year return level``: area mean of the local level of N members minus the truth's, from yearly maxima [., T, P]."""
    ours, theirs = (return_level(_detrended(v)) for v in (x[: y.shape[0]], y))
    return {f"{RETURN_YEARS}-year return level": float((ours - theirs) @ w)}


def _detrended(maxima: Array) -> Array:
    """Maxima of the middle of their years: without each cell's straight line over members' mean; ``[N, T, P] -> [N T, P]``."""
    t = np.arange(maxima.shape[1]) - (maxima.shape[1] - 1) / 2.0
    centre = maxima.mean(axis=0)
    slope = (t @ centre) / (t @ t) if t.size > 1 else np.zeros(centre.shape[1])
    return (maxima - t[:, None] * slope).reshape(-1, maxima.shape[-1])


def return_level(maxima: Array, years: float = RETURN_YEARS) -> Array:
    """The level that a yearly maximum exceeds once in so many years.

    From 60 blocks on of a generalised extreme value distribution fitted by L-moments (Hosking, Wallis and Wood 1985), with
    F the distribution: x = u + a / k (1 - (-ln F)^k); below, the empirical quantile.

    Args:
        maxima: ``[block, P]``.
        years: Return period, above 1.

    Returns:
        ``[P]``, unit of the maxima.
    """
    n, share = maxima.shape[0], 1.0 - 1.0 / years
    if n < LEAST_BLOCKS:
        return np.asarray(np.quantile(maxima, share, axis=0))
    location, scale, shape = gev_by_l_moments(maxima)
    y = -np.log(share)
    small = np.abs(shape) < 1e-6
    k = np.where(small, 1.0, shape)
    return np.where(small, location - scale * np.log(y), location + scale / k * (1.0 - y**k))


def gev_by_l_moments(maxima: Array) -> tuple[Array, Array, Array]:
    """Location, scale and shape k of a generalised extreme value distribution: ``[block, P] -> [P]`` each; k = -xi = scipy's c.

    Hosking, Wallis and Wood (1985, doi 10.1080/00401706.1985.10488049), whose approximation of k is good to 9e-4 for abs(k)
    below 0.5; cells that do not vary have scale 0.
    """
    ordered, n = np.sort(maxima, axis=0), maxima.shape[0]
    rank = np.arange(n)[:, None]
    b0 = ordered.mean(axis=0)
    b1 = (rank * ordered).sum(axis=0) / (n * (n - 1))
    b2 = (rank * (rank - 1) * ordered).sum(axis=0) / (n * (n - 1) * (n - 2))
    second, third = 2.0 * b1 - b0, 6.0 * b2 - 6.0 * b1 + b0
    varies = second > 1e-12 * np.maximum(np.abs(b0), 1e-300)
    c = np.divide(second, third + 3.0 * second, out=np.zeros_like(b0), where=varies) * 2.0 - np.log(2.0) / np.log(3.0)
    shape = np.where(varies, np.clip(7.8590 * c + 2.9554 * c**2, -0.9, 0.9), 1e-3)
    shape = np.where(np.abs(shape) < 1e-6, 1e-6, shape)
    scale = np.where(varies, second * shape / (gamma(1.0 + shape) * (1.0 - 2.0**-shape)), 0.0)
    return b0 - scale / shape * (1.0 - gamma(1.0 + shape)), scale, shape
