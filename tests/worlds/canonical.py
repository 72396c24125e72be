"""Canonical monthly Datasets in memory, and small stores made of them without any file of an archive."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from climatesuite.conventions import FORCINGS, VARIABLES
from climatesuite.harmonise.calendars import time_coords
from climatesuite.harmonise.coarsen import to_decade, to_year
from climatesuite.harmonise.grids import grid_coords
from climatesuite.harmonise.statistics import month_statistics
from climatesuite.store.layout import SCHEMA, STATISTICS, group_name
from climatesuite.store.provenance import read_provenance, write_provenance
from climatesuite.store.write import RunWriter, write_statistics
from worlds.cmip import credible, edges

SOURCE, SCENARIO, MEMBERS, YEARS = "TEST-ESM", "ssp245", ("r9i1p1f1", "r10i1p1f1"), (2015, 2034)


def canonical_month(
    seed: int = 0, years: tuple[int, int] = YEARS, grid: tuple[int, int] = (4, 6), calendar: str = "noleap"
) -> xr.Dataset:
    """One member's tas and pr (time, lat, lon), float32."""
    coords = coordinates(years, grid, calendar)
    n = coords["month"].size
    fields = {
        name: xr.Variable(
            ("time", "lat", "lon"),
            credible(name, n, *grid, seed=seed),
            {"units": VARIABLES[name].units, "role": "field"},
        )
        for name in ("tas", "pr")
    }
    attrs = {
        "source_id": SOURCE,
        "experiment_id": SCENARIO,
        "timescale": "month",
        "calendar": calendar,
        "license": "CC0",
    }
    return xr.Dataset(fields, coords, attrs)


def canonical_forcings(
    years: tuple[int, int] = YEARS, grid: tuple[int, int] = (4, 6), calendar: str = "noleap"
) -> xr.Dataset:
    """CO2 (time), float64, and SO2 (time, lat, lon), float32."""
    coords = coordinates(years, grid, calendar)
    n = coords["month"].size
    draw = np.random.default_rng(5).random((n, *grid)).astype(np.float32) * 1e-11
    data = {
        "CO2": xr.Variable("time", 1500.0 + 0.3 * np.arange(n), {"units": FORCINGS["CO2"].units, "role": "forcing"}),
        "SO2": xr.Variable(("time", "lat", "lon"), draw, {"units": FORCINGS["SO2"].units, "role": "forcing"}),
    }
    return xr.Dataset(data, coords, {"timescale": "month", "calendar": calendar, "license": "CC0"})


def coordinates(years: tuple[int, int], grid: tuple[int, int], calendar: str) -> dict[str, xr.Variable]:
    """Canonical coordinates of whole years on a global grid."""
    pairs = [np.stack([e[:-1], e[1:]], axis=1) for e in edges(*grid)]
    space = grid_coords(*(a for b in pairs for a in (b.mean(axis=1), b)))
    return {**time_coords(range(years[0], years[1] + 1), "month", calendar), **space}


def write_store(path: Path, members: Sequence[str] = MEMBERS, calendar: str = "noleap") -> Path:
    """A store of one run with months, years, decades from 2015, two forcings, statistics and provenance."""
    root = zarr.create_group(str(path), zarr_format=3)
    runs = {m: scales(canonical_month(seed, calendar=calendar)) for seed, m in enumerate(members)}
    for name, forcings in scales(canonical_forcings(calendar=calendar)).items():
        writer = RunWriter(root, group_name(SOURCE, SCENARIO, name), runs[members[0]][name], ("tas", "pr"), members)
        for member, run in runs.items():
            writer.add(member, run[name])
        writer.add_forcings(forcings)
    for member, run in runs.items():
        part = month_statistics(run["month"], ("tas", "pr"))
        write_statistics(root, group_name(SOURCE, SCENARIO, STATISTICS), members, member, part)
    root.attrs.update({"schema": SCHEMA, "runs": [[SOURCE, SCENARIO]]})
    write_provenance(path, {"runs": {f"{SOURCE}/{SCENARIO}": list(members)}}, [], ["CC0"], [])
    return path


def scales(month: xr.Dataset) -> dict[str, xr.Dataset]:
    """A Dataset at all three timescales."""
    year = to_year(month)
    return {"month": month, "year": year, "decade": to_decade(year, 2015)}


def seal(path: Path) -> None:
    """Record the digests of what is there now: only a look at the data itself can then find a fault."""
    known = read_provenance(path)
    write_provenance(path, known["settings"], known["sources"], known["licenses"], known["set_aside"])


def write_forcings(folder: Path, scenario: str, years: tuple[int, int] = (2015, 2026)) -> Path:
    """``inputs_<scenario>.nc`` in ClimateBench's layout with CO2 and SO2 on monthly steps."""
    folder.mkdir(parents=True, exist_ok=True)
    ds = canonical_forcings(years)
    month = 12 * ds.year.values + ds.month.values - 1
    out = xr.Dataset(
        {"CO2": ("time", ds.CO2.values), "SO2": (("time", "latitude", "longitude"), ds.SO2.values)},
        {"time": ds.days.cumsum().values - ds.days.values / 2, "latitude": ds.lat.values, "longitude": ds.lon.values},
        {"experiment_id": scenario, "license": "CC BY 4.0"},
    )
    out["time"].attrs = {"units": f"days since {month[0] // 12}-01-01", "calendar": "noleap"}
    path = folder / f"inputs_{scenario}.nc"
    out.to_netcdf(path)
    return path
