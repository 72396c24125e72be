"""Sufficient statistics of monthly fields that merge exactly: count, mean, sum of squared departures, extremes."""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError


def month_statistics(month: xr.Dataset, names: Iterable[str]) -> xr.Dataset:
    """Count, mean, M2, smallest and largest value of one member's months, per calendar month and cell.

    Args:
        month: Canonical monthly Dataset (time, lat, lon).
        names: Fields.

    Returns:
        ``<name>_count`` (calendar_month), ``<name>_mean``, ``<name>_m2``, ``<name>_min``, ``<name>_max`` (calendar_month, lat,
        lon); float64, extremes float32.
    """
    labels, dims = month["month"].values, ("calendar_month", "lat", "lon")
    out: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]] = {}
    for name in names:
        values, units = np.asarray(month[name].values), str(month[name].attrs.get("units", ""))
        parts = [_moments(values[labels == m]) for m in range(1, 13)]
        counts, means, squares, lows, highs = (np.stack(part) for part in zip(*parts, strict=True))
        out[f"{name}_count"] = (dims[:1], counts, {"units": "1"})
        out[f"{name}_mean"] = (dims, means, {"units": units})
        out[f"{name}_m2"] = (dims, squares, {"units": f"({units})2"})
        out[f"{name}_min"] = (dims, lows, {"units": units})
        out[f"{name}_max"] = (dims, highs, {"units": units})
    return xr.Dataset(out, {"calendar_month": np.arange(1, 13), "lat": month["lat"], "lon": month["lon"]})


def _moments(values: NDArray) -> tuple[NDArray, ...]:
    """Count, mean, M2, minimum, maximum along the first axis; an empty sample merges as nothing."""
    shape = values.shape[1:]
    if not len(values):
        zeros, far = np.zeros(shape), np.full(shape, np.inf, dtype=values.dtype)
        return np.array(0.0), zeros, zeros, far, -far
    x = values.astype(np.float64)
    mean = x.mean(0)
    x -= mean
    return np.array(float(len(x))), mean, np.einsum("t...,t...->...", x, x), values.min(0), values.max(0)


def merge(parts: Iterable[xr.Dataset]) -> xr.Dataset:
    """Statistics of all parts together, exact up to rounding (Chan et al. 1979).

    Raises:
        DataContractError: If there are no parts.
    """
    total: xr.Dataset | None = None
    for part in parts:
        total = part if total is None else _merge_two(total, part)
    if total is None:
        raise DataContractError("statistics", "nothing to merge", "one part or more", "name at least one member")
    return total


def _merge_two(a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
    out = {}
    for name in (str(n).removesuffix("_count") for n in a.data_vars if str(n).endswith("_count")):
        count, mean, m2 = ((a[f"{name}_{k}"].variable, b[f"{name}_{k}"].variable) for k in ("count", "mean", "m2"))
        n_a, n_b = count[0].values, count[1].values
        total = n_a + n_b
        share = np.divide(n_b, total, out=np.zeros_like(total), where=total > 0)
        along = (slice(None), None, None)
        delta = mean[1].values - mean[0].values
        out[f"{name}_count"] = count[0].copy(data=total)
        out[f"{name}_mean"] = mean[0].copy(data=mean[0].values + delta * share[along])
        out[f"{name}_m2"] = m2[0].copy(data=m2[0].values + m2[1].values + delta * delta * (n_a * share)[along])
        for k, pick in (("min", np.minimum), ("max", np.maximum)):
            if f"{name}_{k}" in a and f"{name}_{k}" in b:
                kept = a[f"{name}_{k}"].variable
                out[f"{name}_{k}"] = kept.copy(data=pick(kept.values, b[f"{name}_{k}"].values))
    return xr.Dataset(out, a.coords, a.attrs)
