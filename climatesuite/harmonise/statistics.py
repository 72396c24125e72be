"""Sufficient statistics of monthly fields that merge exactly: count, mean and sum of squared departures."""

from collections.abc import Iterable

import numpy as np
import xarray as xr

from climatesuite.errors import DataContractError


def month_statistics(month: xr.Dataset, names: Iterable[str]) -> xr.Dataset:
    """Count, mean and M2 of one member's months, per calendar month and cell.

    Args:
        month: Canonical monthly Dataset (time, lat, lon).
        names: Fields.

    Returns:
        ``<name>_count`` (calendar_month), ``<name>_mean``, ``<name>_m2`` (calendar_month, lat, lon), float64.
    """
    labels = month["month"].values
    out: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]] = {}
    for name in names:
        values, units = month[name].values.astype(np.float64), str(month[name].attrs.get("units", ""))
        groups = [values[labels == m] for m in range(1, 13)]
        mean = np.stack([g.mean(0) if len(g) else np.zeros(values.shape[1:]) for g in groups])
        m2 = np.stack([((g - mu) ** 2).sum(0) for g, mu in zip(groups, mean, strict=True)])
        dims = ("calendar_month", "lat", "lon")
        out[f"{name}_count"] = (dims[:1], np.array([len(g) for g in groups], dtype=np.float64), {"units": "1"})
        out[f"{name}_mean"] = (dims, mean, {"units": units})
        out[f"{name}_m2"] = (dims, m2, {"units": f"({units})2"})
    return xr.Dataset(out, {"calendar_month": np.arange(1, 13), "lat": month["lat"], "lon": month["lon"]})


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
    return out
