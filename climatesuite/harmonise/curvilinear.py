"""Curvilinear and unstructured grids to rectilinear ones: cells are cut into small parts, each of which goes where its centre lies.

What a part holds is its area on the sphere, so the integral of a field is kept to rounding wherever its parts fall; the edge
between two target cells is resolved to a third of a target cell. Corners are needed: without them a cell has no area.
"""

import math

import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.harmonise.grids import MIN_COVERAGE, area_weights, grid_coords, with_bounds

MOST_PARTS = 24
_WIDEST_DEG = 30.0
_BLOCK = 1_000_000


def cell_weights(lat_corners: NDArray, lon_corners: NDArray, target: xr.Dataset) -> sp.csr_array:
    """Area that each source cell has in each target cell.

    Args:
        lat_corners: Degrees, (..., corner), three or four corners a cell in order around it.
        lon_corners: The same.
        target: Grid with lat and lon, and bounds (made where absent).

    Returns:
        (target cell, source cell), in steradians; cells in C order. A cell with a corner missing has no area.

    Raises:
        DataContractError: If a cell is wider than 30 degrees of arc, has other than three or four corners, or all cells together
            cover more than the sphere: corners of tripolar grids are often wrong at the fold.
    """
    corners = _unit_vectors(lat_corners, lon_corners)
    sound = np.isfinite(corners).all(axis=(1, 2))
    width = np.zeros(len(corners))
    width[sound] = _widths(corners[sound])
    wide = int((width > _WIDEST_DEG).sum())
    if wide:
        raise DataContractError(
            "corners of the source grid", f"{wide} of {width.size} cells wider than {_WIDEST_DEG:g} degrees",
            "corners around their cell", "correct them, or mask the cells with NaN corners",
        )  # fmt: skip
    goal = with_bounds(target, "target grid")
    edges = [np.append(goal[f"{a}_bnds"].values[:, 0], goal[f"{a}_bnds"].values[-1, 1]) for a in ("lat", "lon")]
    shape = (goal.sizes["lat"] * goal.sizes["lon"], len(corners))
    total = sp.csr_array(shape)
    parts = _parts_a_side(corners, width, *(float(np.diff(e).min()) for e in edges))
    for n in np.unique(parts[sound]):
        index = np.flatnonzero(sound & (parts == n))
        for some in np.array_split(index, max(1, index.size * n * n // _BLOCK)):
            area, lat, lon = _parts(corners[some], int(n))
            row = np.searchsorted(edges[0], lat, side="right") - 1
            column = np.searchsorted(edges[1], edges[1][0] + (lon - edges[1][0]) % 360.0, side="right") - 1
            inside = (row >= 0) & (row < goal.sizes["lat"]) & (column >= 0) & (column < goal.sizes["lon"])
            cell = np.broadcast_to(some[:, None], area.shape)
            where = (row * goal.sizes["lon"] + column)[inside], cell[inside]
            total = total + sp.coo_array((area[inside], where), shape=shape).tocsr()
    covered = float(total.sum()) / (4 * math.pi)
    if covered > 1.01:
        raise DataContractError(
            "corners of the source grid",
            f"cells that cover {covered:.3f} spheres",
            "at most one",
            "correct the corners",
        )
    return total


def regrid_cells(
    field: xr.DataArray,
    lat_corners: NDArray,
    lon_corners: NDArray,
    target: xr.Dataset,
    min_coverage: float = MIN_COVERAGE,
) -> xr.DataArray:
    """A field of curvilinear or unstructured cells as area means on a rectilinear grid.

    Args:
        field: Last dims are those of the cells.
        lat_corners: Degrees, dims of the cells and the corner.
        lon_corners: The same.
        target: Rectilinear grid.
        min_coverage: Smallest valid share of a target cell's area; below it the result is NaN.

    Returns:
        (..., lat, lon), dtype and attributes kept, arithmetic in float64.

    Raises:
        DataContractError: As `cell_weights`; or if field and corners do not fit.
    """
    cells = np.shape(lat_corners)[:-1]
    if field.shape[field.ndim - len(cells) :] != cells:
        raise DataContractError(
            f"corners of {field.name}",
            f"cells {cells}",
            f"{field.dims} of {field.shape}",
            "give the field's own corners",
        )
    goal = with_bounds(target, "target grid")
    weights = cell_weights(lat_corners, lon_corners, goal)
    maps = field.values.reshape(-1, math.prod(cells))
    width = np.radians(np.diff(goal["lon_bnds"].values, axis=1)[:, 0])
    area = np.outer(area_weights(goal).values, width).ravel()
    out = np.empty((len(maps), area.size), dtype=maps.dtype)
    for i, values in enumerate(maps):
        valid = np.isfinite(values)
        share = weights @ valid.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (weights @ np.where(valid, values, 0.0).astype(np.float64)) / share
        out[i] = np.where(share >= max(min_coverage, 1e-9) * area, mean, np.nan)
    before = field.dims[: field.ndim - len(cells)]
    shape = (*field.shape[: len(before)], goal.sizes["lat"], goal.sizes["lon"])
    coords = grid_coords(*(goal[n].values for n in ("lat", "lat_bnds", "lon", "lon_bnds")))
    kept = {n: c for n, c in field.coords.items() if set(c.dims) <= set(before)}
    return xr.DataArray(out.reshape(shape), {**kept, "lat": coords["lat"], "lon": coords["lon"]},
                        (*before, "lat", "lon"), field.name, field.attrs)  # fmt: skip


def _unit_vectors(lat: NDArray, lon: NDArray) -> NDArray[np.float64]:
    """Corners (cell, 4, 3) on the unit sphere; of triangles the last one twice."""
    count = np.shape(lat)[-1]
    if count not in (3, 4) or np.shape(lat) != np.shape(lon):
        raise DataContractError(
            "corners of the source grid", f"shapes {np.shape(lat)} and {np.shape(lon)}", "(..., 3) or (..., 4), alike",
            "give vertices of latitude and longitude",
        )  # fmt: skip
    phi, lam = (np.radians(np.asarray(a, dtype=np.float64).reshape(-1, count)) for a in (lat, lon))
    points = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)
    return points if count == 4 else np.concatenate([points, points[:, 2:]], axis=1)


def _widths(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longest diagonal or side of each cell in degrees of arc."""
    pairs = [(a, b) for a in range(4) for b in range(a)]
    closest = np.min([np.einsum("ck,ck->c", corners[:, a], corners[:, b]) for a, b in pairs], axis=0)
    return np.degrees(np.arccos(np.clip(closest, -1.0, 1.0)))


def _parts_a_side(
    corners: NDArray[np.float64], width: NDArray[np.float64], rows_deg: float, columns_deg: float
) -> NDArray[np.int64]:
    """Parts along a side of each cell: a part is a third of a target cell where it lies; at the poles those are narrow."""
    middle = np.nan_to_num(corners.sum(axis=1))
    across = np.hypot(middle[:, 0], middle[:, 1]) / np.maximum(np.linalg.norm(middle, axis=1), 1e-12)
    target = np.minimum(rows_deg, columns_deg * np.maximum(across, 1e-3))
    return np.clip(np.ceil(3 * width / target), 2, MOST_PARTS).astype(np.int64)


def _parts(
    corners: NDArray[np.float64], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Area in steradians, latitude and longitude in degrees of n x n parts (cell, part)."""
    u = np.linspace(0.0, 1.0, n + 1)
    a, b, c, d = (corners[:, k, None, None, :] for k in range(4))
    v, w = u[None, :, None, None], u[None, None, :, None]
    points = (1 - v) * ((1 - w) * a + w * b) + v * ((1 - w) * d + w * c)
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    p, q, r, s = points[:, :-1, :-1], points[:, :-1, 1:], points[:, 1:, 1:], points[:, 1:, :-1]
    area = _triangle(p, q, r) + _triangle(p, r, s)
    middle = p + q + r + s
    middle /= np.linalg.norm(middle, axis=-1, keepdims=True)
    lat, lon = (
        np.degrees(np.arcsin(np.clip(middle[..., 2], -1, 1))),
        np.degrees(np.arctan2(middle[..., 1], middle[..., 0])),
    )
    return tuple(x.reshape(len(corners), -1) for x in (area, lat, lon))  # type: ignore[return-value]


def _triangle(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of spherical triangles of unit vectors (van Oosterom & Strackee 1983, IEEE Trans. Biomed. Eng. 30, 125)."""
    volume = np.abs(np.einsum("...k,...k->...", a, np.cross(b, c)))
    dots = [np.einsum("...k,...k->...", x, y) for x, y in ((a, b), (b, c), (c, a))]
    return 2.0 * np.arctan2(volume, 1.0 + sum(dots))
