"""What CMIP files are there: facets from global attributes, cross-checked with file names; headers only are read."""

import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
from scipy.io import netcdf_file

from climatesuite.errors import DataContractError

NAME = re.compile(
    r"^(?P<variable_id>[A-Za-z0-9]+)_(?P<table_id>[A-Za-z0-9]+)_(?P<source_id>[^_]+)_(?P<experiment_id>[^_]+)"
    r"_(?P<member>(?:s\d+-)?r\d+i\d+p\d+f\d+)_(?P<grid_label>g[a-z0-9]+)"
    r"(?:_(?P<start>\d{4,14})(?:-(?P<stop>\d{4,14}))?)?(?P<rest>-clim)?\.nc$"
)
ATTRIBUTES = {"variable_id": "variable_id", "table_id": "table_id", "source_id": "source_id",
              "experiment_id": "experiment_id", "member": "variant_label", "grid_label": "grid_label"}  # fmt: skip
TABLE, FREQUENCY = "Amon", "mon"
_CLASSIC = ("NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET")


@dataclass(frozen=True, order=True)
class Entry:
    """One file that can be used; months are YYYYMM, ``version`` is "" outside a DRS tree."""

    source_id: str
    experiment_id: str
    member: str
    variable_id: str
    start: str
    stop: str
    path: Path
    grid_label: str
    version: str
    license: str
    tracking_id: str


@dataclass(frozen=True)
class Rejected:
    """A file that was set aside, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Scan:
    """All files that were looked at."""

    entries: tuple[Entry, ...]
    rejected: tuple[Rejected, ...]

    def table(self) -> str:
        """One line a run: source, scenario, variables, members, months, files."""
        runs: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.entries:
            runs.setdefault((entry.source_id, entry.experiment_id), []).append(entry)
        lines = [f"{'source':16s} {'scenario':14s} {'variables':12s} {'members':>7s} {'months':15s} {'files':>5s}"]
        for (source, scenario), found in sorted(runs.items()):
            names = ",".join(sorted({e.variable_id for e in found}))
            months = f"{min(e.start for e in found)}-{max(e.stop for e in found)}"
            members = len({e.member for e in found})
            lines.append(f"{source:16s} {scenario:14s} {names:12s} {members:7d} {months:15s} {len(found):5d}")
        return "\n".join(lines)


def scan(paths: Iterable[str | Path] | str | Path) -> Scan:
    """Look at files, and at every ``*.nc`` under folders.

    Args:
        paths: Files or folders.

    Returns:
        Usable entries, sorted, and what was set aside with the reason: unreadable or truncated files, other tables than
        Amon, climatologies, names that contradict attributes or the time axis, older versions.

    Raises:
        DataContractError: If a path does not exist.
    """
    given = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    entries, rejected = [], []
    for path in sorted(set(_files(given))):
        found = _look(path)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            rejected.append(found)
    kept, older = _latest(entries)
    return Scan(tuple(sorted(kept)), tuple([*rejected, *older]))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (p for p in path.rglob("*.nc") if not p.is_dir())
        elif path.exists():
            yield path
        else:
            raise DataContractError(str(path), "no such file or folder", "CMIP files", "correct the path")


def _look(path: Path) -> Entry | Rejected:
    named = NAME.match(path.name)
    try:
        with netCDF4.Dataset(path) as file:
            attrs = {k: str(getattr(file, k)) for k in file.ncattrs()}
            variables = set(file.variables)
            span = _months(file) if "time" in file.variables else None
            is_climatology = "time" in file.variables and "climatology" in file.variables["time"].ncattrs()
            if file.data_model in _CLASSIC:
                _check_length(path)
    except (OSError, RuntimeError) as error:
        return Rejected(path, f"not readable as NetCDF, perhaps truncated ({error})")
    start_date = attrs.get("sub_experiment_id", "none")
    if start_date != "none" and "variant_label" in attrs:  # hindcasts: the start date is a part of the member's label
        attrs["variant_label"] = f"{start_date}-{attrs['variant_label']}"
    facets = {}
    for facet, attribute in ATTRIBUTES.items():
        said, name = attrs.get(attribute), named.group(facet) if named else None
        if said and name and said != name:
            return Rejected(path, f"attribute {attribute} is {said!r}, the file name says {name!r}")
        facets[facet] = said or name or ""
    if facets["table_id"] and facets["table_id"] != TABLE:
        return Rejected(path, f"table {facets['table_id']}, only {TABLE} (monthly atmosphere) is used")
    frequency = attrs.get("frequency", FREQUENCY)
    if is_climatology or (named and named["rest"]):
        return Rejected(path, "a climatology, not a run")
    if frequency != FREQUENCY:
        return Rejected(path, f"frequency {frequency}, only {FREQUENCY} (months) is used")
    absent = [f for f in ("variable_id", "source_id", "experiment_id", "member") if not facets[f]]
    if absent:
        return Rejected(path, f"neither attributes nor file name give {', '.join(absent)}")
    if facets["variable_id"] not in variables:
        return Rejected(path, f"no variable {facets['variable_id']} in it")
    if span is None:
        return Rejected(path, "no time axis that can be read")
    claimed = (named["start"], named["stop"] or named["start"]) if named and named["start"] else span
    if claimed != span:
        return Rejected(path, f"holds {'-'.join(span)}, the file name says {'-'.join(claimed)}")
    version = next((p.name for p in path.parents if re.fullmatch(r"v\d{8}", p.name)), "")
    return Entry(
        facets["source_id"], facets["experiment_id"], facets["member"], facets["variable_id"], *span, path,
        facets["grid_label"], version, attrs.get("license", ""), attrs.get("tracking_id", ""),
    )  # fmt: skip


def _months(file: netCDF4.Dataset) -> tuple[str, str] | None:
    """First and last month YYYYMM of a file, from the middle of its bounds where it has them."""
    time = file.variables["time"]
    if time.size == 0 or "since" not in str(getattr(time, "units", "")):
        return None
    bounds = file.variables.get(str(getattr(time, "bounds", "time_bnds")))
    ends = [float(time[i]) if bounds is None else float(bounds[i].mean()) for i in (0, -1)]
    try:
        dates = np.asarray(netCDF4.num2date(ends, time.units, getattr(time, "calendar", "standard")))
    except ValueError:
        return None
    first, last = (f"{d.year:04d}{d.month:02d}" for d in dates)
    return first, last


def _check_length(path: Path) -> None:
    """Raise OSError if a classic file ends before its data: the NetCDF library would read the rest as zeros."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of maps still open, which nothing here keeps
            netcdf_file(str(path), "r", mmap=True).close()
    except ValueError as error:
        raise OSError("the file is shorter than its header says") from error


def _latest(entries: Iterable[Entry]) -> tuple[list[Entry], list[Rejected]]:
    """The newest version of every run's variable; the rest set aside."""
    newest: dict[tuple[str, ...], str] = {}
    kept = list(entries)
    for e in kept:
        key = (e.source_id, e.experiment_id, e.member, e.variable_id, e.grid_label)
        newest[key] = max(newest.get(key, ""), e.version)
    older = {e for e in kept if e.version < newest[e.source_id, e.experiment_id, e.member, e.variable_id, e.grid_label]}
    return [e for e in kept if e not in older], [
        Rejected(e.path, f"version {e.version or 'unknown'} is not the latest") for e in sorted(older)
    ]


def member_key(label: str) -> tuple[int, ...]:
    """Sort key that puts r10 after r9."""
    return tuple(int(n) for n in re.findall(r"\d+", label))
