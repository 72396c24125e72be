"""Whether the months of a forecast stand where their labels say: a test of values, since labels may agree and be wrong.

The seasonal cycle is the clock: its pattern, moved by a month, fits clearly worse. It cannot see whole years. Years have no such
clock: detrended global means share little but volcanoes and abrupt forcings, and smooth curvature fits at many lags (two members of
CESM2 ssp370, rightly dated, correlate at 0.57 one year apart and at 0.42 in the same year). So :func:`time_shift` names a lag of
years only where it stands out far, as a hint, and nothing is refused.
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.evaluate.checks import check_comparable, checked, in_blocks, label, row_weights
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.scores import area_mean

MONTHS = 12
LEAST_FIT = 0.5
"""Below this correlation at every lag there is no common clock, and no lag is named."""
LEAST_GAIN = 0.02
"""How much better than lag 0 another lag of months must fit; a month's shift of a sine costs 0.13."""
LEAST_GAIN_YEARS = 0.3
"""How much better than every other lag one of years must fit to be named: about three standard errors of 85 years."""


def time_shift(
    forecast: xr.DataArray, truth: xr.DataArray, max_lag: int = 5, member_dim: str = "member"
) -> xr.DataArray:
    """Correlation of the ensemble mean with the truth's mean at lags in steps; positive: the forecast is late.

    With coordinate ``month``: of the mean seasonal cycles (departures of each calendar month from the cell's mean), over cells,
    area-weighted, and months; lags -5 to 6, as the cycle closes. Without: of area means less their straight line.

    Args:
        forecast: ``([member,] time, lat, lon)`` on the truth's labels; may be lazy.
        truth: The same.
        max_lag: For years.
        member_dim: Name of the ensemble's dim.

    Returns:
        ``(lag)``, unit 1. Attribute ``lag``: the best one, None where none reaches ``LEAST_FIT``. Of months, it is 0 where that
        fits within ``LEAST_GAIN`` of the best; of years, None unless it fits better than all others by ``LEAST_GAIN_YEARS``.
        Attribute ``reliable``: whether it is a clock (months), not a hint (years).

    Raises:
        DataContractError: If the two do not match, a calendar month is missing, or there are fewer than 2 x max_lag + 3 years.
    """
    check_comparable(forecast, truth, member_dim)
    if "month" in truth.coords:
        month, w = np.asarray(truth["month"].values), row_weights(truth)
        ours, theirs = (_season(_mean(f, member_dim), month) for f in (forecast, truth))
        lags = list(range(-MONTHS // 2 + 1, MONTHS // 2 + 1))
        cells = w.values[:, None]
        fit = [_correlation(np.roll(ours, -lag, axis=0), theirs, cells) for lag in lags]
    else:
        steps = truth.sizes["time"]
        if steps < 2 * max_lag + 3:
            raise DataContractError(
                label(truth), f"{steps} steps", f"{2 * max_lag + 3} or more", "reduce max_lag or give longer series"
            )
        both = (_mean(f, member_dim).assign_coords(lat=truth["lat"]) for f in (forecast, truth))
        a, b = (_detrended(np.asarray(area_mean(f).values)) for f in both)
        lags = list(range(-max_lag, max_lag + 1))
        fit = [_correlation(*_overlap(a, b, lag)) for lag in lags]
    return xr.DataArray(
        fit, {"lag": lags}, ("lag",), "time_shift",
        {"units": "1", "lag": _best(np.asarray(fit), lags, "month" in truth.coords), "reliable": "month" in truth.coords},
    )  # fmt: skip


def check_time_shift(forecast: xr.DataArray, truth: xr.DataArray, member_dim: str = "member") -> xr.DataArray:
    """:func:`time_shift`, refused where months are shifted.

    Raises:
        DataContractError: If the forecast's seasonal cycle fits the truth's better at another lag than 0.
    """
    found = time_shift(forecast, truth, member_dim=member_dim)
    lag = found.attrs["lag"]
    if found.attrs["reliable"] and lag:
        early = f"{abs(lag)} month{'s' if abs(lag) > 1 else ''} {'later' if lag > 0 else 'earlier'} than the truth's"
        fits = f"correlation {float(found.sel(lag=lag)):.3f} against {float(found.sel(lag=0)):.3f} unshifted"
        raise DataContractError(
            f"{label(forecast)}: seasonal cycle", f"{early} ({fits})", "that of its labels", "correct the time labels"
        )
    return found


def _mean(field: xr.DataArray, member_dim: str) -> xr.DataArray:
    """Mean over members, ``(time, lat, lon)``, checked; computed block by block when its values are asked for."""
    x = checked(in_blocks(field))
    return (x.mean(member_dim, skipna=False) if member_dim in x.dims else x).transpose("time", "lat", "lon")


def _season(field: xr.DataArray, month: NDArray) -> Array:
    """Mean of each calendar month less the mean of them, ``[12, lat, lon]``."""
    if set(month.tolist()) != set(range(1, MONTHS + 1)):
        found = f"calendar months {sorted(set(month.tolist()))}"
        raise DataContractError(label(field), found, "all twelve", "give whole years")
    means = [field.isel(time=np.flatnonzero(month == m)).mean("time", skipna=False) for m in range(1, MONTHS + 1)]
    cycle = np.asarray(xr.concat(means, "month", coords="minimal", compat="override").values)
    return cycle - cycle.mean(axis=0)


def _detrended(x: Array) -> Array:
    t = np.arange(x.size) - (x.size - 1) / 2.0
    return x - x.mean() - t * (t @ x) / (t @ t)


def _overlap(a: Array, b: Array, lag: int) -> tuple[Array, Array]:
    """``a[t + lag]`` beside ``b[t]``."""
    n = a.size - abs(lag)
    return a[max(lag, 0) :][:n], b[max(-lag, 0) :][:n]


def _correlation(a: Array, b: Array, weights: Array | float = 1.0) -> float:
    """Weighted correlation; 0 where either is constant."""
    w = np.broadcast_to(weights, a.shape) / np.broadcast_to(weights, a.shape).sum()
    a, b = a - (w * a).sum(), b - (w * b).sum()
    size = float(np.sqrt((w * a**2).sum() * (w * b**2).sum()))
    return float((w * a * b).sum() / size) if size > 0 else 0.0


def _best(fit: Array, lags: list[int], is_month: bool) -> int | None:
    top = int(np.argmax(fit))
    if fit[top] < LEAST_FIT or (not is_month and fit[top] - np.delete(fit, top).max() < LEAST_GAIN_YEARS):
        return None
    return 0 if fit[lags.index(0)] > fit[top] - LEAST_GAIN else lags[top]
