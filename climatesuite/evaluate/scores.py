"""Scores of an ensemble against single members of the truth: pure functions on named arrays, xarray in, xarray out.

Forecasts have dims ``(member, time, lat, lon)``, truths ``(member, time, lat, lon)`` or the same without ``member``; both in
one unit, which the result carries in ``attrs["units"]``. Everything is computed in float64; coordinates and units must agree,
nothing is joined or broadcast, and results carry the truth's coordinates. Numbers are arrays without dims: ``float()`` reads one.

Memory: dask-backed input gives dask-backed results, one block (``checks.BLOCK_BYTES`` of float64) a thread. Larger arrays that
are not dask-backed, on disk or in memory, are cut into such blocks, too, and the result is computed. Mean, bias, RMSE and spread
accumulate over members; CRPS and ranks need all members of a cell at once, so their blocks are cut in time, then in rows.

NaN is an error, raised when a block is computed, unless ``skipna``: then a cell and step counts only where forecast and truth
are valid in every member, area weights are renormalised over those cells step by step, and steps without any are left out.
The share masked is in ``attrs["masked_fraction"]``; lazy results lack it, ask :func:`masked_fraction`. Infinity is an error always.
"""

import numpy as np
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.evaluate import kernels
from climatesuite.evaluate.checks import (
    TARGET,
    check_comparable,
    check_finite,
    check_member_dim,
    checked,
    in_blocks,
    label,
    row_weights,
    same_coordinate,
)
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.pairs import Fields, Weights, area_average, prepare, prepare_alone
from climatesuite.evaluate.ranks import (
    rank_chi2,
    rank_counts,
    rank_p_value,
    rank_parts,
    reliability_index,
    thinned,
)

__all__ = [
    "TARGET", "area_mean", "bias", "check_comparable", "check_finite", "crps_ensemble", "mae", "masked_fraction", "nrmse",
    "pair_floor", "rank_chi2", "rank_histogram", "rank_p_value", "rank_parts", "rank_test", "reliability_index",
    "residual_pool_crps", "rmse", "rmse_by_step", "skill", "spread", "spread_skill", "tail_crps",
]  # fmt: skip


def masked_fraction(forecast: xr.DataArray, truth: xr.DataArray, member_dim: str = "member") -> xr.DataArray:
    """Share of cells and steps, each counted 1, that ``skipna`` leaves out: NaN in a member of either. Lazy if they are."""
    pair = prepare(forecast, truth, member_dim, True)
    return pair.result(pair.mean_error.isnull().mean(), "masked_fraction", "1")


def area_mean(field: xr.DataArray, weights: Weights = None, skipna: bool = False) -> xr.DataArray:
    """Area-weighted mean over lat and lon.

    Args:
        field: Dims include ``lat`` and ``lon``.
        weights: ``(lat)``; the cosine of latitude by default.
        skipna: Whether the mean is over the cells that are not NaN, whose weights are renormalised; NaN where there are none.

    Returns:
        Float64, the other dims, lazy if the field is; sum(w z) / (W sum(w)), name and unit of the field.

    Raises:
        DataContractError: If lat or lon is missing, weights lie on other latitudes, or a value is infinite or NaN.
    """
    w = row_weights(field, weights)
    z = checked(in_blocks(field), skipna)
    out = area_average(z, w, skipna).rename(field.name)
    out.attrs = dict(field.attrs)
    if skipna and field.chunks is None:
        out.attrs["masked_fraction"] = float(z.isnull().mean())
    return out if field.chunks is not None else out.compute()


def rmse(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    weights: Weights = None,
    member_dim: str = "member",
    skipna: bool = False,
) -> xr.DataArray:
    """Root of the pooled mean square error of the ensemble mean against the mean of the truth's members.

    Square, area mean, mean over time, one root: never below the mean of :func:`rmse_by_step`, which some tables print.
    """
    pair = prepare(forecast, truth, member_dim, skipna)
    return pair.result(pair.pooled(pair.mean_error**2, weights) ** 0.5, "rmse")


def rmse_by_step(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    weights: Weights = None,
    member_dim: str = "member",
    skipna: bool = False,
) -> xr.DataArray:
    """One root a step ``(time)``; its mean over years is what ClimateBench's notebooks print (``get_rmse(...).mean()``)."""
    pair = prepare(forecast, truth, member_dim, skipna)
    return pair.result(pair.area(pair.mean_error**2, weights) ** 0.5, "rmse")


def bias(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    weights: Weights = None,
    member_dim: str = "member",
    skipna: bool = False,
) -> xr.DataArray:
    """Mean of forecast minus truth, unit of the fields."""
    pair = prepare(forecast, truth, member_dim, skipna)
    return pair.result(pair.pooled(pair.mean_error, weights), "bias")


def mae(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    weights: Weights = None,
    member_dim: str = "member",
    skipna: bool = False,
) -> xr.DataArray:
    """Mean absolute error of the ensemble mean against single members of the truth."""
    pair = prepare(forecast, truth, member_dim, skipna)
    return pair.result(pair.pooled(abs(pair.errors), weights), "mae")


def _crps_block(x: Array, y: Array, kind: str) -> Array:
    """``x [..., M], y [..., N] -> [..., N]``."""
    x, y = np.moveaxis(x, -1, 0), np.moveaxis(y, -1, 0)
    out = kernels.crps_from(kernels.mean_abs_difference(x, y), kernels.pair_sum(x), x.shape[0], kind)
    return np.moveaxis(out, 0, -1)


def crps_ensemble(
    forecast: xr.DataArray, truth: xr.DataArray, kind: str = "fair", member_dim: str = "member", skipna: bool = False
) -> xr.DataArray:
    """Continuous ranked probability score of every cell, by sorting.

    Args:
        forecast: With dim ``member`` (M members).
        truth: Single members: with or without dim ``member``; a member dim is called ``target`` in the result.
        kind: ``fair`` (M >= 2), ``plain`` or ``mae``; see :func:`kernels.crps_from`.
        member_dim: Name of the ensemble's dim.
        skipna: Whether cells with NaN in any member of either are NaN in the result rather than an error.

    Returns:
        The truth's dims, float64, unit of the fields, lazy if either is. 0 <= fair <= plain.

    Raises:
        DataContractError: On coordinates, dims or units that differ, NaN, or fair with one member.
        ValueError: On an unknown kind.

    >>> two = xr.DataArray([0.0, 2.0], dims="member", attrs={"units": "K"})
    >>> one = xr.DataArray(1.0, attrs={"units": "K"})
    >>> float(crps_ensemble(two, one)), float(crps_ensemble(two, one, kind="plain"))
    (0.0, 0.5)
    """
    return _crps(forecast, truth, kind, member_dim, skipna)


def _crps(
    forecast: xr.DataArray, truth: xr.DataArray, kind: str, member_dim: str, skipna: bool,
    at_least: float | xr.DataArray | None = None,
) -> xr.DataArray:  # fmt: skip
    check_member_dim(forecast, member_dim)
    size = forecast.sizes[member_dim]
    if kind == "fair" and size < 2:
        raise DataContractError(
            label(forecast), "1 member", "2 or more for the fair CRPS", "use kind='mae' or draw more members"
        )
    kernels.crps_from(np.zeros(0), np.zeros(0), size, kind)  # an unknown kind is refused before anything is read
    pair = prepare(forecast, truth, member_dim, skipna, whole=True, at_least=at_least)
    values = xr.apply_ufunc(
        _crps_block, pair.x, pair.y, input_core_dims=[[member_dim], [TARGET]], output_core_dims=[[TARGET]],
        kwargs={"kind": kind}, dask="parallelized", output_dtypes=[np.float64],
    )  # fmt: skip
    return pair.field(values, "crps")


def tail_crps(
    forecast: xr.DataArray, truth: xr.DataArray, threshold: float | xr.DataArray, kind: str = "fair",
    member_dim: str = "member", skipna: bool = False,
) -> xr.DataArray:  # fmt: skip
    """Threshold-weighted CRPS of the upper tail: the CRPS of max(x, t) against max(y, t) (Gneiting and Ranjan 2011).

    Args:
        threshold: Number or array on some of the fields' dims, e.g. ``(lat, lon)``: a quantile of the training scenarios.

    Returns:
        As :func:`crps_ensemble`.
    """
    if isinstance(threshold, xr.DataArray):
        odd = [d for d in threshold.dims if d not in truth.dims or not same_coordinate(d, threshold, truth)]
        if odd:
            raise DataContractError(
                "threshold of the tail", f"another {odd[0]} than the truth's", f"equal {odd[0]}", "regrid or align it"
            )
        threshold = checked(threshold).drop_vars(list(threshold.coords))
    return _crps(forecast, truth, kind, member_dim, skipna, threshold).rename("tail_crps")


def _pool_block(z: Array, pool: Array) -> Array:
    """``z [..., lat, lon, N], pool [lat, lon, K] -> [..., lat, lon, N]``."""
    ready = kernels.SortedPool(np.ascontiguousarray(pool.reshape(-1, pool.shape[-1]).T))
    by_target = np.moveaxis(z, -1, 0)
    flat = by_target.reshape(*by_target.shape[:-2], -1)
    out = kernels.crps_from(ready.mean_abs_difference(flat), ready.pairs, ready.size, "fair")
    return np.moveaxis(out.reshape(by_target.shape), 0, -1)


def residual_pool_crps(
    mean: xr.DataArray, pool: xr.DataArray, truth: xr.DataArray, skipna: bool = False
) -> xr.DataArray:
    """Fair CRPS of the ensemble ``mean + every residual of the pool``, without building it.

    Args:
        mean: ``(time, lat, lon)``.
        pool: ``(sample, lat, lon)``; sorted once a block.
        truth: ``([member,] time, lat, lon)``.
        skipna: Whether cells with NaN in any of the three are NaN in the result rather than an error.

    Returns:
        The truth's dims: the expectation of the fair CRPS over draws from the pool without replacement; lazy if any is.
    """
    if set(pool.dims) != {"sample", "lat", "lon"} or any(pool.sizes[d] != mean.sizes.get(d) for d in ("lat", "lon")):
        raise DataContractError(
            label(pool), f"sizes {dict(pool.sizes)}", "(sample, lat, lon) on the grid of the mean", "regrid or rename"
        )
    if pool.sizes["sample"] < 2:
        raise DataContractError(label(pool), "1 residual", "2 or more", "give a larger pool")
    pair = prepare(mean.transpose(..., "lat", "lon"), truth, "member", skipna, whole=True)
    values = checked(in_blocks(pool.drop_vars(list(pool.coords)), "sample"), skipna)
    scored = xr.apply_ufunc(
        _pool_block, pair.y - pair.x.isel(member=0), values, input_core_dims=[[TARGET], ["sample"]],
        output_core_dims=[[TARGET]], dask="parallelized", output_dtypes=[np.float64],
    )  # fmt: skip
    out = pair.field(scored, "crps")
    if pair.is_lazy or pool.chunks is not None:
        return out
    return out.compute().assign_attrs({"masked_fraction": float(out.isnull().mean())} if skipna else {})


def spread(
    forecast: xr.DataArray, weights: Weights = None, member_dim: str = "member", skipna: bool = False
) -> xr.DataArray:
    """Root of the pooled ensemble variance (ddof = 1).

    Raises:
        DataContractError: With fewer than 2 members.
    """
    _need_two(forecast, member_dim, "2 or more for a spread", "draw more members")
    pair = prepare_alone(forecast, member_dim, skipna)
    variance = pair.x.var(member_dim, ddof=1, skipna=False)
    return pair.result(pair.pooled(variance, weights) ** 0.5, "spread")


def _need_two(field: xr.DataArray, member_dim: str, expected: str, remedy: str) -> None:
    if field.sizes.get(member_dim, 1) < 2:
        raise DataContractError(label(field), "1 member", expected, remedy)


def skill(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    weights: Weights = None,
    member_dim: str = "member",
    skipna: bool = False,
) -> xr.DataArray:
    """Root of the pooled mean square error of the ensemble mean against single members."""
    check_member_dim(forecast, member_dim)
    pair = prepare(forecast, truth, member_dim, skipna)
    return pair.result(pair.pooled(pair.errors**2, weights) ** 0.5, "skill")


def spread_skill(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    weights: Weights = None,
    member_dim: str = "member",
    skipna: bool = False,
) -> xr.DataArray:
    """Sqrt((M + 1) / M) x spread / skill, each pooled first: 1 is calibrated, below 1 too narrow (Fortin et al. 2014)."""
    check_member_dim(forecast, member_dim)
    _need_two(forecast, member_dim, "2 or more for a spread", "draw more members")
    pair = prepare(forecast, truth, member_dim, skipna)
    variance = pair.pooled(pair.x.var(member_dim, ddof=1, skipna=False), weights)
    ratio = variance / pair.pooled(pair.errors**2, weights)
    return pair.result(((pair.size + 1) / pair.size * ratio) ** 0.5, "spread_skill", "1")


def _rank_counts(pair: Fields, weights: Weights) -> xr.DataArray:
    w = row_weights(pair.y, weights)
    cells = w.expand_dims(lon=pair.y.sizes["lon"]).transpose("lat", "lon")
    return rank_counts(pair.x, pair.y, cells if pair.valid is None else cells * pair.valid, pair.member_dim, TARGET)


def rank_histogram(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    weights: Weights = None,
    member_dim: str = "member",
    skipna: bool = False,
) -> xr.DataArray:
    """Area-weighted shares of the truth's rank among the members, ties split evenly.

    Returns:
        ``(rank)`` of length M + 1, sum 1; flat for a calibrated ensemble.
    """
    check_member_dim(forecast, member_dim)
    pair = prepare(forecast, truth, member_dim, skipna, whole=True)
    total = _rank_counts(pair, weights)
    return pair.result(total / total.sum(), "rank_histogram", "1")


def rank_test(
    forecast: xr.DataArray, truth: xr.DataArray, every: tuple[int, int, int] = (10, 8, 8), member_dim: str = "member",
    skipna: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Chi-square test of the ranks of a thinned sample: every tenth year (of months the first of it), eighth row and column.

    Neighbours are correlated, so on a full grid a p-value would be far too small; ranks of the sample count 1 each.

    Returns:
        ``n`` values, ``chi2``, ``chi2_ratio`` (over M degrees of freedom, near 1 if calibrated), ``p_value``, and the parts of
        chi2 that a bias (``linear``), a wrong spread (``quadratic``) and the rest make: :func:`rank_parts`.
    """
    check_comparable(forecast, truth, member_dim)
    check_member_dim(forecast, member_dim)
    pair = prepare(thinned(forecast, every), thinned(truth, every), member_dim, skipna, whole=True)
    even = xr.ones_like(pair.y["lat"], dtype=np.float64)
    counts = _rank_counts(pair, even) * pair.y.sizes["lat"]  # weights sum to 1 over rows
    parts = {"n": counts.sum(), "p_value": rank_p_value(counts), **rank_parts(counts)}
    parts["chi2_ratio"] = parts["chi2"] / pair.size
    out = xr.Dataset({k: pair.result(v, k, "1") for k, v in parts.items()})
    return out.assign_attrs(thinning=list(every))


def pair_floor(truth: xr.DataArray, member_dim: str = "member", skipna: bool = False) -> xr.DataArray:
    """Half the mean absolute difference of the truth's pairs: the expected fair CRPS of a perfect ensemble.

    Raises:
        DataContractError: With fewer than 2 members, or NaN.
    """
    _need_two(truth, member_dim, "2 or more members of the truth", "score without a floor")
    pair = prepare_alone(truth, member_dim, skipna, whole=True)
    sums = xr.apply_ufunc(
        lambda y: kernels.pair_sum(np.moveaxis(y, -1, 0)), pair.x, input_core_dims=[[member_dim]], dask="parallelized",
        output_dtypes=[np.float64],
    )  # fmt: skip
    named = sums.assign_coords(pair.y.isel({TARGET: 0}, drop=True).coords)
    return pair.result(named / (pair.size * (pair.size - 1)), "crps_floor")


def nrmse(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    weights: Weights = None,
    member_dim: str = "member",
    skipna: bool = False,
) -> xr.Dataset:
    """ClimateBench's normalised errors of anomalies over the steps given (Watson-Parris et al. 2022).

    Members are averaged first. D = abs(area mean of the truth's time mean); nrmse_s: time mean, difference, square, area
    mean, root, / D; nrmse_g: area mean, difference per step, square, time mean, root, / D; nrmse_t = nrmse_s + 5 nrmse_g.

    Returns:
        ``nrmse_s``, ``nrmse_g``, ``nrmse_t``, dimensionless.

    Raises:
        DataContractError: If D is 0 (lazy results are infinite then).
    """
    pair = prepare(forecast, truth, member_dim, skipna)
    error, y = pair.mean_error, pair.y.mean(TARGET, skipna=False)
    scale = abs(pair.area(y.mean("time", skipna=skipna), weights))
    if not pair.is_lazy and float(scale) == 0.0:
        raise DataContractError(
            label(truth),
            "a time mean whose area mean is 0",
            "anomalies that differ from 0",
            "score absolute errors (rmse)",
        )
    spatial = pair.area(error.mean("time", skipna=skipna) ** 2, weights) ** 0.5 / scale
    in_time = (pair.area(error, weights) ** 2).mean("time", skipna=skipna) ** 0.5 / scale
    parts = {"nrmse_s": spatial, "nrmse_g": in_time, "nrmse_t": spatial + 5.0 * in_time}
    return xr.Dataset({k: pair.result(v, k, "1") for k, v in parts.items()})
