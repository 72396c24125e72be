"""Forcing files of two scenarios and the SSP table that counts them otherwise, small and with known totals."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from climatesuite.harmonise.calendars import month_lengths
from climatesuite.harmonise.grids import target_grid, with_bounds

YEARS = np.arange(2015, 2041)
GRID = target_grid((6, 8))
LAND_USE_GT, BURNING_MT = 4.0, 1.5
"""What the table counts and the files do not: CO2 of land use, and BC of open burning."""
SLOPES = {
    "ssp126": {"CO2": -1.0, "CH4": -5.0, "SO2": -3.0, "BC": -0.2},
    "ssp370": {"CO2": 1.0, "CH4": 6.0, "SO2": 0.5, "BC": 0.1},
}
START = {"CO2": 36.0, "CH4": 380.0, "SO2": 98.0, "BC": 8.0}


def totals(scenario: str) -> pd.DataFrame:
    """Yearly totals of a forcing file: GtCO2 and Mt a year."""
    return pd.DataFrame({n: START[n] + SLOPES[scenario][n] * (YEARS - YEARS[0]) for n in START}, YEARS)


def forcing_file(scenario: str) -> xr.Dataset:
    """Monthly forcings in ClimateBench's layout whose totals are `totals`, on a sphere of 6371 km, noleap."""
    from climatesuite.forcing.totals import cell_area

    yearly, area = totals(scenario), cell_area(with_bounds(GRID))
    shape = xr.DataArray(1 + np.random.default_rng(1).random(area.shape), area.coords, area.dims)
    shape = shape / float((shape * area).sum())
    part = (np.tile(np.arange(12), YEARS.size) + 0.5) / 12
    emitted = np.repeat(yearly.CO2.to_numpy(), 12)
    before = np.repeat(np.concatenate([[0.0], yearly.CO2.cumsum().to_numpy()[:-1]]), 12)
    days = month_lengths(YEARS, "noleap").reshape(-1)
    dims = ("time", "latitude", "longitude")
    maps = {
        n: (dims, np.repeat(yearly[n] * 1e9, 12).values[:, None, None] / (365 * 86400.0) * shape.values, {"units": "kg m-2 s-1"})
        for n in ("SO2", "BC")
    }  # fmt: skip
    data = {
        "CO2": ("time", 1536.0 + before + emitted * part, {"units": "Gt"}),
        "CH4": ("time", np.repeat(yearly.CH4.to_numpy(), 12) / 1e3, {"units": "Gt year-1"}), **maps,
    }  # fmt: skip
    middle = np.cumsum(days) - days / 2
    time = ("time", middle, {"units": "days since 2015-01-01", "calendar": "noleap"})
    coords = {"time": time, "latitude": GRID.lat.values, "longitude": GRID.lon.values}
    return xr.Dataset(data, coords, {"experiment_id": scenario, "source": "input4MIPs", "license": "CC BY 4.0"})


def ssp_table() -> pd.DataFrame:
    """The same scenarios from 1850 in the other accounting, with the columns of the real table."""
    every = np.arange(1850, int(YEARS[-1]) + 1)
    rows = []
    for scenario in SLOPES:
        past = (every - 1850) / (YEARS[0] - 1850)
        counted = {n: START[n] * past for n in START}
        own = totals(scenario)
        for n in START:
            counted[n][every >= YEARS[0]] = own[n].to_numpy()
        rows.append(pd.DataFrame({
            "scenario": scenario, "year": every, "CO2_GtCO2_yr": counted["CO2"] + LAND_USE_GT, "CH4_Mt_yr": counted["CH4"] + 40,
            "SO2_Mt_yr": counted["SO2"] + 3, "BC_Mt_yr": counted["BC"] + BURNING_MT, "CO2_ppm": 284.3, "CH4_ppb": 808.2,
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def write_world(folder: Path) -> Path:
    """Folder with ``forcings/inputs_<scenario>.nc`` and ``scenarios/`` as real data have them."""
    (folder / "forcings").mkdir(parents=True)
    (folder / "scenarios").mkdir()
    for scenario in SLOPES:
        forcing_file(scenario).to_netcdf(folder / f"forcings/inputs_{scenario}.nc")
    ssp_table().to_csv(folder / "scenarios/ssp_forcing_annual_1850-2100.csv", index=False)
    return folder
