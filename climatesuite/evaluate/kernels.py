"""The arithmetic of ensemble scores on float64 arrays: no names, no units, no files.

Shapes: forecast ``x [M, ...]``, truth ``y [N, ...]`` (N single members, the rest equal), pool ``r [K, P]`` (P cells).
Everything here is exact and free of loops over cells; ``evaluate.scores`` and ``evaluate.series`` add names and checks.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_CACHED_VALUES = 1 << 17


def pair_sum(x: Array) -> Array:
    """Sum over i<j of abs(x_i - x_j) along the first axis, from order statistics.

    With sorted values S = sum_k (2k - M - 1) x_(k), so M log M instead of M squared (Hersbach 2000; Zamo and Naveau 2018).

    Args:
        x: Values ``[M, ...]``.

    Returns:
        S ``[...]``, unit of x.
    """
    size = x.shape[0]
    flat, factors = x.reshape(size, -1), 2.0 * np.arange(1, size + 1) - size - 1.0
    out = np.empty(flat.shape[1])
    step = max(1, _CACHED_VALUES // size)
    for first in range(0, out.size, step):  # members of one cell side by side, few enough cells to stay in cache
        part = np.sort(np.ascontiguousarray(flat[:, first : first + step].T), axis=1)
        out[first : first + step] = part @ factors
    return out.reshape(x.shape[1:])


def mean_abs_difference(x: Array, y: Array) -> Array:
    """Mean over forecast members of abs(x_m - y_n): ``[M, ...], [N, ...] -> [N, ...]``."""
    out, part = np.zeros(y.shape), np.empty(y.shape[1:])
    for n, target in enumerate(y):
        for member in x:  # a broadcast would hold copies of the ensemble
            np.abs(np.subtract(member, target, out=part), out=part)
            out[n] += part  # by index: a row of one value would be a copy
    return out / x.shape[0]


def variance(x: Array) -> Array:
    """Variance over members, ddof = 1, from departures from their mean: ``[M, ...] -> [...]``, without a copy of x."""
    centre, total, part = x.mean(axis=0), np.zeros(x.shape[1:]), np.empty(x.shape[1:])
    for member in x:
        np.subtract(member, centre, out=part)
        total += np.multiply(part, part, out=part)
    return total / (x.shape[0] - 1)


def crps_from(mean_abs: Array, pairs: Array, size: int, kind: str) -> Array:
    """CRPS from its two terms.

    fair:  mean abs(x - y) - S / (M (M - 1)), the unbiased estimate of the infinite ensemble's CRPS (Ferro 2014)
    plain: mean abs(x - y) - S / M^2, the CRPS of the empirical distribution
    mae:   mean abs(x - y), what is left of either for one member

    Args:
        mean_abs: ``[N, ...]``.
        pairs: S ``[...]`` of :func:`pair_sum`.
        size: Ensemble size M.
        kind: ``fair``, ``plain`` or ``mae``.

    Raises:
        ValueError: On an unknown kind or fair with M = 1.
    """
    if kind == "mae":
        return mean_abs
    if kind == "plain":
        return mean_abs - pairs / size**2
    if kind == "fair" and size > 1:
        return mean_abs - pairs / (size * (size - 1))
    raise ValueError(f"CRPS kind {kind!r} for {size} members: expected fair (2 members or more), plain or mae")


def half_pair_means(y: Array) -> Array:
    """For every member n the mean over the other members j of abs(y_n - y_j) / 2: ``[N, ...] -> [N, ...]``; N >= 2.

    Its mean over n is the expected fair CRPS of a perfect ensemble; kept by member so that a bootstrap can redraw members.
    """
    out = np.empty(y.shape)
    for n, member in enumerate(y):
        out[n] = np.abs(y - member).sum(axis=0) / (2.0 * (y.shape[0] - 1))
    return out


def rank_shares(x: Array, y: Array, weights: Array) -> Array:
    """Weighted rank counts, ties split in equal fractions over the ranks they span.

    Args:
        x: Forecast ``[M, T, P]``.
        y: Truth ``[N, T, P]``.
        weights: Cell weights ``[P]``.

    Returns:
        ``[N, T, M + 1]``: weight in each rank (number of members below the truth); sums to sum(weights).
    """
    size, n_time, _ = x.shape
    out = np.empty((y.shape[0], n_time, size + 1))
    rows = np.arange(n_time)[:, None] * (size + 2)
    for n, target in enumerate(y):
        below, ties = (np.zeros(target.shape, dtype=np.int64) for _ in range(2))
        for member in x:
            below += member < target
            ties += member == target
        part = weights / (ties + 1.0)
        # difference array: the share enters at rank `below` and leaves after rank `below + ties`
        edges = np.bincount((rows + below).ravel(), part.ravel(), minlength=n_time * (size + 2))
        edges -= np.bincount((rows + below + ties + 1).ravel(), part.ravel(), minlength=n_time * (size + 2))
        out[n] = np.cumsum(edges.reshape(n_time, size + 2), axis=1)[:, :-1]
    return out


class SortedPool:
    """A residual pool per cell, prepared so that mean abs(r_k - z) costs log K for any z.

    Args:
        pool: ``[K, P]``, K >= 2 residuals for each of P cells.
    """

    def __init__(self, pool: Array) -> None:
        self.size = pool.shape[0]
        self.mean: Array = pool.mean(axis=0)
        self.variance: Array = pool.var(axis=0, ddof=1)
        # cells first: the binary search then stays within one cell's few cached values
        values = np.sort(np.ascontiguousarray(pool.T), axis=1)
        self.pairs: Array = values @ (2.0 * np.arange(1, self.size + 1) - self.size - 1.0)
        self._sums = np.concatenate([np.zeros((pool.shape[1], 1)), np.cumsum(values, axis=1)], axis=1)
        # padded to 2^k - 1 values, so that the search needs no bounds: infinity is never below z
        self._padded = np.full((pool.shape[1], (1 << self.size.bit_length()) - 1), np.inf)
        self._padded[:, : self.size] = values

    def mean_abs_difference(self, z: Array) -> Array:
        """Mean over the pool of abs(r_k - z): ``[..., P] -> [..., P]``, finite z."""
        n_cells = self._sums.shape[0]
        by_cell = np.ascontiguousarray(z.reshape(-1, n_cells).T)
        below = self._count_below(by_cell)
        sum_below = np.take_along_axis(self._sums, below, axis=1)
        out = (by_cell * (2 * below - self.size) - 2.0 * sum_below + self._sums[:, -1:]) / self.size
        return out.T.reshape(z.shape)

    def shifted_pairs(self, shifts: Array) -> Array:
        """Sum over all pairs of abs differences among the values r_k + d_j: shifts d ``[J, P] -> [P]``."""
        if shifts.shape[0] == 1:
            return self.pairs
        values = self._padded[:, None, : self.size] + shifts.T[:, :, None]
        return pair_sum(values.reshape(values.shape[0], -1).T)

    def _count_below(self, z: Array) -> NDArray[np.int64]:
        """Number of pool values <= z, ``[P, n] -> [P, n]``, by one binary search for all at once."""
        n_cells, width = self._padded.shape
        flat, base = self._padded.ravel(), (np.arange(n_cells) * width)[:, None]
        position = np.broadcast_to(base, z.shape).copy()
        step = (width + 1) // 2
        while step:
            position += step * (flat[position + (step - 1)] <= z)
            step >>= 1
        return position - base


def detrended_variance(x: Array, year: NDArray[np.int64], month: NDArray[np.int64] | None) -> Array:
    """Variance about a straight line in the year, per calendar month where months are given.

    Args:
        x: ``[T, P]``.
        year: Year labels ``[T]``.
        month: Calendar months ``[T]`` or None.

    Returns:
        ``[P]``: residual sums of squares divided by (T - 2), averaged over calendar months; NaN for fewer than 3 years.
    """
    groups = [slice(None)] if month is None else [np.flatnonzero(month == m) for m in np.unique(month)]
    total = np.zeros(x.shape[1])
    for group in groups:
        t = year[group].astype(np.float64)
        if t.size < 3:
            return np.full(x.shape[1], np.nan)
        t = t - t.mean()
        anomaly = x[group] - x[group].mean(axis=0)
        slope = (t @ anomaly) / (t @ t)
        total += ((anomaly - t[:, None] * slope) ** 2).sum(axis=0) / (t.size - 2)
    return total / len(groups)
