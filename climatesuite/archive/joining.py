"""The files of one variable of one member joined in time, by month arithmetic: every month once, none missing, nothing mixed."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.archive.entry import Entry
from climatesuite.archive.files import credible, read_file
from climatesuite.archive.months import month_text
from climatesuite.errors import DataContractError
from climatesuite.harmonise.curvilinear import CORNERS, is_cells

SAME_DEG = 1e-4
"""Grids whose centres differ by less than this, in degrees, are the same grid written with other rounding."""


def read_variable(
    entries: Sequence[Entry],
    name: str,
    years: tuple[int, int] | None,
    on_overlap: str = "refuse",
    any_cells: bool = False,
) -> xr.Dataset:
    """One variable of one member, its files joined in time.

    Args:
        entries: Its files, in any order.
        name: Variable of `conventions.VARIABLES`.
        years: First and last year; default all months.
        on_overlap: ``refuse``, ``first`` or ``last``: what to do where two files give differing values of a month; equal ones are
            kept once.
        any_cells: As for `read_file`.

    Returns:
        ``name (time, lat, lon)`` or ``(time, cell)``; attributes ``calendar`` and ``repairs``, a list of sentences, each with its
        file.

    Raises:
        DataContractError: If months are missing or differ between files, or a file breaks the contract.
    """
    if on_overlap not in ("refuse", "first", "last"):
        raise DataContractError("on_overlap", repr(on_overlap), "refuse, first or last", "correct the word")
    subject = f"{name} of {entries[0].source_id} {entries[0].experiment_id} {entries[0].member}"
    terms = entries[0].terms or ("",)
    parts = []
    for term in terms:
        own = sorted((e for e in entries if e.stored == term), key=lambda e: (e.start, e.stop, e.path))
        read = [(e, read_file(e, name, years, any_cells)) for e in own]
        read = [(e, p) for e, p in read if p.sizes["time"]]
        about = f"{term} for {subject}" if len(terms) > 1 else subject
        if not read:
            raise DataContractError(
                about, f"no month in {years}", "files that cover the years", "narrow the years or add files"
            )
        parts.append(join([p for _, p in read], [e.path.name for e, _ in read], name, about, on_overlap))
        _check_months(parts[-1], about, years)
    return parts[0] if len(parts) == 1 else _added(parts, terms, name, subject)


def _added(parts: Sequence[xr.Dataset], terms: Sequence[str], name: str, subject: str) -> xr.Dataset:
    """The sum of stored variables, once they are alike and it is credible."""
    first = parts[0]
    for part, term in zip(parts, terms, strict=True):
        is_alike = np.array_equal(part.year * 12 + part.month, first.year * 12 + first.month) and is_same_grid(
            part, first
        )
        if not is_alike or part.attrs["calendar"] != first.attrs["calendar"]:
            raise DataContractError(
                subject, f"{term} on other months, another calendar or grid than {terms[0]}", f"{' + '.join(terms)} alike",
                "give files of one run, or set years that all of them cover",
            )  # fmt: skip
    total = np.sum([p[name].values for p in parts], axis=0, dtype=np.float64).astype(np.float32)
    out, repairs = credible(first[name].copy(data=total), first, name, subject)
    said = [r for p in parts for r in p.attrs["repairs"]] + [f"{subject}: {r}" for r in repairs]
    return first.assign({name: out}).assign_attrs(repairs=said)


def _check_months(field: xr.Dataset, subject: str, years: tuple[int, int] | None) -> None:
    index = field.year.values * 12 + field.month.values - 1
    for at, step in enumerate(np.diff(index)):
        if step != 1:
            a, b = (month_text(int(i)) for i in index[at : at + 2])
            raise DataContractError(
                subject, f"a gap: {a} is followed by {b}", "every month once", "add the missing file, or narrow the years"
            )  # fmt: skip
    if years is not None and (index[0] > 12 * years[0] or index[-1] < 12 * years[1] + 11):
        raise DataContractError(
            subject, f"months {month_text(int(index[0]))} to {month_text(int(index[-1]))}", f"all of {years[0]}-{years[1]}",
            "add files or narrow the years",
        )  # fmt: skip


def join(parts: Sequence[xr.Dataset], files: Sequence[str], name: str, subject: str, on_overlap: str) -> xr.Dataset:
    """Files of one run joined in time, every month once, in order.

    Args:
        parts: From `read_file`.
        files: Their names.
        name: The variable.
        subject: For messages.
        on_overlap: ``refuse``, ``first`` or ``last``: what to do with a month that two files give differing values.

    Raises:
        DataContractError: If calendars or grids differ, or an overlap differs and is to be refused.
    """
    calendars = {p.attrs["calendar"]: f for p, f in zip(parts, files, strict=True)}
    if len(calendars) > 1:
        told = ", ".join(f"{c} in {f}" for c, f in calendars.items())
        raise DataContractError(
            subject, f"files with differing calendars ({told})", "one calendar", "give files of one run"
        )
    apart = next(
        (
            f
            for p, f in zip(parts, files, strict=True)
            if (is_cells(p) or is_cells(parts[0])) and not is_same_grid(p, parts[0])
        ),
        "",
    )
    try:
        if apart:
            raise ValueError(f"cells with other corners in {apart}")
        whole = parts[0] if len(parts) == 1 else xr.concat(
            [snap(p, parts[0]) for p in parts], "time", data_vars="minimal", coords="minimal", compat="override", join="exact",
            combine_attrs="override",
        )  # fmt: skip
    except ValueError as error:
        raise DataContractError(
            subject, f"files on differing grids ({error})", "one grid", "give files of one grid_label"
        ) from error
    repairs = [f"{f}: {r}" for p, f in zip(parts, files, strict=True) for r in p.attrs["repairs"]]
    index = whole.year.values * 12 + whole.month.values - 1
    order = np.argsort(index, kind="stable")
    if (np.diff(index) > 0).all():
        return whole.assign_attrs(repairs=repairs)
    origin = np.repeat(np.arange(len(parts)), [p.sizes["time"] for p in parts])
    keep, said = _once(whole[name].values, index, order, origin, files, subject, on_overlap)
    return whole.isel(time=keep).assign_attrs(repairs=[*repairs, *(f"{files[0]}: {text}" for text in said)])


def _once(
    values: NDArray[np.float32], index: NDArray[np.int64], order: NDArray[np.int64], origin: NDArray[np.int64],
    files: Sequence[str], subject: str, on_overlap: str,
) -> tuple[list[int], list[str]]:  # fmt: skip
    """Positions of every month once, in order; and words about the months that are there twice."""
    kept: list[int] = []
    same, differing = [], []
    for at in (int(i) for i in order):
        if not kept or index[kept[-1]] != index[at]:
            kept.append(at)
            continue
        first, month = kept[-1], month_text(int(index[at]))
        if np.array_equal(values[first], values[at]):
            same.append(month)
            continue
        if on_overlap == "refuse":
            gap = float(np.abs(values[first].astype(np.float64) - values[at]).max())
            pair = " and ".join(dict.fromkeys((files[origin[first]], files[origin[at]])))
            raise DataContractError(
                subject, f"{month} is in {pair} with values that differ by up to {gap:.3g}", "every month once",
                "leave one out, or say which one holds: on_overlap first or last",
            )  # fmt: skip
        differing.append(month)
        kept[-1] = first if on_overlap == "first" else at
    said = [f"{len(same)} months are there twice with the same values ({same[0]} to {same[-1]})"] if same else []
    if differing:
        said.append(
            f"{len(differing)} months differ between files ({differing[0]} to {differing[-1]}): the {on_overlap} one kept"
        )
    if (np.diff(kept) < 0).any():
        said.append("files or steps out of order: put in order")
    return kept, said


def snap(ds: xr.Dataset, to: xr.Dataset) -> xr.Dataset:
    """The coordinates of another file, where they differ by rounding only: exact joins then hold."""
    grid = {n: to[n].variable for n in ("lat", "lon", "lat_bnds", "lon_bnds", *CORNERS) if n in to.coords}
    return ds.assign_coords(grid) if is_same_grid(ds, to) else ds


def is_same_grid(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Whether centres, or corners of cells, differ by rounding only."""
    names = CORNERS if is_cells(a) else ("lat", "lon")
    return is_cells(a) == is_cells(b) and all(
        a[n].shape == b[n].shape and np.allclose(a[n], b[n], rtol=0, atol=SAME_DEG, equal_nan=True) for n in names
    )
