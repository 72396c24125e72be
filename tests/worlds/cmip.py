"""Small CMIP-like NetCDF files, and every way in which real ones go wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np

UNITS = {"tas": "K", "pr": "kg m-2 s-1"}
FACETS = {"table_id": "Amon", "frequency": "mon", "grid_label": "gn", "license": "CC BY 4.0"}


def edges(lat: int, lon: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell edges of a global grid whose first column is centred on 0 east."""
    return np.linspace(-90, 90, lat + 1), (np.arange(lon + 1) - 0.5) * 360 / lon


def credible(name: str, months: int, lat: int, lon: int, seed: int = 0) -> np.ndarray:
    """Values (months, lat, lon) that pass the range checks; no two are equal."""
    noise = np.random.default_rng(seed).random((months, lat, lon))
    return (270.0 + 30 * noise if name == "tas" else (2 + 2 * noise) / 86400).astype(np.float32)


def write_cmip(
    folder: Path,
    name: str = "tas",
    source: str = "TEST-ESM",
    scenario: str = "ssp245",
    member: str = "r1i1p1f1",
    months: tuple[str, str] = ("2015-01", "2016-12"),
    values: np.ndarray | None = None,
    *,
    grid: tuple[int, int] = (4, 6),
    calendar: str = "noleap",
    epoch: str = "1850-01-01",
    drop_months: Sequence[int] = (),
    has_bounds: bool = True,
    stamp: float = 0.5,
    lat: np.ndarray | None = None,
    lon: np.ndarray | None = None,
    units: str | None = "default",
    file_name: str | None = None,
    attrs: Mapping[str, Any] | None = None,
    file_format: str = "NETCDF4",
) -> Path:
    """Write one file and return it.

    Args:
        folder: Made where absent.
        name: Variable.
        source: source_id.
        scenario: experiment_id.
        member: variant_label.
        months: First and last, YYYY-MM.
        values: (time, lat, lon) as stored; default `credible`.
        grid: Rows and columns, where lat and lon are not given.
        calendar: Of the time axis.
        epoch: Of the time units.
        drop_months: Positions of months to leave out.
        has_bounds: Whether time, lat and lon carry bounds.
        stamp: Where in its month a time step stands, 0 its start, 1 its end.
        lat: Centres instead of the regular ones; then without bounds.
        lon: The same.
        units: Of the variable; None leaves the attribute out.
        file_name: Instead of the DRS name.
        attrs: Global attributes, over the usual ones; None removes one.
        file_format: Of netCDF4.
    """
    first, last = (12 * int(m[:4]) + int(m[5:]) - 1 for m in months)
    index = [i for n, i in enumerate(range(first, last + 1)) if n not in drop_months]
    days = f"days since {epoch}"
    bounds = np.array(
        [[cftime.date2num(cftime.datetime(j // 12, j % 12 + 1, 1, calendar=calendar), days, calendar) for j in (i, i + 1)]
         for i in index], dtype=float,
    )  # fmt: skip
    lat_edges, lon_edges = edges(*grid)
    span = f"{months[0].replace('-', '')}-{months[1].replace('-', '')}"
    path = folder / (file_name or f"{name}_Amon_{source}_{scenario}_{member}_gn_{span}.nc")
    folder.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w", format=file_format) as ds:
        facets = {"variable_id": name, "source_id": source, "experiment_id": scenario, "variant_label": member}
        merged = {**FACETS, **facets, **(attrs or {})}
        ds.setncatts({k: v for k, v in merged.items() if v is not None})
        ds.createDimension("time", None)
        ds.createDimension("bnds", 2)
        axes = {"lat": (lat, lat_edges), "lon": (lon, lon_edges)}
        for axis, (given, edge) in axes.items():
            centres = (edge[:-1] + edge[1:]) / 2 if given is None else given
            ds.createDimension(axis, centres.size)
            ds.createVariable(axis, "f8", (axis,))[:] = centres
            if has_bounds and given is None:
                ds[axis].bounds = f"{axis}_bnds"
                ds.createVariable(f"{axis}_bnds", "f8", (axis, "bnds"))[:] = np.stack([edge[:-1], edge[1:]], axis=1)
        time = ds.createVariable("time", "f8", ("time",))
        time.setncatts({"units": days, "calendar": calendar})
        time[:] = bounds[:, 0] + stamp * (bounds[:, 1] - bounds[:, 0])
        if has_bounds:
            time.bounds = "time_bnds"
            ds.createVariable("time_bnds", "f8", ("time", "bnds"))[:] = bounds
        shape = (ds.dimensions["lat"].size, ds.dimensions["lon"].size)
        data = credible(name, len(index), *shape) if values is None else values
        field = ds.createVariable(name, "f4", ("time", "lat", "lon"), fill_value=np.float32(1e20))
        if units is not None:
            field.units = UNITS[name] if units == "default" else units
        field[:] = data
    return path
