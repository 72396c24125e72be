"""Small files in ClimateBench's official layout."""

import numpy as np
import xarray as xr

LAT, LON = [-60.0, 0.0, 60.0], [0.0, 90.0, 180.0, 270.0]


def official_outputs(years=range(2015, 2101), members=(2, 1, 3), seed=0) -> xr.Dataset:
    """As the files are: mixed dtypes, labels in glob order, no units, precipitation in kg m-2 s-1, a stray quantile."""
    rng, shape = np.random.default_rng(seed), (len(members), len(years), 3, 4)
    dims = ("member", "time", "lat", "lon")
    data = {
        "tas": rng.normal(2, 1, shape).astype(np.float32), "diurnal_temperature_range": rng.normal(0, 0.1, shape),
        "pr": rng.normal(0, 1e-5, shape), "pr90": rng.normal(0, 2e-5, shape).astype(np.float32),
    }  # fmt: skip
    coords = {"member": list(members), "time": list(years), "lat": LAT, "lon": LON, "quantile": 0.9}
    return xr.Dataset({n: (dims, v) for n, v in data.items()}, coords)


def official_inputs(years=range(2015, 2101), is_idealised=False, first_co2=1536.0) -> xr.Dataset:
    n = len(years)
    maps = np.full(n, 1e-12) if is_idealised else np.full((n, 3, 4), 1e-12)
    dims = ("time",) if is_idealised else ("time", "latitude", "longitude")
    data = {
        "CO2": ("time", first_co2 + 40.0 * np.arange(n)),
        "CH4": ("time", np.full(n, 0.4)),
        "SO2": (dims, maps),
        "BC": (dims, maps),
    }
    return xr.Dataset(data, {"time": list(years)} | ({} if is_idealised else {"latitude": LAT, "longitude": LON}))


def write_files(folder, name="ssp245", outputs=None, inputs=None):
    """Both files of an experiment, or one of them; the folder."""
    for kind, ds in (("outputs", outputs), ("inputs", inputs)):
        if ds is not None:
            ds.to_netcdf(folder / f"{kind}_{name}.nc")
    return folder
