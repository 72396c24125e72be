"""How a store is laid out: group names, chunks and shards, coordinates."""

import math
from collections.abc import Mapping
from typing import Any

import cftime
import numpy as np
import xarray as xr

from climatesuite.conventions import TIMESCALES

SCHEMA = 1
STATISTICS = "statistics"
CHUNK_STEPS = {"month": 12, "year": 10, "decade": 8}
"""Steps in a chunk: a training window."""
SHARD_BYTES = 256 * 10**6
COORDS = ("lat", "lon", "lat_bnds", "lon_bnds", "year", "month", "days")


def group_name(source_id: str, experiment_id: str, part: str) -> str:
    """Path of a run's group; ``part`` is a timescale or ``statistics``."""
    return f"{source_id}/{experiment_id}/{part}"


def chunks_of(shape: tuple[int, ...], dims: tuple[str, ...], timescale: str) -> tuple[int, ...]:
    """Chunk shape: one member, one window of time, the whole globe."""
    steps = CHUNK_STEPS[timescale]
    sizes = {"member": 1, "time": min(steps, shape[dims.index("time")])}
    return tuple(sizes.get(d, n) for d, n in zip(dims, shape, strict=True))


def shards_of(shape: tuple[int, ...], dims: tuple[str, ...], timescale: str, itemsize: int) -> tuple[int, ...] | None:
    """Shard shape: a whole number of chunks along time, at most 256 MB; None where one chunk holds everything."""
    chunk = chunks_of(shape, dims, timescale)
    at = dims.index("time")
    n_chunks = math.ceil(shape[at] / chunk[at])
    fits = max(1, SHARD_BYTES // (math.prod(chunk) * itemsize))
    if n_chunks == 1:
        return None
    shard = list(chunk)
    shard[at] = chunk[at] * min(n_chunks, fits)
    return tuple(shard)


def coordinate_arrays(ds: xr.Dataset) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]]:
    """Coordinates of a canonical Dataset as plain arrays; dates as days since the first year, CF-encoded."""
    bounds = ds["time_bnds"].transpose("time", ...).values
    units, calendar = f"days since {bounds.flat[0].year:04d}-01-01", str(ds.attrs["calendar"])
    about = {"standard_name": "time", "axis": "T", "bounds": "time_bnds", **ds["time"].attrs}
    about |= {"units": units, "calendar": calendar}
    encoded = np.asarray(cftime.date2num(ds["time"].values, units, calendar), dtype=np.float64)
    pairs = np.asarray(cftime.date2num(bounds, units, calendar), dtype=np.float64)
    out: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]] = {
        "time": (("time",), encoded, about),
        "time_bnds": (("time", "bnds"), pairs, {}),
    }
    for name in COORDS:
        if name in ds.coords:
            variable = ds[name].variable
            out[name] = (tuple(map(str, variable.dims)), np.asarray(variable.values), dict(variable.attrs))
    return out


def decode_times(encoded: np.ndarray, attrs: Mapping[str, Any]) -> np.ndarray:
    """Dates from days, as cftime objects."""
    return np.asarray(cftime.num2date(encoded, attrs["units"], attrs["calendar"]))


def timescales() -> tuple[str, ...]:
    """Finest first, the order in which they are built."""
    return tuple(reversed(TIMESCALES))
