"""Ensemble files of any tool read as the canonical Dataset: names, units, time labels and grid order settled here."""

from collections.abc import Hashable
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import FORCINGS, VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import length_days, period_bounds
from climatesuite.harmonise.units import conversion

MEMBER_DIMS = ("member", "realization", "realisation", "sample", "ensemble")
SPACE_NAMES = {"latitude": "lat", "longitude": "lon"}
TIMESCALE_OF_FREQUENCY = {
    "mon": "month", "month": "month", "monthly": "month",
    "yr": "year", "year": "year", "yearly": "year", "annual": "year",
    "dec": "decade", "decade": "decade", "decadal": "decade",
}  # fmt: skip
_YEAR_UNITS = ("", "1", "year", "years", "yr", "a", "calendar year")


def open_ensemble(path: str | Path) -> xr.Dataset:
    """Open an ensemble of one timescale, a NetCDF file or a Zarr store, lazily, member by member.

    Accepted beside what :mod:`climatesuite.export` writes: the member dimension called member, realization, sample
    or ensemble, or none; latitude and longitude spelt out, in any order, longitudes from -180; any unit known to
    ``harmonise.units``; times with CF units in any calendar or plain integer years; no time bounds, where the attribute
    ``timescale`` or ``frequency`` or the spacing of the times tells the timescale.

    Args:
        path: NetCDF file, or the folder of a Zarr store.

    Returns:
        Canonical Dataset ``(member, time, lat, lon)``, float32 (dask), canonical units, with coords member (int), time
        (cftime, middle of the period), time_bnds, year, month (months only), days, lat, lon, lat_bnds, lon_bnds, and
        forcings on these steps where the file has them; the file's global attributes, timescale and calendar.

    Raises:
        FileNotFoundError: If there is no such file.
        DataContractError: If a folder is no Zarr store, no variable is known, dimensions, units or times cannot be read,
            or the grid is not regular.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file")
    raw, subject = _open_raw(source), source.name
    named = _rename(raw, subject)
    fields = {name: _field(named, found, name, subject) for name, found in _find_variables(named, subject).items()}
    drivers = {
        n: named[n].drop_vars(list(named[n].coords)).load()
        for n in FORCINGS
        if n in named and named[n].dims == ("time",)
    }
    ds = xr.Dataset(fields).reset_coords(drop=True)
    ds = ds.assign_coords({"member": _member_numbers(ds), **drivers})
    ds = _sort_grid(ds, named, subject)
    ds = _label_time(ds, named, subject)
    attrs = {str(k): v for k, v in raw.attrs.items()} | ds.attrs
    if "experiment_id" not in attrs and "scenario" in attrs:
        attrs["experiment_id"] = attrs["scenario"]
    return ds.assign_attrs(attrs)


def _open_raw(source: Path) -> xr.Dataset:
    if not source.is_dir():
        return xr.open_dataset(source, decode_times=False)
    if not any((source / name).is_file() for name in ("zarr.json", ".zgroup")):
        raise DataContractError(
            source.name, "a folder without zarr.json", "a Zarr store or a NetCDF file", "name one ensemble inside it"
        )
    return xr.open_dataset(source, engine="zarr", consolidated=False, decode_times=False)


def _rename(raw: xr.Dataset, subject: str) -> xr.Dataset:
    member = [d for d in MEMBER_DIMS if d in raw.dims]
    if len(member) > 1:
        raise DataContractError(
            subject,
            f"dimensions {', '.join(member)}",
            f"one of {', '.join(MEMBER_DIMS)}",
            "keep one ensemble dimension",
        )
    names: dict[Hashable, Hashable] = {
        old: new for old, new in SPACE_NAMES.items() if old in raw.variables or old in raw.dims
    }
    if member and member[0] != "member":
        names[member[0]] = "member"
    clash = [new for old, new in names.items() if new in raw.variables and old != new]
    ds = raw.drop_vars(clash).rename(names)
    for axis in ("time", "lat", "lon"):
        if axis not in ds.dims or (axis not in ds.variables):
            raise DataContractError(
                subject,
                f"dimensions {sorted(map(str, raw.dims))}",
                f"a dimension {axis} with a coordinate",
                "rename it",
            )
        bounds = ds[axis].attrs.get("bounds")
        if bounds in ds.variables and bounds != f"{axis}_bnds":
            ds = ds.rename({bounds: f"{axis}_bnds"})
            ds[axis].attrs["bounds"] = f"{axis}_bnds"  # the time decoder follows it
    if member:
        return ds
    # only fields become ensembles of one; bounds stay as they are
    return ds.map(lambda v: v.expand_dims("member") if {"time", "lat", "lon"} <= set(v.dims) else v, keep_attrs=True)


def _find_variables(ds: xr.Dataset, subject: str) -> dict[str, Hashable]:
    """Canonical name to name in the file: by name, else by the only standard name that fits."""
    found: dict[str, Hashable] = {}
    for name, variable in VARIABLES.items():
        by_standard = [
            v for v in ds.data_vars
            if ds[v].attrs.get("standard_name") == variable.standard_name and {"time", "lat", "lon"} <= set(ds[v].dims)
        ]  # fmt: skip
        if name in ds.data_vars:
            found[name] = name
        elif len(by_standard) == 1:
            found[name] = by_standard[0]
    if not found:
        raise DataContractError(
            subject,
            f"variables {sorted(map(str, ds.data_vars))}",
            f"one or more of {', '.join(VARIABLES)}",
            "rename them",
        )
    return found


def _field(ds: xr.Dataset, found: Hashable, name: str, subject: str) -> xr.DataArray:
    """One variable as float32 ``(member, time, lat, lon)`` in its canonical unit."""
    variable, field = VARIABLES[name], ds[found].squeeze()
    keep = [d for d in ("member", "time", "lat", "lon") if d in ds[found].dims]
    field = field.expand_dims([d for d in keep if d not in field.dims])
    if set(keep) != set(field.dims) or len(keep) < 4:
        raise DataContractError(
            f"{name} in {subject}",
            f"dimensions {ds[found].dims}",
            "(member, time, lat, lon)",
            "select or rename the others",
        )
    units = field.attrs.get("units")
    if units is None:
        raise DataContractError(
            f"{name} in {subject}", "no units", f"e.g. {variable.units}", "write the attribute units"
        )
    field = field.transpose(*keep).chunk({"member": 1, "time": -1, "lat": -1, "lon": -1})
    if units != variable.units:
        factor, offset = conversion(str(units), variable.units, f"{name} in {subject}")
        field = field.astype(np.float64) * factor + offset
    about = {"units": variable.units, "standard_name": variable.standard_name, "long_name": variable.long_name}
    field = field.astype(np.float32).drop_attrs().assign_attrs({**about, "role": "field"})
    field.encoding = {}
    return field


def _member_numbers(ds: xr.Dataset) -> NDArray[np.int64]:
    """The file's integer labels, else 0 to M - 1 in the file's order (labels that are text, absent or repeated)."""
    if "member" in ds.coords and ds["member"].ndim == 1:
        values = ds["member"].values
        if (
            values.dtype.kind in "iuf"
            and np.array_equal(values, np.floor(values))
            and np.unique(values).size == values.size
        ):
            return values.astype(np.int64)
    return np.arange(ds.sizes["member"], dtype=np.int64)


def _sort_grid(ds: xr.Dataset, source: xr.Dataset, subject: str) -> xr.Dataset:
    """Latitudes ascending, longitudes ascending in [0, 360), both with bounds."""
    for axis in ("lat", "lon"):
        values = np.asarray(source[axis].values, dtype=np.float64)
        if values.ndim != 1:
            raise DataContractError(
                f"{axis} in {subject}", f"dims {source[axis].dims}", "one dimension", "regrid to a regular grid"
            )
        bounds = np.asarray(source[f"{axis}_bnds"].values, dtype=np.float64) if f"{axis}_bnds" in source else None
        if bounds is None:
            bounds = _midpoint_bounds(values, axis)
        if axis == "lon":
            shift = np.floor(values / 360.0) * 360.0
            values, bounds = values - shift, bounds - shift[:, None]
        order = np.argsort(values)
        if np.unique(values).size != values.size:
            raise DataContractError(
                f"{axis} in {subject}", "repeated values", "every value once", "drop the cyclic column"
            )
        if not np.array_equal(order, np.arange(order.size)):
            ds = ds.isel({axis: order})
        coords = {axis: (axis, values[order]), f"{axis}_bnds": ((axis, "bnds"), np.sort(bounds[order], axis=1))}
        ds = ds.drop_vars(axis, errors="ignore").assign_coords(coords)
        name = {"lat": ("latitude", "degrees_north", "Y"), "lon": ("longitude", "degrees_east", "X")}[axis]
        ds[axis].attrs.update(standard_name=name[0], units=name[1], axis=name[2])
    return ds


def _midpoint_bounds(values: NDArray[np.float64], axis: str) -> NDArray[np.float64]:
    """Bounds halfway between neighbours, latitudes clipped to the poles: ``(n, 2)``."""
    step = np.diff(values)
    edges = np.concatenate([[values[0] - step[0] / 2], values[:-1] + step / 2, [values[-1] + step[-1] / 2]])
    edges = np.clip(edges, -90.0, 90.0) if axis == "lat" else edges
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _label_time(ds: xr.Dataset, source: xr.Dataset, subject: str) -> xr.Dataset:
    """Dates in the middle of the periods, bounds, year, month, days, and the attributes timescale and calendar."""
    bounds, calendar = _time_bounds(source, subject)
    days = length_days(bounds)
    middle = np.array([early + (late - early) / 2 for early, late in bounds])
    labels = {"year": ("time", np.array([b.year for b in bounds[:, 0]], dtype=np.int64)), "days": ("time", days)}
    coords = {"time": ("time", middle), "time_bnds": (("time", "bnds"), bounds), **labels}
    timescale = _timescale(source, days, subject)
    if timescale == "month":
        coords["month"] = ("time", np.array([b.month for b in bounds[:, 0]], dtype=np.int64))
    out = ds.drop_vars("time", errors="ignore").assign_coords(coords)
    out["time"].attrs.update(standard_name="time", axis="T", bounds="time_bnds")
    return out.assign_attrs(timescale=timescale, calendar=calendar)


def _stated_timescale(source: xr.Dataset, subject: str) -> str | None:
    for name in ("timescale", "frequency"):
        stated = source.attrs.get(name)
        if stated is not None:
            if str(stated) not in TIMESCALE_OF_FREQUENCY:
                known = ", ".join(TIMESCALE_OF_FREQUENCY)
                raise DataContractError(subject, f"{name} {stated!r}", f"one of {known}", "correct the attribute")
            return TIMESCALE_OF_FREQUENCY[str(stated)]
    return None


def _timescale(source: xr.Dataset, days: NDArray[np.float64], subject: str) -> str:
    from climatesuite.evaluate.protocol import timescale_of

    measured = timescale_of(xr.Dataset(coords={"days": ("time", days)}), subject)
    return _agreed(_stated_timescale(source, subject), measured, subject)


def _agreed(stated: str | None, measured: str | None, subject: str) -> str:
    """The timescale that the attributes state and the times show."""
    if stated is not None and measured is not None and stated != measured:
        raise DataContractError(
            subject,
            f"timescale {stated} stated, periods of a {measured}",
            "both equal",
            "correct the attribute or the times",
        )
    agreed = stated or measured
    if agreed is None:
        raise DataContractError(
            subject, "one time step without bounds", "its timescale", "write the attribute timescale or time_bnds"
        )
    return agreed


def _time_bounds(source: xr.Dataset, subject: str) -> tuple[NDArray[np.object_], str]:
    """Start and end of every period as cftime dates ``(time, 2)``, and their calendar."""
    time = source["time"]
    if str(time.attrs.get("units", "")).strip().lower() in _YEAR_UNITS:
        return _bounds_of_years(source, subject)
    decoder = xr.coders.CFDatetimeCoder(use_cftime=True)
    names = ["time", *(["time_bnds"] if "time_bnds" in source else [])]
    try:
        decoded = xr.decode_cf(source[names].reset_coords(), decode_times=decoder)
    except ValueError as error:
        raise DataContractError(
            f"time in {subject}", f"units {time.attrs.get('units')!r}", "days since a date", "write CF time units"
        ) from error
    dates = np.asarray(decoded["time"].values)
    _check_rising(np.asarray(time.values, dtype=np.float64), subject)
    calendar = dates[0].calendar
    if "time_bnds" in source:
        return np.asarray(decoded["time_bnds"].transpose("time", ...).values), calendar
    timescale = _agreed(_stated_timescale(source, subject), _spacing(dates, subject), subject)
    if timescale == "decade":
        raise DataContractError(
            f"time in {subject}",
            "decades without time bounds",
            "bounds, or the first years as integers",
            "write time_bnds",
        )
    years, months = [d.year for d in dates], [d.month for d in dates]
    return period_bounds(years, timescale, calendar, months if timescale == "month" else None)[1], calendar


def _check_rising(values: NDArray[np.float64], subject: str) -> None:
    if values.size == 0 or np.any(np.diff(values) <= 0):
        found = "no steps" if values.size == 0 else "repeated or unsorted steps"
        raise DataContractError(f"time in {subject}", found, "rising times", "sort and deduplicate")


def _spacing(dates: NDArray[np.object_], subject: str) -> str | None:
    """Timescale of the gaps between dates; None for a single one."""
    from climatesuite.evaluate.protocol import timescale_of

    if dates.size < 2:
        return None
    gaps = np.array([gap.total_seconds() / 86400.0 for gap in np.diff(dates)])
    return timescale_of(xr.Dataset(coords={"days": ("time", gaps)}), f"{subject} (spacing of its times)")


def _bounds_of_years(source: xr.Dataset, subject: str) -> tuple[NDArray[np.object_], str]:
    """Periods from integer labels: years, or first years of decades."""
    values = np.asarray(source["time"].values, dtype=np.float64)
    _check_rising(values, subject)
    if not np.array_equal(values, np.floor(values)) or values[0] < 1 or values[-1] > 9999:
        raise DataContractError(
            f"time in {subject}",
            f"values from {values[0]:g} without units",
            "integer years or CF units",
            "write time units",
        )
    timescale = _stated_timescale(source, subject)
    if timescale is None:
        timescale = "decade" if values.size > 1 and np.all(np.diff(values) == 10) else "year"
    if timescale == "month":
        raise DataContractError(f"time in {subject}", "months as integers", "dates", "write CF time units and values")
    calendar = str(source["time"].attrs.get("calendar") or source.attrs.get("calendar") or "standard")
    return period_bounds(values.astype(int), timescale, calendar)[1], calendar
