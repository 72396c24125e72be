"""A scenario as a file in ClimateBench's input layout, with its parent, its departures and its radiative forcing."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import cftime
import numpy as np

from climatesuite import __version__
from climatesuite.conventions import FORCINGS
from climatesuite.errors import DataContractError
from climatesuite.forcing.forcings import CARRIED, PASSED
from climatesuite.store.provenance import code_commit

if TYPE_CHECKING:
    from climatesuite.forcing.scenario import Scenario

TIME_UNITS = "days since 1850-01-01"


def write(scenario: "Scenario", path: Path) -> Path:
    """See :meth:`climatesuite.forcing.scenario.Scenario.save`; the same scenario gives the same values, not the same bytes.

    Raises:
        DataContractError: If the name is not that of a NetCDF file.
    """
    file = path / f"inputs_{scenario.name}.nc" if path.is_dir() or not path.suffix else path
    if file.suffix != ".nc":
        raise DataContractError(str(path), f"a file {file.suffix}", "NetCDF, .nc", "correct the name")
    ds = scenario.forcings
    calendar = str(ds.attrs["calendar"])
    days = np.asarray(cftime.date2num(ds["time"].values, TIME_UNITS, calendar), dtype=np.float64)
    names = [n for n in ds.data_vars if n in FORCINGS or str(n).startswith(CARRIED)]
    kept = ds[names].drop_vars(["year", "month", "days", "time_bnds", "lat_bnds", "lon_bnds"], errors="ignore")
    kept = kept.assign_coords(time=("time", days, {"units": TIME_UNITS, "calendar": calendar, "standard_name": "time"}))
    kept = kept.rename({a: n for a, n in (("lat", "latitude"), ("lon", "longitude")) if a in kept.dims})
    kept = kept.assign_coords({f"{n}_bnds": ((n, "bnds"), ds[f"{a}_bnds"].values)
                               for a, n in (("lat", "latitude"), ("lon", "longitude")) if n in kept.dims})  # fmt: skip
    kept.attrs = {
        "experiment_id": scenario.name,
        "accounting": scenario.accounting,
        "license": str(ds.attrs.get("license", "not stated")),
        "source": f"climatesuite {__version__}" + (f", commit {code_commit()}" if code_commit() else ""),
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} climatesuite: {scenario!r}",
    }
    if scenario.parent:
        kept.attrs |= {n: ds.attrs[n] for n in PASSED if n in ds.attrs} | {"departures": "\n".join(scenario.steps)}
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(f".{file.name}.{uuid4().hex[:8]}")
    try:
        packed = {n: {"zlib": True, "complevel": 1} for n in names if kept[n].ndim == 3}
        kept.to_netcdf(staging, encoding={n: {"_FillValue": None, **packed.get(n, {})} for n in kept.variables})
        os.replace(staging, file)
    finally:
        staging.unlink(missing_ok=True)
    return file
