"""CMIP files to canonical Datasets: right, or refused with file, variable and reason."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.archive.scan import Entry, Scan, member_key, scan
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import canonical_calendar, time_coords
from climatesuite.harmonise.grids import area_weights, grid_coords, is_global, order_axis
from climatesuite.harmonise.units import check_range, to_canonical

Key = tuple[str, str]
SAME_DEG = 1e-4
"""Grids whose centres differ by less than this, in degrees, are the same grid written with other rounding."""
_SPACE = {"lat": ("lat", "latitude"), "lon": ("lon", "longitude")}


def open_runs(
    paths: Iterable[str | Path] | str | Path,
    variables: Sequence[str] | None = None,
    experiments: Sequence[str] | None = None,
    members: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    years: tuple[int, int] | None = None,
) -> dict[Key, xr.Dataset]:
    """Canonical monthly Datasets straight from CMIP files, in memory.

    Args:
        paths: Files or folders.
        variables: Fields; default all known ones that are there.
        experiments: Scenarios; default all.
        members: Members of every scenario, or by scenario; default all.
        years: First and last year; default all months.

    Returns:
        Dataset (member, time, lat, lon) by (source_id, experiment_id).

    Raises:
        DataContractError: If there is nothing usable, something asked for is missing, or a file breaks the contract.
    """
    found = scan(paths)
    selected = select(found, variables, experiments, members)
    runs = {}
    for key, by_member in selected.items():
        labels = sorted(by_member, key=member_key)
        runs[key] = _stack([read_member(by_member[m], years) for m in labels], labels, " ".join(key))
    return runs


def _stack(parts: Sequence[xr.Dataset], labels: Sequence[str], subject: str) -> xr.Dataset:
    """Members side by side, once they cover the same months on the same grid in the same calendar."""
    first = parts[0]
    for label, part in zip(labels, parts, strict=True):
        check_alike(part, first, f"{subject} {label}", labels[0])
    out = xr.concat(
        [_snap(part, first) for part in parts], xr.Variable("member", list(labels)), data_vars="all", coords="minimal",
        compat="override", join="exact", combine_attrs="override",
    )  # fmt: skip
    return out.assign_attrs(license="; ".join(dict.fromkeys(str(p.attrs["license"]) for p in parts)))


def check_alike(part: xr.Dataset, first: xr.Dataset, subject: str, first_label: str) -> None:
    """Refuse a member that differs from the first in calendar, months or grid.

    Raises:
        DataContractError: With what differs.
    """
    differing = _difference(part, first)
    if differing:
        raise DataContractError(
            subject, f"{differing[0]}, but {first_label} has {differing[1]}", "members that are alike",
            "set years so that all members cover them, or leave the member out",
        )  # fmt: skip


def _difference(a: xr.Dataset, b: xr.Dataset) -> tuple[str, str] | None:
    """What two members do not share: the words for each, or None."""
    if a.attrs["calendar"] != b.attrs["calendar"]:
        return f"calendar {a.attrs['calendar']}", str(b.attrs["calendar"])
    if not (np.array_equal(a.year, b.year) and np.array_equal(a.month, b.month)):
        return f"months {_period(a)}", _period(b)
    if not _is_same_grid(a, b):
        shapes = [f"{ds.sizes['lat']} x {ds.sizes['lon']} cells from {float(ds.lat[0]):g}" for ds in (a, b)]
        return f"a grid of {shapes[0]}", shapes[1]
    return None


def _period(ds: xr.Dataset) -> str:
    """First and last month; those between have been checked."""
    (a, b), (c, d) = ds.year.values[[0, -1]], ds.month.values[[0, -1]]
    return f"{a:04d}-{c:02d} to {b:04d}-{d:02d}"


def _is_same_grid(a: xr.Dataset, b: xr.Dataset) -> bool:
    return all(a.sizes[n] == b.sizes[n] and np.allclose(a[n], b[n], rtol=0, atol=SAME_DEG) for n in _SPACE)


def _snap(ds: xr.Dataset, to: xr.Dataset) -> xr.Dataset:
    """The coordinates of another file, where they differ by rounding only: exact joins then hold."""
    grid = {n: to[n].variable for n in ("lat", "lon", "lat_bnds", "lon_bnds")}
    return ds.assign_coords(grid) if _is_same_grid(ds, to) else ds


def select(
    found: Scan,
    variables: Sequence[str] | None = None,
    experiments: Sequence[str] | None = None,
    members: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
) -> dict[Key, dict[str, dict[str, list[Entry]]]]:
    """The entries of a request, by run, member and variable.

    Raises:
        DataContractError: If nothing matches, or a requested scenario, member or variable is missing.
    """
    usable = [e for e in found.entries if e.variable_id in (variables or VARIABLES) and e.variable_id in VARIABLES]
    usable = [
        e
        for e in usable
        if (not experiments or e.experiment_id in experiments) and (not sources or e.source_id in sources)
    ]
    if not usable:
        reasons = "; ".join(f"{r.path.name}: {r.reason}" for r in found.rejected[:3])
        there = sorted({f"{e.source_id}/{e.experiment_id}" for e in found.entries})
        seen = (
            f"found {', '.join(there)}" if there else reasons or "found nothing"
        )  # what is there helps more than what is not
        raise DataContractError(
            "archive", f"no usable files ({seen})",
            f"monthly {', '.join(variables or VARIABLES)}" + (f" of {', '.join(experiments)}" if experiments else ""),
            "correct the path or the request",
        )  # fmt: skip
    runs: dict[Key, dict[str, dict[str, list[Entry]]]] = {}
    for e in usable:
        if _wants(members, e):
            runs.setdefault((e.source_id, e.experiment_id), {}).setdefault(e.member, {}).setdefault(
                e.variable_id, []
            ).append(e)
    _check_complete(runs, found, variables, experiments, members)
    return runs


def _wants(members: Mapping[str, Sequence[str]] | Sequence[str] | None, e: Entry) -> bool:
    if members is None:
        return True
    wanted = members.get(e.experiment_id, []) if isinstance(members, Mapping) else members
    return e.member in wanted


def _check_complete(
    runs: Mapping[Key, Mapping[str, Mapping[str, list[Entry]]]],
    found: Scan,
    variables: Sequence[str] | None,
    experiments: Sequence[str] | None,
    members: Mapping[str, Sequence[str]] | Sequence[str] | None,
) -> None:
    aside = {r.path.name: r.reason for r in found.rejected}
    hint = "; set aside: " + "; ".join(f"{n}: {r}" for n, r in list(aside.items())[:3]) if aside else ""
    if members is None:
        _check_variants(runs)
    elif not runs:
        by_scenario = members if isinstance(members, Mapping) else {"any scenario": members}
        wanted = "; ".join(f"{', '.join(labels)} of {scenario}" for scenario, labels in by_scenario.items())
        there = sorted({e.member for e in found.entries}, key=member_key)
        raise DataContractError("archive", f"members {', '.join(there)}{hint}", wanted, "correct the members")
    if isinstance(members, Mapping):
        experiments = [*(experiments or []), *members]
    for name in experiments or []:
        if not any(e == name for _, e in runs):
            raise DataContractError(
                f"scenario {name}", f"no members in the archive{hint}", "at least one", "add its files or drop it"
            )
    for (source, scenario), by_member in runs.items():
        asked = members.get(scenario, []) if isinstance(members, Mapping) else (members or [])
        absent = [m for m in asked if m not in by_member]
        if absent:
            raise DataContractError(
                f"{source} {scenario}",
                f"no member {', '.join(absent)}, found {', '.join(sorted(by_member, key=member_key))}{hint}",
                "every member that is asked for", "correct the list or add the files",
            )  # fmt: skip
        everything = variables or sorted({v for by_variable in by_member.values() for v in by_variable})
        for member, by_variable in by_member.items():
            lacking = [v for v in everything if v not in by_variable]
            if lacking:
                raise DataContractError(
                    f"{source} {scenario} {member}", f"no {', '.join(lacking)}{hint}", f"{', '.join(everything)} for every member",
                    "add the files or leave the member out",
                )  # fmt: skip


def _check_variants(runs: Mapping[Key, Mapping[str, object]]) -> None:
    """Refuse to pool members of differing physics or forcing (p, f) unless they are asked for by name."""
    for (source, scenario), by_member in runs.items():
        kinds = sorted({label[label.index("p") :] for label in by_member if "p" in label})
        if len(kinds) > 1:
            raise DataContractError(
                f"{source} {scenario}", f"members of kinds {', '.join(kinds)}", "one physics and one forcing (p, f)",
                "name the members that belong together",
            )  # fmt: skip


def read_member(files: Mapping[str, Sequence[Entry]], years: tuple[int, int] | None = None) -> xr.Dataset:
    """One member's canonical monthly fields (time, lat, lon), float32, in memory.

    Args:
        files: Entries by variable; time-split files are joined.
        years: First and last year; default all months.

    Raises:
        DataContractError: If months are missing or doubled, grids of variables differ, values are missing or not credible.
    """
    fields = {name: read_variable(entries, name, years) for name, entries in files.items()}
    first = next(iter(fields.values()))
    for name, field in fields.items():
        if _difference(field, first):
            raise DataContractError(
                f"{name} of {next(iter(files[name])).path.name}", "another grid or period than the other variables",
                "one grid and period",
                "give files of one model and one grid_label",
            )  # fmt: skip
    entry = next(iter(next(iter(files.values()))))
    licences = sorted({e.license for entries in files.values() for e in entries if e.license})
    attrs = {
        "source_id": entry.source_id, "experiment_id": entry.experiment_id, "timescale": "month",
        "calendar": first.attrs["calendar"], "license": "; ".join(licences) or "not stated",
    }  # fmt: skip
    return xr.Dataset({n: f[n].variable for n, f in fields.items()}, first.coords, attrs)


def read_variable(entries: Sequence[Entry], name: str, years: tuple[int, int] | None) -> xr.Dataset:
    """One variable of one member, its files joined in time."""
    parts = [_read_file(e, name, years) for e in sorted(entries, key=lambda e: (e.start, e.stop))]
    parts = [p for p in parts if p.sizes["time"]]
    subject = f"{name} of {entries[0].source_id} {entries[0].experiment_id} {entries[0].member}"
    if not parts:
        raise DataContractError(
            subject, f"no month in {years}", "files that cover the years", "narrow the years or add files"
        )
    whole = parts[0] if len(parts) == 1 else _join(parts, subject)
    _check_months(whole, subject, years)
    return whole


def _join(parts: Sequence[xr.Dataset], subject: str) -> xr.Dataset:
    if len({p.attrs["calendar"] for p in parts}) > 1:
        raise DataContractError(subject, "files with differing calendars", "one calendar", "give files of one run")
    try:
        return xr.concat(
            [_snap(p, parts[0]) for p in parts], "time", data_vars="minimal", coords="minimal", compat="override", join="exact",
            combine_attrs="override",
        )  # fmt: skip
    except ValueError as error:
        raise DataContractError(
            subject, f"files on differing grids ({error})", "one grid", "give files of one grid_label"
        ) from error


def _check_months(field: xr.Dataset, subject: str, years: tuple[int, int] | None) -> None:
    index = field.year.values * 12 + field.month.values - 1
    for at, step in enumerate(np.diff(index)):
        if step != 1:
            a, b = (f"{i // 12:04d}-{i % 12 + 1:02d}" for i in index[at : at + 2])
            kind = "months repeat" if step < 1 else "a gap"
            raise DataContractError(
                subject,
                f"{kind}: {a} is followed by {b}",
                "every month once",
                "add the missing file, or leave out the copy",
            )
    if years is not None and (index[0] > 12 * years[0] or index[-1] < 12 * years[1] + 11):
        raise DataContractError(
            subject, f"months {index[0] // 12}-{index[0] % 12 + 1:02d} to {index[-1] // 12}-{index[-1] % 12 + 1:02d}",
            f"all of {years[0]}-{years[1]}", "add files or narrow the years",
        )  # fmt: skip


def _read_file(entry: Entry, name: str, years: tuple[int, int] | None) -> xr.Dataset:
    subject = f"{name} in {entry.path.name}"
    with xr.open_dataset(entry.path, decode_times=False, engine="netcdf4") as ds:
        year, month, calendar = _labels(ds, subject)
        steps = np.arange(year.size) if years is None else np.flatnonzero((year >= years[0]) & (year <= years[1]))
        axes = {a: next((n for n in names if n in ds.coords or n in ds.variables), "") for a, names in _SPACE.items()}
        dims = ds[name].dims
        if not all(axes.values()) or any(ds[n].ndim != 1 for n in axes.values()):
            raise DataContractError(
                subject, "no rectilinear latitude and longitude", "lat (lat) and lon (lon)", "regrid the file first"
            )
        if set(dims) != {"time", axes["lat"], axes["lon"]}:
            raise DataContractError(
                subject, f"dimensions {dims}", "(time, lat, lon)", "select one level or member first"
            )
        field = ds[name].isel(time=steps).transpose("time", axes["lat"], axes["lon"]).load()
        ordered = {a: order_axis(ds[n].values, _bounds(ds, n), a, entry.path.name) for a, n in axes.items()}
    values = field.values[:, ordered["lat"][2]][:, :, ordered["lon"][2]]
    _check_finite(values, year[steps], month[steps], subject)
    space = grid_coords(ordered["lat"][0], ordered["lat"][1], ordered["lon"][0], ordered["lon"][1])
    coords = {**time_coords(year[steps], "month", calendar, month[steps]), **space}
    out = to_canonical(xr.DataArray(values, dims=("time", "lat", "lon"), attrs=field.attrs), name, subject)
    if steps.size:
        grid = xr.Dataset(coords=space)
        check_range(out.values, name, subject, area_weights(grid).values if is_global(grid) else None)
        if VARIABLES[name].is_nonnegative:  # what is below zero within the valid range is rounding of the source
            out = out.clip(min=0.0, keep_attrs=True)
    return xr.Dataset({name: out.variable}, coords, {"calendar": calendar})


def _bounds(ds: xr.Dataset, axis: str) -> NDArray[np.float64] | None:
    name = ds[axis].attrs.get("bounds", f"{axis}_bnds")
    return ds[name].values if name in ds.variables else None


def _labels(ds: xr.Dataset, subject: str) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Year and month of every step, from bounds where there are any, and the calendar."""
    time = ds["time"]
    calendar = canonical_calendar(str(time.attrs.get("calendar", "standard")))
    units = str(time.attrs.get("units", ""))
    name = time.attrs.get("bounds", "time_bnds")
    values = time.values.astype(np.float64)
    has_bounds = name in ds.variables
    if has_bounds:
        bounds = ds[name].transpose("time", ...).values.astype(np.float64)
        values = bounds.mean(axis=1)
    try:
        dates = cftime.num2date(values, units, calendar)
        if has_bounds:
            starts, stops = (cftime.num2date(bounds[:, i], units, calendar) for i in (0, 1))
    except ValueError as error:
        raise DataContractError(
            subject, f"time units {units!r} ({error})", "e.g. days since 1850-01-01", "correct them"
        ) from error
    if has_bounds:
        lengths = np.array([(b - a).total_seconds() / 86400 for a, b in zip(starts, stops, strict=True)])
        if ((lengths < 27) | (lengths > 32)).any():
            bad = lengths[(lengths < 27) | (lengths > 32)][0]
            raise DataContractError(subject, f"a time step of {bad:g} days", "months", "give monthly means")
    elif all(d.day == 1 and d.hour == 0 for d in dates):
        raise DataContractError(
            subject,
            "dates at the edge of months and no bounds",
            "bounds, or dates inside the months",
            "write time_bnds",
        )
    return np.array([d.year for d in dates]), np.array([d.month for d in dates]), calendar


def _check_finite(values: np.ndarray, year: np.ndarray, month: np.ndarray, subject: str) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        at = int(np.argmax(bad.any(axis=(1, 2))))
        raise DataContractError(
            subject, f"{int(bad.sum())} missing values, the first in {year[at]}-{month[at]:02d}", "a complete field",
            "download the file again or leave the member out",
        )  # fmt: skip
