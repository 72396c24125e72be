"""Which dimension and coordinate of a file is which: by standard names, units and usual names; no clear grid is refused."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.archive.opening import HUGE, unpack
from climatesuite.errors import DataContractError

LAT, LON = ("lat", "latitude", "nav_lat", "rlat", "y"), ("lon", "longitude", "nav_lon", "rlon", "x")
NORTH = ("degrees_north", "degree_north", "degrees_n", "degree_n", "degreen", "degreesn")
EAST = ("degrees_east", "degree_east", "degrees_e", "degree_e", "degreee", "degreese")
MEMBERS = ("member", "member_id", "realization", "ensemble", "ens", "number", "run", "ensemble_member")
HEIGHTS_M = {"tas": (1.0, 3.0)}
"""Heights above ground in metres that a variable may be given at."""
TO_A_GRID = "use the model's regridded files (grid_label gr), or regrid the file to latitudes and longitudes first, conservatively"
REGRID = f"build with a target grid (climatesuite build --grid 48x72), which takes cells with corners; or {TO_A_GRID}"
CELLS = ("a curvilinear grid", "an unstructured grid")
SAME_DEG = 1e-4


@dataclass(frozen=True)
class Axes:
    """Names in a file.

    Attributes:
        time: Time coordinate.
        lat: Latitude coordinate, its dimension, and whether it is written out in two dimensions.
        lon: The same of longitude.
        member: Member dimension, or "".
        cells: Dimensions of the cells of a grid that is no grid of latitudes by longitudes; otherwise none.
    """

    time: str
    lat: tuple[str, str]
    lon: tuple[str, str]
    member: str
    cells: tuple[str, ...] = ()


def time_name(ds: xr.Dataset, name: str) -> str:
    """The time coordinate of a variable: ``time``, or what is marked or measured as time; "" where there is none."""
    given = ds[name]
    listed = str(given.attrs.get("coordinates", "")).split()
    near = [n for n in ds.variables if n in given.dims or n in listed or n == "time"]
    for n in near:
        about = ds[n].attrs
        marked = about.get("standard_name") == "time" or about.get("axis") == "T"
        if (n == "time" or marked or "since" in str(about.get("units", ""))) and ds[n].ndim <= 1:
            return str(n)
    return ""


def member_dim(ds: xr.Dataset, name: str) -> str:
    """The dimension of members, where a variable has one."""
    return next((str(d) for d in ds[name].dims if _is_member(ds, d)), "")


def find_axes(ds: xr.Dataset, name: str, subject: str, any_cells: bool = False) -> Axes:
    """Names of the coordinates of a variable.

    Args:
        ds: As stored.
        name: The variable.
        subject: For messages.
        any_cells: Whether the grid may be a curvilinear or unstructured one.

    Raises:
        DataContractError: If there is no time, no grid of latitudes by longitudes, or another dimension longer than 1.
    """
    time, dims = time_name(ds, name), ds[name].dims
    if not time:
        raise DataContractError(subject, "no time coordinate", "months", "fixed fields are not used")
    lat, lon = (_coordinate(ds, name, *names) for names in ((LAT, NORTH, "latitude"), (LON, EAST, "longitude")))
    kind = grid_kind(ds, name)
    cells = tuple(map(str, ds[lat].dims)) if any_cells and kind in CELLS else ()
    if kind != "rectilinear" and not cells:
        expected = "latitudes and longitudes of one dimension each"
        raise DataContractError(subject, f"{kind} ({', '.join(f'{d} {ds.sizes[d]}' for d in dims)})", expected, REGRID)
    member = member_dim(ds, name)
    axes = Axes(time, (lat, _own_dim(ds, lat, 0)), (lon, _own_dim(ds, lon, -1)), member, cells)
    known = {*ds[time].dims, axes.lat[1], axes.lon[1], member, *cells}
    long = [f"{ds.sizes[d]} of {d}" for d in dims if d not in known and ds.sizes[d] > 1]
    if long:
        raise DataContractError(
            subject, f"{', '.join(long)} beside time, latitude and longitude", "one level", "select one first"
        )
    if not {axes.lat[1], axes.lon[1], *ds[time].dims} <= set(dims):
        raise DataContractError(subject, f"dimensions {dims}", "(time, lat, lon)", "give maps of every month")
    return axes


def grid_kind(ds: xr.Dataset, name: str) -> str:
    """``rectilinear``, ``a curvilinear grid``, ``an unstructured grid``, or what else, in words."""
    lat, lon = _coordinate(ds, name, LAT, NORTH, "latitude"), _coordinate(ds, name, LON, EAST, "longitude")
    if not lat or not lon:
        return "no latitude and longitude"
    if ds[lat].ndim == ds[lon].ndim == 1:
        return "an unstructured grid" if ds[lat].dims == ds[lon].dims and ds[lat].size > 1 else "rectilinear"
    if ds[lat].ndim == ds[lon].ndim == 2:
        return "rectilinear" if _is_separable(ds, lat, lon) else "a curvilinear grid"
    return "rectilinear" if ds[lat].ndim == ds[lon].ndim == 0 else "latitudes and longitudes of differing shapes"


def axis_values(ds: xr.Dataset, axis: tuple[str, str], which: str, subject: str) -> NDArray[np.float64]:
    """Centres in degrees ``(n,)``, finite.

    Raises:
        DataContractError: If fill values stand in them.
    """
    name, _ = axis
    values = unpack(ds[name], f"{name} in {subject}").astype(np.float64)
    if values.ndim == 2:
        values = values[:, 0] if which == "lat" else values[0]
    bad = ~np.isfinite(values) | (np.abs(values) > 1000)
    if bad.any():
        raise DataContractError(
            f"{name} in {subject}", f"{int(bad.sum())} fill values among {values.size}", "degrees", "correct the file"
        )
    return np.rad2deg(values) if str(ds[name].attrs.get("units", "")).startswith("radian") else values


def axis_bounds(
    ds: xr.Dataset, axis: tuple[str, str], which: str, centres: NDArray[np.float64]
) -> tuple[NDArray[np.float64] | None, str]:
    """Bounds ``(n, 2)`` in degrees, or None where there are none to use; and what was set right, in words.

    Bounds that are there and wrong are returned as they are: the grid's own check refuses them.
    """
    name, dim = axis
    given = (
        str(ds[name].attrs.get("bounds", "")),
        f"{name}_bnds",
        f"{name}_bounds",
        f"{which}_bnds",
        f"bounds_{which}",
    )
    found = next((n for n in given if n in ds.variables), "")
    if not found or ds[name].ndim != 1:
        return None, f"no bounds of {name}: edges halfway between centres"
    bounds, repair = ds[found], ""
    extra = [d for d in bounds.dims if d != dim and ("time" in str(d) or ds.sizes[d] == 1)]
    if extra and bounds.ndim > 2:  # written once a step: the first stands for all if they are alike
        one = bounds.isel({d: 0 for d in extra})
        if not np.array_equal(
            bounds.transpose(*extra, ...).values,
            np.broadcast_to(one.values, (*(ds.sizes[d] for d in extra), *one.shape)),
        ):
            return np.full((centres.size, 2), np.nan), ""
        bounds, repair = one, f"{found} repeated along {', '.join(map(str, extra))}"
    if dim in bounds.dims:
        bounds = bounds.transpose(dim, ...)
    values = unpack(bounds, found).astype(np.float64)
    if np.isnan(values).all() or (np.abs(values) >= HUGE).all():
        return None, f"{found} holds fill values: edges halfway between centres"
    if str(ds[found].attrs.get("units", ds[name].attrs.get("units", ""))).startswith("radian"):
        values = np.rad2deg(values)
    if values.shape != (centres.size, 2) or centres.size < 2:
        return values, repair
    with np.errstate(invalid="ignore"):
        if centres[-1] > centres[0] and (values[:, 1] < values[:, 0]).all():
            repair = f"{found} inverted: turned round"
    return values, repair


def check_height(ds: xr.Dataset, name: str, subject: str) -> None:
    """Refuse a near-surface variable given at another height.

    Raises:
        DataContractError: If a scalar height says so.
    """
    low, high = HEIGHTS_M.get(name, (-np.inf, np.inf))
    for n in ("height", "height2m", "level"):
        if (
            n in ds.variables
            and ds[n].size == 1
            and str(ds[n].attrs.get("units", "")) in ("m", "meter", "metre", "meters")
        ):
            value = float(unpack(ds[n], n).ravel()[0])
            if not (low <= value <= high or np.isnan(value)):
                raise DataContractError(
                    subject, f"height {value:g} m", f"{low:g} to {high:g} m", "use the near-surface variable"
                )


def check_method(attrs: dict[Hashable, object], subject: str) -> None:
    """Refuse a field that is not a mean over its month.

    Raises:
        DataContractError: If ``cell_methods`` says point, minimum, maximum or sum over time.
    """
    methods = " ".join(str(attrs.get("cell_methods", "")).split())
    over = next((m for m in ("point", "minimum", "maximum", "sum", "median") if f"time: {m}" in methods), "")
    if over and "time: mean" not in methods:
        raise DataContractError(subject, f"cell_methods {methods!r}", "means over time", "use the monthly mean")


def _coordinate(ds: xr.Dataset, name: str, names: tuple[str, ...], units: tuple[str, ...], standard: str) -> str:
    """The coordinate of a kind that belongs to a variable; where there is one of two dimensions, those of one are counters."""
    dims, listed = set(ds[name].dims), str(ds[name].attrs.get("coordinates", "")).split()
    found = []
    for n in ds.variables:
        about = ds[n]
        if n == name or not set(about.dims) <= dims or about.dtype.kind not in "iuf" or about.ndim > 2:
            continue
        unit = str(about.attrs.get("units", "")).replace(" ", "_").lower()
        told = about.attrs.get("standard_name", "")
        is_kind = told == standard or unit in units or (str(n).lower() in names[:3] and unit not in ("1", "m", "km"))
        if is_kind and told not in ("grid_latitude", "grid_longitude") and (about.ndim or n in names or n in listed):
            found.append((-about.ndim, n not in names[:2], str(n)))
    return min(found)[2] if found else ""


def _is_member(ds: xr.Dataset, dim: Hashable) -> bool:
    return str(dim).lower() in MEMBERS or (dim in ds.variables and ds[dim].attrs.get("standard_name") == "realization")


def _own_dim(ds: xr.Dataset, name: str, at: int) -> str:
    return str(ds[name].dims[at]) if ds[name].dims else name


def _is_separable(ds: xr.Dataset, lat: str, lon: str) -> bool:
    """Whether two-dimensional coordinates are those of a grid of latitudes (first) by longitudes (second)."""
    if ds[lat].dims != ds[lon].dims:
        return False
    a, b = (unpack(ds[n], n).astype(np.float64) for n in (lat, lon))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return False
    return bool(np.abs(a - a[:, :1]).max() < SAME_DEG and np.abs(b - b[:1]).max() < SAME_DEG)
