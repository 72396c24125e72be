"""One file to one canonical Dataset: right, or refused with file, variable and reason; what was set right is said."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.archive.axes import Axes, axis_bounds, axis_values, check_height, check_method, find_axes
from climatesuite.archive.cells import cells_of
from climatesuite.archive.entry import Entry
from climatesuite.archive.months import month_text, months_of
from climatesuite.archive.opening import open_raw, unpack
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import month_lengths, time_coords
from climatesuite.harmonise.curvilinear import CORNERS, cell_areas, is_cells
from climatesuite.harmonise.grids import GLOBAL, area_weights, grid_coords, is_global, order_axis
from climatesuite.harmonise.units import check_range, per_month, to_canonical

ROUNDING = 1e-12
"""Precipitation that is negative by less than this, in kg m-2 s-1, is not worth a word."""


def read_file(entry: Entry, name: str, years: tuple[int, int] | None, any_cells: bool = False) -> xr.Dataset:
    """The months of a file that are asked for.

    Args:
        entry: What the scan found.
        name: Variable of `conventions.VARIABLES`.
        years: First and last year; default all.
        any_cells: Whether to read curvilinear and unstructured grids too, by the corners of their cells.

    Returns:
        ``name (time, lat, lon)`` float32 in memory, in the order of the file's months, with canonical coordinates; attributes
        ``calendar`` and ``repairs``, a list of sentences. Of other grids ``name (time, cell)`` with `curvilinear.CORNERS`.

    Raises:
        DataContractError: If the variable is not known, or anything in the file breaks the contract.
    """
    subject = f"{name} in {entry.path.name}"
    if name not in VARIABLES:
        raise DataContractError(
            subject, "not in the table of known variables", ", ".join(VARIABLES), "read it with xarray"
        )
    try:
        with open_raw(entry.path, entry.group) as ds:
            ds = ds.rename({entry.stored: name}) if entry.stored else ds
            taken = _taken(ds, entry, name, years, subject, any_cells)
    except (OSError, RuntimeError) as error:
        raise DataContractError(subject, f"not readable ({error})", "a whole file", "download it again") from error
    return _made(taken, entry, name, subject)


class Taken(NamedTuple):
    """What is read of a file while it is open: raw maps in canonical order with their places and months; what was set right."""

    raw: xr.DataArray
    space: dict[str, xr.Variable]
    months: NDArray[np.int64]
    calendar: str
    repairs: list[str]


def _taken(
    ds: xr.Dataset, entry: Entry, name: str, years: tuple[int, int] | None, subject: str, any_cells: bool
) -> Taken:
    axes = find_axes(ds, name, subject, any_cells)
    check_height(ds, name, subject)
    check_method(ds[name].attrs, subject)
    months = months_of(ds, axes.time, subject)
    wanted = _wanted(months.index, years, entry.until)
    raw = _maps(ds[name], ds, axes, entry, wanted, subject)
    values, space, repairs = _placed(raw.values, ds, name, axes, entry.path.name, subject)
    maps = xr.DataArray(values, dims=("time", "cell") if axes.cells else ("time", "lat", "lon"), attrs=raw.attrs)
    return Taken(maps, space, months.index[wanted], months.calendar, [*months.repairs, *repairs])


def _made(taken: Taken, entry: Entry, name: str, subject: str) -> xr.Dataset:
    """Numbers checked and in canonical units."""
    raw, index, more = taken.raw, taken.months, list[str]()
    values, attrs = unpack(raw, subject), dict(raw.attrs)
    _check_finite(values, index, subject)
    _check_moving(values, index, subject)
    field = xr.DataArray(values, dims=raw.dims, attrs=attrs)
    if (daily := per_month(attrs.get("units", ""))) is not None:
        days = np.array([month_lengths(i // 12, taken.calendar)[0, i % 12] for i in index], dtype=np.float64)
        field = (field.astype(np.float64) / xr.DataArray(days, dims="time")).assign_attrs({**attrs, "units": daily})
        more.append(f"units {attrs['units']}: divided by the days of each month")
    out = to_canonical(field, name, subject)
    if index.size and len(entry.terms) < 2:  # a term of a sum need not be credible by itself
        out, clipped = credible(out, xr.Dataset(coords=taken.space), name, subject)
        more += clipped
    coords = {**time_coords(index // 12, "month", taken.calendar, index % 12 + 1), **taken.space}
    return xr.Dataset({name: out.variable}, coords, {"calendar": taken.calendar, "repairs": [*taken.repairs, *more]})


def _wanted(index: NDArray[np.int64], years: tuple[int, int] | None, until: str) -> slice | NDArray[np.int64]:
    """The steps that are asked for, as a slice where they lie side by side."""
    keep = np.ones(index.size, dtype=bool)
    if years is not None:
        keep &= (index >= 12 * years[0]) & (index <= 12 * years[1] + 11)
    if until:
        keep &= index <= 12 * int(until[:4]) + int(until[4:6]) - 1
    at = np.flatnonzero(keep)
    if at.size and at[-1] - at[0] + 1 == at.size:
        return slice(int(at[0]), int(at[-1]) + 1)
    return at


def _maps(
    field: xr.DataArray, ds: xr.Dataset, axes: Axes, entry: Entry, wanted: slice | NDArray[np.int64], subject: str
) -> xr.DataArray:
    """Raw maps of one member in memory: (time, lat, lon), or time and the dimensions of the cells."""
    dims = tuple(ds[axes.time].dims)
    field = field.reset_coords(drop=True)
    if axes.member:
        if entry.slot < 0 and ds.sizes[axes.member] > 1:
            raise DataContractError(
                subject, f"{ds.sizes[axes.member]} members", "one, chosen by the scan", "scan the file again"
            )
        field = field.isel({axes.member: max(entry.slot, 0)})
    if not dims:  # one month, its time a scalar
        field, dims = field.expand_dims("time"), ("time",)
    order = (dims[0], *(axes.cells or (axes.lat[1], axes.lon[1])))
    spare = {d: 0 for d in field.dims if d not in order}
    return field.isel({**spare, dims[0]: wanted}).transpose(*order).load()


def _placed(
    values: NDArray[Any], ds: xr.Dataset, name: str, axes: Axes, file: str, subject: str
) -> tuple[NDArray[Any], dict[str, xr.Variable], list[str]]:
    """Values with their coordinates in space, and what was set right."""
    if axes.cells:
        return values.reshape(len(values), -1), cells_of(ds, name, axes, file), []
    return _ordered(values, ds, axes, file, subject)


def _row_weights(grid: xr.Dataset) -> NDArray[np.float64] | None:
    """Weights of rows, or of cells, where they cover the sphere."""
    if is_cells(grid):
        area = cell_areas(*(grid[n].values for n in CORNERS))
        return area if abs(area.sum() / (4 * np.pi) - 1.0) < GLOBAL else None
    return area_weights(grid).values if is_global(grid) else None


def _ordered(
    values: NDArray[Any], ds: xr.Dataset, axes: Axes, file: str, subject: str
) -> tuple[NDArray[Any], dict[str, xr.Variable], list[str]]:
    """Values with latitudes ascending and longitudes in [0, 360), the canonical grid coordinates, and what was set right."""
    repairs: list[str] = []
    kept: dict[str, NDArray[np.float64]] = {}
    for at, (which, axis) in enumerate((("lat", axes.lat), ("lon", axes.lon)), start=1):
        centres = axis_values(ds, axis, which, file)
        bounds, repair = axis_bounds(ds, axis, which, centres)
        repairs += [repair] if repair else []
        if which == "lon" and centres.size > 2 and abs(abs(centres[-1] - centres[0]) - 360) < 1e-6:
            if not np.array_equal(values[..., 0], values[..., -1], equal_nan=values.dtype.kind == "f"):
                raise DataContractError(
                    subject, f"longitudes {centres[0]:g} and {centres[-1]:g} hold differing values", "one value a meridian",
                    "drop the cyclic column",
                )  # fmt: skip
            values, centres, bounds = values[..., :-1], centres[:-1], None if bounds is None else bounds[:-1]
            repairs.append(f"the meridian {centres[0]:g} written twice: the second left out")
        centre, edges, order = order_axis(centres, bounds, which, file)
        if (order != np.arange(order.size)).any():
            values = np.take(values, order, axis=at)
        kept |= {which: centre, f"{which}_bnds": edges}
    return values, grid_coords(kept["lat"], kept["lat_bnds"], kept["lon"], kept["lon_bnds"]), repairs


def credible(field: xr.DataArray, grid: xr.Dataset, name: str, subject: str) -> tuple[xr.DataArray, list[str]]:
    """A field (time, lat, lon) or (time, cell) whose numbers can be what they are called, and what was set right.

    Raises:
        DataContractError: If they cannot.
    """
    rows = field.values[..., None] if is_cells(grid) else field.values
    check_range(rows, name, subject, _row_weights(grid))
    return _clip(field, name)


def _clip(field: xr.DataArray, name: str) -> tuple[xr.DataArray, list[str]]:
    """Values that cannot be negative and are so by rounding become zero."""
    if not VARIABLES[name].is_nonnegative:
        return field, []
    below = int((field.values < -ROUNDING).sum())
    return field.clip(min=0.0, keep_attrs=True), [f"{below} negative values of rounding set to zero"] if below else []


def _check_finite(values: np.ndarray, index: NDArray[np.int64], subject: str) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        months = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
        raise DataContractError(
            subject, f"{int(bad.sum())} missing values, the first in {month_text(int(index[months[0]]))}", "a complete field",
            "download the file again or leave the member out",
        )  # fmt: skip


def _check_moving(values: np.ndarray, index: NDArray[np.int64], subject: str) -> None:
    """Refuse a file in which a month repeats the one before, cell by cell: a stuck or doubled download."""
    if values.shape[0] < 2 or values[0].size < 2:
        return
    rows = values[:, :1].reshape(len(values), -1)  # one row tells most months apart
    for at in np.flatnonzero((rows[1:] == rows[:-1]).all(axis=1)):
        is_other = index[at] != index[at + 1]
        if is_other and np.array_equal(values[at], values[at + 1]) and np.ptp(values[at]) > 0:
            raise DataContractError(
                subject, f"{month_text(int(index[at + 1]))} repeats {month_text(int(index[at]))} cell by cell",
                "months that differ", "download the file again",
            )  # fmt: skip
