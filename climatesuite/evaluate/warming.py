"""Arithmetic of what a climate scientist asks first: crossing years, emergence, trends, changes, ratios, variability.

Pure functions on float64 arrays whose last axis is time, one value a year, ``[..., T]``; years ``[T]`` rise by one.
``evaluate.questions`` reads ensembles into such arrays and puts names, units and intervals to the results.
"""

import numpy as np
from numpy.typing import NDArray

from climatesuite.evaluate import structure
from climatesuite.evaluate.kernels import Array

WINDOW = 20
"""Years of a running mean and of the periods whose difference is a change (IPCC AR6)."""
SIGNAL_TO_NOISE = 2.0
LEAST_WARMING = 0.3
"""K; below it a ratio to warming is noise and is not given."""


def running_mean(x: Array, width: int = WINDOW) -> Array:
    """Means of every ``width`` years in a row: ``[..., T] -> [..., T - width + 1]``."""
    sums = np.cumsum(np.concatenate([np.zeros((*x.shape[:-1], 1)), x], axis=-1), axis=-1)
    return (sums[..., width:] - sums[..., :-width]) / width


def crossing_years(warming: Array, year: NDArray[np.int64], level: float, width: int = WINDOW) -> Array:
    """First year Y whose mean from Y - 10 to Y + 9 reaches a level; infinity if none does.

    The central year of IPCC AR6's warming levels (20 years; Hauser et al. 2022, doi 10.5281/zenodo.3591806). A level that the
    first window already exceeds gives that window's Y, so the earliest year is a bound.

    Args:
        warming: ``[..., T]`` K above pre-industrial.
        year: ``[T]``.
        level: K.
        width: Years averaged.
    """
    above = running_mean(warming, width) >= level
    central = year[: above.shape[-1]] + width // 2
    first = np.argmax(above, axis=-1)
    return np.where(above.any(axis=-1), central[first].astype(np.float64), np.inf)


def emergence_years(series: Array, year: NDArray[np.int64], base: tuple[int, int]) -> Array:
    """First year from which on the signal stays beyond twice the noise; infinity if it does not by the end.

    Signal: the parabola through a member's years minus its mean over the base period. Noise: the standard deviation of the years
    about that parabola (Hawkins and Sutton 2012, doi 10.1029/2011GL050087, with a parabola for their smoothed global mean).

    Args:
        series: ``[..., T]``, yearly values of one place each.
        year: ``[T]``.
        base: First and last year of the base period.
    """
    flat = np.moveaxis(series, -1, 0).reshape(year.size, -1)
    rest = structure.departures(flat, 1)
    shrunk = rest / np.sqrt(year.size / (year.size - structure.TREND_DEGREE - 1.0))
    smooth = flat - shrunk
    inside = (year >= base[0]) & (year <= base[1])
    signal = np.abs(smooth - smooth[inside].mean(axis=0))
    quiet = signal <= SIGNAL_TO_NOISE * np.sqrt((rest**2).mean(axis=0))
    last_quiet = year.size - 1 - np.argmax(quiet[::-1], axis=0)
    first = np.where(quiet.any(axis=0), last_quiet + 1, 0)
    padded = np.append(year.astype(np.float64), np.inf)
    return padded[first].reshape(series.shape[:-1])


def slopes(x: Array, year: NDArray[np.int64]) -> Array:
    """Least-squares slopes, unit of x per decade: ``[..., T] -> [...]``."""
    t = year - year.mean()
    out: Array = 10.0 * ((x - x.mean(axis=-1, keepdims=True)) @ t) / (t @ t)
    return out


def change(x: Array, width: int = WINDOW) -> Array:
    """Mean of the last ``width`` years minus that of the first: ``[..., T] -> [...]``."""
    out: Array = x[..., -width:].mean(axis=-1) - x[..., :width].mean(axis=-1)
    return out


def ratio(above: Array, warming: Array) -> Array:
    """Quotient, NaN where the warming is below 0.3 K."""
    enough = np.abs(warming) >= LEAST_WARMING
    return np.divide(above, warming, out=np.full(np.shape(above), np.nan), where=enough)


def per_kelvin(rain: Array, warming: Array, width: int = WINDOW) -> Array:
    """Change of rain in % of its first years per kelvin of warming (apparent hydrological sensitivity): ``[..., T] -> [...]``."""
    return ratio(100.0 * change(rain, width) / rain[..., :width].mean(axis=-1), change(warming, width))


def variance_change(departures: Array, weights: Array) -> Array:
    """Logarithm of area-mean variance in the last third of the years over the first third.

    Args:
        departures: ``[T, P]`` of one member, about its own trend.
        weights: ``[region, P]``, each summing to 1.

    Returns:
        ``[region]``; NaN where a third does not vary.
    """
    third = departures.shape[0] // 3
    early, late = (weights @ (part**2).mean(axis=0) for part in (departures[:third], departures[-third:]))
    varies = (early > 0) & (late > 0)
    return np.log(np.divide(late, early, out=np.full(early.shape, np.nan), where=varies))
