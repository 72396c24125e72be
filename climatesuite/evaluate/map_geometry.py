"""What a map is made of, as numbers: coastlines, edges of cells from the date line on, edges of colours."""

from functools import lru_cache
from importlib.resources import files

import cartopy.crs as ccrs
import numpy as np
import xarray as xr

from climatesuite.evaluate.kernels import Array
from climatesuite.harmonise.grids import infer_bounds

_COLOURS = {1.0: 10, 1.2: 12, 1.5: 12, 2.0: 16, 2.5: 10, 3.0: 12, 4.0: 16, 5.0: 10, 6.0: 12, 8.0: 16, 10.0: 10}
"""Round limits of a colour scale and the number of colours that gives round edges."""


@lru_cache(maxsize=1)
def coastline() -> Array:
    """Natural Earth's 1:110m land outline (public domain): ``[point, (lon, lat)]`` degrees, NaN between lines."""
    with files("climatesuite.evaluate").joinpath("coastline_110m.npz").open("rb") as source, np.load(source) as stored:
        return np.asarray(stored["xy"], dtype=np.float64)


@lru_cache(maxsize=4)
def projected_coastline(projection: ccrs.Projection) -> Array:
    """The same in the projection's metres, NaN where it is out of sight or leaps from edge to edge."""
    lon, lat = coastline().T.copy()  # cartopy writes into what it is given
    points = np.asarray(projection.transform_points(ccrs.PlateCarree(), lon, lat))[:, :2]
    points[~np.isfinite(points).all(axis=1) | np.isnan(coastline()[:, 0])] = np.nan
    width = projection.x_limits[1] - projection.x_limits[0]
    points[1:][np.abs(np.diff(points[:, 0])) > 0.5 * width] = np.nan
    return points


def nice_limit(*fields: xr.DataArray, share: float = 0.98) -> float:
    """A round number that ``share`` of the absolute values stay below; fields drawn on one scale go in together."""
    values = np.concatenate([np.abs(np.asarray(f.values, dtype=np.float64)).ravel() for f in fields])
    values = values[np.isfinite(values)]
    top = float(np.quantile(values, share)) if values.size else 0.0
    if top <= 0.0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(top))
    return float(power * next(step for step in _COLOURS if step * power >= 0.9999 * top))


def _edges(field: xr.DataArray, axis: str) -> Array:
    bounds = (
        field.coords[f"{axis}_bnds"].values
        if f"{axis}_bnds" in field.coords
        else infer_bounds(field[axis].values, axis)
    )
    return np.append(bounds[:, 0], bounds[-1, 1]).astype(np.float64)


def cells_from_dateline(field: xr.DataArray) -> tuple[Array, Array, Array]:
    """Edges of longitude from -180 to 180, of latitude, and values; a cell across the date line is cut in two."""
    lon, lat = _edges(field, "lon"), _edges(field, "lat")
    values = np.asarray(field.transpose("lat", "lon").values, dtype=np.float64)
    twice = np.concatenate([values, values], axis=1)
    line = np.concatenate([lon[:-1] - 360.0, lon])
    first = int(np.searchsorted(line, -180.0, side="right")) - 1
    last = int(np.searchsorted(line, 180.0, side="left"))
    edges = line[first : last + 1].copy()
    edges[0], edges[-1] = -180.0, 180.0
    return edges, lat, twice[:, first:last]


def levels(low: float, high: float) -> Array:
    """Edges of the colours: about ten, round where the limits are those of :func:`nice_limit`."""
    mantissa = round(high / 10.0 ** np.floor(np.log10(high)), 6)
    return np.linspace(low, high, _COLOURS.get(mantissa, 10) + 1)
