"""Which month every step of a file is: by its bounds, checked against its time stamps; what cannot be told is refused.

Dates are positions on one axis of months: January of year 0 begins at 0, a month later is 1 more, whatever the calendar. Gaps,
overlaps and repeats are then found by arithmetic.
"""

import re
from dataclasses import dataclass
from typing import Any

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import CALENDARS

DAYS = {"days": 1.0, "day": 1.0, "d": 1.0, "hours": 1 / 24, "hour": 1 / 24, "hr": 1 / 24, "h": 1 / 24,
        "minutes": 1 / 1440, "minute": 1 / 1440, "min": 1 / 1440, "seconds": 1 / 86400, "second": 1 / 86400,
        "sec": 1 / 86400, "s": 1 / 86400}  # fmt: skip
"""Length in days of the units of time that mean the same in every calendar."""
MONTH_DAYS = (27.0, 32.0)
_EDGE = 0.06  # of a month, about two days: how far bounds may lie beside the first of a month
_MIDDLE = 0.1  # of a month: how far dates may lie from the middle where bounds are of no use
_AMBIGUOUS = 0.003  # of a month, about two hours: a stamp this near the first of a month may mean either side
_YEAR_MONTH = re.compile(r"^(\d{1,4})-(\d{1,2})(?:-(\d{1,2}))?(?:[ T].*)?$")


@dataclass(frozen=True)
class Months:
    """The time axis of a file.

    Attributes:
        index: 12 x year + month - 1 of every step, in the order of the file.
        calendar: CF name.
        repairs: What was found wrong and set right, in words.
    """

    index: NDArray[np.int64]
    calendar: str
    repairs: tuple[str, ...] = ()


def months_of(ds: xr.Dataset, name: str, subject: str, at: slice | list[int] | None = None) -> Months:
    """Month of every step of a time axis.

    Args:
        ds: As stored: nothing decoded.
        name: The time coordinate.
        subject: For messages, e.g. ``tas in file.nc``.
        at: Only these steps.

    Returns:
        Months, in the order of the file.

    Raises:
        DataContractError: If units or calendar are unknown, steps are no months, or stamps stand at the edge of months without
            bounds that tell which one is meant.
    """
    time = ds[name].reset_coords(drop=True)
    units, calendar, repairs = _units(time, subject), *_calendar(time, subject)
    stamps = np.atleast_1d(time.values).astype(np.float64)
    bounds = _bounds(ds, time, name)
    days = step_days(stamps, units)
    if at is not None:
        stamps, bounds = stamps[at], None if bounds is None else bounds[at]
    if not np.isfinite(stamps).all() or (np.abs(stamps) > 1e15).any():
        raise DataContractError(subject, "missing values in the time axis", "a date for every step", "correct the file")
    at_month = positions(stamps, units, calendar, subject)
    if bounds is None:
        return Months(
            _by_stamps(at_month, days, subject), calendar, (*repairs, "no time bounds: months by their dates")
        )
    spelled = _text(ds[_bounds_name(ds, time, name)].attrs.get("units", units))
    if spelled != units:
        repairs += (f"time bounds in units of their own, {spelled!r}",)
    if (bounds[:, 1] < bounds[:, 0]).any():
        bounds, repairs = np.sort(bounds, axis=1), (*repairs, "time bounds inverted: turned round")
    edges = np.stack([positions(bounds[:, i], spelled, calendar, subject) for i in (0, 1)], axis=1)
    lengths = (bounds[:, 1] - bounds[:, 0]) * DAYS.get(spelled.split(" ")[0], np.nan)
    problem = _problem(edges, at_month, lengths, subject)
    if not problem:
        return Months(np.round(edges[:, 0]).astype(np.int64), calendar, repairs)
    index = _by_stamps(at_month, days, subject)
    if (np.abs(at_month - index - 0.5) > _MIDDLE).any():
        raise DataContractError(
            subject, f"time bounds that {problem}, and dates that are not in the middle of months", "bounds of months",
            "correct time_bnds",
        )  # fmt: skip
    return Months(index, calendar, (*repairs, f"time bounds {problem}: left aside, months by their dates"))


def positions(values: NDArray[np.float64], units: str, calendar: str, subject: str) -> NDArray[np.float64]:
    """Dates as months since January of year 0, whole at the first of a month.

    Args:
        values: Numbers as stored ``(n,)``.
        units: ``days since 1850-01-01``, ``months since 1899-12`` or ``day as %Y%m%d.%f``.
        calendar: CF calendar.
        subject: For messages.

    Raises:
        DataContractError: If the units are not understood.
    """
    unit, _, epoch = units.partition(" since ")
    try:
        if units.startswith("day as %Y%m%d"):
            day = np.floor(values + 1e-9).astype(np.int64)
            year, month, rest = day // 10000, day // 100 % 100, values - day // 100 * 100
            if ((month < 1) | (month > 12) | (rest < 1) | (rest >= 32)).any():
                raise ValueError("no such month or day")
            return 12.0 * year + month - 1 + (rest - 1) / 31
        if unit in ("month", "months"):
            begin = _YEAR_MONTH.match(epoch)
            if begin is None:
                raise ValueError("no such date")
            first = [int(n or 1) for n in begin.groups()]
            return 12.0 * first[0] + first[1] - 1 + (first[2] - 1) / 31 + values
        if unit not in DAYS:
            raise ValueError("not a unit of time")
        dates: Any = np.atleast_1d(cftime.num2date(values, f"{unit} since {epoch}", calendar))
    except (ValueError, OverflowError) as error:
        raise DataContractError(
            subject, f"time units {units!r} ({error})", "e.g. days since 1850-01-01", "correct them"
        ) from error
    return np.array([_position(d) for d in dates], dtype=np.float64)


def step_days(values: NDArray[np.float64], units: str) -> float:
    """The usual distance of steps in days, in whatever order; NaN for a single step or units that are no days."""
    unit = units.partition(" ")[0]
    if values.size < 2 or " since " not in units:
        return float("nan")
    return float(np.median(np.diff(np.sort(values)))) * (
        30.4 if unit.startswith("month") else DAYS.get(unit, float("nan"))
    )


def month_text(index: int) -> str:
    """``2015-01`` of an index."""
    return f"{index // 12:04d}-{index % 12 + 1:02d}"


def _units(time: xr.DataArray, subject: str) -> str:
    if not time.attrs.get("units"):
        raise DataContractError(
            subject, "no units of time", "e.g. days since 1850-01-01", "write the attribute units of time"
        )
    return _text(time.attrs["units"])


def _text(units: Any) -> str:
    return " ".join(str(units).split())


def _calendar(time: xr.DataArray, subject: str) -> tuple[str, tuple[str, ...]]:
    name = str(time.attrs.get("calendar", "")).strip().lower()
    if not name:
        return "standard", ("no calendar stated: standard, as CF says",)
    if name not in CALENDARS:
        raise DataContractError(
            subject, f"calendar {name!r}", f"one of {', '.join(CALENDARS)}", "correct the attribute calendar"
        )
    return CALENDARS[name], ()


def _bounds_name(ds: xr.Dataset, time: xr.DataArray, name: str) -> str:
    given = (
        str(time.attrs.get("bounds", "")),
        f"{name}_bnds",
        f"{name}_bounds",
        "time_bnds",
        "time_bounds",
        "time_bound",
    )
    return next((n for n in given if n in ds.variables), "")


def _bounds(ds: xr.Dataset, time: xr.DataArray, name: str) -> NDArray[np.float64] | None:
    """Bounds ``(n, 2)`` as stored, or None where there are none to use: absent, of another shape, or not filled in."""
    found = _bounds_name(ds, time, name)
    if not found:
        return None
    bounds = ds[found]
    if time.dims and time.dims[0] in bounds.dims:
        bounds = bounds.transpose(time.dims[0], ...)
    values = bounds.values.astype(np.float64)
    values = values[None] if not time.dims else values
    if values.shape != (max(time.size, 1), 2) or not (np.isfinite(values) & (np.abs(values) < 1e15)).all():
        return None
    return values


def _problem(
    edges: NDArray[np.float64], stamps: NDArray[np.float64], lengths: NDArray[np.float64], subject: str
) -> str:
    """What is wrong with bounds where dates may still tell the months; empty where they are sound.

    Raises:
        DataContractError: If steps are no months, or edges lie beside the first of the month as in a wrong calendar.
    """
    if (edges[:, 0] == edges[:, 1]).all():
        return "have no width"
    wrong = (lengths < MONTH_DAYS[0]) | (lengths > MONTH_DAYS[1])
    if wrong.all() and (lengths >= MONTH_DAYS[0] / 2).all():
        return f"are {lengths[0]:g} days wide"
    if wrong.any():
        raise DataContractError(subject, f"a time step of {lengths[wrong][0]:g} days", "months", "give monthly means")
    if ((stamps < edges[:, 0] - _EDGE) | (stamps > edges[:, 1] + _EDGE)).any():
        return "do not hold their dates (another epoch?)"
    beside = np.abs(edges - np.round(edges)).max()
    if beside > _EDGE:
        raise DataContractError(
            subject, f"time bounds up to {beside * 30.4:.0f} days beside the first of a month", "the edges of months",
            "is the calendar right?",
        )  # fmt: skip
    return ""


def _by_stamps(at: NDArray[np.float64], days: float, subject: str) -> NDArray[np.int64]:
    """Months by dates that stand inside them."""
    inside = at - np.floor(at)
    if np.isfinite(days) and not MONTH_DAYS[0] < days < MONTH_DAYS[1]:
        raise DataContractError(subject, f"a time step of {days:g} days", "months", "give monthly means")
    if ((inside < _AMBIGUOUS) | (inside > 1 - _AMBIGUOUS)).any():
        raise DataContractError(
            subject, "dates at the edge of months and no bounds", "bounds, or dates inside the months", "write time_bnds"
        )  # fmt: skip
    return np.floor(at).astype(np.int64)


def _position(date: Any) -> float:
    """12 x year + month - 1 and the elapsed share of the month."""
    seconds = (date.day - 1) * 86400 + date.hour * 3600 + date.minute * 60 + date.second
    return 12 * date.year + date.month - 1 + seconds / (date.daysinmonth * 86400)
