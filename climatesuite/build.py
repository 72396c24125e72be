"""From an archive of CMIP files to a published store: whole, or nothing."""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from tqdm import tqdm

from climatesuite.archive.read import Key, check_alike, read_member, select
from climatesuite.archive.scan import NAME, TABLE, Entry, Rejected, Scan, member_key, scan
from climatesuite.errors import DataContractError
from climatesuite.forcing.forcings import forcing_file, open_forcings
from climatesuite.harmonise.coarsen import to_decade, to_year
from climatesuite.harmonise.grids import regrid, target_grid
from climatesuite.harmonise.statistics import month_statistics
from climatesuite.store.layout import SCHEMA, STATISTICS, group_name
from climatesuite.store.provenance import (
    changed_files,
    is_unchanged,
    is_untouched,
    read_provenance,
    source_record,
    write_provenance,
)
from climatesuite.store.publish import staged
from climatesuite.store.write import RunWriter, write_statistics

Files = Mapping[str, Mapping[str, Sequence[Entry]]]
VERSION = re.compile(r"v\d{8}")


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        path: The store.
        runs: (source_id, experiment_id) of every run.
        members: The members of every run, in the same order.
        bytes: Size on disk.
        seconds: Wall time.
        was_noop: Whether the store was there already, of the same input and settings.
        rejected: Files that were seen and not used, with the reason.
    """

    path: Path
    runs: tuple[Key, ...]
    members: tuple[tuple[str, ...], ...]
    bytes: int
    seconds: float
    was_noop: bool
    rejected: tuple[str, ...]

    def __str__(self) -> str:
        state = "is there already" if self.was_noop else f"built in {self.seconds:.1f} s"
        runs = ", ".join(f"{s} {e} ({len(m)} members)" for (s, e), m in zip(self.runs, self.members, strict=True))
        aside = "".join(f"\nset aside: {text}" for text in self.rejected)
        return f"{self.path} {state}: {runs}; {self.bytes / 1e6:.0f} MB{aside}"


@dataclass(frozen=True)
class _Request:
    """Everything that decides what is in the store."""

    files: Mapping[Key, Files]
    forcings: Mapping[str, Path]
    settings: dict[str, Any]
    rejected: tuple[Rejected, ...]

    def labels(self, key: Key) -> tuple[str, ...]:
        return tuple(sorted(self.files[key], key=member_key))

    def paths(self) -> dict[str, Path]:
        entries = (e for run in self.files.values() for member in run.values() for e in _entries(member))
        return {**{e.path.name: e.path for e in entries}, **{p.name: p for p in self.forcings.values()}}


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
        DataContractError: If anything asked for is missing or cannot be read, a file breaks the contract, ``out`` is another
            store or a damaged one, another process is building it, or there is no room.
    """
    begin, target = time.monotonic(), Path(out)
    request = _request(
        scan(archive), sources, experiments, members, variables, forcings, forcing_names, years, grid, decade_start
    )  # fmt: skip
    was_there = target.exists()
    if was_there:
        _check_same(target, request)
    else:
        with staged(target) as staging:
            _write(staging, request, progress)
    return BuildReport(
        path=target,
        runs=tuple(request.files),
        members=tuple(request.labels(key) for key in request.files),
        bytes=sum(p.stat().st_size for p in target.rglob("*") if p.is_file()),
        seconds=time.monotonic() - begin,
        was_noop=was_there,
        rejected=tuple(f"{r.path.name}: {r.reason}" for r in request.rejected),
    )


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
    if not variables:
        raise DataContractError("variables", "none", "at least one", "name the fields, e.g. tas pr")
    if years is not None and years[0] > years[1]:
        raise DataContractError("years", f"{years[0]}-{years[1]}", "the first before the last", "swap them")
    if members is not None and experiments is None:
        experiments = list(members)
    _check_readable(found, sources, experiments, members, variables)
    files = select(found, variables, experiments, members, sources)
    for source in sources or []:
        absent = [e for e in experiments or [] if (source, e) not in files]
        if absent or all(s != source for s, _ in files):
            raise DataContractError(
                f"source {source}", f"no files of {', '.join(absent) or 'it'}", "files of every source and scenario asked for",
                "add them, or build the sources apart",
            )  # fmt: skip
    scenarios = sorted({scenario for _, scenario in files})
    drivers = {} if forcings is None else {e: forcing_file(forcings, e) for e in scenarios}
    settings = {
        "schema": SCHEMA, "runs": {"/".join(k): sorted(f, key=member_key) for k, f in sorted(files.items())},
        "variables": list(dict.fromkeys(variables)), "forcings": list(dict.fromkeys(forcing_names)) if drivers else [],
        "years": list(years) if years else None, "grid": list(grid) if grid else None, "decade_start": decade_start,
    }  # fmt: skip
    return _Request(files, drivers, settings, found.rejected)


def _check_readable(
    found: Scan,
    sources: Sequence[str] | None,
    experiments: Sequence[str] | None,
    members: Mapping[str, Sequence[str]] | None,
    variables: Sequence[str],
) -> None:
    """Refuse a request with files that belong to it by name and cannot be used: without them a member or years would be lost."""
    newest: dict[tuple[str, ...], str] = {}
    for e in found.entries:
        newest[e.source_id, e.experiment_id, e.member, e.variable_id, e.grid_label] = e.version
    lost = []
    for r in found.rejected:
        named = NAME.match(r.path.name)
        if named is None or named["table_id"] != TABLE or named["rest"]:
            continue
        source, scenario, member, name = (named[n] for n in ("source_id", "experiment_id", "member", "variable_id"))
        is_asked = (
            name in variables
            and (not sources or source in sources)
            and (not experiments or scenario in experiments)
            and (members is None or member in members.get(scenario, []))
        )
        replaced_by = newest.get((source, scenario, member, name, named["grid_label"]), "")
        if is_asked and not any(part < replaced_by for part in r.path.parts if VERSION.fullmatch(part)):
            lost.append(f"{r.path.name}: {r.reason}")
    if lost:
        raise DataContractError(
            f"{len(lost)} file(s) of the request", "; ".join(lost), "files that can be used",
            "download them again, delete them, or name the members to use",
        )  # fmt: skip


def _check_same(target: Path, request: _Request) -> None:
    """Refuse a store of other settings or input, or one that is not whole; size and time stamp stand for content."""
    known, wanted = read_provenance(target), request.settings
    changed = sorted(k for k in wanted if known["settings"].get(k) != wanted[k] and not _is_reordered(k, known, wanted))
    if changed:
        raise DataContractError(
            str(target),
            f"a store of other settings ({', '.join(changed)})",
            "the same settings",
            "choose another name or delete it",
        )
    records, paths = {r["name"]: r for r in known["sources"]}, request.paths()
    differing = sorted(n for n, p in paths.items() if n not in records or not is_unchanged(records[n], p))
    differing += sorted(n for n in records if n not in paths)
    if differing:
        raise DataContractError(
            str(target), f"built from other files ({', '.join(differing[:3])}{' ...' if differing[3:] else ''})", "the same input",
            "choose another name, or delete the store to build it again",
        )  # fmt: skip
    damage = changed_files(target, deep=False)
    if damage:
        name, what = next(iter(damage.items()))
        raise DataContractError(
            str(target), f"damaged, {name}: {what}", "what was published", "delete the store to build it again"
        )


def _is_reordered(key: str, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return key in ("variables", "forcings") and sorted(known["settings"].get(key) or []) == sorted(wanted[key])


def _write(staging: Path, request: _Request, progress: bool) -> None:
    root = zarr.create_group(str(staging), zarr_format=3)
    total = sum(len(run) for run in request.files.values())
    records: list[dict[str, Any]] = [source_record(p) for p in dict.fromkeys(request.forcings.values())]
    licences: set[str] = set()
    with tqdm(total=total, desc="ingesting", unit="member", disable=not progress) as bar:
        for key in request.files:
            read, stated = _write_run(root, key, request, bar)
            records, licences = records + read, licences | stated
    root.attrs.update({"schema": SCHEMA, "runs": [list(k) for k in request.files]})
    paths = request.paths()
    for record in records:
        if not is_untouched(record, paths[record["name"]]):
            raise DataContractError(
                record["name"], "it changed while it was read", "files at rest", "build again when they are complete"
            )
    aside = [{"name": r.path.name, "reason": r.reason} for r in request.rejected]
    write_provenance(staging, request.settings, records, licences, aside)


def _write_run(root: zarr.Group, key: Key, request: _Request, bar: tqdm) -> tuple[list[dict[str, Any]], set[str]]:
    """Write all timescales, forcings and statistics of a run; records of the files read, and licences."""
    settings, files, labels = request.settings, request.files[key], request.labels(key)
    source, scenario = key
    fields, years = settings["variables"], tuple(settings["years"]) if settings["years"] else None
    writers: dict[str, RunWriter] = {}
    records: list[dict[str, Any]] = []
    licences = {e.license or "not stated" for member in files.values() for e in _entries(member)}
    drivers: xr.Dataset | None = None
    first: xr.Dataset | None = None
    for label in labels:
        records += [source_record(e.path, _about(e)) for e in _entries(files[label])]
        month = _prepare(read_member(files[label], years), settings)
        if first is None:
            first = month.drop_vars(list(month.data_vars))
            if scenario in request.forcings:
                drivers = _drivers(request.forcings[scenario], scenario, settings["forcings"], month)
                licences |= _forcing_licence(str(drivers.attrs["license"]), licences)
        check_alike(month, first, f"{source} {scenario} {label}", labels[0])
        for timescale, ds in _timescales(month, settings["decade_start"]).items():
            if timescale not in writers:
                about = ds.assign_attrs(license="; ".join(sorted(licences)))
                writers[timescale] = RunWriter(root, group_name(source, scenario, timescale), about, fields, labels)
            writers[timescale].add(label, ds)
        write_statistics(root, group_name(source, scenario, STATISTICS), labels, label, month_statistics(month, fields))
        bar.update(1)
    if drivers is not None:
        for timescale, ds in _timescales(drivers, settings["decade_start"]).items():
            writers[timescale].add_forcings(ds)
    return records, licences


def _entries(member: Mapping[str, Sequence[Entry]]) -> Iterable[Entry]:
    return (e for part in member.values() for e in part)


def _about(e: Entry) -> dict[str, str]:
    names = ("source_id", "experiment_id", "member", "variable_id", "grid_label", "version", "license", "tracking_id")
    return {n: str(getattr(e, n)) for n in names}


def _forcing_licence(text: str, others: set[str]) -> set[str]:
    return set() if text in others else {f"forcings: {text}"}


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
    ds = ds.drop_vars([n for n in ds.data_vars if n not in names]).drop_vars("erf_year", errors="ignore")
    return ds.assign_coords({c: month[c] for c in ("lat", "lon", "lat_bnds", "lon_bnds")})


def _timescales(month: xr.Dataset, decade_start: int | None) -> dict[str, xr.Dataset]:
    year = to_year(month)
    first, last = int(year.year.values[0]), int(year.year.values[-1])
    start = first if decade_start is None else decade_start
    begin = start + 10 * max(0, -((start - first) // 10))
    out = {"month": month, "year": year}
    return {**out, "decade": to_decade(year, start)} if begin + 9 <= last else out
