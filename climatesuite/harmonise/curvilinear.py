"""Curvilinear and unstructured grids to rectilinear ones: cells are cut into small parts, which go where they lie.

What a part holds is its area on the sphere, so the integral of a field is kept to rounding wherever its parts fall. A part is at
most a third of a target cell wide, and divided in proportion where it lies across an edge: a target cell's area is then right to
0.3 per cent, 4 at most (turned grids, triangles of ICON). Where the cells cover the whole sphere, the shares are balanced: every
target cell holds just its own area and every source cell gives just its own, so that the area mean of the result is that of the
field. Corners are needed: without them a cell has no area.
"""

import hashlib
import math
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from threading import Lock

import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.harmonise.grids import MIN_COVERAGE, area_weights, grid_coords, regrid, with_bounds

CORNERS = ("lat_corners", "lon_corners")
"""Coordinates ``(cell, corner)`` in degrees of a Dataset whose fields are ``(..., cell)``."""
MOST_PARTS = 600
"""Along one side of a cell; so many are only needed where target cells are narrow, at the poles."""
_WIDEST_DEG = 30.0
_BLOCK = 1_000_000
_WHOLE = 1e-4  # of the sphere: corners in single precision leave less than this between cells
_ROUNDS, _BALANCED = 2000, 1e-10
_BESIDE = 0.1  # of a cell's area: a point a cell away makes a triangle of at least a quarter of it outside
_MAKING = Lock()


def is_cells(ds: xr.Dataset) -> bool:
    """Whether fields lie on cells with corners, not on latitudes by longitudes."""
    return all(n in ds.coords for n in CORNERS)


def put_on_grid(ds: xr.Dataset, target: xr.Dataset) -> xr.Dataset:
    """Everything on a rectilinear grid: by overlaps of rows and columns, or of cells where there are cells with corners.

    Args:
        ds: Dims (..., lat, lon), or (..., cell) with the coordinates `CORNERS`.
        target: Grid with lat and lon, and bounds (made where absent).

    Returns:
        Dims (..., lat, lon); attributes kept. Less than half covered, a target cell is NaN.
    """
    if not is_cells(ds):
        return regrid(ds, target)
    goal = with_bounds(target, "target grid")
    lat, lon = (ds[n].values for n in CORNERS)
    moved = {n: regrid_cells(v, lat, lon, goal) if "cell" in v.dims else v for n, v in ds.data_vars.items()}
    rest = {n: c for n, c in ds.coords.items() if "cell" not in c.dims}
    coords = grid_coords(*(goal[n].values for n in ("lat", "lat_bnds", "lon", "lon_bnds")))
    return xr.Dataset(moved, rest, ds.attrs).assign_coords(coords)


def cell_areas(lat_corners: NDArray, lon_corners: NDArray, *, subject: str = "corners of the source grid") -> NDArray:
    """Area of each cell, once the corners are found credible.

    Args:
        lat_corners: Degrees, (..., corner), three or four corners a cell in order around it.
        lon_corners: The same.
        subject: For messages.

    Returns:
        (cell,) in steradians, cells in C order. A cell with a corner missing has no area.

    Raises:
        DataContractError: If a cell is wider than 30 degrees of arc, has other than three or four corners or corners that do not
            go round it, or all cells together cover more than the sphere: corners of tripolar grids are often wrong at the fold.
    """
    corners = _unit_vectors(lat_corners, lon_corners, subject)
    width = _sides(corners).max(axis=1)
    wide = int((width > _WIDEST_DEG).sum())
    if wide:
        raise DataContractError(
            subject, f"{wide} of {width.size} cells wider than {_WIDEST_DEG:g} degrees", "corners around their cell",
            "correct them, or mask the cells with NaN corners",
        )  # fmt: skip
    a, b, c, d = (np.nan_to_num(corners[:, k]) for k in range(4))
    halves = np.stack([np.einsum("ik,ik->i", x, np.cross(y, z)) for x, y, z in ((a, b, c), (a, c, d))])
    size = np.abs(halves)
    crossed = (halves.prod(axis=0) < 0) & (2 * size.min(axis=0) > size.max(axis=0))  # more than a dent
    if crossed.any():
        raise DataContractError(
            subject, f"{crossed.sum()} of {width.size} cells with corners out of order", "corners around their cell, in turn",
            "put them in order, or mask the cells with NaN corners",
        )  # fmt: skip
    area = np.where(np.isfinite(corners).all(axis=(1, 2)), _triangle(a, b, c) + _triangle(a, c, d), 0.0)
    covered = float(area.sum()) / (4 * math.pi)
    if covered > 1.01:
        raise DataContractError(
            subject, f"cells that cover {covered:.3f} spheres", "at most one", "correct the corners"
        )
    return area


def holds(lat_corners: NDArray, lon_corners: NDArray, lat: NDArray, lon: NDArray) -> NDArray[np.bool_]:
    """Whether points lie in their cells, one each; on the edge is inside, as where a pole stands for the cells around it.

    Args:
        lat_corners: Degrees, (..., corner), three or four corners a cell in order around it.
        lon_corners: The same.
        lat: Degrees, (...).
        lon: The same.

    Returns:
        (cell,), cells in C order; False where corners are missing.
    """
    corners = _unit_vectors(lat_corners, lon_corners, "corners of the source grid")
    phi, lam = (np.repeat(np.ravel(a)[:, None], 3, 1) for a in (lat, lon))
    point = _unit_vectors(phi, lam, "centres")[:, 0]
    sides = np.einsum("ik,ijk->ij", point, np.cross(corners, np.roll(corners, -1, axis=1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = sides / sides.sum(axis=1, keepdims=True)  # of the triangles that the point makes with each side
    is_near = np.einsum("ik,ijk->i", point, corners) > 0
    return is_near & (shares.min(axis=1) > -_BESIDE)


def cell_weights(lat_corners: NDArray, lon_corners: NDArray, target: xr.Dataset) -> sp.csr_array:
    """Area that each source cell has in each target cell; kept for the next call with the same corners and target.

    Args:
        lat_corners: Degrees, (..., corner), three or four corners a cell in order around it.
        lon_corners: The same.
        target: Grid with lat and lon, and bounds (made where absent).

    Returns:
        (target cell, source cell), in steradians; cells in C order. A cell with a corner missing has no area.

    Raises:
        DataContractError: As `cell_areas`; or if cells that cover the sphere leave a target cell without any.
    """
    goal = with_bounds(target, "target grid")
    edges = [np.append(goal[f"{a}_bnds"].values[:, 0], goal[f"{a}_bnds"].values[-1, 1]) for a in ("lat", "lon")]
    arrays = [np.ascontiguousarray(a, dtype=np.float64) for a in (lat_corners, lon_corners, *edges)]
    digest = hashlib.sha256(repr([a.shape for a in arrays]).encode())
    for a in arrays:
        digest.update(a)  # type: ignore[arg-type]
    with _MAKING:  # threads that want the same weights wait for the first
        return _made(_Pair(digest.hexdigest(), *arrays))


@dataclass(frozen=True)
class _Pair:
    """Corners of a source and edges of a target in degrees, alike where their digests are."""

    digest: str
    lat: NDArray[np.float64] = field(compare=False)
    lon: NDArray[np.float64] = field(compare=False)
    rows: NDArray[np.float64] = field(compare=False)
    columns: NDArray[np.float64] = field(compare=False)


@lru_cache(maxsize=4)
def _made(pair: _Pair) -> sp.csr_array:
    area = cell_areas(pair.lat, pair.lon)
    corners = _unit_vectors(pair.lat, pair.lon, "corners of the source grid")
    n_rows, n_columns = pair.rows.size - 1, pair.columns.size - 1
    shape = (n_rows * n_columns, len(corners))
    total = sp.csr_array(shape)
    parts = _parts_a_side(corners, float(np.diff(pair.rows).min()), float(np.diff(pair.columns).min()))
    for n in np.unique(parts[area > 0], axis=0):
        index = np.flatnonzero((area > 0) & (parts == n).all(axis=1))
        for some in np.array_split(index, max(1, index.size * int(n.prod()) // _BLOCK)):
            held, lat, lon = _parts(corners[some], int(n[0]), int(n[1]))
            cell = np.broadcast_to(some[:, None], held.shape)
            for (row, south), (column, west) in product(_shares(lat, pair.rows), _shares(lon, pair.columns, 360.0)):
                there = (south * west > 0) & (row >= 0) & (row < n_rows) & (column >= 0) & (column < n_columns)
                where = (row * n_columns + column)[there], cell[there]
                total = total + sp.coo_array(((held * south * west)[there], where), shape=shape).tocsr()
    goal = np.outer(np.diff(np.sin(np.radians(pair.rows))), np.radians(np.diff(pair.columns))).ravel()
    is_whole = max(abs(float(a.sum()) / (4 * math.pi) - 1.0) for a in (area, goal)) < _WHOLE
    return _balanced(total, goal, area * (goal.sum() / area.sum())) if is_whole else total


def _balanced(weights: sp.csr_array, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> sp.csr_array:
    """Weights scaled by row and by column until they add up to both (Sinkhorn & Knopp 1967, Pacific J. Math. 21, 343)."""
    if empty := int((np.asarray(weights.sum(axis=1)) == 0).sum()):
        raise DataContractError(
            "corners of the source grid", f"cells of the sphere's area that leave {empty} target cells without any",
            "cells side by side", "correct the corners: some overlap",
        )  # fmt: skip
    by_row, by_column, turned = np.ones(rows.size), np.ones(columns.size), weights.T.tocsr()
    for _ in range(_ROUNDS):
        by_column = columns / np.maximum(turned @ by_row, 1e-300)
        off = by_row * (weights @ by_column) / rows
        by_row = by_row / off
        if np.abs(off - 1.0).max() < _BALANCED:
            break
    return sp.csr_array(sp.diags_array(by_row) @ weights @ sp.diags_array(by_column))


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
        (..., lat, lon), dtype and attributes kept, arithmetic in float64. Where the cells cover the sphere, the area mean is kept.

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
    mask, share = np.ones(maps.shape[1], dtype=bool), np.asarray(weights.sum(axis=1))
    for i, values in enumerate(maps):
        valid = np.isfinite(values)
        if not np.array_equal(valid, mask):  # masks rarely change from map to map
            mask, share = valid, weights @ valid.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (weights @ np.where(valid, values, 0.0).astype(np.float64)) / share
        out[i] = np.where(share >= (max(min_coverage, 1e-9) - 1e-9) * area, mean, np.nan)
    before = field.dims[: field.ndim - len(cells)]
    shape = (*field.shape[: len(before)], goal.sizes["lat"], goal.sizes["lon"])
    coords = grid_coords(*(goal[n].values for n in ("lat", "lat_bnds", "lon", "lon_bnds")))
    kept = {n: c for n, c in field.coords.items() if set(c.dims) <= set(before)}
    return xr.DataArray(out.reshape(shape), {**kept, "lat": coords["lat"], "lon": coords["lon"]},
                        (*before, "lat", "lon"), field.name, field.attrs)  # fmt: skip


def _unit_vectors(lat: NDArray, lon: NDArray, subject: str) -> NDArray[np.float64]:
    """Corners (cell, 4, 3) on the unit sphere; of triangles the last one twice."""
    count = np.shape(lat)[-1]
    if count not in (3, 4) or np.shape(lat) != np.shape(lon):
        raise DataContractError(
            subject, f"shapes {np.shape(lat)} and {np.shape(lon)}", "(..., 3) or (..., 4), alike",
            "give vertices of latitude and longitude",
        )  # fmt: skip
    phi, lam = (np.radians(np.asarray(a, dtype=np.float64).reshape(-1, count)) for a in (lat, lon))
    points = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)
    return points if count == 4 else np.concatenate([points, points[:, 2:]], axis=1)


def _sides(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of each cell along its two directions, and its longest diagonal, in degrees of arc (cell, 3); 0 where corners lack."""
    pairs = (((0, 3), (1, 2)), ((0, 1), (3, 2)), ((0, 2), (1, 3)))
    apart = [[np.linalg.norm(corners[:, a] - corners[:, b], axis=1) for a, b in pair] for pair in pairs]
    return np.degrees(2 * np.arcsin(np.clip(np.nan_to_num(np.max(apart, axis=1)) / 2, 0.0, 1.0))).T


def _parts_a_side(corners: NDArray[np.float64], rows_deg: float, columns_deg: float) -> NDArray[np.int64]:
    """Parts along both sides (cell, 2): a part is a third of a target cell where it lies; towards the poles those are narrow."""
    sides = _sides(corners)
    middle = np.nan_to_num(corners.sum(axis=1))
    across = np.hypot(middle[:, 0], middle[:, 1]) / np.maximum(np.linalg.norm(middle, axis=1), 1e-12)
    nearest = np.maximum(across - np.radians(sides[:, 2]) / 2, math.sin(math.radians(rows_deg / 2)))
    target = np.minimum(rows_deg, columns_deg * nearest)
    return np.clip(np.ceil(3 * sides[:, :2] / target[:, None]), 2, MOST_PARTS).astype(np.int64)


def _parts(corners: NDArray[np.float64], n: int, m: int) -> tuple[NDArray, NDArray, NDArray]:
    """Area in steradians (cell, part) of n x m parts, and their ends in latitude and longitude in degrees (2, cell, part)."""
    a, b, c, d = (corners[:, k, None, None, :] for k in range(4))
    v, w = np.linspace(0.0, 1.0, n + 1)[None, :, None, None], np.linspace(0.0, 1.0, m + 1)[None, None, :, None]
    points = (1 - v) * ((1 - w) * a + w * b) + v * ((1 - w) * d + w * c)
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    four = np.stack([points[:, :-1, :-1], points[:, :-1, 1:], points[:, 1:, 1:], points[:, 1:, :-1]])
    area = _triangle(four[0], four[1], four[2]) + _triangle(four[0], four[2], four[3])
    middle = four.sum(axis=0)
    lat = np.degrees(np.arcsin(np.clip(four[..., 2], -1, 1)))
    lon = np.degrees(np.arctan2(middle[..., 1], middle[..., 0]))
    lon = lon + (np.degrees(np.arctan2(four[..., 1], four[..., 0])) - lon + 180.0) % 360.0 - 180.0
    south_north, west_east = (np.stack([x.min(axis=0), x.max(axis=0)]).reshape(2, len(corners), -1) for x in (lat, lon))
    return area.reshape(len(corners), -1), south_north, west_east


def _shares(
    ends: NDArray[np.float64], edges: NDArray[np.float64], circle: float = math.inf
) -> tuple[tuple[NDArray[np.int64], NDArray[np.float64]], ...]:
    """The two rows or columns that parts lie in, with the share of a part in each.

    Parts are a third of a row or column. Only beside a pole some are wider than one: they lie where their middle does.
    """
    low, high = ends
    is_wide = high - low > np.diff(edges).min()
    low, high = (np.where(is_wide, (low + high) / 2, x) for x in (low, high))
    turned = [edges[0] + (x - edges[0]) % circle if math.isfinite(circle) else x for x in (low, high)]
    first, last = (np.searchsorted(edges, x, side="right") - 1 for x in turned)
    beyond = np.append(edges, edges[0] + circle)[first + 1] - turned[0]
    over = np.clip(1.0 - beyond / np.maximum(high - low, 1e-12), 0.0, 1.0)
    over = np.where(first == last, 0.0, over)
    return (first, 1.0 - over), (last, over)


def _triangle(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of spherical triangles of unit vectors (van Oosterom & Strackee 1983, IEEE Trans. Biomed. Eng. 30, 125)."""
    volume = np.abs(np.einsum("...k,...k->...", a, np.cross(b, c)))
    dots = [np.einsum("...k,...k->...", x, y) for x, y in ((a, b), (b, c), (c, a))]
    return 2.0 * np.arctan2(volume, 1.0 + sum(dots))
