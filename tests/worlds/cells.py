"""Small arrays with dims (member, time, lat, lon) for tests of scores."""

import numpy as np
import xarray as xr

LAT = [-60.0, 0.0, 60.0]


def field(values, lat=LAT, **attrs):
    """Array (member, time, lat, lon) on years 2015, 2016, ...; missing leading dims are added."""
    x = np.asarray(values, dtype=np.float64)
    x = x.reshape((1,) * (4 - x.ndim) + x.shape)
    coords = {
        "member": np.arange(x.shape[0]), "year": ("time", 2015 + np.arange(x.shape[1])), "lat": lat,
        "lon": np.arange(x.shape[3]) * 360.0 / x.shape[3],
    }  # fmt: skip
    return xr.DataArray(x, coords, ("member", "time", "lat", "lon"), name="tas", attrs=attrs)


def at_one_cell(*members):
    """Members of one value each."""
    return field(np.reshape(members, (-1, 1, 1, 1)), lat=[0.0])
