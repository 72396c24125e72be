"""Ranks of the truth among the members of an ensemble: counts, how flat they are, and what bends them."""

from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import chi2

from climatesuite.evaluate import kernels
from climatesuite.evaluate.kernels import Array

Counts = Sequence[float] | NDArray | xr.DataArray
"""``(rank)``, M + 1 counts, weights or shares."""


def _rank_block(x: Array, y: Array, weights: Array) -> Array:
    """``x [..., lon, M], y [..., lon, N], weights [..., lon] -> [..., M + 1]``, summed over N and lon."""
    n_cells, size = x.shape[-2:]
    ensemble, truth = (np.moveaxis(v, -1, 0).reshape(v.shape[-1], -1, n_cells) for v in (x, y))
    cells = np.broadcast_to(weights, x.shape[:-1]).reshape(-1, n_cells)
    return kernels.rank_shares(ensemble, truth, cells).sum(axis=0).reshape(*x.shape[:-2], size + 1)


def rank_counts(
    forecast: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray, member_dim: str, target_dim: str
) -> xr.DataArray:
    """Weight in each rank, ties split evenly over the ranks they span: ``(rank)``, lazy if an input is.

    Args:
        forecast: ``(..., lat, lon, member)``; a block holds all members and longitudes.
        truth: ``(..., lat, lon, target)``.
        weights: Of cells, dims among ``(..., lat, lon)``; 0 for a masked one.
        member_dim: Of the forecast.
        target_dim: Of the truth.
    """
    order: list[Hashable] = [d for d in forecast.dims if d not in ("lat", "lon", member_dim)]
    by_row = xr.apply_ufunc(
        _rank_block, forecast.transpose(*order, "lat", "lon", member_dim), truth, weights,
        input_core_dims=[["lon", member_dim], ["lon", target_dim], ["lon"]], output_core_dims=[["rank"]],
        dask="parallelized", output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"rank": forecast.sizes[member_dim] + 1}, "allow_rechunk": True},
    )  # fmt: skip
    return by_row.sum([d for d in by_row.dims if d != "rank"])


def thinned(field: xr.DataArray, every: tuple[int, int, int]) -> xr.DataArray:
    """Every k-th year (steps, where there are no years; of months one a year), row and column, counted from the first."""
    years, rows, columns = every
    kept = np.arange(field.sizes["time"]) % years == 0
    if "year" in field.coords:
        kept = (field["year"].values - field["year"].values[0]) % years == 0
    if "month" in field.coords:
        kept &= field["month"].values == field["month"].values[0]
    return field.isel(time=np.flatnonzero(kept), lat=slice(None, None, rows), lon=slice(None, None, columns))


def _counts(counts: Counts) -> xr.DataArray:
    given = counts if isinstance(counts, xr.DataArray) else xr.DataArray(np.asarray(counts), dims="rank")
    return given.astype(np.float64)


def _number(value: xr.DataArray, name: str) -> xr.DataArray:
    return value.rename(name).drop_attrs().assign_attrs(units="1")


def reliability_index(shares: Counts) -> xr.DataArray:
    """Sum over ranks of abs(share - 1 / (M + 1)); 0 is flat (Delle Monache et al. 2006)."""
    values = _counts(shares)
    return _number(abs(values / values.sum() - 1.0 / values.size).sum(), "reliability_index")


def rank_chi2(counts: Counts) -> xr.DataArray:
    """Chi-square of rank counts against a flat histogram; for thinned, independent counts."""
    values = _counts(counts)
    expected = values.sum() / values.size
    return _number(((values - expected) ** 2).sum() / expected, "chi2")


def rank_p_value(counts: Counts) -> xr.DataArray:
    """Probability of a chi-square (:func:`rank_chi2`, M degrees of freedom) this large if the ensemble is calibrated.

    Neighbouring cells and years are correlated: on anything but a thinned sample it is far too small.
    """
    value = rank_chi2(counts)
    degrees = _counts(counts).size - 1
    tail = xr.apply_ufunc(chi2.sf, value, kwargs={"df": degrees}, dask="parallelized", output_dtypes=[np.float64])
    return _number(tail, "p_value")


def rank_parts(counts: Counts) -> dict[str, xr.DataArray]:
    """Chi-square in orthogonal parts (Jolliffe and Primo 2008): ``chi2 = linear + quadratic + rest``.

    A slope (a biased ensemble) is linear; a bowl or a dome (too narrow, too wide) is quadratic. If the ensemble is calibrated
    each of the two is a chi-square of one degree of freedom.
    """
    values = _counts(counts)
    expected = values.sum() / values.size
    deviation = (values - expected) / expected**0.5
    slope = np.arange(values.size) - (values.size - 1) / 2.0
    bowl = slope**2 - (slope**2).mean()
    total = rank_chi2(counts)
    parts = {"chi2": total}
    for name, contrast in (("linear", slope), ("quadratic", bowl)):
        norm = float(np.sqrt(contrast @ contrast)) or 1.0  # two ranks have no bowl
        part = (deviation * xr.DataArray(contrast / norm, dims=values.dims)).sum() ** 2
        parts[name] = _number(part, name)
    parts["rest"] = _number(total - parts["linear"] - parts["quadratic"], "rest")
    return parts
