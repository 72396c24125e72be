"""Calendars: how long months are, and where months, years and decades begin, end and have their middle."""

from collections.abc import Iterable
from typing import Any

import cftime
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from climatesuite.conventions import TIMESCALES
from climatesuite.errors import DataContractError

YEARS_PER_DECADE = 10
MONTHS_PER_YEAR = 12
CALENDARS = {
    "standard": "standard",
    "gregorian": "standard",
    "proleptic_gregorian": "proleptic_gregorian",
    "julian": "julian",
    "noleap": "noleap",
    "365_day": "noleap",
    "all_leap": "all_leap",
    "366_day": "all_leap",
    "360_day": "360_day",
}
"""Accepted spellings of CF calendars and the one name used for each."""
_LENGTHS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_REFORM_YEAR = 1582  # the standard calendar turns from Julian to Gregorian after 4 October


def canonical_calendar(name: str) -> str:
    """The one name of a CF calendar.

    Raises:
        DataContractError: If the calendar is unknown.
    """
    try:
        return CALENDARS[name.strip().lower()]
    except KeyError:
        raise DataContractError(
            f"calendar {name!r}",
            "not a CF calendar",
            f"one of {', '.join(CALENDARS)}",
            "correct the attribute calendar",
        ) from None


def is_leap(years: ArrayLike, calendar: str) -> NDArray[np.bool_]:
    """Whether February has a 29th day; false for 360_day, whose months are all alike.

    >>> is_leap([2000, 2100, 2104], "standard").tolist()
    [True, False, True]
    """
    y, name = np.asarray(years, dtype=np.int64), canonical_calendar(calendar)
    if name in ("noleap", "360_day"):
        return np.zeros(y.shape, dtype=bool)
    if name == "all_leap":
        return np.ones(y.shape, dtype=bool)
    julian = y % 4 == 0
    gregorian = julian & ((y % 100 != 0) | (y % 400 == 0))
    if name == "julian":
        return julian
    return np.where(y <= _REFORM_YEAR, julian, gregorian) if name == "standard" else gregorian


def month_lengths(years: ArrayLike, calendar: str) -> NDArray[np.int64]:
    """Days in every month of some years.

    Args:
        years: Year labels, any length n.
        calendar: CF calendar.

    Returns:
        Days, ``(n, 12)``.

    Raises:
        DataContractError: If the calendar is unknown.
    """
    y, name = np.atleast_1d(np.asarray(years, dtype=np.int64)), canonical_calendar(calendar)
    if name == "360_day":
        return np.full((y.size, MONTHS_PER_YEAR), 30, dtype=np.int64)
    days = np.tile(_LENGTHS, (y.size, 1)).astype(np.int64)
    days[:, 1] += is_leap(y, name)
    if name == "standard":
        days[y == _REFORM_YEAR, 9] = 21
    return days


def period_bounds(
    labels: Iterable[int] | NDArray[Any],
    timescale: str,
    calendar: str,
    months: Iterable[int] | NDArray[Any] | None = None,
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Middle, start and end of periods as cftime dates.

    Args:
        labels: Years; for decades their first years.
        timescale: ``month``, ``year`` or ``decade``.
        calendar: CF calendar.
        months: For timescale ``month``: 1 to 12, one beside each label. Without it every label gives its twelve months.

    Returns:
        Middle of each period ``(n,)`` and its bounds ``(n, 2)``; the end of a period is the start of the next.

    Raises:
        DataContractError: If timescale, calendar or months are unknown.
    """
    years = np.asarray(list(labels), dtype=np.int64)
    if timescale not in TIMESCALES:
        raise DataContractError(
            "period", f"timescale {timescale!r}", f"one of {', '.join(TIMESCALES)}", "correct the word"
        )
    name = canonical_calendar(calendar)
    if timescale == "month":
        if months is None:
            years, month = np.repeat(years, MONTHS_PER_YEAR), np.tile(np.arange(1, MONTHS_PER_YEAR + 1), years.size)
        else:
            month = np.asarray(list(months), dtype=np.int64)
        if month.shape != years.shape or ((month < 1) | (month > MONTHS_PER_YEAR)).any():
            raise DataContractError(
                "months of a period", f"{month.tolist()[:13]}", "1 to 12, one a label", "correct them"
            )
        nexts = years + month // MONTHS_PER_YEAR, month % MONTHS_PER_YEAR + 1
    else:
        month = np.ones_like(years)
        nexts = years + (YEARS_PER_DECADE if timescale == "decade" else 1), month
    starts, ends = _first_days(years, month, name), _first_days(*nexts, name)
    middle = np.array([a + (b - a) / 2 for a, b in zip(starts, ends, strict=True)], dtype=object)
    return middle, np.stack([starts, ends], axis=1)


def time_coords(
    labels: Iterable[int] | NDArray[Any],
    timescale: str,
    calendar: str,
    months: Iterable[int] | NDArray[Any] | None = None,
) -> dict[str, xr.Variable]:
    """The canonical time coordinates of some periods.

    Args:
        labels: As for :func:`period_bounds`.
        timescale: ``month``, ``year`` or ``decade``.
        calendar: CF calendar.
        months: As for :func:`period_bounds`.

    Returns:
        ``time`` (cftime, middle), ``time_bnds (time, bnds)``, ``year`` (int64), ``days`` (float64), ``month`` (int64, months only).
    """
    years = np.asarray(list(labels), dtype=np.int64)
    month = None if months is None else np.asarray(list(months), dtype=np.int64)
    middle, bounds = period_bounds(years, timescale, calendar, month)
    if timescale == "month" and month is None:
        years, month = np.repeat(years, MONTHS_PER_YEAR), np.tile(np.arange(1, MONTHS_PER_YEAR + 1), years.size)
    return coords_from_bounds(middle, bounds, years, month)


def coords_from_bounds(
    middle: NDArray[np.object_], bounds: NDArray[np.object_], years: NDArray[np.int64], months: NDArray[np.int64] | None
) -> dict[str, xr.Variable]:
    """Canonical time coordinates from dates ``(n,)``, bounds ``(n, 2)`` and labels ``(n,)``; months only for timescale month."""
    about = {"standard_name": "time", "long_name": "middle of the period", "axis": "T", "bounds": "time_bnds"}
    coords = {
        "time": xr.Variable("time", middle, about),
        "time_bnds": xr.Variable(("time", "bnds"), bounds),
        "year": xr.Variable("time", np.asarray(years, dtype=np.int64), {"long_name": "first year of the period"}),
        "days": xr.Variable("time", length_days(bounds), {"long_name": "length of the period in days", "units": "1"}),
    }
    if months is not None:
        coords["month"] = xr.Variable("time", np.asarray(months, dtype=np.int64), {"long_name": "calendar month"})
    return coords


def length_days(bounds: NDArray[np.object_]) -> NDArray[np.float64]:
    """Length of each period in days ``(n,)`` from its bounds ``(n, 2)``."""
    return np.array([(b - a).total_seconds() / 86400.0 for a, b in bounds], dtype=np.float64)


def _first_days(years: NDArray[np.int64], months: NDArray[np.int64], calendar: str) -> NDArray[np.object_]:
    pairs = zip(years.tolist(), months.tolist(), strict=True)
    return np.array([cftime.datetime(y, m, 1, calendar=calendar) for y, m in pairs], dtype=object)


def relabel(ds: xr.Dataset, calendar: str) -> xr.Dataset:
    """The same periods in another calendar: month by month, year by year; values stay as they are.

    Args:
        ds: Canonical Dataset with the attribute ``timescale``.
        calendar: CF calendar.

    Returns:
        Dataset whose time coordinates and attribute ``calendar`` are of that calendar; ``native_calendar`` is the one it had.

    Raises:
        DataContractError: If the calendar or the timescale is unknown.
    """
    months = ds["month"].values if "month" in ds.coords else None
    coords = time_coords(ds["year"].values, str(ds.attrs.get("timescale")), calendar, months)
    for name, variable in coords.items():  # attributes and encoding of the Dataset's own coordinates stay
        variable.attrs = {**variable.attrs, **ds[name].attrs} if name in ds.variables else variable.attrs
    native = ds.attrs.get("native_calendar", ds["time"].values[0].calendar)
    return ds.assign_coords(coords).assign_attrs(calendar=canonical_calendar(calendar), native_calendar=native)
