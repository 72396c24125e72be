"""Is a store what it says? Digests, time, missing values, years and decades against their months, statistics."""

from pathlib import Path

import numpy as np
import xarray as xr

from climatesuite.harmonise.coarsen import to_decade, to_year
from climatesuite.harmonise.statistics import month_statistics
from climatesuite.store.layout import group_name
from climatesuite.store.open import list_runs, only, open_root, open_run, open_statistics
from climatesuite.store.provenance import digest, read_provenance

TOLERANCE = 1e-6
"""Relative, of a stored float32 mean against the mean of stored float32 months."""


def verify(store: str | Path, deep: bool = True) -> list[str]:
    """Check a store.

    Args:
        store: Path.
        deep: Also read all data; otherwise only files' presence and sizes, and the time axes.

    Returns:
        Problems, one sentence each; an empty list is a sound store.

    Raises:
        DataContractError: If there is no store.
    """
    root, path = open_root(store), Path(store)
    problems = _files(path, deep)
    for source, scenario in list_runs(store):
        for timescale in ("month", "year", "decade"):
            name = group_name(source, scenario, timescale)
            if name in root:
                problems += _time(open_run(store, source, scenario, timescale), name)
        if deep and not problems:
            problems += _data(store, source, scenario, group_name(source, scenario, "decade") in root)
    return problems


def _files(path: Path, deep: bool) -> list[str]:
    problems = []
    for name, (size, known) in read_provenance(path)["files"].items():
        file = path / name
        if not file.is_file():
            problems.append(f"{name}: missing")
        elif file.stat().st_size != size:
            problems.append(f"{name}: {file.stat().st_size} bytes, {size} when it was built")
        elif deep and digest(file) != known:
            problems.append(f"{name}: changed since it was built")
    return problems


def _time(ds: xr.Dataset, name: str) -> list[str]:
    bounds = ds.time_bnds.transpose("time", ...).values
    if (bounds[1:, 0] != bounds[:-1, 1]).any():
        return [f"{name}: periods do not follow one another"]
    return []


def _data(store: str | Path, source: str, scenario: str, has_decades: bool) -> list[str]:
    problems = []
    months, years = (open_run(store, source, scenario, t) for t in ("month", "year"))
    decades = open_run(store, source, scenario, "decade") if has_decades else None
    statistics = open_statistics(store, source, scenario)
    fields = [str(v) for v in months.data_vars if months[v].attrs.get("role") == "field"]
    for member in months.member.values:
        month = only(months, fields).sel(member=member).load()
        year = to_year(month)
        expected = {"year": (year, years)}
        if decades is not None:
            expected["decade"] = (to_decade(year, int(decades.attrs["decade_start"])), decades)
        for field in fields:
            where = f"{source}/{scenario} {member} {field}"
            if not np.isfinite(month[field].values).all():
                problems.append(f"{where}: missing values")
            for timescale, (made, stored) in expected.items():
                kept = stored[field].sel(member=member).values
                if not np.allclose(made[field].values, kept, rtol=TOLERANCE, atol=0):
                    problems.append(f"{where}: {timescale} means are not those of the months")
            mean = month_statistics(month, [field])[f"{field}_mean"].values
            if not np.allclose(mean, statistics[f"{field}_mean"].sel(member=member).values, rtol=1e-9, atol=0):
                problems.append(f"{where}: statistics are not those of the months")
    return problems
