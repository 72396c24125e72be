"""What is in the atmosphere rather than emitted: concentrations of CO2 and CH4, optical depth of stratospheric aerosol."""

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climatesuite.conventions import FORCINGS
from climatesuite.errors import DataContractError
from climatesuite.forcing.input4mips import dates_of, gridded, months_of, named, open_file, whole_years
from climatesuite.harmonise.grids import cos_weights, regrid
from climatesuite.harmonise.units import conversion

LARGEST_AOD = 10.0
CONCENTRATIONS = {
    "mole_fraction_of_carbon_dioxide_in_air": "CO2_ppm",
    "mole_fraction_of_methane_in_air": "CH4_ppb",
}


def read_concentrations(path: str | Path, like: xr.Dataset) -> xr.Dataset:
    """Global mean ``CO2_ppm``, ``CH4_ppb (time)``, the same in all months of a year, for the years of other forcings.

    Args:
        path: NetCDF with ``mole_fraction_of_carbon_dioxide_in_air (time[, sector][, lat])`` or that of methane, years or months;
            the first sector is the globe.
        like: Canonical forcings.

    Raises:
        DataContractError: If it holds neither, a time axis that cannot be read, unknown units, or not all years.
    """
    file = Path(path)
    with open_file(file) as ds:
        names = {str(n): CONCENTRATIONS[str(n)] for n in ds.data_vars if str(n) in CONCENTRATIONS}
        if not names:
            raise DataContractError(file.name, f"variables {named(ds)}", ", ".join(CONCENTRATIONS), "give another file")
        years = np.array([d.year for d in dates_of(ds, file.name)])
        wanted = _wanted(years, like, file.name)
        out = {}
        for own, name in names.items():
            field = ds[own]
            field = field.isel(sector=0) if "sector" in field.dims else field
            field = field.weighted(cos_weights(ds["lat"])).mean("lat") if "lat" in field.dims else field
            factor, _ = conversion(
                str(ds[own].attrs.get("units", "none")), FORCINGS[name].units, f"{own} in {file.name}"
            )
            values = field.values.astype(np.float64) * factor
            out[name] = ("time", np.repeat([values[years == y].mean() for y in wanted], 12), _attrs(name))
    return xr.Dataset(out)


def read_aod(path: str | Path, like: xr.Dataset, variable: str | None = None) -> xr.DataArray:
    """Stratospheric optical depth ``(time, lat, lon)`` on the grid and years of other forcings.

    Args:
        path: NetCDF, months, a field (time, lat[, lon]); a zonal one is the same all around.
        like: Canonical forcings with maps.
        variable: Its name; default the only one that has time and lat.

    Raises:
        DataContractError: If there is no such field, months or years are missing, or values are not credible.
    """
    file = Path(path)
    with open_file(file) as ds:
        fits = [str(n) for n, v in ds.data_vars.items() if {"time", "lat"} <= set(v.dims) <= {"time", "lat", "lon"}]
        name = variable or (fits[0] if len(fits) == 1 else "")
        if name not in fits:
            found = ", ".join(fits) or "no field (time, lat)"
            raise DataContractError(
                file.name, found, "one optical depth (time, lat[, lon])", "give the variable's name"
            )
        years, months, _ = months_of(ds, file.name)
        whole_years(years, months, file.name)
        field = ds[name].isel(time=np.isin(years, _wanted(years, like, file.name)))
        if "lon" not in field.dims:
            field = field.expand_dims(lon=(np.arange(4) + 0.5) * 90.0, axis=-1)
        values = regrid(gridded(field, "AOD", ds, file.name), like)["AOD"].transpose("time", "lat", "lon").values
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= LARGEST_AOD):
        found = f"{values.min():.3g} to {values.max():.3g}"
        raise DataContractError(f"{name} in {file.name}", found, f"0 to {LARGEST_AOD:g}", "is it an optical depth?")
    return xr.DataArray(values.astype(np.float32), dims=("time", "lat", "lon"), attrs=_attrs("AOD"))


def _wanted(years: NDArray[np.int64], like: xr.Dataset, subject: str) -> list[int]:
    wanted = np.unique(like["year"].values).astype(int).tolist()
    absent = sorted(set(wanted) - set(years.tolist()))
    if absent:
        raise DataContractError(
            f"time in {subject}", f"no year {absent[0]}", f"{wanted[0]}-{wanted[-1]}", "give a longer file"
        )
    return wanted


def _attrs(name: str) -> dict[str, str]:
    return {"long_name": FORCINGS[name].long_name, "units": FORCINGS[name].units, "role": "forcing"}
