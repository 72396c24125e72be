"""What CMIP files are there: attributes, names and folders compared, months by the time axis; only headers are read."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from climatesuite.archive.axes import member_dim, time_name
from climatesuite.archive.entry import TABLE, Entry, Rejected, Scan, member_key
from climatesuite.archive.facets import NAME, SUFFIX, check_names, name_match, said, version_of
from climatesuite.archive.layouts import Layout, one_way
from climatesuite.archive.months import DAYS, MONTH_DAYS, month_text, months_of, step_days
from climatesuite.archive.opening import check_length, is_url, list_urls, local_copy, open_raw
from climatesuite.archive.prefer import preferred
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError

__all__ = ["NAME", "TABLE", "Entry", "Rejected", "Scan", "member_key", "scan"]
FREQUENCY, CLIMATOLOGY = "mon", "monC"
PARTIAL = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".download", ".aria2", ".incomplete")
VARIANT = re.compile(r"(?:s\d+-)?r\d+i\d+p\d+(?:f\d+)?")
_NETCDF = re.compile(rf".*{SUFFIX}")
_PACKED = re.compile(rf".*{SUFFIX}\.(?i:gz|bz2|xz|zst|zip)")
_CLASSIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05")


def scan(paths: Iterable[str | Path] | str | Path, layout: Layout | None = None) -> Scan:
    """Look at files, and at everything under folders.

    Args:
        paths: Files, folders, or URLs that fsspec opens (`opening.local_copy` says where their copies lie).
        layout: What files are that are named in a way of their own; all others are looked at as usual.

    Returns:
        Usable entries, sorted; what was set aside with the reason: unreadable, truncated or partial files, other tables than Amon,
        climatologies, steps that are no months, names that contradict the time axis; and what another file stands for: older
        versions, copies, less preferred grids.

    Raises:
        DataContractError: If a path does not exist.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for path, url in sorted(set(_files(given, rejected))):
        found = look(path, layout)
        if isinstance(found, Rejected):
            rejected.append(found)
        else:
            entries += [replace(e, url=url) for e in found]
    whole, broken, other = one_way(entries)
    kept, replaced = preferred(whole)
    return Scan(tuple(sorted(kept)), (*rejected, *broken), (*other, *replaced))


def _files(paths: Iterable[str | Path], rejected: list[Rejected]) -> Iterator[tuple[Path, str]]:
    """Files with the URL that they come from; what cannot be looked at is added to ``rejected``."""
    for given in paths:
        if is_url(given):
            for url in list_urls(str(given)):
                if reason := _no_file(url):
                    rejected.append(Rejected(Path(url), reason))
                elif _NETCDF.fullmatch(url):
                    try:
                        yield local_copy(url), url
                    except OSError as error:
                        rejected.append(Rejected(Path(url), f"cannot be fetched ({error})"))
            continue
        path = Path(given)
        if not path.exists():
            raise DataContractError(str(path), "no such file or folder", "CMIP files", "correct the path")
        for found in _walk(path, rejected) if path.is_dir() else (path,):
            if reason := _no_file(found.name):
                rejected.append(Rejected(found, reason))
            elif _NETCDF.fullmatch(found.name) or found == path:
                yield found, ""


def _no_file(name: str) -> str:
    """Why something with such a name is no NetCDF file though it has to do with one; "" for all others."""
    if name.endswith(PARTIAL) and re.search(SUFFIX, name):
        return "a partial download"
    if _PACKED.fullmatch(name):
        return "packed: unpack it first, e.g. with gunzip"
    return "a Zarr store: climatesuite cloud fetches such stores as files" if name.endswith(".zarr") else ""


def _walk(folder: Path, rejected: list[Rejected]) -> Iterator[Path]:
    """Everything under a folder, links to folders followed once; a folder of a Zarr store counts as a file."""
    seen: set[str] = set()
    refused = lambda error: rejected.append(Rejected(Path(error.filename), f"folder cannot be read ({error})"))  # noqa: E731
    for root, folders, files in os.walk(folder, onerror=refused, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        stores = [f for f in folders if f.endswith(".zarr")]
        folders[:] = sorted(set(folders) - set(stores))
        yield from (Path(root) / f for f in sorted([*files, *stores]))


def look(path: Path, layout: Layout | None = None) -> tuple[Entry, ...] | Rejected:
    """What one file holds: an entry a member, or why it is set aside."""
    try:
        if _starts(path) in _CLASSIC:
            check_length(path)
        with open_raw(path) as root:
            if layout is not None and layout.file.fullmatch(path.name):
                return _look_by(layout, path, root)
            found = _look(path, root, "")
            if not isinstance(found, Rejected) or "no variable" not in found.reason:
                return found
        return _in_groups(path, found)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, DataContractError):
            return Rejected(path, error.found)
        return Rejected(path, f"not readable as NetCDF, perhaps truncated ({error})")


def _look_by(layout: Layout, path: Path, ds: xr.Dataset) -> tuple[Entry, ...] | Rejected:
    """What a file of a layout of its own holds."""
    about, problem = layout.facets(path.name), layout.problem(path.name, ds)
    if about is None or problem:
        return Rejected(path, problem)
    check_names(about)
    span, calendar = _span(ds, about["stored"], f"{about['stored']} in {path.name}")
    if (about["start"], about["stop"]) != span:
        return Rejected(path, f"holds {'-'.join(span)}, the file name says {about['start']}-{about['stop']}")
    return (Entry(**about, path=path, version="", license="", tracking_id="", calendar=calendar),)


def _starts(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _in_groups(path: Path, otherwise: Rejected) -> tuple[Entry, ...] | Rejected:
    """Entries of the groups of a file, where its root holds nothing; a group's name may be the member's."""
    with netCDF4.Dataset(path) as file:
        groups = [g.path.strip("/") for g in _all_groups(file) if set(g.variables) & set(VARIABLES)]
    found: list[Entry] = []
    for group in groups:
        with open_raw(path, group) as ds:
            one = _look(path, ds, group)
        if isinstance(one, Rejected):
            return Rejected(path, f"group {group}: {one.reason}")
        found += one
    return tuple(found) or otherwise


def _all_groups(file: Any) -> Iterator[Any]:
    for group in file.groups.values():
        yield group
        yield from _all_groups(group)


def _look(path: Path, ds: xr.Dataset, group: str) -> tuple[Entry, ...] | Rejected:
    attrs = {str(k): str(v) for k, v in ds.attrs.items()}
    facets, notes = said(attrs, path)
    label = next((p for p in group.split("/") if VARIANT.fullmatch(p)), "")
    if label:
        facets["member"] = label
    problem = _stray(
        attrs, facets["table_id"], "climatology" in ds.get("time", xr.DataArray()).attrs, name_match(path.name)
    )
    if problem:
        return Rejected(path, problem)
    name = facets["variable_id"]
    if name and name not in ds.variables:
        return Rejected(path, f"no variable {name} in it")
    names = dict.fromkeys([*([name] if name else []), *(str(n) for n in ds.data_vars if n in VARIABLES)])
    if not names:
        return Rejected(path, "no variable of the table of known variables in it")
    found: list[Entry] = []
    for name in names:
        one = _look_at({**facets, "variable_id": name}, notes, path, ds, group)
        if isinstance(one, Rejected):
            return one
        found += one
    return tuple(found)


def _look_at(
    facets: dict[str, str], notes: tuple[str, ...], path: Path, ds: xr.Dataset, group: str
) -> tuple[Entry, ...] | Rejected:
    """Entries of one variable of a file."""
    attrs, name, named = {str(k): str(v) for k, v in ds.attrs.items()}, facets["variable_id"], name_match(path.name)
    span, calendar = _span(ds, name, f"{name} in {path.name}")
    problem, members = _members(ds, name, facets["member"])
    absent = [f for f in ("source_id", "experiment_id") if not facets[f]] + ([] if members else ["member"])
    if problem or absent:
        return Rejected(path, problem or f"neither attributes nor file name give {', '.join(absent)}")
    claimed = (named["start"][:6], (named["stop"] or named["start"])[:6]) if named and named["start"] else span
    if claimed != span:
        return Rejected(path, f"holds {'-'.join(span)}, the file name says {'-'.join(claimed)}")
    if attrs.get("frequency") == CLIMATOLOGY:
        notes += (f"frequency {CLIMATOLOGY} is stated, the time axis is one of months: the time axis holds",)
    if len(members) > 1 and not group and ds[member_dim(ds, name)].dtype.kind in "iuf":
        notes += (f"members by number: named {members[0][1]} to {members[-1][1]}",)
    parent = _parent(attrs)
    return tuple(
        Entry(
            facets["source_id"], facets["experiment_id"], member, name, *span, path, facets["grid_label"], version_of(path),
            attrs.get("license", ""), attrs.get("tracking_id", ""), table_id=facets["table_id"] or TABLE, calendar=calendar,
            parent_experiment_id=parent[0], parent_member=parent[1], group=group, slot=slot, notes=notes,
        )
        for slot, member in members
    )  # fmt: skip


def _stray(attrs: dict[str, str], table: str, is_climatology: bool, named: re.Match[str] | None) -> str:
    """Why a file is of no use here by what it says; empty where it is."""
    if table and table != TABLE:
        return f"table {table}, only {TABLE} (monthly atmosphere) is used"
    if is_climatology or (named and named["rest"]):
        return "a climatology, not a run"
    frequency = attrs.get("frequency", FREQUENCY)
    is_months = frequency in (
        FREQUENCY,
        CLIMATOLOGY,
    )  # GFDL-CM4 calls runs climatologies; a real one says so in its time axis
    return "" if is_months else f"frequency {frequency}, only {FREQUENCY} (months) is used"


def _members(ds: xr.Dataset, name: str, label: str) -> tuple[str, list[tuple[int, str]]]:
    """Why members cannot be told, or position and label of each."""
    dim = member_dim(ds, name)
    if not dim or ds.sizes[dim] == 1:
        return "", [(-1, label)] if label else []
    if dim not in ds.variables or ds[dim].dims != (dim,):
        return f"{ds.sizes[dim]} members along {dim} without labels", []
    values = ds[dim].values
    if values.dtype.kind in "iuf":
        labels = [f"r{int(v)}i1p1f1" for v in values]
    else:
        labels = [v.decode() if isinstance(v, bytes) else str(v) for v in values]
    if len(set(labels)) < len(labels) or not all(VARIANT.fullmatch(m) for m in labels):
        return f"{len(labels)} members along {dim} named {', '.join(labels[:2])} ..., not r1i1p1f1 and so on", []
    return "", list(enumerate(labels))


def _span(ds: xr.Dataset, name: str, subject: str) -> tuple[tuple[str, str], str]:
    """First and last month YYYYMM and the calendar, once the steps are months.

    Raises:
        DataContractError: If they are not, or cannot be told.
    """
    time = time_name(ds, name)
    if not time or ds[time].size == 0:
        raise DataContractError(subject, "no time axis that can be read", "months", "fixed fields are not used")
    stamps = np.atleast_1d(ds[time].values).astype(np.float64)
    units = " ".join(str(ds[time].attrs.get("units", "")).split())
    days = step_days(stamps, units)
    if units.partition(" ")[0] in DAYS and np.isfinite(days) and not MONTH_DAYS[0] < days < MONTH_DAYS[1]:
        raise DataContractError(
            subject, f"steps of {days:g} days, only months are used", "months", "give monthly means"
        )
    try:
        months = months_of(ds, time, subject, [int(np.argmin(stamps)), int(np.argmax(stamps))])
    except DataContractError as error:
        raise DataContractError(
            subject, f"no time axis that can be read: {error.found}", error.expected, error.remedy
        ) from error
    first, last = (month_text(int(i)).replace("-", "") for i in (months.index.min(), months.index.max()))
    return (first, last), months.calendar


def _parent(attrs: dict[str, str]) -> tuple[str, str]:
    """experiment_id and member of the run that a run branches off; "" where there is none."""
    experiment = attrs.get("parent_experiment_id", "")
    member = attrs.get("parent_variant_label", "") or attrs.get("parent_experiment_rip", "")
    none = ("", "no parent", "none", "N/A")
    return ("", "") if experiment in none else (experiment, "" if member in none else member)
