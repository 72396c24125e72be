"""Files on grids that are no grids of latitudes by longitudes: a turned one, its halves as triangles, any cells with corners."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from climatesuite.harmonise.curvilinear import cell_areas
from worlds.cmip import write_cmip
from worlds.cmip_realities import change

Corners = tuple[np.ndarray, np.ndarray]


def corners(grid: xr.Dataset, tilt: float = 0.0) -> Corners:
    """Corners (lat, lon, 4) of a rectilinear grid turned about the x axis: no cell lies along a meridian any more."""
    south, north = np.radians(grid.lat_bnds.values).T[:, :, None]
    west, east = np.radians(grid.lon_bnds.values).T[:, None, :]
    phi, lam = (np.stack(np.broadcast_arrays(*p), -1) for p in ((south, south, north, north), (west, east, east, west)))
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    t = np.radians(tilt)
    y, z = y * np.cos(t) - z * np.sin(t), y * np.sin(t) + z * np.cos(t)
    return np.degrees(np.arcsin(np.clip(z, -1, 1))), np.degrees(np.arctan2(y, x))


def triangles(cells: Corners) -> Corners:
    """Two halves of each cell, in one dimension (cell, 3)."""
    lat, lon = (np.stack([a[..., [0, 1, 2]], a[..., [0, 2, 3]]], axis=2).reshape(-1, 3) for a in cells)
    return lat, lon


def points(cells: Corners) -> np.ndarray:
    """Middles of cells on the unit sphere, (..., 3)."""
    phi, lam = (np.radians(a) for a in cells)
    middle = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], -1).sum(-2)
    return middle / np.linalg.norm(middle, axis=-1, keepdims=True)


def warmth(cells: Corners, months: int, kelvin_a_month: float = 0.01) -> np.ndarray:
    """(months, ...) K: a smooth field of 280 + 20 z + 10 x on the unit sphere that warms everywhere alike."""
    x, _, z = np.moveaxis(points(cells), -1, 0)
    wave = np.cos(np.arange(months) * np.pi / 6).reshape(
        -1, *([1] * x.ndim)
    )  # seasons, so that no two months are alike
    trend = kelvin_a_month * np.arange(months).reshape(wave.shape)
    return 280 + 20 * z + 10 * x + wave * z + trend


def area_mean(values: np.ndarray, cells: Corners) -> np.ndarray:
    """Mean over all cells with their areas, (months,)."""
    area = cell_areas(*cells)
    return values.reshape(len(values), -1).astype(np.float64) @ area / area.sum()


def write_cells(
    folder: Path, cells: Corners, values: np.ndarray, months: tuple[str, str], name: str = "tas",
    edit: Callable[[xr.Dataset], xr.Dataset] = lambda ds: ds, **settings,
) -> Path:  # fmt: skip
    """A CMIP file of cells (j, i, 4) or (cell, corner), ``vertices_latitude`` and so on as a tripolar ocean has them."""
    path = write_cmip(folder, name, months=months, **settings)
    middle = points(cells)
    centres = np.degrees(np.arcsin(middle[..., 2])), np.degrees(np.arctan2(middle[..., 1], middle[..., 0])) % 360

    def onto(ds: xr.Dataset) -> xr.Dataset:
        dims = ("j", "i") if centres[0].ndim == 2 else ("cell",)
        about = {**ds[name].attrs, "coordinates": "latitude longitude"}
        out = ds.drop_dims(["lat", "lon"])
        out[name] = (("time", *dims), values.astype("f4"), about)
        for n, centre, corner, unit in zip(
            ("latitude", "longitude"), centres, cells, ("degrees_north", "degrees_east"), strict=True
        ):
            out[n] = (dims, centre, {"units": unit, "bounds": f"vertices_{n}"})
            out[f"vertices_{n}"] = ((*dims, "vertices"), corner)
        return edit(out)

    return change(path, onto)
