"""What real CMIP files look like, each as one change to a small sound file: those that must be read, those that must be refused."""

from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr

from worlds.cmip import credible, write_cmip

MONTHS, GRID = 24, (4, 6)
Edit = Callable[[xr.Dataset], xr.Dataset]


def sound(folder: Path, name: str = "tas", **settings) -> Path:
    """Two years of a global grid, without a fault."""
    return write_cmip(folder, name, grid=GRID, **settings)


def change(path: Path, edit: Edit, unlimited: bool = True) -> Path:
    """Write a file again after an edit of what is stored in it; nothing is decoded or added on the way."""
    with xr.open_dataset(path, decode_cf=False) as ds:
        edited = edit(ds.load())
    path.unlink()
    for variable in edited.variables.values():
        variable.encoding = {} if "_FillValue" in variable.attrs else {"_FillValue": None}
    edited.to_netcdf(path, unlimited_dims=["time"] if unlimited and "time" in edited.dims else [])
    return path


def replace(ds: xr.Dataset, name: str, values, **attrs) -> xr.Dataset:
    """Other values and further attributes of a variable; an attribute None is removed."""
    old = ds[name]
    merged = {k: v for k, v in {**old.attrs, **attrs}.items() if v is not None}
    new = xr.Variable(old.dims, np.asarray(values), merged)
    return ds.drop_vars(name).assign({name: new})


def retime(units: str, scale: float = 1.0, shift: float = 0.0, dtype: str = "f8", bounds: bool = True) -> Edit:
    """The time axis in other numbers; bounds too, or left as they were."""

    def edit(ds: xr.Dataset) -> xr.Dataset:
        attrs = {"units": units}
        if not bounds and "time_bnds" in ds:
            ds = ds.drop_vars("time_bnds")
            attrs["bounds"] = None
        for name in ("time", "time_bnds")[: 2 if bounds else 1]:
            ds = replace(
                ds, name, ((ds[name].values + shift) * scale).astype(dtype), **(attrs if name == "time" else {})
            )
        return ds

    return edit


def west(start: float) -> Edit:
    """The same map beginning at another longitude, bounds and all."""

    def edit(ds: xr.Dataset) -> xr.Dataset:
        lon = (ds.lon.values - start) % 360 + start
        order = np.argsort(lon)
        moved = ds.isel(lon=order)
        bounds = ds.lon_bnds.values + (lon - ds.lon.values)[:, None]
        return replace(replace(moved, "lon", lon[order]), "lon_bnds", bounds[order])

    return edit


def cyclic(difference: float = 0.0) -> Edit:
    """The first meridian once more behind the last."""

    def edit(ds: xr.Dataset) -> xr.Dataset:
        more = ds.isel(lon=[*range(ds.sizes["lon"]), 0]).drop_vars("lon_bnds")
        values = more.tas.values.copy()
        values[..., -1] += difference
        out = replace(replace(more, "lon", [*ds.lon.values, 360.0]), "tas", values)
        del out["lon"].attrs["bounds"]
        return out

    return edit


def pack(scale: float, offset: float) -> Edit:
    """The field as 16-bit integers."""

    def edit(ds: xr.Dataset) -> xr.Dataset:
        packed = np.round((ds.tas.values.astype("f8") - offset) / scale).astype("i2")
        fill = np.int16(-32768)
        return replace(ds, "tas", packed, scale_factor=scale, add_offset=offset, _FillValue=fill, missing_value=None)

    return edit


def curved(ds: xr.Dataset) -> xr.Dataset:
    """A grid whose latitudes and longitudes need two dimensions."""
    j, i = np.meshgrid(ds.lat.values, ds.lon.values, indexing="ij")
    out = ds.drop_vars(["lat_bnds", "lon_bnds", "lat", "lon"]).rename_dims(lat="j", lon="i")
    north, east = {"units": "degrees_north"}, {"units": "degrees_east"}
    out["latitude"], out["longitude"] = (("j", "i"), j + i / 90, north), (("j", "i"), i, east)
    out["tas"].attrs["coordinates"] = "latitude longitude"
    return out


def written_out(ds: xr.Dataset) -> xr.Dataset:
    """A plain grid whose latitudes and longitudes are written out in two dimensions."""
    out = curved(ds)
    j, _ = np.meshgrid(ds.lat.values, ds.lon.values, indexing="ij")
    return replace(out, "latitude", j)


def scattered(ds: xr.Dataset) -> xr.Dataset:
    """Cells in one dimension, as on a triangular grid."""
    out = ds.drop_vars(["lat_bnds", "lon_bnds"]).stack(cell=("lat", "lon"))
    lat, lon = out.lat.values, out.lon.values
    out = out.drop_vars(["cell", "lat", "lon"])
    out["latitude"], out["longitude"] = (
        ("cell", lat, {"units": "degrees_north"}),
        ("cell", lon, {"units": "degrees_east"}),
    )
    return out


def with_dim(name: str, size: int) -> Edit:
    """One dimension more, e.g. levels."""

    def edit(ds: xr.Dataset) -> xr.Dataset:
        field = ds.tas.expand_dims({name: size}, axis=1)
        return ds.drop_vars("tas").assign(tas=field, **{name: (name, np.arange(1.0, size + 1), {"units": "m"})})

    return edit


def turned(ds: xr.Dataset) -> xr.Dataset:
    """Dimensions the other way round, under other names."""
    out = ds.transpose("lon", "lat", "time", ...).rename(lat="latitude", lon="longitude", time="T")
    return out.drop_vars(["lat_bnds", "lon_bnds"])


def hole(value: float, name: str = "tas") -> Edit:
    """One value missing, written as a number that no attribute names."""

    def edit(ds: xr.Dataset) -> xr.Dataset:
        values = ds[name].values.copy()
        values[5, 1, 2] = value
        return replace(ds, name, values, _FillValue=None, missing_value=None)

    return edit


def in_groups(path: Path, members: tuple[str, ...]) -> Path:
    """The file's field once a member in groups of their own; coordinates stay in the root."""
    with netCDF4.Dataset(path, "a") as ds:
        for i, member in enumerate(members):
            field = ds.createGroup(member).createVariable("tas", "f4", ("time", "lat", "lon"))
            field.units = "K"
            field[:] = credible("tas", MONTHS, *GRID, seed=i)
        ds.renameVariable("tas", "not_the_field")
        del ds.variant_label
    return path


def of_members(path: Path, labels: list) -> Path:
    """Several members along a dimension of one file."""

    def edit(ds: xr.Dataset) -> xr.Dataset:
        fields = np.stack([credible("tas", MONTHS, *GRID, seed=i) for i in range(len(labels))], axis=1)
        out = ds.drop_vars("tas")
        out["tas"] = (("time", "realization", "lat", "lon"), fields, {"units": "K"})
        out["realization"] = ("realization", labels)
        return out

    return change(path, edit)
