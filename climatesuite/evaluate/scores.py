"""Scores of an ensemble against single members of the truth: pure functions on named arrays.

Forecasts have dims ``(member, time, lat, lon)``, truths ``(member, time, lat, lon)`` or the same without ``member``; both in
one unit. Every function computes in float64, checks that coordinates and units agree, and never joins, drops or fills.
All of them hold a float64 copy of what they are given: long ensembles go through ``evaluate.series``, block by block.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import xarray as xr
from scipy.stats import chi2

from climatesuite.errors import DataContractError
from climatesuite.evaluate import kernels
from climatesuite.harmonise.grids import cos_weights

TARGET = "target"
_COORDINATE_TOLERANCE_DEG = 1e-4


def _label(field: xr.DataArray) -> str:
    return str(field.name) if field.name is not None else "field"


def check_finite(field: xr.DataArray, values: np.ndarray | None = None) -> None:
    """Raise DataContractError if a value is NaN or infinite."""
    values = np.asarray(field.values) if values is None else values
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise DataContractError(
            _label(field),
            f"{bad} of {values.size} values are NaN or infinite",
            "finite values",
            "mask or fill before scoring",
        )


def _same_coordinate(dim: Hashable, a: xr.DataArray, b: xr.DataArray) -> bool:
    if dim == "time" and "year" in a.coords and "year" in b.coords:
        # mid-period dates differ between calendars and tools; the period's labels do not
        return all(
            name in a.coords and name in b.coords and np.array_equal(a[name], b[name])
            for name in ("year", "month")
            if name in a.coords or name in b.coords
        )
    if dim not in a.coords or dim not in b.coords:
        return dim not in a.coords and dim not in b.coords
    left, right = a[dim].values, b[dim].values
    if dim in ("lat", "lon"):
        return bool(np.allclose(left, right, rtol=0.0, atol=_COORDINATE_TOLERANCE_DEG))
    return np.array_equal(left, right)


def check_comparable(forecast: xr.DataArray, truth: xr.DataArray, member_dim: str = "member") -> None:
    """Check that two arrays differ in their members only.

    Raises:
        DataContractError: If dimensions, their lengths or labels, latitudes, longitudes or units differ.
    """
    subject = f"{_label(forecast)}: forecast against truth"
    ours, theirs = ([d for d in field.dims if d not in (member_dim, TARGET)] for field in (forecast, truth))
    if set(ours) != set(theirs):
        raise DataContractError(
            subject,
            f"dimensions {ours}",
            f"the truth's, {theirs}",
            "rename or select until both agree; nothing is broadcast",
        )
    for dim in ours:
        if forecast.sizes[dim] != truth.sizes[dim] or not _same_coordinate(dim, forecast, truth):
            raise DataContractError(
                subject,
                f"coordinate {dim} ({forecast.sizes[dim]} values) is not the truth's ({truth.sizes[dim]} values)",
                f"equal {dim}",
                "regrid or align by labels first (evaluate.protocol.align)",
            )
    units = [field.attrs["units"] for field in (forecast, truth) if "units" in field.attrs]
    if len(set(units)) > 1:
        raise DataContractError(subject, f"units {units[0]!r}", f"the truth's, {units[1]!r}", "convert one of them")


def _arrays(
    forecast: xr.DataArray, truth: xr.DataArray, member_dim: str
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], xr.DataArray]]:
    """Checked float64 arrays ``[M, ...]`` and ``[N, ...]`` and a function that names ``[N, ...]`` results again."""
    check_comparable(forecast, truth, member_dim)
    if member_dim not in forecast.dims:
        raise DataContractError(
            _label(forecast), f"dims {forecast.dims}", f"a dimension {member_dim!r}", "name the ensemble's dim"
        )
    order = [d for d in forecast.dims if d != member_dim]
    target_dim = next((d for d in (TARGET, member_dim) if d in truth.dims), None)
    named = truth if target_dim is None else truth.rename({target_dim: TARGET}) if target_dim != TARGET else truth
    named = named.transpose(*([TARGET] if target_dim else []), *order)
    x = np.asarray(forecast.transpose(member_dim, *order).values, dtype=np.float64)
    y = np.asarray(named.values, dtype=np.float64)
    check_finite(forecast, x)
    check_finite(truth, y)

    def wrap(values: np.ndarray) -> xr.DataArray:
        return named.copy(data=values if target_dim else values[0])

    return x, y if target_dim else y[None], wrap


def area_mean(field: xr.DataArray, weights: xr.DataArray | None = None) -> xr.DataArray:
    """Area-weighted mean over lat and lon.

    Args:
        field: Dims include ``lat`` and ``lon``.
        weights: ``(lat)``; the cosine of latitude by default.

    Returns:
        Float64, the other dims; sum(w z) / (W sum(w)), unit of the field.

    Raises:
        DataContractError: If lat or lon is missing, weights lie on other latitudes, or a value is NaN.
    """
    if "lat" not in field.dims or "lon" not in field.dims:
        raise DataContractError(
            _label(field), f"dims {field.dims}", "lat and lon among them", "rename the horizontal dims"
        )
    check_finite(field)
    w = cos_weights(field["lat"]) if weights is None else weights
    if w.dims != ("lat",) or w.sizes["lat"] != field.sizes["lat"] or not _same_coordinate("lat", w, field):
        raise DataContractError(
            "area weights", f"dims {w.dims}", "one weight per latitude of the field", "compute them from its lat"
        )
    rows = field.astype(np.float64).mean("lon").transpose(..., "lat")
    w_values = np.asarray(w.values, dtype=np.float64)
    return rows.isel(lat=0, drop=True).copy(data=np.asarray(rows.values @ (w_values / w_values.sum())))


def _mean_error(forecast: xr.DataArray, truth: xr.DataArray, member_dim: str) -> xr.DataArray:
    """Mean of the forecast's members minus mean of the truth's."""
    check_comparable(forecast, truth, member_dim)
    check_finite(forecast)
    check_finite(truth)
    x = forecast.astype(np.float64)
    y = truth.astype(np.float64)
    x = x.mean(member_dim) if member_dim in x.dims else x
    y = y.mean(member_dim) if member_dim in y.dims else y
    y = y.transpose(*x.dims)
    return x.copy(data=x.values - y.values)


def _total(field: xr.DataArray) -> float:
    return float(field.mean())


def rmse(
    forecast: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray | None = None, member_dim: str = "member"
) -> float:
    """Root of the pooled mean square error of the ensemble mean against the mean of the truth's members.

    Square, area mean, mean over time, one root: never below a mean of yearly roots, which some tables print.
    """
    return float(np.sqrt(_total(area_mean(_mean_error(forecast, truth, member_dim) ** 2, weights))))


def bias(
    forecast: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray | None = None, member_dim: str = "member"
) -> float:
    """Mean of forecast minus truth, unit of the fields."""
    return _total(area_mean(_mean_error(forecast, truth, member_dim), weights))


def crps_ensemble(
    forecast: xr.DataArray, truth: xr.DataArray, kind: str = "fair", member_dim: str = "member"
) -> xr.DataArray:
    """Continuous ranked probability score of every cell, by sorting.

    Args:
        forecast: With dim ``member`` (M members).
        truth: Single members: with or without dim ``member``; a member dim is called ``target`` in the result.
        kind: ``fair`` (M >= 2), ``plain`` or ``mae``; see :func:`kernels.crps_from`.
        member_dim: Name of the ensemble's dim.

    Returns:
        The truth's dims, float64, unit of the fields. 0 <= fair <= plain.

    Raises:
        DataContractError: On coordinates, dims or units that differ, NaN, or fair with one member.
    """
    x, y, wrap = _arrays(forecast, truth, member_dim)
    if kind == "fair" and x.shape[0] < 2:
        raise DataContractError(
            _label(forecast), "1 member", "2 or more for the fair CRPS", "use kind='mae' or draw more members"
        )
    return wrap(kernels.crps_from(kernels.mean_abs_difference(x, y), kernels.pair_sum(x), x.shape[0], kind))


def residual_pool_crps(mean: xr.DataArray, pool: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """Fair CRPS of the ensemble ``mean + every residual of the pool``, without building it.

    Args:
        mean: ``(time, lat, lon)``.
        pool: ``(sample, lat, lon)``.
        truth: ``([member,] time, lat, lon)``.

    Returns:
        The truth's dims: the expectation of the fair CRPS over draws from the pool without replacement.
    """
    x, y, wrap = _arrays(mean.expand_dims("member"), truth, "member")
    values = np.asarray(pool.transpose("sample", "lat", "lon").values, dtype=np.float64)
    check_finite(pool, values)
    ready = kernels.SortedPool(values.reshape(values.shape[0], -1))
    z = (y - x).reshape(*y.shape[:-2], -1)
    return wrap(kernels.crps_from(ready.mean_abs_difference(z), ready.pairs, ready.size, "fair").reshape(y.shape))


def spread(forecast: xr.DataArray, weights: xr.DataArray | None = None, member_dim: str = "member") -> float:
    """Root of the pooled ensemble variance (ddof = 1).

    Raises:
        DataContractError: With fewer than 2 members.
    """
    if forecast.sizes.get(member_dim, 1) < 2:
        raise DataContractError(_label(forecast), "1 member", "2 or more for a spread", "draw more members")
    return float(np.sqrt(_total(area_mean(forecast.astype(np.float64).var(member_dim, ddof=1), weights))))


def skill(
    forecast: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray | None = None, member_dim: str = "member"
) -> float:
    """Root of the pooled mean square error of the ensemble mean against single members."""
    x, y, wrap = _arrays(forecast, truth, member_dim)
    return float(np.sqrt(_total(area_mean(wrap((x.mean(axis=0) - y) ** 2), weights))))


def spread_skill(
    forecast: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray | None = None, member_dim: str = "member"
) -> float:
    """Sqrt((M + 1) / M) x spread / skill, each pooled first: 1 is calibrated, below 1 too narrow (Fortin et al. 2014)."""
    size = forecast.sizes[member_dim]
    ratio = spread(forecast, weights, member_dim) / skill(forecast, truth, weights, member_dim)
    return float(np.sqrt((size + 1) / size) * ratio)


def rank_histogram(
    forecast: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray | None = None, member_dim: str = "member"
) -> xr.DataArray:
    """Area-weighted shares of the truth's rank among the members, ties split evenly.

    Returns:
        ``(rank)`` of length M + 1, sum 1; flat for a calibrated ensemble.
    """
    x, y, _ = _arrays(forecast.transpose(..., "lat", "lon"), truth, member_dim)
    w = cos_weights(forecast["lat"]) if weights is None else weights
    cells = np.repeat(np.asarray(w.values, dtype=np.float64), forecast.sizes["lon"])
    size = x.shape[0]
    counts = kernels.rank_shares(x.reshape(size, -1, cells.size), y.reshape(y.shape[0], -1, cells.size), cells)
    total = counts.sum(axis=(0, 1))
    return xr.DataArray(total / total.sum(), dims="rank", name="rank_histogram")


def reliability_index(shares: Sequence[float] | np.ndarray | xr.DataArray) -> float:
    """Sum over ranks of abs(share - 1 / (M + 1)); 0 is flat (Delle Monache et al. 2006)."""
    values = np.asarray(shares, dtype=np.float64)
    values = values / values.sum()
    return float(np.abs(values - 1.0 / values.size).sum())


def rank_chi2(counts: Sequence[float] | np.ndarray | xr.DataArray) -> float:
    """Chi-square of rank counts against a flat histogram; for thinned, independent counts."""
    values = np.asarray(counts, dtype=np.float64)
    expected = values.sum() / values.size
    return float(((values - expected) ** 2 / expected).sum())


def rank_p_value(counts: Sequence[float] | np.ndarray | xr.DataArray) -> float:
    """Probability of a chi-square (:func:`rank_chi2`, M degrees of freedom) this large if the ensemble is calibrated.

    Neighbouring cells and years are correlated: on anything but a thinned sample it is far too small.
    """
    return float(chi2.sf(rank_chi2(counts), np.size(counts) - 1))


def pair_floor(truth: xr.DataArray, member_dim: str = "member") -> xr.DataArray:
    """Half the mean absolute difference of the truth's pairs: the expected fair CRPS of a perfect ensemble.

    Raises:
        DataContractError: With fewer than 2 members, or NaN.
    """
    if truth.sizes.get(member_dim, 1) < 2:
        raise DataContractError(_label(truth), "1 member", "2 or more members of the truth", "score without a floor")
    check_finite(truth)
    ordered = truth.transpose(member_dim, ...)
    y = np.asarray(ordered.values, dtype=np.float64)
    return ordered.isel({member_dim: 0}, drop=True).copy(data=kernels.pair_sum(y) / (y.shape[0] * (y.shape[0] - 1)))


def nrmse(
    forecast: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray | None = None, member_dim: str = "member"
) -> dict[str, float]:
    """ClimateBench's normalised errors of anomalies over the steps given (Watson-Parris et al. 2022).

    Members are averaged first. D = abs(area mean of the truth's time mean); nrmse_s: time mean, difference, square, area
    mean, root, / D; nrmse_g: area mean, difference per step, square, time mean, root, / D; nrmse_t = nrmse_s + 5 nrmse_g.

    Returns:
        ``nrmse_s``, ``nrmse_g``, ``nrmse_t``, dimensionless.
    """
    error = _mean_error(forecast, truth, member_dim)
    y = truth.astype(np.float64)
    y = y.mean(member_dim) if member_dim in y.dims else y
    scale = abs(float(area_mean(y.mean("time"), weights)))
    spatial = float(np.sqrt(area_mean(error.mean("time") ** 2, weights))) / scale
    in_time = float(np.sqrt((area_mean(error, weights) ** 2).mean())) / scale
    return {"nrmse_s": spatial, "nrmse_g": in_time, "nrmse_t": spatial + 5.0 * in_time}
