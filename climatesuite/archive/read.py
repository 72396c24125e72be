"""CMIP files to canonical Datasets: right, or refused with file, variable and reason."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from climatesuite.archive.choose import Key, select
from climatesuite.archive.joining import SAME_DEG, is_same_grid, read_variable, snap
from climatesuite.archive.lineage import check_seam, joined
from climatesuite.archive.repairs import say
from climatesuite.archive.scan import Entry, member_key, scan
from climatesuite.errors import DataContractError

__all__ = ["Key", "SAME_DEG", "check_alike", "open_runs", "read_member", "read_variable", "select"]


def open_runs(
    paths: Iterable[str | Path] | str | Path,
    variables: Sequence[str] | None = None,
    experiments: Sequence[str] | None = None,
    members: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    years: tuple[int, int] | None = None,
    join_parents: bool = False,
    on_overlap: str = "refuse",
) -> dict[Key, xr.Dataset]:
    """Canonical monthly Datasets straight from CMIP files, in memory.

    What was wrong in a file and could be set right without a guess is a `RepairWarning` and stands in the attribute ``repairs``.

    Args:
        paths: Files, folders or URLs.
        variables: Fields; default all known ones that are there.
        experiments: Scenarios; default all.
        members: Members of every scenario, or by scenario; default all.
        years: First and last year; default all months.
        join_parents: Whether scenarios begin with the runs that they branch off (`lineage.joined`).
        on_overlap: ``refuse``, ``first`` or ``last``: which file holds where two give differing values of a month.

    Returns:
        Dataset (member, time, lat, lon) by (source_id, experiment_id).

    Raises:
        DataContractError: If there is nothing usable, something asked for is missing, or a file breaks the contract.
    """
    found = scan(paths)
    selected = select(joined(found) if join_parents else found, variables, experiments, members)
    runs = {}
    for key, by_member in selected.items():
        labels = sorted(by_member, key=member_key)
        for files in by_member.values() if join_parents else ():
            for name, entries in files.items():
                check_seam(entries, name, on_overlap)
        runs[key] = _stack([read_member(by_member[m], years, on_overlap) for m in labels], labels, " ".join(key))
    return runs


def _stack(parts: Sequence[xr.Dataset], labels: Sequence[str], subject: str) -> xr.Dataset:
    """Members side by side, once they cover the same months on the same grid in the same calendar."""
    first = parts[0]
    for label, part in zip(labels, parts, strict=True):
        check_alike(part, first, f"{subject} {label}", labels[0])
    out = xr.concat(
        [snap(part, first) for part in parts], xr.Variable("member", list(labels)), data_vars="all", coords="minimal",
        compat="override", join="exact", combine_attrs="override",
    )  # fmt: skip
    repairs = list(dict.fromkeys(r for p in parts for r in p.attrs["repairs"]))
    say(repairs, stacklevel=4)
    return out.assign_attrs(license="; ".join(dict.fromkeys(str(p.attrs["license"]) for p in parts)), repairs=repairs)


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
    if not is_same_grid(a, b):
        shapes = [f"{ds.sizes['lat']} x {ds.sizes['lon']} cells from {float(ds.lat[0]):g}" for ds in (a, b)]
        return f"a grid of {shapes[0]}", shapes[1]
    return None


def _period(ds: xr.Dataset) -> str:
    """First and last month; those between have been checked."""
    (a, b), (c, d) = ds.year.values[[0, -1]], ds.month.values[[0, -1]]
    return f"{a:04d}-{c:02d} to {b:04d}-{d:02d}"


def read_member(
    files: Mapping[str, Sequence[Entry]], years: tuple[int, int] | None = None, on_overlap: str = "refuse"
) -> xr.Dataset:
    """One member's canonical monthly fields (time, lat, lon), float32, in memory.

    Args:
        files: Entries by variable; time-split files are joined.
        years: First and last year; default all months.
        on_overlap: As for `open_runs`.

    Raises:
        DataContractError: If months are missing or doubled, grids of variables differ, values are missing or not credible.
    """
    fields = {name: read_variable(entries, name, years, on_overlap) for name, entries in files.items()}
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
        "repairs": [r for f in fields.values() for r in f.attrs["repairs"]],
    }  # fmt: skip
    return xr.Dataset({n: f[n].variable for n, f in fields.items()}, first.coords, attrs)
