"""Canonical monthly Datasets in memory, and small stores made of them without any file of an archive."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from climatesuite.conventions import FORCINGS, VARIABLES
from climatesuite.harmonise.calendars import time_coords
from climatesuite.harmonise.coarsen import to_decade, to_year
from climatesuite.harmonise.grids import grid_coords
from climatesuite.harmonise.statistics import month_statistics
from climatesuite.store.layout import STATISTICS, group_name
from climatesuite.store.metadata import node_files, root_nodes
from climatesuite.store.place import NODE, Overlay, Place
from climatesuite.store.provenance import (
    provenance_file,
    provenance_name,
    read_provenance,
    settings_digest,
    software,
)
from climatesuite.store.publish import finish, publish
from climatesuite.store.write import Shards, declare_run, declare_statistics, write_forcings, write_statistics
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
    place, nodes = Place(str(path)), dict[str, dict[str, Any]]()
    overlay = Overlay(place.store(read_only=False), nodes)
    runs = {m: scales(canonical_month(seed, calendar=calendar)) for seed, m in enumerate(members)}
    for name, forcings in scales(canonical_forcings(calendar=calendar)).items():
        group, first = group_name(SOURCE, SCENARIO, name), runs[members[0]][name]
        fields = {f: first[f].attrs for f in ("tas", "pr")}
        data = Overlay(place.store(read_only=False), {})
        for row, run in enumerate(runs.values()):
            for field in fields:
                shards = Shards(data, f"{group}/{field}", row, run[name][field].shape, name)
                shards.add(run[name][field].values)
                data.nodes.clear()
        declare_run(overlay, group, first, fields, members)
        write_forcings(overlay, group, forcings)
        nodes[group]["attributes"]["forcings"] = list(map(str, forcings.data_vars))
    group = group_name(SOURCE, SCENARIO, STATISTICS)
    parts = [month_statistics(run["month"], ("tas", "pr")) for run in runs.values()]
    for row, part in enumerate(parts):
        about = write_statistics(Overlay(place.store(read_only=False), {}), group, row, part)
    declare_statistics(overlay, group, parts[0], about, members)
    content = {
        **software(), "settings": {"runs": {f"{SOURCE}/{SCENARIO}": list(members)}}, "settings_sha256": "", "sources": [],
        "licenses": ["CC0"], "set_aside": [],
    }  # fmt: skip
    content["settings_sha256"] = settings_digest(content["settings"])
    publish(place, nodes, {**content, "files": digests(place)})
    finish(place)
    return path


def digests(place: Place) -> dict[str, list[Any]]:
    """Size and digest of everything but root and provenance."""
    return {
        n: [size, place.digest(n)] for n, size in place.sizes().items() if n != NODE and not n.startswith("provenance")
    }


def edit_provenance(path: Path, **changes: Any) -> None:
    """Another provenance, named by the root as the true one was."""
    place = Place(str(path))
    name, text = provenance_file({**read_provenance(path), **changes})
    root = json.loads(place.read(NODE))
    place.remove([provenance_name(path)])
    root["attributes"]["provenance"] = name
    place.write(name, text)
    place.write(NODE, json.dumps(root).encode())


def scales(month: xr.Dataset) -> dict[str, xr.Dataset]:
    """A Dataset at all three timescales."""
    year = to_year(month)
    return {"month": month, "year": year, "decade": to_decade(year, 2015)}


def seal(path: Path) -> None:
    """Record the digests of what is there now, in a root without what is gone: only a look at the data can then find a fault."""
    place = Place(str(path))
    root = json.loads(place.read(NODE))
    inside = root["consolidated_metadata"]["metadata"]
    root["consolidated_metadata"]["metadata"] = {n: v for n, v in inside.items() if place.exists(f"{n}/{NODE}")}
    place.write(NODE, json.dumps(root).encode())
    files = {n: c for n, c in node_files(root_nodes(root)).items() if n != NODE}
    for name, content in files.items():
        if json.loads(place.read(name)):
            place.write(name, content)
    edit_provenance(path, files=digests(place))


def write_forcing_file(folder: Path, scenario: str, years: tuple[int, int] = (2015, 2026)) -> Path:
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
