"""Drivers of the climate from files in ClimateBench's input layout, as canonical monthly Datasets.

Layout: scalars ``CO2(time)``, ``CH4(time)``, ``CO2_ppm``, ``CH4_ppb``, maps ``SO2``, ``BC``, ``AOD (time, latitude, longitude)``,
on monthly or yearly steps; one file ``inputs_<experiment_id>.nc`` a scenario. A scenario of one's own also carries its
radiative forcing by component, ``erf_co2 (erf_year)`` and so on (see :mod:`climatesuite.forcing.reference`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import FORCINGS
from climatesuite.errors import DataContractError
from climatesuite.forcing.accounting import NOT_STATED, accounting_of
from climatesuite.harmonise.calendars import canonical_calendar, time_coords
from climatesuite.harmonise.grids import grid_coords, is_global, order_axis, regrid
from climatesuite.harmonise.units import to_canonical

CARRIED = "erf_"
"""First letters of the variables that pass through as they are: radiative forcing by component."""
PASSED = ("parent_scenario", "departs_in", "no_radiative_forcing")
"""Attributes of a scenario of one's own that pass through as well."""
EMITTED = ("CO2", "CH4", "SO2", "BC")
"""Forcings that are emissions: how they are counted is a part of what they are."""
NOISE = 1e-20
"""kg m-2 s-1; smaller negative emissions are rounding of the source and become zero."""
CREDIBLE = {
    "CO2": (-1e3, 5e4), "CH4": (0.0, 10.0), "SO2": (0.0, 1e-6), "BC": (0.0, 1e-6), "AOD": (0.0, 10.0),
    "CO2_ppm": (150.0, 3000.0), "CH4_ppb": (200.0, 10000.0),
}  # fmt: skip
"""Smallest and largest credible value in the canonical unit; finds wrong unit labels, and files that carry none."""


def forcing_file(path: str | Path, experiment_id: str | None) -> Path:
    """The forcing file itself, or a scenario's file in a folder.

    Raises:
        DataContractError: If it is not there.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.is_file():
            raise DataContractError(str(path), "no such file", "a forcing file or a folder of them", "correct the path")
        return path
    if experiment_id is None:
        raise DataContractError(str(path), "a folder", "a file, or a scenario to look for", "give the file")
    file = path / f"inputs_{experiment_id}.nc"
    if not file.is_file():
        there = ", ".join(sorted(p.name for p in path.glob("inputs_*.nc"))) or "no inputs_*.nc"
        raise DataContractError(
            f"forcings of {experiment_id}", f"{there} in {path}", file.name, "add the file or drop the scenario"
        )
    return file


def open_forcings(
    path: str | Path,
    names: Sequence[str],
    experiment_id: str | None = None,
    grid: xr.Dataset | None = None,
    calendar: str | None = None,
) -> xr.Dataset:
    """Forcings of one scenario on monthly steps.

    A variable without units is taken to be in the layout's own, `conventions.FORCINGS`.

    Args:
        path: File, or folder holding ``inputs_<experiment_id>.nc``.
        names: Among `conventions.FORCINGS`.
        experiment_id: Scenario; default the file's attribute.
        grid: Regrid maps conservatively onto this grid (lat, lon and bounds); default the file's own.
        calendar: Calendar of the result; default the file's. Months are matched by label.

    Returns:
        Canonical Dataset: scalars (time), maps (time, lat, lon), float64 and float32. Yearly steps are repeated over the year.
        The attribute ``accounting`` says how emissions are counted, where the file does.

    Raises:
        DataContractError: If the file, a forcing or a month is missing, units are unknown, or values are missing or not
            credible.
    """
    unknown = [n for n in names if n not in FORCINGS]
    if unknown:
        raise DataContractError("forcings", f"{unknown} unknown", f"some of {', '.join(FORCINGS)}", "correct the names")
    file = forcing_file(path, experiment_id)
    with open_whole(file) as ds:
        stated = str(ds.attrs.get("experiment_id", experiment_id or "unknown"))
        if experiment_id is not None and stated != experiment_id:
            raise DataContractError(
                file.name, f"experiment_id {stated!r}", repr(experiment_id), "rename the file or correct it"
            )
        missing = [n for n in names if n not in ds.data_vars]
        if missing:
            raise DataContractError(
                f"forcings of {stated} in {file.name}", f"no {', '.join(missing)}, only {', '.join(map(str, ds.data_vars))}",
                f"{', '.join(names)}", "add them to the file (zero is a value, absence is not)",
            )  # fmt: skip
        steps = _Steps.of(ds, file.name)
        fields = {n: _read(ds, n, steps, file.name) for n in names}
        axes = _axes(ds, file.name) if any(f.ndim == 3 for f in fields.values()) else {}
        attrs = {
            "experiment_id": stated, "timescale": "month", "license": str(ds.attrs.get("license", "not stated")),
            "calendar": canonical_calendar(calendar) if calendar else steps.calendar,
        }  # fmt: skip
        if accounting_of(ds) != NOT_STATED:  # beside the variables too: a store keeps their attributes
            attrs["accounting"] = accounting_of(ds)
            fields = {
                n: f.assign_attrs(accounting=attrs["accounting"]) if n in EMITTED else f for n, f in fields.items()
            }
        attrs |= {n: str(ds.attrs[n]) for n in PASSED if n in ds.attrs}
        carried = ds[[n for n in ds.data_vars if str(n).startswith(CARRIED)]].load().drop_attrs(deep=False)
    coords = time_coords(steps.years, "month", str(attrs["calendar"]))
    out = xr.Dataset({n: f.variable for n, f in fields.items()}, {**coords, **axes}, attrs).merge(carried)
    return out if grid is None else _onto(out, grid)


def fit_to(forcings: xr.Dataset, names: Sequence[str], grid: xr.Dataset, calendar: str) -> xr.Dataset:
    """Canonical forcings as an emulator takes them: those named, on its grid, months by label in its calendar.

    Raises:
        DataContractError: If one is missing, the scenario departs in one that is not named, or maps do not cover the globe.
    """
    check_seen(forcings, names)
    subject = f"forcings of {forcings.attrs.get('experiment_id', 'the scenario')}"
    missing = [n for n in names if n not in forcings]
    if missing:
        has = ", ".join(n for n in FORCINGS if n in forcings)
        raise DataContractError(subject, f"no {', '.join(missing)}, only {has}", ", ".join(names), "add them")
    kept = forcings.drop_vars([n for n in FORCINGS if n in forcings and n not in names])
    years = np.unique(kept["year"].values).astype(int).tolist()
    kept = kept.assign_coords(time_coords(years, "month", canonical_calendar(calendar)))
    return _onto(kept.assign_attrs(calendar=canonical_calendar(calendar)), grid)


def check_seen(forcings: xr.Dataset, names: Sequence[str]) -> None:
    """Refuse a scenario that departs from its parent in a forcing that is not looked at: the answer would be its parent's.

    Raises:
        DataContractError: If it does.
    """
    departs = [n for n in str(forcings.attrs.get("departs_in", "")).split(", ") if n]
    unseen = [n for n in departs if n not in names]
    if unseen:
        raise DataContractError(
            f"scenario {forcings.attrs['experiment_id']}", f"it departs from {forcings.attrs.get('parent_scenario')} in "
            f"{', '.join(unseen)}", f"departures in {', '.join(names)}, all that is looked at here",
            "use an emulator trained with that forcing, or leave the departure out",
        )  # fmt: skip


def _onto(forcings: xr.Dataset, grid: xr.Dataset) -> xr.Dataset:
    if "lat" not in forcings.dims:
        return forcings
    if is_global(grid) and not is_global(forcings):
        span = f"latitudes {float(forcings.lat_bnds.min()):g} to {float(forcings.lat_bnds.max()):g}"
        raise DataContractError(
            f"forcings of {forcings.attrs['experiment_id']}", span, "maps that cover the globe", "give global maps"
        )
    return regrid(forcings, grid)


def open_whole(file: Path) -> xr.Dataset:
    """A NetCDF file with times as they are stored.

    Raises:
        DataContractError: If it is not readable.
    """
    try:
        return xr.open_dataset(file, decode_times=False, engine="netcdf4")
    except (OSError, RuntimeError) as error:
        raise DataContractError(
            file.name, f"not readable ({error})", "a whole NetCDF file", "download it again"
        ) from error


class _Steps:
    """The whole years of a file and the step that each of their months takes."""

    def __init__(self, years: list[int], index: np.ndarray, calendar: str) -> None:
        self.years, self.index, self.calendar = years, index, calendar

    @classmethod
    def of(cls, ds: xr.Dataset, subject: str) -> "_Steps":
        """Read the time axis: CF dates, or integer years."""
        values, units = ds["time"].values.astype(np.float64), str(ds["time"].attrs.get("units", ""))
        calendar = canonical_calendar(str(ds["time"].attrs.get("calendar", "standard")))
        if "since" not in units:
            if (
                not np.array_equal(values, np.floor(values))
                or np.any(np.diff(values) != 1)
                or not 1 <= values[0] <= 9999
            ):
                raise DataContractError(
                    f"time in {subject}", "no CF units and no integer years", "one of them", "write time units"
                )
            return cls(values.astype(int).tolist(), np.repeat(np.arange(values.size), 12), calendar)
        try:
            dates = np.asarray(cftime.num2date(values, units, calendar))
        except ValueError as error:
            raise DataContractError(
                f"time in {subject}", f"units {units!r} ({error})", "e.g. days since 1850-01-01", "correct them"
            ) from error
        if values.size > 1 and np.median([d.days for d in np.diff(dates)]) > 300:
            years = [d.year for d in dates]
            if np.any(np.diff(years) != 1):
                raise DataContractError(
                    f"time in {subject}", "years missing or doubled", "every year once", "correct the file"
                )
            return cls(years, np.repeat(np.arange(values.size), 12), calendar)
        month = np.array([12 * d.year + d.month - 1 for d in dates])
        if np.any(np.diff(month) != 1):
            at = int(month[:-1][np.diff(month) != 1][0])
            raise DataContractError(
                f"time in {subject}", f"{at // 12}-{at % 12 + 1:02d} is not followed by the next month", "every month once",
                "correct the file",
            )  # fmt: skip
        if month[0] % 12 and all(d.day == 1 and d.hour == 0 for d in dates):
            raise DataContractError(
                f"time in {subject}", f"dates at the edge of months from {dates[0]}", "dates inside the months, or from January on",
                "write dates of the middle of the months",
            )  # fmt: skip
        first, count = int(-month[0] % 12), (month.size - int(-month[0] % 12)) // 12
        years = (month[first] // 12 + np.arange(count)).tolist()
        if not years:
            raise DataContractError(
                f"time in {subject}", f"{month.size} months", "at least one whole year", "give a longer file"
            )
        return cls(years, np.arange(first, first + 12 * count), calendar)


def _read(ds: xr.Dataset, name: str, steps: _Steps, subject: str) -> xr.DataArray:
    about, field = FORCINGS[name], ds[name]
    if about.is_gridded != (field.ndim == 3) or "time" not in field.dims:
        expected = "(time, latitude, longitude)" if about.is_gridded else "(time)"
        raise DataContractError(f"{name} in {subject}", f"dimensions {field.dims}", expected, "correct the file")
    if field.ndim == 3:
        lat, lon = (_axis(ds, a, subject) for a in ("lat", "lon"))
        field = field.transpose("time", lat, lon).rename(
            {lat: "lat", lon: "lon"} if (lat, lon) != ("lat", "lon") else {}
        )
        order = {a: order_axis(ds[n].values, None, a, subject)[2] for a, n in (("lat", lat), ("lon", lon))}
        field = field.isel(order)
    if "units" not in field.attrs:
        field = field.assign_attrs(units=about.units)
    field = to_canonical(field.isel(time=steps.index).reset_coords(drop=True), name, f"{name} in {subject}").load()
    values: NDArray[Any] = np.asarray(field.values, dtype=np.float32 if field.ndim == 3 else np.float64)
    if not np.isfinite(values).all():
        raise DataContractError(
            f"{name} in {subject}", f"{int((~np.isfinite(values)).sum())} missing values", "none", "fill the file"
        )
    if about.is_gridded:
        values = np.where((values < 0) & (values > -NOISE), values.dtype.type(0), values)
    low, high = float(values.min()), float(values.max())
    if not (CREDIBLE[name][0] <= low and high <= CREDIBLE[name][1]):
        raise DataContractError(
            f"{name} in {subject}", f"values from {low:.4g} to {high:.4g} {about.units}",
            f"{CREDIBLE[name][0]:g} to {CREDIBLE[name][1]:g}", "is the unit label right?",
        )  # fmt: skip
    return xr.DataArray(values, dims=field.dims, attrs=field.attrs)


def _axis(ds: xr.Dataset, axis: str, subject: str) -> str:
    for name in {"lat": ("lat", "latitude"), "lon": ("lon", "longitude")}[axis]:
        if name in ds.dims:
            return name
    raise DataContractError(subject, f"no dimension {axis}", "latitude and longitude", "rename them")


def _axes(ds: xr.Dataset, subject: str) -> dict[str, xr.Variable]:
    pairs = []
    for axis in ("lat", "lon"):
        name = _axis(ds, axis, subject)
        bounds = f"{name}_bnds"
        x, b, _ = order_axis(ds[name].values, ds[bounds].values if bounds in ds else None, axis, subject)
        pairs += [x, b]
    return grid_coords(*pairs)
