"""Where regions lie on a grid: weights of cells for the globe, land, ocean, polar caps and reference regions, without network.

Every region is an array of weights ``(lat, lon)`` that sum to 1: area of the part of a cell inside it. Parts are counted on points
one degree or less apart, so a coast or a border through a coarse cell is a share, not a yes or no. Land is Natural Earth's 1:110m
outline, which the package carries; reference regions are the land of the 26 SREX regions (Seneviratne et al. 2012, in
``regionmask``), or polygons of a file, e.g. the AR6 regions of Iturbide et al. (2020, doi 10.5194/essd-12-2959-2020).
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import regionmask
import shapely
import xarray as xr
from numpy.typing import NDArray

from climatesuite.errors import DataContractError
from climatesuite.evaluate.kernels import Array
from climatesuite.evaluate.map_geometry import coastline
from climatesuite.harmonise.grids import infer_bounds

SREX = "srex"
POINT_DEGREES = 1.0
POLAR_CIRCLE = 66.5
"""The Arctic of Rantanen et al. (2022, doi 10.1038/s43247-022-00498-3); the Antarctic is its mirror image."""
GLOBE, LAND, OCEAN, ARCTIC, ANTARCTIC = "globe", "land", "ocean", "Arctic", "Antarctic"
LARGE = (GLOBE, LAND, OCEAN, ARCTIC, ANTARCTIC)
_NAME_COLUMNS = ("Acronym", "abbrev", "LAB", "Name", "name")


def large_regions(ds: xr.Dataset) -> xr.DataArray:
    """Globe, land, ocean, Arctic and Antarctic on the grid of a Dataset: ``(region, lat, lon)``, each summing to 1."""
    lat, lon, area = _points(ds)
    is_land = _inside(_land(), lat, lon)[0]
    north = np.broadcast_to(lat[:, None], is_land.shape)
    parts = {
        GLOBE: np.ones_like(is_land), LAND: is_land, OCEAN: ~is_land,
        ARCTIC: north > POLAR_CIRCLE, ANTARCTIC: north < -POLAR_CIRCLE,
    }  # fmt: skip
    return _weights(ds, list(parts), np.stack(list(parts.values())), area)


def reference_regions(ds: xr.Dataset, source: str | Path = SREX) -> xr.DataArray:
    """The land of reference regions on the grid of a Dataset.

    Args:
        ds: With ``lat``, ``lon`` and their bounds, or none.
        source: ``srex``, or a file of polygons that geopandas reads (shapefile, zipped or not, GeoJSON) with a column
            ``Acronym`` or ``Name``: for AR6 the published ``IPCC-WGI-reference-regions-v4.zip``. Regions that touch no land
            of the 1:110m outline keep their ocean.

    Returns:
        ``(region, lat, lon)``, each summing to 1; regions that no point of the grid hits are left out.

    Raises:
        DataContractError: If the file is missing, cannot be read, or names no regions.
    """
    regions = regionmask.defined_regions.srex if str(source).lower() == SREX else _from_file(Path(source))
    lat, lon, area = _points(ds)
    inside, is_land = _inside(regions, lat, lon), _inside(_land(), lat, lon)[0]
    on_land = inside & is_land
    kept = np.where(on_land.any(axis=(1, 2))[:, None, None], on_land, inside)
    hit: NDArray[np.bool_] = np.asarray(kept.any(axis=(1, 2)))
    if not hit.any():
        raise DataContractError(
            f"regions of {source}", "none on this grid", "polygons in degrees east and north", "check their coordinates"
        )
    return _weights(ds, [a for a, there in zip(regions.abbrevs, hit, strict=True) if there], kept[hit], area)


def _from_file(path: Path) -> regionmask.Regions:
    import geopandas

    if not path.exists():
        raise DataContractError(str(path), "no such file", f"{SREX!r} or a file of polygons", "correct the path")
    try:
        table = geopandas.read_file(path)
    except Exception as error:  # GDAL raises its own errors, of many kinds
        raise DataContractError(
            str(path), f"not readable ({error})", "a shapefile or GeoJSON", "download it again"
        ) from error
    column = next((name for name in _NAME_COLUMNS if name in table), None)
    if column is None:
        found = f"columns {', '.join(map(str, table.columns))}"
        raise DataContractError(str(path), found, f"one of {', '.join(_NAME_COLUMNS)}", "name the regions")
    names = table[column].astype(str).tolist()
    return regionmask.Regions(list(table.geometry), names=names, abbrevs=names, name=path.stem, overlap=True)


@lru_cache(maxsize=1)
def _land() -> regionmask.Regions:
    """The outline's rings as one region; rings inside rings (the Caspian) are holes."""
    line = coastline()
    ends = np.flatnonzero(np.isnan(line[:, 0]))
    rings = [part[~np.isnan(part[:, 0])] for part in np.split(line, ends)]
    polygons = [shapely.make_valid(shapely.Polygon(ring)) for ring in rings if len(ring) > 3]
    land = shapely.symmetric_difference_all(polygons)
    return regionmask.Regions([land], names=["land"], abbrevs=["land"], name="land", overlap=False)


def _edges(ds: xr.Dataset, axis: str) -> Array:
    """Cell edges ``[n, 2]``, degrees."""
    given = ds[f"{axis}_bnds"].transpose(axis, ...).values if f"{axis}_bnds" in ds.variables else None
    return np.asarray(infer_bounds(ds[axis].values, axis) if given is None else given, dtype=np.float64)


def _points(ds: xr.Dataset) -> tuple[Array, Array, Array]:
    """Latitudes ``[I k]`` and longitudes ``[J l]`` of k x l points in every cell, and the area of each ``[I k, J l]``."""
    axes = {}
    for axis in ("lat", "lon"):
        edges = _edges(ds, axis)
        width = edges[:, 1] - edges[:, 0]
        count = int(np.ceil(width.max() / POINT_DEGREES - 1e-9))
        middle = (np.arange(count) + 0.5) / count
        axes[axis] = (edges[:, :1] + width[:, None] * middle).ravel(), np.repeat(width / count, count)
    (lat, height), (lon, width) = axes["lat"], axes["lon"]
    area = np.cos(np.deg2rad(lat))[:, None] * height[:, None] * width[None, :]
    return lat, np.mod(lon, 360.0), area


def _inside(regions: regionmask.Regions, lat: Array, lon: Array) -> Array:
    """Which points lie in which region: ``[region, point, point]``; regionmask needs rising longitudes."""
    order = np.argsort(lon, kind="stable")
    mask = np.asarray(regions.mask_3D(lon[order], lat, drop=False, wrap_lon=180).values, dtype=bool)
    out = np.empty_like(mask)
    out[:, :, order] = mask
    return out


def _weights(ds: xr.Dataset, names: list[str], inside: Array, area: Array) -> xr.DataArray:
    shape = ds.sizes["lat"], inside.shape[1] // ds.sizes["lat"], ds.sizes["lon"], inside.shape[2] // ds.sizes["lon"]
    cells = (inside * area).reshape(-1, *shape).sum(axis=(2, 4))
    cells /= cells.sum(axis=(1, 2), keepdims=True)
    coords = {"region": names, "lat": ds["lat"].values, "lon": ds["lon"].values}
    return xr.DataArray(cells, coords, ("region", "lat", "lon"), "weights", {"units": "1"})


def latitude_bands(ds: xr.Dataset, width: float = 30.0) -> xr.DataArray:
    """Bands of latitude from south to north, e.g. ``30N-60N``: ``(region, lat, lon)``, each summing to 1."""
    lat, lon, area = _points(ds)
    edges = np.arange(-90.0, 90.0 + width / 2, width)
    inside = np.stack([(lat >= low) & (lat < high) for low, high in zip(edges[:-1], edges[1:], strict=True)])
    names = [f"{_latitude(low)}-{_latitude(high)}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    whole = np.broadcast_to(inside[:, :, None], (len(names), lat.size, lon.size))
    hit = np.flatnonzero(inside.any(axis=1))
    return _weights(ds, [names[i] for i in hit], whole[hit], area)


def _latitude(degrees: float) -> str:
    return f"{abs(degrees):g}{'S' if degrees < 0 else 'N' if degrees > 0 else ''}"
