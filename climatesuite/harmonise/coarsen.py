"""Months to years to decades: exact means weighted with the days of the run's own calendar, whole periods only."""

from functools import partial

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import MONTHS_PER_YEAR, YEARS_PER_DECADE, coords_from_bounds


def to_year(ds: xr.Dataset) -> xr.Dataset:
    """Yearly means of a canonical monthly Dataset, weighted with the days of each month.

    Args:
        ds: Canonical monthly Dataset of whole years (fields and forcings; lazy or in memory).

    Returns:
        Canonical Dataset with timescale ``year``: dtype and attributes kept, arithmetic in float64; lazy where the input is.

    Raises:
        DataContractError: If it is not of months, months are missing, repeated or out of order, or a year is incomplete.
    """
    subject = _subject(ds)
    if "month" not in ds.coords:
        raise DataContractError(subject, "no coordinate month", "a monthly Dataset", "give months")
    index = ds["year"].values.astype(np.int64) * MONTHS_PER_YEAR + ds["month"].values.astype(np.int64) - 1
    _check_steps(index, ds, subject)
    if index[0] % MONTHS_PER_YEAR or index.size % MONTHS_PER_YEAR:
        raise DataContractError(
            subject,
            f"months {_month(index[0])} to {_month(index[-1])}",
            "whole years, January to December",
            "select whole years first (years=(first, last))",
        )
    return _coarsen(ds, MONTHS_PER_YEAR, "year")


def to_decade(ds_year: xr.Dataset, decade_start: int) -> xr.Dataset:
    """Means of the whole decades that begin in ``decade_start``, ten years later and so on, weighted with days.

    Years before ``decade_start`` and after the last whole decade take no part.

    Args:
        ds_year: Canonical yearly Dataset (lazy or in memory).
        decade_start: First year of a decade.

    Returns:
        Canonical Dataset with timescale ``decade``; ``year`` is each decade's first year; attribute ``decade_start``.

    Raises:
        DataContractError: If it is not of years, years are missing or repeated, or no decade is whole.
    """
    subject = _subject(ds_year)
    if "month" in ds_year.coords or ds_year.attrs.get("timescale", "year") != "year":
        raise DataContractError(
            subject,
            f"timescale {ds_year.attrs.get('timescale', 'month')!r}",
            "a yearly Dataset",
            "coarsen with to_year first",
        )
    years = ds_year["year"].values.astype(np.int64)
    _check_steps(years, ds_year, subject)
    whole = np.arange(decade_start, years[-1] + 1 - YEARS_PER_DECADE + 1, YEARS_PER_DECADE)
    whole = whole[whole >= years[0]]
    if whole.size == 0:
        raise DataContractError(
            subject,
            f"years {years[0]} to {years[-1]}",
            f"a whole decade that begins in {decade_start} plus a multiple of ten",
            "choose another decade_start or a longer run",
        )
    first = int(whole[0] - years[0])
    chosen = ds_year.isel(time=slice(first, first + YEARS_PER_DECADE * whole.size))
    return _coarsen(chosen, YEARS_PER_DECADE, "decade").assign_attrs(decade_start=int(decade_start))


def all_timescales(month: xr.Dataset, decade_start: int | None) -> dict[str, xr.Dataset]:
    """Months, years and, where a whole decade is covered, decades.

    Args:
        month: Canonical monthly Dataset of whole years.
        decade_start: First year of a decade; default the first year.
    """
    year = to_year(month)
    first, last = int(year.year.values[0]), int(year.year.values[-1])
    start = first if decade_start is None else decade_start
    begin = start + YEARS_PER_DECADE * max(0, -((start - first) // YEARS_PER_DECADE))
    out = {"month": month, "year": year}
    return {**out, "decade": to_decade(year, start)} if begin + YEARS_PER_DECADE - 1 <= last else out


def weighted_means(x: NDArray, weights: NDArray[np.float64], axis: int) -> NDArray:
    """Means of consecutive groups along one axis, float64 arithmetic, dtype of ``x``.

    Args:
        x: Values with ``n * k`` steps along ``axis``.
        weights: ``(n, k)``; each row is normalised.
        axis: Axis of the steps.

    Returns:
        The same with ``n`` steps along ``axis``.
    """
    n, k = weights.shape
    share = weights / weights.sum(1, keepdims=True)
    groups = np.moveaxis(x, axis, 0).reshape(n, k, *np.delete(np.array(x.shape), axis))
    out = np.empty((n, *groups.shape[2:]), dtype=x.dtype)
    for i in range(n):  # one period at a time: no float64 copy of everything
        out[i] = np.tensordot(share[i], groups[i].astype(np.float64), 1)
    return np.moveaxis(out, 0, axis)


def _coarsen(ds: xr.Dataset, k: int, timescale: str) -> xr.Dataset:
    """Mean of every k steps of all variables along time; the caller has checked that they are whole periods."""
    weights = ds["days"].values.astype(np.float64).reshape(-1, k)
    bounds = ds["time_bnds"].transpose("time", ...).values
    edges = np.stack([bounds[::k, 0], bounds[k - 1 :: k, 1]], axis=1)
    middle = np.array([a + (b - a) / 2 for a, b in edges], dtype=object)
    coords = coords_from_bounds(middle, edges, ds["year"].values[::k], None)
    data = {n: _means(v.variable, weights) for n, v in ds.data_vars.items()}
    fixed = {n: c.variable for n, c in ds.coords.items() if "time" not in c.dims}
    out = xr.Dataset(data, {**fixed, **coords}, ds.attrs)
    return out.assign_attrs(timescale=timescale)


def _means(variable: xr.Variable, weights: NDArray[np.float64]) -> xr.Variable:
    if "time" not in variable.dims:
        return variable
    axis, k = variable.get_axis_num("time"), weights.shape[1]
    data = variable.data
    if isinstance(data, da.Array):
        steps = _period_chunks(data.chunks[axis], k)
        data = data.rechunk({axis: steps})
        groups = tuple(s // k for s in steps)
        table, index = da.from_array(weights, chunks=(groups, (k,))), tuple(range(data.ndim))
        out = da.blockwise(
            partial(weighted_means, axis=axis), index, data, index, table, (axis, data.ndim),
            adjust_chunks={axis: groups}, dtype=data.dtype, align_arrays=False, concatenate=True, meta=data._meta,
        )  # fmt: skip
    else:
        out = weighted_means(np.asarray(data), weights, axis)
    return xr.Variable(variable.dims, out, variable.attrs)


def _period_chunks(chunks: tuple[int, ...], k: int) -> tuple[int, ...]:
    """Chunk lengths moved to the next whole period, so that no period lies in two chunks."""
    ends = np.unique(-(-np.cumsum(chunks) // k) * k)
    return tuple(int(s) for s in np.diff(np.concatenate([[0], ends])))


def _check_steps(index: NDArray[np.int64], ds: xr.Dataset, subject: str) -> None:
    """Labels rise by one, and each period ends where the next begins."""
    if index.size == 0:
        raise DataContractError(subject, "no time steps", "at least one period", "choose a period that the run covers")
    label = _month if "month" in ds.coords else str
    bad = np.flatnonzero(np.diff(index) != 1)
    if bad.size:
        i = int(bad[0])
        raise DataContractError(
            subject,
            f"time goes from {label(index[i])} to {label(index[i + 1])}",
            "every period once, in order",
            "add the missing file or narrow the period",
        )
    for name in ("time_bnds", "days"):
        if name not in ds.variables:
            raise DataContractError(
                subject, f"no {name}", "a canonical Dataset", "open it with climatesuite.archive.read"
            )
    bounds = ds["time_bnds"].transpose("time", ...).values
    for i in range(len(bounds) - 1):
        if bounds[i, 1] != bounds[i + 1, 0]:
            raise DataContractError(
                subject,
                f"a period ends {bounds[i, 1]}, the next begins {bounds[i + 1, 0]}",
                "no gap",
                "correct time_bnds",
            )


def _subject(ds: xr.Dataset) -> str:
    return "/".join(str(ds.attrs[k]) for k in ("source_id", "experiment_id") if k in ds.attrs) or "dataset"


def _month(index: int) -> str:
    return f"{index // MONTHS_PER_YEAR:04d}-{index % MONTHS_PER_YEAR + 1:02d}"
