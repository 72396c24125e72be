"""From an archive of CMIP files to a published store: whole, or nothing."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from tqdm import tqdm

from climatesuite.archive.read import Key, check_alike, read_member, select
from climatesuite.archive.scan import Entry, Scan, member_key, scan
from climatesuite.errors import DataContractError
from climatesuite.forcing.forcings import forcing_file, open_forcings
from climatesuite.harmonise.coarsen import to_decade, to_year
from climatesuite.harmonise.grids import regrid, target_grid
from climatesuite.harmonise.statistics import month_statistics
from climatesuite.store.layout import SCHEMA, STATISTICS, group_name
from climatesuite.store.provenance import is_unchanged, read_provenance, source_record, write_provenance
from climatesuite.store.write import RunWriter, write_statistics

Files = Mapping[str, Mapping[str, Sequence[Entry]]]


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        path: The store.
        runs: (source_id, experiment_id) and number of members.
        bytes: Size on disk.
        seconds: Wall time.
        was_noop: Whether the store was there already, of the same input and settings.
        set_aside: Files that were not used, with the reason.
    """

    path: Path
    runs: tuple[tuple[str, str, int], ...]
    bytes: int
    seconds: float
    was_noop: bool
    set_aside: tuple[str, ...]

    def __str__(self) -> str:
        state = "is there already" if self.was_noop else f"built in {self.seconds:.1f} s"
        runs = ", ".join(f"{s} {e} ({n} members)" for s, e, n in self.runs)
        aside = "".join(f"\nset aside: {text}" for text in self.set_aside)
        return f"{self.path} {state}: {runs}; {self.bytes / 1e6:.0f} MB{aside}"


@dataclass(frozen=True)
class _Request:
    """Everything that decides what is in the store."""

    files: Mapping[Key, Files]
    forcings: Mapping[str, Path]
    settings: dict[str, Any]
    rejected: tuple[tuple[Path, str], ...]

    def entries(self) -> list[Entry]:
        return [e for run in self.files.values() for member in run.values() for part in member.values() for e in part]


def build(
    archive: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    sources: Sequence[str] | None = None,
    experiments: Sequence[str] | None = None,
    members: Mapping[str, Sequence[str]] | None = None,
    variables: Sequence[str] = ("tas", "pr"),
    forcings: str | Path | None = None,
    forcing_names: Sequence[str] = ("CO2", "CH4", "SO2", "BC"),
    years: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    decade_start: int | None = None,
    progress: bool = True,
) -> BuildReport:
    """Build a store: months, years, decades, forcings, statistics, provenance.

    It is written beside ``out`` and renamed when whole; an exception or a kill leaves nothing under its name. Memory holds one
    member at a time.

    Args:
        archive: CMIP files or folders.
        out: Store to make.
        sources: Earth system models; default all.
        experiments: Scenarios; default all.
        members: Members by scenario; default all.
        variables: Fields.
        forcings: Folder of ``inputs_<experiment_id>.nc``, or one file; default none.
        forcing_names: Which forcings.
        years: First and last year; default the whole years of each run.
        grid: Rows and columns to regrid to, conservatively; default as it is.
        decade_start: First year of a decade; default each run's first year.
        progress: Whether to show a bar on stderr.

    Returns:
        What was done. The same input and settings again do nothing.

    Raises:
        DataContractError: If anything asked for is missing, a file breaks the contract, or ``out`` is another store.
    """
    begin, target = time.monotonic(), Path(out)
    request = _request(
        scan(archive), sources, experiments, members, variables, forcings, forcing_names, years, grid, decade_start
    )  # fmt: skip
    aside = tuple(f"{path.name}: {reason}" for path, reason in request.rejected)
    runs = tuple((s, e, len(files)) for (s, e), files in request.files.items())
    if target.exists():
        _check_same(target, request)
        return BuildReport(target, runs, _size(target), time.monotonic() - begin, True, aside)
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_stale(target)
    staging = target.with_name(f"{target.name}.staging-{os.getpid()}")
    try:
        _write(staging, request, progress)
        os.replace(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return BuildReport(target, runs, _size(target), time.monotonic() - begin, False, aside)


def _request(
    found: Scan,
    sources: Sequence[str] | None,
    experiments: Sequence[str] | None,
    members: Mapping[str, Sequence[str]] | None,
    variables: Sequence[str],
    forcings: str | Path | None,
    forcing_names: Sequence[str],
    years: tuple[int, int] | None,
    grid: tuple[int, int] | None,
    decade_start: int | None,
) -> _Request:
    if members is not None and experiments is None:
        experiments = list(members)
    files = select(found, variables, experiments, members, sources)
    scenarios = sorted({scenario for _, scenario in files})
    drivers = {} if forcings is None else {e: forcing_file(forcings, e) for e in scenarios}
    settings = {
        "schema": SCHEMA, "runs": {"/".join(k): sorted(f, key=member_key) for k, f in sorted(files.items())},
        "variables": list(variables), "forcings": list(forcing_names) if drivers else [], "years": list(years) if years else None,
        "grid": list(grid) if grid else None, "decade_start": decade_start,
    }  # fmt: skip
    return _Request(files, drivers, settings, tuple((r.path, r.reason) for r in found.rejected))


def _check_same(target: Path, request: _Request) -> None:
    known = read_provenance(target)
    changed = sorted(k for k in request.settings if known["settings"].get(k) != request.settings[k])
    if changed:
        raise DataContractError(
            str(target),
            f"a store of other settings ({', '.join(changed)})",
            "the same settings",
            "choose another name or delete it",
        )
    records = {r["name"]: r for r in known["sources"]}
    paths = {**{e.path.name: e.path for e in request.entries()}, **{p.name: p for p in request.forcings.values()}}
    differing = sorted(n for n, p in paths.items() if n not in records or not is_unchanged(records[n], p))
    differing += sorted(n for n in records if n not in paths)
    if differing:
        raise DataContractError(
            str(target), f"built from other files ({', '.join(differing[:3])}{' ...' if differing[3:] else ''})", "the same input",
            "choose another name, or delete the store to build it again",
        )  # fmt: skip


def _clear_stale(target: Path) -> None:
    """Remove staging folders whose process is gone."""
    for folder in target.parent.glob(f"{target.name}.staging-*"):
        pid = folder.name.rpartition("-")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write(staging: Path, request: _Request, progress: bool) -> None:
    root = zarr.create_group(str(staging), overwrite=True, zarr_format=3)
    total = sum(len(run) for run in request.files.values())
    licences: set[str] = set()
    with tqdm(total=total, desc="ingesting", unit="member", disable=not progress) as bar:
        for key, files in request.files.items():
            licences |= _write_run(root, key, files, request, bar)
    root.attrs.update({"schema": SCHEMA, "runs": [list(k) for k in request.files]})
    records = [source_record(e.path, e.tracking_id) for e in request.entries()]
    records += [source_record(p) for p in request.forcings.values()]
    aside = [{"name": path.name, "reason": reason} for path, reason in request.rejected]
    write_provenance(staging, request.settings, records, licences, aside)


def _write_run(root: zarr.Group, key: Key, files: Files, request: _Request, bar: tqdm) -> set[str]:
    settings, labels = request.settings, sorted(files, key=member_key)
    source, scenario = key
    writers: dict[str, RunWriter] = {}
    statistics, licences = [], set()
    drivers: xr.Dataset | None = None
    first: xr.Dataset | None = None
    for label in labels:
        month = _prepare(read_member(files[label], tuple(settings["years"]) if settings["years"] else None), settings)
        if not writers and scenario in request.forcings:
            drivers = _drivers(request.forcings[scenario], scenario, settings["forcings"], month)
            licences.add(f"forcings: {drivers.attrs['license']}")
        first = month.drop_vars(list(month.data_vars)) if first is None else first
        check_alike(month, first, f"{source} {scenario} {label}", labels[0])
        scales = _timescales(month, settings["decade_start"])
        for timescale, ds in scales.items():
            if timescale not in writers:
                writers[timescale] = RunWriter(
                    root, group_name(source, scenario, timescale), ds, settings["variables"], labels
                )
            writers[timescale].add(label, ds)
        statistics.append(month_statistics(month, settings["variables"]))
        licences.add(str(month.attrs["license"]))
        bar.update(1)
    if drivers is not None:
        for timescale, ds in _timescales(drivers, settings["decade_start"]).items():
            writers[timescale].add_forcings(ds)
    write_statistics(root, group_name(source, scenario, STATISTICS), labels, statistics)
    return licences


def _prepare(month: xr.Dataset, settings: Mapping[str, Any]) -> xr.Dataset:
    """Whole years on the target grid."""
    counts = {int(y): int(n) for y, n in zip(*np.unique(month.year.values, return_counts=True), strict=True)}
    whole = [y for y, n in counts.items() if n == 12]
    if not whole:
        raise DataContractError(str(month.attrs["experiment_id"]), "no whole year", "January to December", "add files")
    month = month.isel(time=np.isin(month.year.values, whole))
    return regrid(month, target_grid(tuple(settings["grid"]))) if settings["grid"] else month


def _drivers(path: Path, scenario: str, names: Sequence[str], month: xr.Dataset) -> xr.Dataset:
    ds = open_forcings(path, names, scenario, grid=month, calendar=str(month.attrs["calendar"]))
    wanted = np.unique(month.year.values)
    missing = sorted(set(wanted.tolist()) - set(ds.year.values.tolist()))
    if missing:
        raise DataContractError(
            f"forcings of {scenario} in {path.name}",
            f"no year {missing[0]}",
            f"{wanted[0]}-{wanted[-1]}",
            "extend the file or narrow years",
        )
    ds = ds.isel(time=np.isin(ds.year.values, wanted))
    return ds.assign_coords({c: month[c] for c in ("lat", "lon", "lat_bnds", "lon_bnds")})


def _timescales(month: xr.Dataset, decade_start: int | None) -> dict[str, xr.Dataset]:
    year = to_year(month)
    first, last = int(year.year.values[0]), int(year.year.values[-1])
    start = first if decade_start is None else decade_start
    begin = start + 10 * max(0, -((start - first) // 10))
    out = {"month": month, "year": year}
    return {**out, "decade": to_decade(year, start)} if begin + 9 <= last else out


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
