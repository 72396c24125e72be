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
    out = a.copy()
    for name in (str(n).removesuffix("_count") for n in a.data_vars if str(n).endswith("_count")):
        n_a, n_b = a[f"{name}_count"], b[f"{name}_count"]
        n = n_a + n_b
        share = (n_b / n).where(n > 0, 0.0)
        delta = b[f"{name}_mean"] - a[f"{name}_mean"]
        out[f"{name}_count"] = n
        out[f"{name}_mean"] = a[f"{name}_mean"] + delta * share
        out[f"{name}_m2"] = a[f"{name}_m2"] + b[f"{name}_m2"] + delta**2 * n_a * share
        if f"{name}_min" in a and f"{name}_min" in b:
            out[f"{name}_min"] = np.minimum(a[f"{name}_min"], b[f"{name}_min"])
            out[f"{name}_max"] = np.maximum(a[f"{name}_max"], b[f"{name}_max"])
    return out
