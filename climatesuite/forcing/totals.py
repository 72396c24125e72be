"""Global totals of a forcing year by year, and the way back: a forcing changed so that its totals are those of a table.

Maps are scaled as they are, each month of a year by the same factor, so that the pattern stays and the year's total is met
exactly. Cumulative CO2 changes by the running sum of what its emissions change.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import SECONDS_PER_DAY
from climatesuite.errors import DataContractError
from climatesuite.harmonise.grids import area_weights

Array = NDArray[np.float64]
EARTH_RADIUS_M = 6.371e6
UNITS = {"CO2": "GtCO2 year-1", "CH4": "Mt year-1", "SO2": "Mt year-1", "BC": "Mt year-1", "AOD": "1"}
"""Of a table of totals: emissions of the year, and the global mean of the aerosol optical depth."""
MAY_BE_NEGATIVE = ("CO2",)
ROUNDING = 1e-9
"""Share of the largest total: negative totals smaller than that are rounding."""


def cell_area(ds: xr.Dataset) -> xr.DataArray:
    """Area of the cells ``(lat, lon)``, m2."""
    width = np.deg2rad(np.diff(ds["lon_bnds"].transpose("lon", ...).values, axis=1))[:, 0]
    rows = area_weights(ds)
    return EARTH_RADIUS_M**2 * rows * xr.DataArray(width, {"lon": ds["lon"]}, ("lon",))


def yearly_totals(ds: xr.Dataset, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Global totals of every year in ``UNITS``.

    Args:
        ds: Canonical monthly forcings of whole years.
        names: Which; default all that are there.

    Returns:
        A column a forcing, indexed by year. CO2 is what cumulative emissions grow by within the year: exact where they grow
        evenly, as files of yearly values do.
    """
    chosen = [n for n in UNITS if n in ds] if names is None else list(names)
    columns = {n: _total(ds, n) for n in chosen}
    return pd.DataFrame(columns, index=pd.Index(np.unique(ds["year"].values).astype(int), name="year"))


def _total(ds: xr.Dataset, name: str) -> Array:
    if name == "CO2":
        months = ds["CO2"].values.reshape(-1, 12)
        return np.asarray((months[:, -1] - months[:, 0]) * 12 / 11)
    days = ds["days"].values.reshape(-1, 12)
    if name == "CH4":
        return np.asarray(np.average(ds["CH4"].values.reshape(-1, 12), weights=days, axis=1) * 1e3)
    area = cell_area(ds)
    whole = (ds[name].astype(np.float64) * area).sum(("lat", "lon")).values.reshape(-1, 12)
    if name == "AOD":
        return np.asarray(np.average(whole, weights=days, axis=1) / float(area.sum()))
    return np.asarray((whole * days).sum(1) * SECONDS_PER_DAY / 1e9)


def with_totals(ds: xr.Dataset, wanted: Mapping[str, Array], subject: str) -> xr.Dataset:
    """The forcings with other yearly totals.

    Args:
        ds: Canonical monthly forcings of whole years.
        wanted: ``(year)`` for every year of ``ds`` and each forcing to change, in ``UNITS``.
        subject: For messages.

    Raises:
        DataContractError: If a total of SO2, BC or CH4 is negative, or a map without emissions would have to be scaled.
    """
    years, out = np.unique(ds["year"].values).astype(int), ds.copy()
    have = yearly_totals(ds, list(wanted))
    for name, totals in wanted.items():
        new, old = np.array(totals, dtype=np.float64), have[name].to_numpy(np.float64)
        if name not in MAY_BE_NEGATIVE:
            new = _nonnegative(new, name, years, subject)
        if name == "CO2":
            out[name] = (ds[name] + cumulated(new - old)).assign_attrs(ds[name].attrs)
            continue
        empty = (old == 0) & (new > 0)
        if empty.any():
            raise DataContractError(
                f"{name} of {subject}", f"no emissions in {years[empty][0]} whose pattern could be scaled",
                "a reference with emissions in every year", "take another reference scenario",
            )  # fmt: skip
        factor = np.divide(new, old, out=np.ones_like(new), where=old != 0)
        scale = xr.DataArray(np.repeat(factor, 12), dims="time")
        out[name] = (ds[name] * scale).astype(ds[name].dtype).assign_attrs(ds[name].attrs)
    return out


def _nonnegative(totals: Array, name: str, years: NDArray[np.int64], subject: str) -> Array:
    low = totals < -ROUNDING * np.abs(totals).max()
    if low.any():
        raise DataContractError(
            f"{name} of {subject}", f"{totals[low][0]:.4g} {UNITS[name]} in {years[low][0]}",
            "zero or more: only CO2 can be removed",
            "correct the table; where its reference counts more than the forcing file does, apply it as a ratio",
        )  # fmt: skip
    return np.maximum(totals, 0.0)


def cumulated(change: Array) -> xr.DataArray:
    """Gt emitted by the middle of every month ``(time)``, when ``change`` (Gt a year) is spread evenly over its year."""
    before = np.concatenate([[0.0], np.cumsum(change)[:-1]])
    part = (np.arange(12) + 0.5) / 12
    return xr.DataArray((before[:, None] + change[:, None] * part).reshape(-1), dims="time")
