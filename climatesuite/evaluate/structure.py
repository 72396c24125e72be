"""Structure of single members: what a score per cell and step cannot see, as pure functions of one member's departures.

Arrays are float64 ``[time, lat, lon]`` of one member in score units, its steps whole years of months or years in order; row
weights ``[lat]`` sum to 1. ``evaluate.structure_table`` puts an ensemble beside real members with them. Definitions follow
``metrics.md`` 5.1 to 5.6; where it leaves a choice, the one that reproduces the numbers of ``references.md`` "Structure" is
taken and named in the docstring.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.evaluate.diagnostics import zonal_power
from climatesuite.evaluate.kernels import Array
from climatesuite.harmonise.grids import infer_bounds

TREND_DEGREE = 2
"""A parabola per cell and calendar month: a straight line leaves the overshoot of ssp126 in the departures and takes the lag-1
of the real global mean from 0.27 to 0.68."""
NINO34 = (-5.0, 5.0, 190.0, 240.0)
"""South, north, west, east, degrees."""
ENSO_YEARS = (2.0, 7.0)
DJF, MAM = (12, 1, 2), (3, 4, 5)
MONTHS = 12
_BANDS = ((1, 3), (4, 7))


def departures(field: Array, steps_per_year: int, degree: int = TREND_DEGREE) -> Array:
    """Departures from a polynomial in the year, fitted per cell and calendar month.

    Times sqrt(n / (n - degree - 1)) for n years, so that their mean square is the unbiased variance.

    Args:
        field: ``[time, ...]``, n whole years in order.
        steps_per_year: 12 for months, 1 for years.
        degree: Of the polynomial.

    Returns:
        The same shape and unit; mean zero over the years of each cell and calendar month.

    Raises:
        DataContractError: If the years are not whole, or too few to leave anything.
    """
    n_years, odd = divmod(field.shape[0], steps_per_year)
    if odd or n_years < degree + 2:
        found = f"{field.shape[0]} steps, {steps_per_year} a year"
        expected = f"whole years, at least {degree + 2}"
        raise DataContractError(f"departures from a trend of degree {degree}", found, expected, "give more years")
    basis, _ = np.linalg.qr(np.vander(np.linspace(-1.0, 1.0, n_years), degree + 1))
    by_year = field.reshape(n_years, -1)
    rest = basis @ (basis.T @ by_year)
    np.subtract(by_year, rest, out=rest)
    rest *= np.sqrt(n_years / (n_years - degree - 1.0))
    return rest.reshape(field.shape)


def area_means(field: Array, weights: Array) -> Array:
    """Area mean of every step: ``[..., lat, lon], [lat] -> [...]``."""
    means: Array = field.mean(axis=-1) @ weights
    return means


def lag1(departure: Array) -> Array:
    """Lag-1 autocorrelation sum_t a_t a_(t+1) / sum_t a_t^2 along time: ``[time, ...] -> [...]``; 0 where all is zero.

    The biased form (metrics.md 5.2): T alternating values give -(T - 1) / T, and departures of white noise from a polynomial
    of degree p about -(p + 1) / T, so only members of one length are compared.
    """
    square = np.einsum("t...,t...->...", departure, departure)
    product = np.einsum("t...,t...->...", departure[1:], departure[:-1])
    ratio: Array = np.divide(product, square, out=np.zeros_like(square), where=square > 0)
    return ratio


def _ratio(numerator: float, denominator: float) -> float:
    """NaN where members do not vary at all, which is no structure to compare."""
    return float(numerator / denominator) if denominator > 0.0 else float("nan")


def decade_seams(year: NDArray[np.int64], decade_start: int) -> NDArray[np.bool_]:
    """Which steps from one year to the next enter a new decade: ``[T] -> [T - 1]``, 2094/95 included."""
    return (year[1:] - decade_start) % 10 == 0


def december_seams(month: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which steps from one month to the next enter a new year: ``[T] -> [T - 1]``."""
    return month[1:] == 1


def step_ratio(departure: Array, is_seam: NDArray[np.bool_], weights: Array) -> float:
    """Mean squared step (a_(t+1) - a_t)^2 across seams over the same inside; area means first, then one ratio.

    Independent windows of white noise give 1 as any white noise does; windows without a common past give
    2 v / (2 v (1 - r)) = 1 / (1 - r) where neighbouring steps correlate with r inside.

    Args:
        departure: ``[T, lat, lon]``.
        is_seam: ``[T - 1]``.
        weights: ``[lat]``.

    Raises:
        DataContractError: If there is no seam or nothing but seams.
    """
    if not 0 < is_seam.sum() < is_seam.size:
        found = f"{int(is_seam.sum())} of {is_seam.size} steps at seams"
        raise DataContractError("seams", found, "some at seams and some inside", "give a longer record")
    steps = np.diff(departure, axis=0)
    squares = area_means(np.square(steps, out=steps), weights)
    return _ratio(squares[is_seam].mean(), squares[~is_seam].mean())


def wavenumber_bands(width: int) -> tuple[tuple[int, int], ...]:
    """Bands of zonal wavenumbers, both ends included: 1 to 3, 4 to 7, 8 to half the number of longitudes."""
    top = width // 2
    return tuple((low, min(high, top)) for low, high in (*_BANDS, (8, top)) if low <= top)


def band_power(departure: Array, weights: Array) -> dict[tuple[int, int], float]:
    """Zonal power in bands of wavenumbers, averaged over steps and area after the transform.

    Args:
        departure: ``[T, lat, lon]``.
        weights: ``[lat]``.

    Returns:
        By band of :func:`wavenumber_bands`, squared unit; with the zonal means' power they sum to the variance.
    """
    power = weights @ zonal_power(departure)
    return {(low, high): float(power[low : high + 1].sum()) for low, high in wavenumber_bands(departure.shape[-1])}


def shared_variance(a: Array, b: Array, weights: Array) -> float:
    """Area mean of the squared correlation in time of two departures ``[T, lat, lon]``; cells without variance count 0."""
    product = np.einsum("tij,tij->ij", a, b) ** 2
    squares = np.einsum("tij,tij->ij", a, a) * np.einsum("tij,tij->ij", b, b)
    return float(area_means(np.divide(product, squares, out=np.zeros_like(squares), where=squares > 0), weights))


def negative_share(field: Array) -> float:
    """Share of values below zero, every value counted once."""
    return float(np.count_nonzero(field < 0.0) / field.size)


def _overlap(bounds: Array, low: float, high: float) -> Array:
    return np.clip(np.minimum(bounds[:, 1], high) - np.maximum(bounds[:, 0], low), 0.0, None)


def nino34_weights(ds: xr.Dataset) -> Array | None:
    """Area of every cell inside the Niño-3.4 box, sum 1: ``[lat, lon]``; None below two rows, which would be no box.

    Args:
        ds: Dataset with ``lat``, ``lon`` (any branch of longitude), and their bounds or none, then halfway between centres.
    """
    south, north, west, east = NINO34
    edges = {}
    for axis in ("lat", "lon"):
        given = ds[f"{axis}_bnds"].transpose(axis, ...).values if f"{axis}_bnds" in ds.variables else None
        edges[axis] = np.asarray(infer_bounds(ds[axis].values, axis) if given is None else given, dtype=np.float64)
    rows = _overlap(np.sin(np.deg2rad(edges["lat"])), *np.sin(np.deg2rad([south, north])))
    columns = sum(
        (_overlap(edges["lon"] + turn, west, east) for turn in (-360.0, 0.0, 360.0)), np.zeros(len(ds["lon"]))
    )
    if np.count_nonzero(rows) < 2 or not columns.any():
        return None
    cells = rows[:, None] * columns[None, :]
    return cells / cells.sum()


def share_of_variance(series: Array, steps_per_year: int, period_years: tuple[float, float] = ENSO_YEARS) -> float:
    """Share of a series' variance at periods within two bounds, both included, from its plain periodogram.

    The periodogram's ordinates sum to the variance, and its shares are the printed ones (0.67 for real Niño-3.4); Welch's
    (Hann, 240 months, half overlapping) leaks into neighbouring periods and gives 0.71 for the same members.

    Args:
        series: ``[T]``, mean zero.
        steps_per_year: 12 for months.
        period_years: Shortest and longest period.
    """
    power = zonal_power(series[None, :])[0]
    frequency = np.arange(power.size) * steps_per_year / series.size  # cycles a year
    shortest, longest = period_years
    inside = (frequency >= 1.0 / longest - 1e-12) & (frequency <= 1.0 / shortest + 1e-12)
    return _ratio(power[inside].sum(), power[1:].sum())


def season_ratio(series: Array, month: NDArray[np.int64]) -> float:
    """Standard deviation of the months December to February over that of March to May, months pooled: ``[T], [T]``."""
    winter, spring = (np.sqrt(np.mean(series[np.isin(month, months)] ** 2)) for months in (DJF, MAM))
    return _ratio(winter, spring)


def mean_square_gap(months: Array, years: Array, days: Array, weights: Array) -> float:
    """Area and time mean of (mean of the sampled months - sampled year)^2, squared unit.

    Only where both come from one run of the cascade; independent draws are compared as distributions.

    Args:
        months: ``[12 T, lat, lon]``.
        years: ``[T, lat, lon]``.
        days: Length of each month ``[12 T]``.
        weights: ``[lat]``.
    """
    return float(area_means((yearly_means(months, days) - years) ** 2, weights).mean())


def yearly_means(months: Array, days: Array) -> Array:
    """Means of every 12 months weighted with their days: ``[12 T, ...], [12 T] -> [T, ...]``."""
    share = days.reshape(-1, MONTHS) / days.reshape(-1, MONTHS).sum(axis=1, keepdims=True)
    means: Array = np.einsum("tm,tm...->t...", share, months.reshape(-1, MONTHS, *months.shape[1:]))
    return means


def nino34(departure: Array, month: NDArray[np.int64], box: Array) -> Mapping[str, float]:
    """Statistics of the Niño-3.4 index of monthly tas departures.

    Args:
        departure: ``[T, lat, lon]``, K; at least 30 years for the share to mean something.
        month: ``[T]``.
        box: Weights of :func:`nino34_weights`.

    Returns:
        ``sd`` (K), ``share`` of variance at 2 to 7 years, ``season``: sd of DJF over sd of MAM.
    """
    index = np.tensordot(departure, box, axes=2)
    return {
        "sd": float(index.std()),
        "share": share_of_variance(index, MONTHS),
        "season": season_ratio(index, month),
    }
