"""Files of input4MIPs: summed, regridded with the total kept, filled between anchor years, or refused."""

import numpy as np
import pytest
import xarray as xr

from climatesuite.__main__ import main
from climatesuite.errors import DataContractError
from climatesuite.forcing.accounting import check_same
from climatesuite.forcing.atmosphere import read_aod, read_concentrations
from climatesuite.forcing.forcings import open_forcings
from climatesuite.forcing.input4mips import accounting_name, forcings_of, read_emissions
from climatesuite.forcing.layout import write_forcings
from climatesuite.forcing.totals import EARTH_RADIUS_M, yearly_totals
from climatesuite.harmonise.grids import area_weights, target_grid

GRID = target_grid((9, 16))
SECTORS = "0: Agriculture; 1: Energy; 2: Industrial"
PER_MT = 1e9 / (365 * 86400.0) / (4 * np.pi * EARTH_RADIUS_M**2)
"""kg m-2 s-1 everywhere that make 1 Mt a year of 365 days."""


def emissions_file(
    path, species="SO2", kind="anthro", years=(2015, 2016), mt=1.0, sectors=3, levels=0, units="kg m-2 s-1", variable=None,
    calendar="365_day",
):  # fmt: skip
    """A file with the header of the real ones; every year ``mt`` Mt, of a random pattern and season, split over sectors."""
    rng = np.random.default_rng(len(species) + len(kind))
    weights = area_weights(GRID).values[:, None] * np.ones((1, GRID.lon.size))
    pattern = rng.random(weights.shape)
    pattern /= (pattern * weights).sum() / weights.sum()
    season = 1 + 0.3 * np.cos(2 * np.pi * np.arange(12) / 12)
    lengths = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    season /= (season * lengths).sum() / 365
    totals = np.broadcast_to(mt, len(years))
    month = (totals[:, None] * season).reshape(-1)[:, None, None] * pattern * PER_MT
    dims, shape = ["time"], [month.shape[0]]
    for name, count in (("sector", sectors), ("level", levels)):
        if count:
            dims, shape = [*dims, name], [*shape, count]
    share = rng.random(shape[1:]) if len(shape) > 1 else np.ones(())
    share = share / share.sum()
    values = month.reshape(month.shape[0], *[1] * share.ndim, *month.shape[1:]) * share[None, ..., None, None]
    time = np.concatenate([(y - 1850) * 365 + np.cumsum(lengths) - lengths / 2 for y in years])
    name = variable or f"{species}_em_{kind}"
    ds = xr.Dataset(
        {name: ((*dims, "lat", "lon"), values.astype(np.float32), {"units": units})},
        {"time": ("time", time, {"units": "days since 1850-01-01 0:0:0", "calendar": calendar}),
         "lat": GRID.lat.values, "lon": GRID.lon.values},
        {"license": "CC BY 4.0", "source_id": "planted"},
    )  # fmt: skip
    if sectors:
        ds = ds.assign_coords(sector=("sector", np.arange(sectors), {"ids": SECTORS}))
    ds.to_netcdf(path)
    return path


@pytest.fixture
def write(tmp_path):
    return lambda name="SO2-em-anthro.nc", **about: emissions_file(tmp_path / name, **about)


def test_sectors_and_levels_are_summed_and_kinds_added(write):
    found = read_emissions([
        write("a.nc", mt=100.0), write("b.nc", kind="AIR_anthro", mt=2.0, sectors=0, levels=5), write("c.nc", species="BC", mt=8.0),
    ])  # fmt: skip
    assert found["SO2"].kinds == ("AIR_anthro", "anthro") and found["SO2"].sectors == (
        "Agriculture",
        "Energy",
        "Industrial",
    )
    np.testing.assert_allclose(found["SO2"].yearly_mass("SO2") * 1e3, 102.0, rtol=1e-6)
    np.testing.assert_allclose(found["BC"].yearly_mass("BC") * 1e3, 8.0, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (7, 5), (24, 36)])
def test_the_global_total_survives_any_grid_to_1e_6(write, shape):
    own, onto = (read_emissions([write(mt=100.0)], grid)["SO2"] for grid in (None, target_grid(shape)))
    assert onto.flux.sizes["lat"] == shape[0]
    np.testing.assert_allclose(onto.yearly_mass("SO2"), own.yearly_mass("SO2"), rtol=1e-6)


def test_the_season_stays(write):
    flux = read_emissions([write()])["SO2"].flux.SO2
    monthly = flux.mean(("lat", "lon")).values.reshape(2, 12)
    assert monthly[0, 0] > 1.5 * monthly[0, 6] and np.allclose(monthly[0], monthly[1])


def test_ocean_without_values_has_no_emissions(write):
    path = write(mt=100.0)
    with xr.open_dataset(path, decode_times=False) as ds:
        ds = ds.load()
    lost = float((ds.SO2_em_anthro[:, :, 4] * area_weights(GRID).values[4]).sum())
    whole = float((ds.SO2_em_anthro * area_weights(GRID).values[:, None]).sum())
    ds.SO2_em_anthro[:, :, 4] = np.nan
    ds.to_netcdf(path)
    found = read_emissions([path])["SO2"]
    assert found.yearly_mass("SO2")[0] * 1e3 == pytest.approx(100 * (1 - lost / whole), rel=1e-5)


def test_anchor_years_are_filled_for_each_calendar_month(write):
    found = read_emissions([write(years=(2015, 2020, 2030), mt=np.array([100.0, 50.0, 10.0]))])["SO2"]
    assert found.filled == 13 and np.unique(found.flux.year).size == 16
    np.testing.assert_allclose(found.yearly_mass("SO2")[[0, 3, 5, 10, 15]] * 1e3, [100, 70, 50, 30, 10], rtol=1e-6)


def test_files_of_one_kind_follow_each_other(write):
    found = read_emissions([write("b.nc", years=(2017, 2018)), write("a.nc", years=(2015, 2016))])["SO2"]
    assert np.unique(found.flux.year).tolist() == [2015, 2016, 2017, 2018] and found.filled == 0


def test_forcings_come_out_canonical_and_are_read_back(write, tmp_path):
    years = (2015, 2016, 2017)
    files = [write(f"{s}.nc", species=s, years=years, mt=np.array(mt)) for s, mt in
             (("CO2", [36e3, 30e3, -4e3]), ("CH4", [380.0, 370, 360]), ("SO2", [100.0, 90, 80]), ("BC", [8.0, 7, 6]))]  # fmt: skip
    ds = forcings_of(read_emissions(files), "mine", co2_before=1500.0)
    assert (
        ds.attrs["accounting"] == "input4mips"
        and ds.attrs["license"] == "CC BY 4.0"
        and ds.attrs["base_year"] == "1850"
    )
    totals = yearly_totals(ds)
    np.testing.assert_allclose(totals, [[36, 380, 100, 8], [30, 370, 90, 7], [-4, 360, 80, 6]], rtol=2e-6)
    assert ds.CO2[0] == pytest.approx(1500 + 36 / 24) and ds.CO2[-1] == pytest.approx(1566 - 4 * 11.5 / 12)
    file = write_forcings(ds, tmp_path / "out", {}, "test")
    again = open_forcings(file, ["CO2", "CH4", "SO2", "BC"], "mine")
    assert file.name == "inputs_mine.nc" and again.attrs["accounting"] == "input4mips"
    for name in ("CO2", "CH4", "SO2", "BC"):
        assert np.array_equal(again[name], ds[name]), name
    with pytest.raises(
        DataContractError, match="CO2 of mine: emissions from 2015 on; expected what was emitted from 1850 to 2014"
    ):
        forcings_of(read_emissions(files[:1]), "mine")


def test_from_the_base_year_on_nothing_was_emitted_before(write):
    ds = forcings_of(read_emissions([write("a.nc", species="CO2", years=(1850, 1851), mt=2000.0)]), "historical")
    assert ds.CO2[-1] == pytest.approx(2 + 2 * 11.5 / 12, rel=1e-6)


def test_open_burning_is_another_accounting(write):
    without = forcings_of(read_emissions([write("a.nc")]), "one")
    burnt = forcings_of(read_emissions([write("b.nc"), write("c.nc", kind="openburning", sectors=0)]), "two")
    named = write("BC-em-biomassburning_input4MIPs.nc", species="BC", variable="BC", sectors=0)
    assert read_emissions([named])["BC"].kinds == ("biomassburning",)
    assert burnt.attrs["accounting"] == "input4mips, with open burning" == accounting_name(["anthro", "biomassburning"])
    with pytest.raises(
        DataContractError, match="two ways of counting emissions: one .input4mips. and two .input4mips, with open"
    ):
        check_same([without, burnt], "a store")


REFUSED = {
    "shares": (
        lambda w: [w("BC-percentage-AGRI.nc", variable="BCpercentageAGRI")],
        "BCpercentageAGRI .shares of emissions are not emissions",
    ),
    "a part of what is counted already": (
        lambda w: [w(variable="SO2_em_SOLID_BIOFUEL_anthro")],
        "variables SO2_em_SOLID_BIOFUEL_anthro; expected one of SO2_em_anthro",
    ),
    "no unit": (lambda w: [w(units="")], "SO2_em_anthro in SO2-em-anthro.nc: units '' are unknown"),
    "another unit": (lambda w: [w(units="molecules cm-2 s-1")], "units 'molecules cm-2 s-1' are unknown"),
    "a file twice": (lambda w: [w("a.nc"), w("b.nc")], "SO2 anthro: 2015 in two files; expected every year once"),
    "a missing file": (
        lambda w: [w("a.nc", years=(1900, 1901)), w("b.nc", years=(1950, 1951))],
        "nothing between 1901 and 1950",
    ),
    "kinds of other years": (
        lambda w: [w("a.nc"), w("b.nc", kind="AIR_anthro", years=(2015, 2020))],
        "SO2 AIR_anthro: years 2015-2020; expected 2015-2016",
    ),
    "negative sulphur": (lambda w: [w(mt=-1.0)], "emissions of SO2: -.* only CO2 can be removed"),
    "no file": (lambda w: [], "emissions: no files"),
    "a file that is not there": (lambda w: ["absent.nc"], "absent.nc: no such file"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_files_that_would_count_wrongly_are_refused(write, what):
    ask, message = REFUSED[what]
    with pytest.raises(DataContractError, match=message):
        read_emissions(ask(write))


def changed(path, change):
    with xr.open_dataset(path, decode_times=False) as ds:
        out = change(ds.load())
    path.unlink()
    out.to_netcdf(path)
    return path


def test_months_that_are_missing_or_empty_are_refused(write):
    with pytest.raises(
        DataContractError, match="months 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 of 2016; expected all twelve"
    ):
        read_emissions([changed(write("a.nc"), lambda ds: ds.isel(time=slice(0, 23)))])
    with pytest.raises(DataContractError, match="no value at all in 2015-03"):
        read_emissions([changed(write("b.nc"), lambda ds: ds.where(ds.time != ds.time[2]))])
    with pytest.raises(DataContractError, match="maps that do not cover the globe"):
        read_emissions([changed(write("c.nc"), lambda ds: ds.isel(lat=slice(0, 4)))])


def test_latitudes_from_the_north_are_turned(write):
    plain = read_emissions([write("a.nc")])["SO2"]
    turned = read_emissions([changed(write("b.nc"), lambda ds: ds.isel(lat=slice(None, None, -1)))])["SO2"]
    assert np.array_equal(plain.flux.SO2, turned.flux.SO2)


# ---- what is in the air


@pytest.fixture
def like(write):
    return forcings_of(read_emissions([write("like.nc", years=(2015, 2016))]), "mine")


def test_concentrations_are_global_means_of_their_year(like, tmp_path):
    time = ("time", np.array([2014.5, 2015.5, 2016.5]) * 365, {"units": "days since 0000-01-01", "calendar": "noleap"})
    values = np.array([[397.5, 399, 396], [400.1, 402, 398], [403.3, 405, 401]])
    for units, factor in (("1.e-6", 1.0), ("ppm", 1.0), ("1e-9", 1e3)):
        name = "mole_fraction_of_carbon_dioxide_in_air"
        xr.Dataset({name: (("time", "sector"), values * factor, {"units": units})}, {"time": time}).to_netcdf(
            tmp_path / "c.nc"
        )
        found = read_concentrations(tmp_path / "c.nc", like)
        np.testing.assert_allclose(found.CO2_ppm.values.reshape(2, 12).T, [[400.1, 403.3]] * 12)
    with pytest.raises(DataContractError, match="time in c.nc: no year 2017; expected 2017-2017"):
        read_concentrations(tmp_path / "c.nc", like.assign_coords(year=("time", np.full(24, 2017))))
    with pytest.raises(DataContractError, match="expected mole_fraction_of_carbon_dioxide_in_air"):
        read_concentrations(emissions_file(tmp_path / "d.nc"), like)


def test_zonal_optical_depth_goes_all_around(like, tmp_path):
    rows = np.linspace(0, 0.2, 18)
    lat = target_grid((18, 4)).lat.values
    months = np.arange(36) * 365 / 12 + 15 + 165 * 365
    ds = xr.Dataset(
        {"aod": (("time", "lat"), np.tile(rows, (36, 1))), "other": ("time", np.zeros(36))},
        {"time": ("time", months, {"units": "days since 1850-01-01", "calendar": "noleap"}), "lat": lat},
    )
    ds.to_netcdf(tmp_path / "aod.nc")
    field = read_aod(tmp_path / "aod.nc", like)
    assert field.shape == like.SO2.shape and float(field.std("lon").max()) < 1e-8
    weights = [np.diff(np.sin(np.deg2rad(np.linspace(-90, 90, n + 1)))) for n in (18, 9)]
    assert np.average(field[0, :, 0], weights=weights[1]) == pytest.approx(
        np.average(rows, weights=weights[0]), rel=1e-6
    )
    (ds * 100).to_netcdf(tmp_path / "large.nc")
    with pytest.raises(DataContractError):
        read_aod(tmp_path / "large.nc", like)


def test_the_command_makes_a_file_that_sample_and_build_take(write, like, tmp_path, capsys):
    years = (2015, 2016)
    files = [
        str(write(f"{s}.nc", species=s, years=years, mt=mt))
        for s, mt in (("CO2", 36e3), ("CH4", 380.0), ("SO2", 100.0))
    ]
    name = "mole_fraction_of_methane_in_air"
    time = ("time", np.array([2015.5, 2016.5]) * 365, {"units": "days since 0000-01-01", "calendar": "noleap"})
    xr.Dataset({name: ("time", [1830.0, 1840.0], {"units": "1.e-9"})}, {"time": time}).to_netcdf(tmp_path / "ch4.nc")
    code = main([
        "forcings", *files, "--experiment", "ssp370", "--grid", "4x6", "--co2-before", "1500", "--concentrations",
        str(tmp_path / "ch4.nc"), "--out", str(tmp_path),
    ])  # fmt: skip
    assert code == 0 and "inputs_ssp370.nc" in capsys.readouterr().out
    ds = open_forcings(tmp_path, ["CO2", "CH4", "SO2", "CH4_ppb"], "ssp370")
    assert ds.sizes["lat"] == 4 and ds.CH4_ppb[-1] == 1840 and ds.attrs["license"] == "CC BY 4.0"
    assert yearly_totals(ds).SO2.to_numpy() == pytest.approx(100.0, rel=1e-6)
