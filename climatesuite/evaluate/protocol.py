"""What is compared with what: timescales, alignment by labels, periods, weights and units of every published score."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import TIMESCALES, VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.evaluate.scores import check_comparable

HEADLINE_FIRST_YEAR = 2017
"""Scenario runs of equal member label share their state of January 2015, so 2015 and 2016 are not independent of training."""
BLOCK_YEARS = 10
LATE_WINDOW = (2080, 2100)
_PERIOD_DAYS = {"month": (27.0, 32.0), "year": (359.0, 367.0), "decade": (3590.0, 3660.0)}


@dataclass(frozen=True)
class Period:
    """A named run of time steps.

    Attributes:
        name: ``full`` or ``headline``.
        steps: Indices into time.
        window: First and last year covered, both included.
    """

    name: str
    steps: NDArray[np.int64]
    window: tuple[int, int]


def timescale_of(ds: xr.Dataset, subject: str = "dataset") -> str:
    """Timescale from the attribute ``timescale``, else from the length of the periods in ``days`` or ``time_bnds``.

    Raises:
        DataContractError: If neither is there, or the periods are neither months nor years nor decades.
    """
    stated = ds.attrs.get("timescale")
    if stated in TIMESCALES:
        return str(stated)
    remedy = "write the global attribute timescale (decade, year or month) or time bounds"
    if stated is not None:
        raise DataContractError(subject, f"timescale {stated!r}", f"one of {', '.join(TIMESCALES)}", remedy)
    if "days" in ds.coords:
        days = np.asarray(ds["days"].values, dtype=np.float64)
    elif "time_bnds" in ds:
        bounds = ds["time_bnds"].transpose("time", ...).values
        days = np.array([(late - early) / np.timedelta64(1, "D") if isinstance(early, np.datetime64)
                         else (late - early).total_seconds() / 86400.0 for early, late in bounds])  # fmt: skip
    else:
        raise DataContractError(subject, "no timescale attribute and no time bounds", "one of them", remedy)
    for name, (low, high) in _PERIOD_DAYS.items():
        if days.size and low <= days.min() and days.max() <= high:
            return name
    found = f"periods of {days.min():.0f} to {days.max():.0f} days" if days.size else "no time steps"
    raise DataContractError(subject, found, "months, years or decades throughout", remedy)


def labels(ds: xr.Dataset | xr.DataArray) -> NDArray[np.int64]:
    """Integer labels in time order: the year, or 12 x year + month - 1 where months exist: ``(time)``."""
    year = np.asarray(ds["year"].values, dtype=np.int64)
    return year if "month" not in ds.coords else 12 * year + np.asarray(ds["month"].values, dtype=np.int64) - 1


def _text(label: int, is_month: bool) -> str:
    return f"{label // 12}-{label % 12 + 1:02d}" if is_month else str(label)


def align(prediction: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both datasets cut to the labels (years, or years and months) they share, never by position.

    One may begin earlier or end later than the other; inside the common stretch both must hold the same labels.

    Raises:
        DataContractError: If labels repeat, the two never overlap, one has months and the other not, or one lacks steps
            inside the common stretch.
    """
    subject = "time labels of prediction and truth"
    is_month = "month" in truth.coords
    if ("month" in prediction.coords) != is_month:
        kinds = ["with months" if "month" in d.coords else "without months" for d in (prediction, truth)]
        raise DataContractError(
            subject, f"a prediction {kinds[0]}, a truth {kinds[1]}", "one timescale", "coarsen one of them"
        )
    ours, theirs = labels(prediction), labels(truth)
    for name, values in (("prediction", ours), ("truth", theirs)):
        if np.any(np.diff(values) <= 0):
            raise DataContractError(
                f"time labels of the {name}", "repeated or unsorted labels", "rising labels", "sort and deduplicate"
            )
    first, last = (max(ours[0], theirs[0]), min(ours[-1], theirs[-1])) if ours.size and theirs.size else (1, 0)
    if first > last:
        spans = [
            f"{_text(v[0], is_month)} to {_text(v[-1], is_month)}" if v.size else "nothing" for v in (ours, theirs)
        ]
        raise DataContractError(
            subject, f"{spans[0]} against {spans[1]}", "a common stretch", "give the truth of the same years"
        )
    inside = [np.flatnonzero((v >= first) & (v <= last)) for v in (ours, theirs)]
    odd = np.setxor1d(ours[inside[0]], theirs[inside[1]])
    if odd.size:
        few = ", ".join(_text(int(v), is_month) for v in odd[:4])
        raise DataContractError(
            subject, f"{odd.size} steps are in one only ({few} ...)", "equal labels in the common stretch",
            "check decade_start, or supply the missing steps",
        )  # fmt: skip
    return prediction.isel(time=inside[0]), truth.isel(time=inside[1])


def periods(ds: xr.Dataset, timescale: str) -> tuple[Period, ...]:
    """The full period and, unless it is empty, the headline period: labels from 2017 on, so decades from the second."""
    year = np.asarray(ds["year"].values, dtype=np.int64)
    extra = 9 if timescale == "decade" else 0
    whole = np.arange(year.size)
    out = [Period("full", whole, (int(year[0]), int(year[-1]) + extra))]
    late = whole[year >= HEADLINE_FIRST_YEAR]
    if late.size:
        out.append(Period("headline", late, (int(year[late[0]]), int(year[-1]) + extra)))
    return tuple(out)


def check_field(name: str, field: xr.DataArray, subject: str, sample_mean: float | None = None) -> None:
    """Check that a field carries its canonical unit and, given its mean, that the label is credible.

    Raises:
        DataContractError: If the variable is unknown, the unit is absent or another, or the area mean is out of range.
    """
    if name not in VARIABLES:
        raise DataContractError(
            subject, f"variable {name!r}", f"one of {', '.join(VARIABLES)}", "add it to conventions.VARIABLES"
        )
    variable = VARIABLES[name]
    units = field.attrs.get("units")
    if units != variable.units:
        raise DataContractError(
            f"{name} in {subject}",
            f"units {units!r}",
            repr(variable.units),
            "convert with harmonise.units and label it",
        )
    low, high = variable.mean_range
    if sample_mean is not None and not low <= sample_mean <= high:
        raise DataContractError(
            f"{name} in {subject}",
            f"a global mean of {sample_mean:.4g} {variable.units}",
            f"{low:g} to {high:g}",
            "the values are in another unit than the label says; correct either",
        )


def check_pair(name: str, prediction: xr.Dataset, truth: xr.Dataset, subject: str) -> None:
    """Check units and coordinates of one variable in an aligned prediction and truth; see :func:`check_field`."""
    for ds, what in ((prediction, subject), (truth, "the truth")):
        if name not in ds:
            raise DataContractError(
                what, f"no variable {name!r}", "the variable to be scored", "name another with variables="
            )
        check_field(name, ds[name], what)
        if set(ds[name].dims) != {"member", "time", "lat", "lon"}:
            raise DataContractError(
                f"{name} in {what}", f"dims {ds[name].dims}", "(member, time, lat, lon)", "rename the dims"
            )
    check_comparable(prediction[name], truth[name])


def plain_value(value: Any) -> Any:
    """A value JSON can hold: None for NaN and infinity, Python's own numbers and lists for numpy's."""
    value = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
