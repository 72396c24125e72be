"""Forcings: ClimateBench's input layout as canonical months, conserved by regridding, refused where anything is missing."""

import netCDF4
import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.forcing.forcings import open_forcings
from climatesuite.harmonise.calendars import time_coords
from climatesuite.harmonise.grids import area_weights, grid_coords, target_grid, with_bounds

GRID = target_grid((6, 8))
UNITS = {"CO2": "Gt", "CH4": "Gt year-1", "SO2": "kg m-2 s-1", "BC": "kg m-2 s-1", "AOD": "1"}
SIZE = {"CO2": 2000.0, "CH4": 0.4, "SO2": 1e-10, "BC": 1e-11, "AOD": 0.1}


def layout(
    steps: int = 24, names=tuple(UNITS), time=None, units="days since 2015-01-01", calendar="noleap"
) -> xr.Dataset:
    """A file's content: by default two years of months."""
    rng, maps = np.random.default_rng(0), (steps, 6, 8)
    data = {
        n: (("time", "latitude", "longitude"), SIZE[n] * rng.random(maps), {"units": UNITS[n]}) if n in ("SO2", "BC", "AOD")
        else ("time", SIZE[n] * rng.random(steps), {"units": UNITS[n]})
        for n in names
    }  # fmt: skip
    values = np.arange(steps) * 365 / 12 + 15 if time is None else time
    about = {"units": units, "calendar": calendar} if units else {}
    coords = {"time": ("time", values, about), "latitude": GRID.lat.values, "longitude": GRID.lon.values}
    return xr.Dataset(data, coords, {"experiment_id": "ssp245", "license": "CC0"})


@pytest.fixture
def write(tmp_path):
    """Writes a Dataset as the forcings of a scenario."""

    def to_file(ds: xr.Dataset, scenario: str = "ssp245"):
        path = tmp_path / f"inputs_{scenario}.nc"
        ds.to_netcdf(path)
        return path

    return to_file


def test_months_come_out_as_they_are(write):
    source = layout()
    ds = open_forcings(write(source), list(UNITS))
    for name, expected in time_coords([2015, 2016], "month", "noleap").items():
        assert np.array_equal(ds[name], expected)
    assert np.array_equal(ds.CO2, source.CO2) and ds.CO2.dtype == np.float64
    assert ds.SO2.dims == ("time", "lat", "lon") and np.array_equal(ds.SO2, source.SO2.astype(np.float32))
    assert all(ds[n].attrs["role"] == "forcing" and ds[n].attrs["units"] == UNITS[n] for n in UNITS)
    assert ds.attrs == {"experiment_id": "ssp245", "timescale": "month", "license": "CC0", "calendar": "noleap"}


def test_only_the_forcings_asked_for_are_read(write):
    assert set(open_forcings(write(layout(names=("CO2", "SO2"))), ["CO2"]).variables) >= {"CO2", "days"}
    assert list(open_forcings(write(layout(names=("CO2", "SO2"))), ["CO2"]).data_vars) == ["CO2"]


def test_a_folder_is_searched_for_the_scenario(write):
    path = write(layout())
    assert open_forcings(path.parent, ["CO2"], "ssp245").equals(open_forcings(path, ["CO2"]))


@pytest.mark.parametrize(
    ("time", "units"),
    [
        ([2015, 2016, 2017], None),
        ([182.5, 547.5, 912.5], "days since 2015-01-01"),
        ([0, 8760, 17520], "hours since 2015-01-01"),
    ],
)
def test_yearly_values_hold_for_every_month_of_their_year(write, time, units):
    ds = open_forcings(write(layout(3, time=time, units=units)), ["CO2", "SO2"], calendar="360_day")
    source = layout(3)
    assert np.array_equal(ds.CO2, np.repeat(source.CO2.values, 12))
    assert np.array_equal(ds.SO2, np.repeat(source.SO2.values, 12, axis=0).astype(np.float32))
    assert set(ds.days.values) == {30.0} and ds.year.values[[0, -1]].tolist() == [2015, 2017]


def test_months_counted_in_hours_are_months(write):
    hours = layout(time=(np.arange(24) * 365 / 12 + 15) * 24, units="hours since 2015-01-01")
    assert open_forcings(write(hours), ["CO2"]).year.values[[0, -1]].tolist() == [2015, 2016]


def test_months_keep_their_label_in_another_calendar(write):
    ds = open_forcings(write(layout()), ["CO2"], calendar="gregorian")
    assert np.array_equal(ds.CO2, layout().CO2) and ds.attrs["calendar"] == "standard"
    assert ds.days.values.reshape(2, 12).sum(1).tolist() == [365, 366]


@pytest.mark.parametrize("shape", [(3, 4), (5, 7), (12, 16)])
def test_regridding_keeps_the_global_emission(write, shape):
    out = open_forcings(write(layout()), ["CO2", "SO2"], grid=target_grid(shape))
    before = layout().SO2.values
    sums = [
        (field * area_weights(grid).values[:, None] / grid.lon.size).sum((1, 2))
        for field, grid in ((before, GRID), (out.SO2.values.astype(np.float64), target_grid(shape)))
    ]
    assert sums[1] == pytest.approx(sums[0], rel=1e-6)
    assert np.array_equal(out.lat, target_grid(shape).lat) and np.array_equal(out.CO2, layout().CO2)


def test_grids_that_start_in_the_north_or_west_are_turned(write):
    source = layout()
    turned = (
        source.isel(latitude=slice(None, None, -1)).assign_coords(longitude=source.longitude - 180).roll(longitude=4)
    )
    turned = turned.assign_coords(longitude=source.longitude - 180)
    shifted = open_forcings(write(turned), ["SO2"])
    assert np.array_equal(shifted.lat, GRID.lat) and np.allclose(shifted.lon, GRID.lon)
    assert np.array_equal(shifted.SO2, source.SO2.astype(np.float32))


def test_emissions_that_are_negative_by_rounding_become_zero(write):
    source = layout()
    source.SO2[3, 2, 1] = -1e-31
    assert open_forcings(write(source), ["SO2"]).SO2.min() == 0


def test_units_are_converted(write):
    source = layout()
    source["CH4"] = (source.CH4 * 1000).assign_attrs(units="Mt year-1")
    assert np.allclose(open_forcings(write(source), ["CH4"]).CH4, layout().CH4, rtol=1e-14)


def test_a_wrong_unit_label_is_refused(write):
    source = layout()
    source["CH4"] = (source.CH4 * 1000).assign_attrs(units="Gt year-1")
    with pytest.raises(DataContractError, match="CH4 in inputs_ssp245.nc: values from .* is the unit label right"):
        open_forcings(write(source), ["CH4"])


def test_negative_emissions_are_refused(write):
    source = layout()
    source.SO2[3, 2, 1] = -1e-12
    with pytest.raises(DataContractError, match="SO2 in inputs_ssp245.nc: values from -1e-12"):
        open_forcings(write(source), ["SO2"])


@pytest.mark.parametrize("name", ["CO2", "BC"])
def test_missing_values_are_refused(write, name):
    source = layout()
    source[name][5] = np.nan
    with pytest.raises(DataContractError, match=f"{name} in inputs_ssp245.nc: .* missing values"):
        open_forcings(write(source), [name])


def test_a_forcing_that_is_not_there_is_refused(write):
    with pytest.raises(DataContractError, match="forcings of ssp245 in inputs_ssp245.nc: no AOD, only CO2, CH4"):
        open_forcings(write(layout(names=("CO2", "CH4"))), ["CO2", "AOD"])
    with pytest.raises(DataContractError, match="'NOx'. unknown; expected some of CO2"):
        open_forcings(write(layout()), ["NOx"])


def test_a_scenario_that_is_not_there_is_refused_with_what_is(write):
    folder = write(layout()).parent
    with pytest.raises(
        DataContractError, match="forcings of ssp999: inputs_ssp245.nc in .*; expected inputs_ssp999.nc"
    ):
        open_forcings(folder, ["CO2"], "ssp999")
    with pytest.raises(DataContractError, match="a folder; expected a file, or a scenario"):
        open_forcings(folder, ["CO2"])
    with pytest.raises(DataContractError, match="no such file"):
        open_forcings(folder / "absent.nc", ["CO2"])


def test_the_forcings_of_another_scenario_are_refused(write):
    with pytest.raises(DataContractError, match="inputs_ssp126.nc: experiment_id 'ssp245'; expected 'ssp126'"):
        open_forcings(write(layout(), "ssp126"), ["CO2"], "ssp126")


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "inputs_ssp245.nc").write_bytes(b"<html>")
    with pytest.raises(DataContractError, match="inputs_ssp245.nc: not readable"):
        open_forcings(tmp_path, ["CO2"], "ssp245")


@pytest.mark.parametrize(
    ("time", "units", "message"),
    [
        ([2015, 2020, 2030], None, "no CF units and no integer years"),
        ([0, 365 * 5, 365 * 10], "days since 2015-01-01", "years missing or doubled"),
        ([15, 45, 105], "days since 2015-01-01", "2015-02 is not followed by the next month"),
        ([15, 45, 75], "days since 2015-01-01", "3 months; expected at least one whole year"),
        ([0, 1, 2], "months since 2015-01-01", "units 'months since 2015-01-01'"),
        ([31, 59, 90], "days since 2015-01-01", "dates at the edge of months from 2015-02-01"),
    ],
)
def test_time_axes_that_are_not_clear_are_refused(write, time, units, message):
    with pytest.raises(DataContractError, match=f"time in inputs_ssp245.nc: .*{message}"):
        open_forcings(write(layout(3, time=time, units=units)), ["CO2"])


def test_dimensions_of_another_layout_are_refused(write):
    source = layout()
    source["SO2"] = source.SO2.mean("longitude", keep_attrs=True)
    with pytest.raises(
        DataContractError, match=r"SO2 in .*: dimensions \('time', 'latitude'\); expected \(time, latitude"
    ):
        open_forcings(write(source), ["SO2"])


def test_the_shared_forcings_are_read_onto_the_models_grid(climate_data):
    path = climate_data / "CMIP6/CESM2/tas_Amon_CESM2_ssp126_r4i1p1f1_gr1_201501-209912.nc"
    with xr.open_dataset(path, decode_times=False) as file:
        grid = xr.Dataset(coords=grid_coords(*(file[n].values for n in ("lat", "lat_bnds", "lon", "lon_bnds"))))
    ds = open_forcings(climate_data / "forcings", ["CO2", "CH4", "SO2", "BC"], "ssp245", grid)
    with netCDF4.Dataset(climate_data / "forcings/inputs_ssp245.nc") as file:
        assert np.array_equal(ds.CO2, file["CO2"][:])
        source = xr.Dataset(coords={"lat": file["latitude"][:].data, "lon": file["longitude"][:].data})
        raw = file["SO2"][:].data.astype(np.float64)
    weights = [area_weights(with_bounds(g)).values[:, None] for g in (source, grid)]
    totals = [(f * w).sum((1, 2)) for f, w in zip((raw, ds.SO2.values.astype(np.float64)), weights, strict=True)]
    assert totals[1] == pytest.approx(totals[0], rel=1e-6)
    assert ds.SO2.min() >= 0 and ds.sizes["time"] == 1020 and ds.attrs["calendar"] == "noleap"


def test_maps_of_half_the_globe_are_refused(tmp_path):
    from climatesuite.archive.synthetic import write_archive
    from climatesuite.harmonise.grids import target_grid

    write_archive(tmp_path, experiments={"ssp126": 1}, years=(2015, 2016), grid=(6, 8))
    path = tmp_path / "forcings/inputs_ssp126.nc"
    with xr.open_dataset(path, decode_times=False) as ds:
        half = ds.isel(latitude=slice(0, 3)).load()
    half.to_netcdf(tmp_path / "half.nc")
    with pytest.raises(DataContractError, match="latitudes -90 to 0; expected maps that cover the globe"):
        open_forcings(tmp_path / "half.nc", ["SO2"], grid=target_grid((6, 8)))
