"""Small files of CESM's monthly history, a variable a file: no attributes of CMIP, stamps at the end of months."""

from pathlib import Path

import cftime
import netCDF4
import numpy as np

ARISE = "b.e21.BW.f09_g17.SSP245-TSMLT-GAUSS-DEFAULT"
ABOUT = {
    "TREFHT": ("K", "Reference height temperature"),
    "PRECT": ("m/s", "Total (convective and large-scale) precipitation rate (liq + ice)"),
    "PRECC": ("m/s", "Convective precipitation rate (liq + ice)"),
    "PRECL": ("m/s", "Large-scale (stable) precipitation rate (liq + ice)"),
}
GRID = (7, 12)


def credible(stored: str, months: int, seed: int = 0) -> np.ndarray:
    """(months, lat, lon) in the stored unit."""
    noise = np.random.default_rng([seed, *stored.encode()]).random((months, *GRID))
    rain = {"PRECT": 1.0, "PRECC": 0.6, "PRECL": 0.4}.get(stored, 0.0)
    return (270 + 30 * noise if stored == "TREFHT" else rain * (2 + 2 * noise) / 86400e3).astype("f4")


def write_history(
    folder: Path, stored: str = "TREFHT", case: str = ARISE, member: str = "001", months: tuple[str, str] = ("203501", "203712"),
    values: np.ndarray | None = None, *, units: str | None = None, said: str | None = None, file_name: str | None = None,
) -> Path:  # fmt: skip
    """Write one file and return it.

    Args:
        folder: Made where absent.
        stored: Name of the variable.
        case: First part of the file name.
        member: Three digits.
        months: First and last, YYYYMM.
        values: As stored; default `credible`.
        units: Instead of the usual ones.
        said: The attribute ``case``; default as in the name.
        file_name: Instead of the usual one.
    """
    first, last = (12 * int(m[:4]) + int(m[4:]) - 1 for m in months)
    units_of_time = f"days since {months[0][:4]}-01-01 00:00:00"
    starts = [cftime.datetime(i // 12, i % 12 + 1, 1, calendar="noleap") for i in range(first, last + 2)]
    edges = cftime.date2num(starts, units_of_time, "noleap").astype(float)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (file_name or f"{case}.{member}.cam.h0.{stored}.{'-'.join(months)}.nc")
    unit, long_name = ABOUT.get(stored, ("1", stored))
    with netCDF4.Dataset(path, "w") as ds:
        ds.setncatts({
            "Conventions": "CF-1.0", "source": "CAM", "case": said or f"{case}.{member}", "title": "UNSET", "logname": "someone",
            "host": "a-machine", "initial_file": "none", "topography_file": "none", "time_period_freq": "month_1",
        })  # fmt: skip
        for name, size in {"time": None, "lat": GRID[0], "lon": GRID[1], "nbnd": 2, "lev": 3, "ilev": 4}.items():
            ds.createDimension(name, size)
        lat, lon = np.linspace(-90, 90, GRID[0]), np.arange(GRID[1]) * 360 / GRID[1]  # rows at the poles, no bounds
        columns = {
            "lat": (("lat",), lat, {"long_name": "latitude", "units": "degrees_north"}),
            "lon": (("lon",), lon, {"long_name": "longitude", "units": "degrees_east"}),
            "gw": (("lat",), np.cos(np.radians(lat)), {"long_name": "latitude weights"}),
            "lev": (("lev",), [100.0, 500.0, 900.0], {"units": "hPa", "positive": "down"}),
            "ilev": (("ilev",), [0.0, 300.0, 700.0, 1000.0], {"units": "hPa", "positive": "down"}),
            "time": (
                ("time",), edges[1:],
                {"long_name": "time", "units": units_of_time, "calendar": "noleap", "bounds": "time_bnds"},
            ),
            "time_bnds": (("time", "nbnd"), np.stack([edges[:-1], edges[1:]], 1), {"long_name": "time interval endpoints"}),
            "date": (("time",), [10000 * d.year + 100 * d.month + d.day for d in starts[1:]], {"long_name": "current date"}),
            "datesec": (("time",), np.zeros(len(starts) - 1), {"long_name": "current seconds of current date"}),
        }  # fmt: skip
        for name, (dims, numbers, attrs) in columns.items():
            ds.createVariable(name, "f8", dims)[:] = numbers
            ds[name].setncatts(attrs)
        field = ds.createVariable(stored, "f4", ("time", "lat", "lon"))
        field.setncatts({"units": units or unit, "long_name": long_name, "cell_methods": "time: mean"})
        field[:] = credible(stored, len(starts) - 1) if values is None else values
    return path
