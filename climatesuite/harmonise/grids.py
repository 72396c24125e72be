"""Rectilinear grids: cell bounds, area weights, exact first-order conservative regridding, coarsening in space.

A cell's area is (sine of its northern edge - sine of its southern edge) x (its width in longitude), so that overlaps of two
rectilinear grids separate into one matrix a direction, exactly (the first-order scheme of Jones 1999, Mon. Wea. Rev. 127, 2204).
"""

from typing import TypeVar

import dask.array as da
import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from climatesuite.errors import DataContractError

Gridded = TypeVar("Gridded", xr.Dataset, xr.DataArray)
MIN_COVERAGE = 0.5
GLOBAL = 0.02
"""A grid that lacks less than this share of the sphere is global."""
_TOLERANCE_DEG = 1e-4
_CIRCLE = 360.0
_ABOUT = {"lat": ("latitude", "degrees_north", "Y"), "lon": ("longitude", "degrees_east", "X")}


def grid_attrs(axis: str) -> dict[str, str]:
    """CF attributes of the coordinate ``lat`` or ``lon``."""
    standard_name, units, letter = _ABOUT[axis]
    return {
        "standard_name": standard_name,
        "long_name": standard_name,
        "units": units,
        "axis": letter,
        "bounds": f"{axis}_bnds",
    }


def cos_weights(lat: xr.DataArray) -> xr.DataArray:
    """Cosine of the latitude (degrees), dims of ``lat``: the weights of ClimateBench's published scores."""
    weights = xr.apply_ufunc(np.cos, np.deg2rad(lat.astype(np.float64)))
    return weights.clip(0.0).rename("weights").drop_attrs()


def area_weights(ds: xr.Dataset) -> xr.DataArray:
    """Weight of one cell of each row, ``(lat,)``: sine of its northern edge minus sine of its southern edge; float64.

    Raises:
        DataContractError: If ``lat_bnds`` is absent.
    """
    if "lat_bnds" not in ds.variables:
        raise DataContractError(
            "area weights", "no lat_bnds", "lat_bnds (lat, bnds)", "add them with grids.with_bounds"
        )
    bounds = np.asarray(ds["lat_bnds"].transpose("lat", ...).values, dtype=np.float64)
    weights = np.abs(np.diff(np.sin(np.deg2rad(bounds)), axis=1))[:, 0]
    return xr.DataArray(weights, {"lat": ds["lat"]}, ("lat",), name="weights")


def infer_bounds(centres: ArrayLike, axis: str) -> NDArray[np.float64]:
    """Cell edges halfway between neighbouring centres, ``(n, 2)`` degrees.

    Outermost latitudes reach the pole if that is less than half a cell beyond the halfway edge, as on Gaussian grids, and never
    pass it. Outermost longitudes meet if the grid goes once around.

    Args:
        centres: Ascending, at least two.
        axis: ``lat`` or ``lon``.

    Raises:
        DataContractError: If there are fewer than two centres.
    """
    x = np.asarray(centres, dtype=np.float64)
    if x.size < 2:
        raise DataContractError(axis, f"{x.size} value and no bounds", "bounds or two values", f"write {axis}_bnds")
    step = np.diff(x)
    edges = np.concatenate([[x[0] - step[0] / 2], x[:-1] + step / 2, [x[-1] + step[-1] / 2]])
    if axis == "lat":
        near = 90.0 - np.abs(edges[[0, -1]]) < np.array([step[0], step[-1]]) / 2
        edges[0] = -90.0 if near[0] and edges[0] < 0 else edges[0]
        edges[-1] = 90.0 if near[1] and edges[-1] > 0 else edges[-1]
    else:
        gap = _CIRCLE - (x[-1] - x[0])
        if 0 < gap < 1.5 * step.max():  # goes once around: the first and the last cell share an edge
            edges[0], edges[-1] = x[0] - gap / 2, x[-1] + gap / 2
    return np.stack([edges[:-1], edges[1:]], axis=1)


def check_bounds(centres: ArrayLike, bounds: ArrayLike, axis: str, subject: str) -> NDArray[np.float64]:
    """Bounds with ascending pairs ``(n, 2)``, latitudes not beyond the poles, once they are found sound.

    Raises:
        DataContractError: If a cell does not contain its centre, has no width, or neighbours leave a gap or overlap.
    """
    x, b = np.asarray(centres, dtype=np.float64), np.sort(np.asarray(bounds, dtype=np.float64), axis=-1)
    name, remedy = f"{axis}_bnds in {subject}", "correct them, or delete them to have them made from the centres"
    if b.shape != (x.size, 2):
        raise DataContractError(name, f"shape {b.shape}", f"({x.size}, 2)", remedy)
    b = np.clip(b, -90.0, 90.0) if axis == "lat" else b
    outside = ~((b[:, 0] - _TOLERANCE_DEG <= x) & (x <= b[:, 1] + _TOLERANCE_DEG)) | ~(b[:, 1] > b[:, 0])
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        raise DataContractError(
            name, f"cell {b[i].tolist()} at centre {x[i]:g}", "cells that contain their centre", remedy
        )
    apart = np.abs(b[1:, 0] - b[:-1, 1]) > _TOLERANCE_DEG
    if apart.any():
        i = int(np.flatnonzero(apart)[0])
        raise DataContractError(
            name, f"cells {b[i].tolist()} and {b[i + 1].tolist()} do not meet", "cells that share their edges", remedy
        )
    if axis == "lon" and b[-1, 1] - b[0, 0] > _CIRCLE + _TOLERANCE_DEG:
        raise DataContractError(name, f"{b[-1, 1] - b[0, 0]:g} degrees of longitude", "at most 360", remedy)
    return b


def order_axis(
    centres: ArrayLike, bounds: ArrayLike | None, axis: str, subject: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Centres ascending (longitudes within [0, 360)), their bounds, and the order that sorts the data.

    Args:
        centres: Degrees, ``(n,)``, any order.
        bounds: ``(n, 2)`` or None, then they are made.
        axis: ``lat`` or ``lon``.
        subject: For messages, e.g. a file name.

    Returns:
        Sorted centres ``(n,)``, bounds ``(n, 2)`` and index ``(n,)``.

    Raises:
        DataContractError: If centres repeat or leave the sphere, or bounds are unsound.
    """
    x = np.asarray(centres, dtype=np.float64)
    limit = 90.0 + _TOLERANCE_DEG if axis == "lat" else 1000.0
    if not np.isfinite(x).all() or (np.abs(x) > limit).any():
        worst = x[int(np.argmax(np.where(np.isfinite(x), np.abs(x), np.inf)))]
        raise DataContractError(
            f"{axis} in {subject}", f"a value of {worst:g}", f"within {limit:g} degrees", "correct the file"
        )
    shift = np.floor(x / _CIRCLE) * _CIRCLE if axis == "lon" else np.zeros_like(x)
    x = x - shift
    order = np.argsort(x, kind="stable")
    if (np.diff(x[order]) < 1e-6).any():
        raise DataContractError(
            f"{axis} in {subject}", "repeated values", "every value once", "drop the cyclic row or column"
        )
    if bounds is None:
        return x[order], infer_bounds(x[order], axis), order
    pairs = np.asarray(bounds, dtype=np.float64)
    if pairs.shape != (x.size, 2):
        return x[order], check_bounds(x, pairs, axis, subject), order  # raises with the shape
    if axis == "lon":
        pairs = _unwrap(pairs, x, shift)
    return x[order], check_bounds(x[order], pairs[order], axis, subject), order


def _unwrap(pairs: NDArray[np.float64], x: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitude bounds around their own centre: (359.4, 0.6) at 0 becomes (-0.6, 0.6)."""
    pairs = pairs - shift[:, None]
    return pairs - np.round((pairs - x[:, None]) / _CIRCLE) * _CIRCLE


def with_bounds(ds: xr.Dataset, subject: str = "grid") -> xr.Dataset:
    """The Dataset with ``lat_bnds`` and ``lon_bnds`` as coordinates, made from the centres where absent."""
    coords = {}
    for axis in ("lat", "lon"):
        given = ds[f"{axis}_bnds"].values if f"{axis}_bnds" in ds.variables else None
        x = ds[axis].values
        bounds = infer_bounds(x, axis) if given is None else check_bounds(x, given, axis, subject)
        coords[f"{axis}_bnds"] = ((axis, "bnds"), bounds)
    return ds.drop_vars(list(coords), errors="ignore").assign_coords(coords)


def grid_coords(lat: NDArray, lat_bnds: NDArray, lon: NDArray, lon_bnds: NDArray) -> dict[str, xr.Variable]:
    """The four canonical grid coordinates with CF attributes."""
    return {
        "lat": xr.Variable("lat", lat, grid_attrs("lat")),
        "lon": xr.Variable("lon", lon, grid_attrs("lon")),
        "lat_bnds": xr.Variable(("lat", "bnds"), lat_bnds),
        "lon_bnds": xr.Variable(("lon", "bnds"), lon_bnds),
    }


def target_grid(shape: tuple[int, int]) -> xr.Dataset:
    """A regular global grid of (n_lat, n_lon) cells without pole points; longitudes start half a cell east of 0.

    Raises:
        DataContractError: If either number is below 2.
    """
    if min(shape) < 2:
        raise DataContractError(
            "target grid", f"{shape}", "at least 2 latitudes and 2 longitudes", "give (n_lat, n_lon)"
        )
    lat, lon = np.linspace(-90.0, 90.0, shape[0] + 1), np.linspace(0.0, _CIRCLE, shape[1] + 1)
    pairs = [np.stack([e[:-1], e[1:]], axis=1) for e in (lat, lon)]
    return xr.Dataset(coords=grid_coords(pairs[0].mean(1), pairs[0], pairs[1].mean(1), pairs[1]))


def is_global(ds: xr.Dataset) -> bool:
    """Whether the cells cover the sphere, to within `GLOBAL`."""
    lat, lon = area_weights(ds).sum() / 2.0, np.diff(ds["lon_bnds"].values, axis=1).sum() / _CIRCLE
    return bool(abs(lat * lon - 1.0) < GLOBAL)


def overlap_lat(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shared sine-of-latitude of target and source rows, ``(n_target, n_source)``, from bounds ``(n, 2)`` in degrees."""
    a, b = np.sin(np.deg2rad(np.sort(source, axis=1))), np.sin(np.deg2rad(np.sort(target, axis=1)))
    shared = np.minimum(b[:, None, 1], a[None, :, 1]) - np.maximum(b[:, None, 0], a[None, :, 0])
    return np.maximum(shared, 0.0)


def overlap_lon(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shared degrees of longitude of target and source columns, ``(n_target, n_source)``, on the circle."""
    total = np.zeros((target.shape[0], source.shape[0]))
    for turn in (-2, -1, 0, 1, 2):
        moved = source + turn * _CIRCLE
        shared = np.minimum(target[:, None, 1], moved[None, :, 1]) - np.maximum(target[:, None, 0], moved[None, :, 0])
        total += np.maximum(shared, 0.0)
    return total


def regrid(ds: Gridded, target: xr.Dataset, min_coverage: float = MIN_COVERAGE) -> Gridded:
    """First-order conservative regridding of everything that has lat and lon; the rest passes unchanged.

    A target cell is the area mean of the valid source cells under it, so that a global field keeps its global mean. Missing
    (NaN) parts take no weight; a cell with less than ``min_coverage`` of its area valid is NaN. Lazy for dask arrays.

    Args:
        ds: Dataset or DataArray, dims (..., lat, lon). A DataArray cannot carry bounds: they are made from its centres.
        target: Grid with lat and lon, and bounds (made where absent).
        min_coverage: Smallest valid share of a target cell's area, above 0.

    Returns:
        The same on the target grid; dtype and attributes kept, arithmetic in float64.
    """
    goal = with_bounds(target, "target grid")
    source = with_bounds(xr.Dataset(coords=dict(ds.coords)) if isinstance(ds, xr.DataArray) else ds, "source grid")
    rows = overlap_lat(source["lat_bnds"].values, goal["lat_bnds"].values)
    columns = overlap_lon(source["lon_bnds"].values, goal["lon_bnds"].values)
    rows = rows / area_weights(goal).values[:, None]
    columns = columns / np.diff(goal["lon_bnds"].values, axis=1)
    pair = sp.csr_array(rows), sp.csr_array(columns)
    coords = grid_coords(*(goal[n].values for n in ("lat", "lat_bnds", "lon", "lon_bnds")))
    if isinstance(ds, xr.DataArray):
        return _regrid_array(ds, pair, min_coverage).assign_coords({n: coords[n] for n in ("lat", "lon")})
    stay = ds.drop_vars(["lat_bnds", "lon_bnds"], errors="ignore")
    moved = {n: _regrid_array(v, pair, min_coverage) for n, v in stay.data_vars.items()}
    rest = {n: c for n, c in stay.coords.items() if n not in ("lat", "lon")}
    return xr.Dataset(moved, rest, stay.attrs).assign_coords(coords)


def _regrid_array(field: xr.DataArray, pair: tuple[sp.csr_array, sp.csr_array], min_coverage: float) -> xr.DataArray:
    if not {"lat", "lon"} <= set(field.dims):
        return field
    dims = tuple(d for d in field.dims if d not in ("lat", "lon")) + ("lat", "lon")
    variable = field.variable.transpose(*dims)
    shape = pair[0].shape[0], pair[1].shape[0]
    data = variable.data
    if isinstance(data, da.Array):
        data = data.rechunk({-1: -1, -2: -1})
        chunks = (*data.chunks[:-2], (shape[0],), (shape[1],))
        out = data.map_blocks(_apply, *pair, min_coverage, dtype=data.dtype, chunks=chunks)
    else:
        out = _apply(np.asarray(data), *pair, min_coverage)
    coords = {n: c for n, c in field.coords.items() if not {"lat", "lon"} & set(c.dims)}
    return xr.DataArray(out, coords, dims, field.name, field.attrs)


def _apply(x: NDArray, rows: sp.csr_array, columns: sp.csr_array, min_coverage: float) -> NDArray:
    """Area means of maps ``(..., lat, lon)`` under target cells; one float64 map at a time, which stays in the cache."""
    shape = (rows.shape[0], columns.shape[0])
    maps = x.reshape(-1, *x.shape[-2:])
    out = np.empty((len(maps), *shape), dtype=x.dtype if x.dtype.kind == "f" else np.dtype(np.float64))
    covered = np.outer(rows.sum(axis=1), columns.sum(axis=1))
    is_whole = bool((np.abs(covered - 1.0) < 1e-12).all())
    mask, share = np.ones(maps.shape[1:], dtype=bool), covered
    for i, field in enumerate(maps):
        valid = np.isfinite(field)
        if is_whole and valid.all():
            out[i] = _contract(field.astype(np.float64), rows, columns)
            continue
        if not np.array_equal(valid, mask):  # masks rarely change from map to map
            mask, share = valid, _contract(valid.astype(np.float64), rows, columns)
        total = _contract(np.where(valid, field, 0.0).astype(np.float64, copy=False), rows, columns)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[i] = np.where(share >= max(min_coverage, 1e-9) - 1e-9, total / share, np.nan)
    return out.reshape(*x.shape[:-2], *shape)


def _contract(x: NDArray[np.float64], rows: sp.csr_array, columns: sp.csr_array) -> NDArray[np.float64]:
    """rows . x . columns^T for one map (lat, lon)."""
    return (columns @ np.ascontiguousarray((rows @ x).T)).T


def coarsen_space(ds: xr.Dataset, factor: int | tuple[int, int]) -> xr.Dataset:
    """Area-weighted means of blocks of cells; everything without lat and lon passes unchanged.

    Args:
        ds: Dataset with lat, lon and their bounds (made where absent).
        factor: Cells a block in both directions, or (lat, lon).

    Returns:
        Coarser Dataset; centres are the middles of the bounds, longitudes within [0, 360).

    Raises:
        DataContractError: If the grid is not a multiple of the factor.
    """
    pair = (factor, factor) if isinstance(factor, int) else factor
    fine, coords = with_bounds(ds), {}
    for axis, k in zip(("lat", "lon"), pair, strict=True):
        if k < 1 or fine.sizes[axis] % k:
            raise DataContractError(
                f"grid {fine.sizes['lat']} x {fine.sizes['lon']}",
                f"{fine.sizes[axis]} {axis} is not a multiple of {k}",
                "whole blocks",
                "choose a factor that divides the grid, or regrid first",
            )
        b = fine[f"{axis}_bnds"].values
        coords[axis] = np.stack([b[::k, 0], b[k - 1 :: k, 1]], axis=1)
    lat, lon = coords["lat"], coords["lon"]
    target = xr.Dataset(coords=grid_coords(lat.mean(1), lat, lon.mean(1), lon))
    out = regrid(fine, target, min_coverage=1.0)
    turn = np.floor(out["lon"].values / _CIRCLE) * _CIRCLE
    if turn.any():  # a block that lies across the edge of the map moves to its other end
        out = out.assign_coords(lon=("lon", out["lon"].values - turn, grid_attrs("lon")))
        out["lon_bnds"] = (("lon", "bnds"), out["lon_bnds"].values - turn[:, None])
        out = out.set_coords("lon_bnds").sortby("lon")
    return out
