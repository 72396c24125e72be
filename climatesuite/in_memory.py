"""Ensembles in memory that xarray itself writes as CF."""

from datetime import UTC, datetime

import xarray as xr

from climatesuite.export import CONVENTIONS, FREQUENCIES, leap_seconds


def in_memory(ds: xr.Dataset) -> xr.Dataset:
    """An ensemble whose ``to_netcdf`` writes CF: attributes, and encodings that xarray would choose otherwise.

    Args:
        ds: Canonical Dataset with time and bounds, of the attribute ``timescale``.
    """
    dates, history = ds["time_bnds"].values, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: made in memory"
    out = ds.assign_attrs(Conventions=CONVENTIONS, frequency=FREQUENCIES[ds.attrs["timescale"]], history=history)
    out["time"].attrs |= leap_seconds(dates[0, 0].calendar)
    for name in (n for n in out.coords if n not in out.dims or n in ("time", "lat", "lon")):
        out[name].encoding["_FillValue"] = None
    kept = {"units": f"days since {dates[0, 0].year:04d}-01-01", "calendar": dates[0, 0].calendar, "dtype": "float64"}
    for name in ("time", "time_bnds"):
        out[name].encoding |= kept
    return out
