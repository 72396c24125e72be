"""Canonical forcings as a file in ClimateBench's input layout, which ``open_forcings`` reads back to the same values."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import cftime
import numpy as np
import xarray as xr

from climatesuite import __version__
from climatesuite.conventions import FORCINGS
from climatesuite.errors import DataContractError
from climatesuite.forcing.forcings import CARRIED, PASSED
from climatesuite.store.provenance import code_commit

TIME_UNITS = "days since 1850-01-01"
_NAMES = {"lat": "latitude", "lon": "longitude"}


def write_forcings(forcings: xr.Dataset, path: Path, attrs: Mapping[str, str], history: str) -> Path:
    """Write forcings, whole or not at all; the same ones give the same values, not the same bytes.

    Args:
        forcings: Canonical monthly forcings; the attribute ``experiment_id`` names the scenario.
        path: NetCDF file, or a folder, which gets ``inputs_<experiment_id>.nc``.
        attrs: Global attributes beside those of the forcings that name their scenario, accounting and licence.
        history: What made them.

    Raises:
        DataContractError: If the name is not that of a NetCDF file.
    """
    scenario = str(forcings.attrs["experiment_id"])
    file = path / f"inputs_{scenario}.nc" if path.is_dir() or not path.suffix else path
    if file.suffix != ".nc":
        raise DataContractError(str(path), f"a file {file.suffix}", "NetCDF, .nc", "correct the name")
    ds = _encoded(forcings)
    kept = {
        n: str(forcings.attrs[n]) for n in ("experiment_id", "accounting", "license", *PASSED) if n in forcings.attrs
    }
    commit = code_commit()
    made_by = f"climatesuite {__version__}" + (f", commit {commit}" if commit else "")
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    ds.attrs = {
        "license": "not stated",
        **kept,
        **attrs,
        "creator": made_by,
        "history": f"{now} climatesuite: {history}",
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(f".{file.name}.{uuid4().hex[:8]}")
    maps = {n: {"zlib": True, "complevel": 1} for n, v in ds.data_vars.items() if v.ndim == 3}
    try:
        ds.to_netcdf(staging, encoding={n: {"_FillValue": None, **maps.get(n, {})} for n in ds.variables})
        os.replace(staging, file)
    finally:
        staging.unlink(missing_ok=True)
    return file


def _encoded(forcings: xr.Dataset) -> xr.Dataset:
    """With days for dates, and the layout's names for the axes."""
    calendar = str(forcings.attrs["calendar"])
    days = np.asarray(cftime.date2num(forcings["time"].values, TIME_UNITS, calendar), dtype=np.float64)
    names = [n for n in forcings.data_vars if n in FORCINGS or str(n).startswith(CARRIED)]
    axes = {a: n for a, n in _NAMES.items() if a in forcings.dims}
    bounds = {f"{n}_bnds": ((n, "bnds"), forcings[f"{a}_bnds"].values) for a, n in axes.items()}
    plain = forcings[names].drop_vars(["year", "month", "days", "time_bnds", "lat_bnds", "lon_bnds"], errors="ignore")
    time = ("time", days, {"units": TIME_UNITS, "calendar": calendar, "standard_name": "time"})
    return plain.assign_coords(time=time).rename(axes).assign_coords(bounds)
