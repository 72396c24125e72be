"""Is a store what it says? Digests, time, missing values, years and decades against their months, statistics."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from numpy.typing import ArrayLike

from climatesuite.conventions import VARIABLES
from climatesuite.harmonise.calendars import YEARS_PER_DECADE, length_days
from climatesuite.harmonise.coarsen import to_decade, to_year
from climatesuite.harmonise.statistics import month_statistics
from climatesuite.store.layout import STATISTICS, group_name, timescales
from climatesuite.store.open import list_runs, only, open_root, open_run, open_statistics
from climatesuite.store.place import Place
from climatesuite.store.provenance import changed_files, read_provenance
from climatesuite.store.publish import stale_nodes

TOLERANCE = 1e-6
"""Relative, of a stored float32 mean against the mean of stored float32 months."""
STATISTICS_TOLERANCE = 1e-9
"""Relative, of stored float64 statistics against those of the stored months."""
_UNREADABLE = (ValueError, KeyError, OSError, RuntimeError, TypeError)


def verify(store: str | Path, deep: bool = True) -> list[str]:
    """Check a store against its own provenance, and against what its parts say about one another.

    Args:
        store: Path.
        deep: Also read all data; otherwise only presence and size of the files, the list of runs, and the axes.

    Returns:
        Problems, one sentence each; an empty list is a sound store.

    Raises:
        DataContractError: If there is no store, or no provenance to check it against.
    """
    root = open_root(store)
    changed = changed_files(store, deep)
    problems = [f"{name}: {what}" for name, what in changed.items()]
    stale = [] if Place(str(store)).is_unfinished else stale_nodes(Place(str(store)))
    problems += [f"{name}: not the metadata that the root holds" for name in stale if name not in changed]
    known, there = read_provenance(store)["settings"]["runs"], {"/".join(r) for r in list_runs(store)}
    problems += [f"{run}: not in the list of runs, which the settings name" for run in known if run not in there]
    for source, scenario in list_runs(store):
        damaged = {n.split("/")[2] for n in changed if n.startswith(f"{source}/{scenario}/") and n.count("/") > 1}
        problems += _run(store, root, (source, scenario), known.get(f"{source}/{scenario}", []), damaged, deep)
    return problems


def _run(
    store: str | Path, root: zarr.Group, key: tuple[str, str], members: list[str], damaged: set[str], deep: bool
) -> list[str]:
    """Problems of a run; groups with damaged files are not read, the reports of their files stand for them."""
    problems, opened = [], {}
    parts = [t for t in timescales() if group_name(*key, t) in root and t not in damaged]
    if STATISTICS not in damaged and group_name(*key, STATISTICS) not in root:
        problems.append(f"{group_name(*key, STATISTICS)}: no such group")
    if not parts and not damaged:
        problems.append(f"{'/'.join(key)}: no data at any timescale")
    for timescale in parts:
        name = group_name(*key, timescale)
        try:
            opened[timescale] = open_run(store, *key, timescale)
            found = axes_problems(opened[timescale], members)
        except _UNREADABLE as error:
            found, _ = [f"not readable ({error})"], opened.pop(timescale, None)
        problems += [f"{name}: {text}" for text in found]
    if not deep or problems:
        return problems
    try:
        statistics = None if STATISTICS in damaged else open_statistics(store, *key)
        for member in members:
            problems += _member(opened, statistics, member, "/".join(key))
        problems += _forcings(opened, "/".join(key))
    except _UNREADABLE as error:
        problems.append(f"{'/'.join(key)}: not readable ({error})")
    return problems


def axes_problems(ds: xr.Dataset, members: Iterable[str] | None = None) -> list[str]:
    """What is wrong with the axes of a canonical Dataset: order and completeness of time, bounds, latitudes, longitudes, members.

    Args:
        ds: Canonical Dataset of any timescale.
        members: Expected labels; default whatever is there.
    """
    problems = []
    timescale, bounds = str(ds.attrs["timescale"]), ds.time_bnds.transpose("time", ...).values
    year = ds.year.values.astype(np.int64)
    index = 12 * year + ds.month.values - 1 if timescale == "month" else year
    step = YEARS_PER_DECADE if timescale == "decade" else 1
    if (np.diff(index) != step).any():
        at = int(np.flatnonzero(np.diff(index) != step)[0])
        problems.append(f"time does not rise by one {timescale} after {ds.time.values[at]}")
    if (bounds[1:, 0] != bounds[:-1, 1]).any() or (bounds[:, 0] >= bounds[:, 1]).any():
        problems.append("periods do not follow one another")
    elif (ds.time.values < bounds[:, 0]).any() or (ds.time.values > bounds[:, 1]).any():
        problems.append("dates lie outside their periods")
    elif not np.allclose(length_days(bounds), ds.days.values, rtol=0, atol=1e-6):
        problems.append("days are not the lengths of the periods")
    problems += [f"{n} does not rise" for n in ("lat", "lon") if (np.diff(ds[n].values) <= 0).any()]
    if members is not None and ds.member.values.tolist() != list(members):
        problems.append(f"members {', '.join(map(str, ds.member.values))}, {', '.join(members)} in the settings")
    return problems


def _names(ds: xr.Dataset, role: str) -> list[str]:
    return [str(v) for v in ds.data_vars if ds[v].attrs.get("role") == role]


def _coarser(finest: xr.Dataset, opened: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """What the coarser timescales ought to hold, from the finest one, in memory."""
    out = {str(finest.attrs["timescale"]): finest}
    if "month" in out and ("year" in opened or "decade" in opened):
        out["year"] = to_year(finest)
    if "year" in out and "decade" in opened:
        out["decade"] = to_decade(out["year"], int(opened["decade"].attrs["decade_start"]))
    return out


def _member(opened: Mapping[str, xr.Dataset], statistics: xr.Dataset | None, member: str, run: str) -> list[str]:
    """Missing values, ranges, means and statistics of one member; no more than one field of it is in memory."""
    if not opened:
        return []
    lazy = opened[next(t for t in timescales() if t in opened)]
    problems = []
    for field in _names(lazy, "field"):
        finest = only(lazy, [field]).sel(member=member).load()
        problems += [f"{run} {member} {field}: {text}" for text in _field(finest, opened, statistics, member, field)]
    return problems


def _field(
    finest: xr.Dataset, opened: Mapping[str, xr.Dataset], statistics: xr.Dataset | None, member: str, field: str
) -> list[str]:
    expected, finest_scale, problems = _coarser(finest, opened), str(finest.attrs["timescale"]), []
    for timescale, stored in opened.items():
        is_finest = timescale == finest_scale
        kept = finest[field].values if is_finest else stored[field].sel(member=member).values
        if not np.isfinite(kept).all():
            problems.append(f"{int((~np.isfinite(kept)).sum())} missing values at timescale {timescale}")
        elif timescale in expected and not _is_close(kept, expected[timescale][field].values, TOLERANCE):
            problems.append(f"{timescale} means are not those of the {finest_scale}s")
        elif is_finest and field in VARIABLES:
            problems += _range_problems(kept, field)
    if statistics is not None and finest_scale == "month":
        made = month_statistics(finest, [field])
        problems += [
            f"{str(n).removeprefix(field)[1:]} in the statistics is not that of the months"
            for n in made.data_vars
            if n in statistics
            and not _is_close(statistics[n].sel(member=member).values, made[n].values, STATISTICS_TOLERANCE)
        ]
    return problems


def _range_problems(values: np.ndarray, field: str) -> list[str]:
    low, high = VARIABLES[field].valid_range
    found = float(values.min()), float(values.max())
    is_credible = low <= found[0] and found[1] <= high
    return [] if is_credible else [f"values from {found[0]:.4g} to {found[1]:.4g}, credible are {low:g} to {high:g}"]


def _forcings(opened: Mapping[str, xr.Dataset], run: str) -> list[str]:
    if not opened:
        return []
    lazy = opened[next(t for t in timescales() if t in opened)]
    names = _names(lazy, "forcing")
    finest = only(lazy, names).drop_vars("member").load()
    expected, problems = _coarser(finest, opened) if names else {}, []
    for name in names:
        for timescale, stored in opened.items():
            if name not in stored:
                problems.append(f"{run} {name}: absent at timescale {timescale}")
            elif not np.isfinite(stored[name].values).all():
                problems.append(f"{run} {name}: missing values at timescale {timescale}")
            elif not _is_close(stored[name].values, expected[timescale][name].values, TOLERANCE):
                problems.append(f"{run} {name}: {timescale} means are not those of the {finest.attrs['timescale']}s")
    return problems


def _is_close(a: ArrayLike, b: ArrayLike, tolerance: float) -> bool:
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=tolerance, atol=0)
