"""Reading CMIP files: the right numbers in the canonical Dataset, or a refusal that names the file."""

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from climatesuite.archive.read import open_runs, read_member, select
from climatesuite.archive.scan import scan
from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import month_lengths, time_coords
from worlds.cmip import credible, write_cmip

KEY = ("TEST-ESM", "ssp245")
TWO_YEARS = 24


def open_one(path, **request) -> xr.Dataset:
    runs = open_runs(path, **request)
    assert list(runs) == [KEY]
    return runs[KEY]


def test_the_canonical_dataset_is_complete(tmp_path):
    values = credible("tas", TWO_YEARS, 4, 6)
    for member in ("r10i1p1f1", "r9i1p1f1"):
        write_cmip(tmp_path, "tas", member=member, values=values, calendar="standard")
        write_cmip(tmp_path, "pr", member=member, calendar="standard")
    ds = open_one(tmp_path)
    assert ds.tas.dims == ds.pr.dims == ("member", "time", "lat", "lon") and ds.tas.dtype == np.float32
    assert ds.member.values.tolist() == ["r9i1p1f1", "r10i1p1f1"]
    for name, expected in time_coords([2015, 2016], "month", "standard").items():
        assert np.array_equal(ds[name], expected)
    assert np.array_equal(ds.days.values.reshape(2, 12), month_lengths([2015, 2016], "standard"))
    assert np.array_equal(ds.tas.values[0], values)
    assert ds.lat.values.tolist() == [-67.5, -22.5, 22.5, 67.5] and ds.lon.values.tolist() == [
        0,
        60,
        120,
        180,
        240,
        300,
    ]
    assert ds.lat_bnds[0].values.tolist() == [-90, -45] and ds.lon_bnds[0].values.tolist() == [-30, 30]
    assert ds.tas.attrs["role"] == "field" and ds.pr.attrs["units"] == "kg m-2 s-1"
    expected = {"source_id": "TEST-ESM", "experiment_id": "ssp245", "timescale": "month", "calendar": "standard"}
    assert expected.items() <= ds.attrs.items() and ds.attrs["license"] == "CC BY 4.0"


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, TWO_YEARS - 1), max_size=4, unique=True), data=st.data())
def test_any_split_into_files_with_any_epochs_gives_the_same_run(tmp_path_factory, cuts, data):
    folder, values = tmp_path_factory.mktemp("split"), credible("tas", TWO_YEARS, 2, 3)
    edges = [0, *sorted(cuts), TWO_YEARS]
    for a, b in zip(edges, edges[1:], strict=False):
        months = tuple(f"{2015 + i // 12}-{i % 12 + 1:02d}" for i in (a, b - 1))
        epoch = data.draw(st.sampled_from(["1850-01-01", "2015-01-01", "0001-01-01"]))
        calendar = data.draw(st.sampled_from(["noleap", "365_day"]))
        write_cmip(folder, months=months, values=values[a:b], epoch=epoch, calendar=calendar, grid=(2, 3))
    ds = open_one(folder)
    assert np.array_equal(ds.tas.values[0], values)
    assert ds.year.values.tolist() == [2015] * 12 + [2016] * 12 and ds.attrs["calendar"] == "noleap"


@pytest.mark.parametrize("calendar", ["noleap", "standard", "proleptic_gregorian", "360_day", "julian"])
@pytest.mark.parametrize("stamp", [0.0, 0.5, 1.0])
def test_months_are_told_by_their_bounds_wherever_the_time_stamp_stands(tmp_path, calendar, stamp):
    ds = open_one(write_cmip(tmp_path, calendar=calendar, stamp=stamp))
    assert ds.month.values.tolist() == [*range(1, 13)] * 2 and ds.year.values[[0, -1]].tolist() == [2015, 2016]
    assert ds.attrs["calendar"] == calendar


def test_months_without_bounds_are_told_by_stamps_in_their_middle(tmp_path):
    ds = open_one(write_cmip(tmp_path, has_bounds=False))
    assert ds.month.values[[0, -1]].tolist() == [1, 12] and ds.lat_bnds[-1].values.tolist() == [45, 90]


def test_stamps_at_the_edge_of_months_without_bounds_are_refused(tmp_path):
    path = write_cmip(tmp_path, has_bounds=False, stamp=0.0)
    with pytest.raises(DataContractError, match="tas_Amon_.*: dates at the edge of months and no bounds"):
        open_runs(path)


def test_descending_latitudes_and_western_longitudes_are_turned(tmp_path):
    lat, lon, values = np.array([60.0, 0.0, -60.0]), np.array([-120.0, 0.0, 120.0]), credible("tas", TWO_YEARS, 3, 3)
    ds = open_one(write_cmip(tmp_path, values=values, lat=lat, lon=lon))
    assert ds.lat.values.tolist() == [-60, 0, 60] and ds.lon.values.tolist() == [0, 120, 240]
    assert np.array_equal(ds.tas.values[0], values[:, ::-1][:, :, [1, 2, 0]])


def test_units_are_converted_to_the_canonical_ones(tmp_path):
    write_cmip(tmp_path, "tas", values=credible("tas", TWO_YEARS, 4, 6) - np.float32(273.15), units="degC")
    write_cmip(tmp_path, "pr", values=credible("pr", TWO_YEARS, 4, 6) * 86400, units="mm day-1")
    ds = open_one(tmp_path)
    assert ds.tas.values[0] == pytest.approx(credible("tas", TWO_YEARS, 4, 6), abs=5e-5)
    assert ds.pr.values[0] == pytest.approx(credible("pr", TWO_YEARS, 4, 6), rel=1e-6)
    assert (ds.tas.attrs["units"], ds.pr.attrs["units"]) == ("K", "kg m-2 s-1")


def test_rain_that_is_negative_by_rounding_becomes_zero(tmp_path):
    values = credible("pr", TWO_YEARS, 4, 6)
    values[0, 0, 0] = -1e-12
    ds = open_one(write_cmip(tmp_path, "pr", values=values))
    assert ds.pr.values.min() == 0 and ds.pr.attrs["role"] == "field"


def test_what_is_asked_for_is_selected(tmp_path):
    for scenario in ("ssp126", "ssp245"):
        for name in ("tas", "pr"):
            for member in ("r1i1p1f1", "r2i1p1f1"):
                write_cmip(tmp_path, name, scenario=scenario, member=member)
    ds = open_one(tmp_path, variables=["tas"], experiments=["ssp245"], members=["r2i1p1f1"], years=(2016, 2016))
    assert list(ds.data_vars) == ["tas"] and ds.member.values.tolist() == ["r2i1p1f1"] and set(ds.year.values) == {2016}
    by_scenario = open_runs(tmp_path, members={"ssp126": ["r1i1p1f1"], "ssp245": ["r1i1p1f1", "r2i1p1f1"]})
    assert {e: ds.sizes["member"] for (_, e), ds in by_scenario.items()} == {"ssp126": 1, "ssp245": 2}


def test_licences_of_all_files_are_kept(tmp_path):
    write_cmip(tmp_path, "tas", attrs={"license": "CC BY-SA 4.0"})
    write_cmip(tmp_path, "pr", attrs={"license": "CC0"})
    write_cmip(tmp_path, "tas", member="r2i1p1f1", attrs={"license": "CC BY-NC 4.0"})
    write_cmip(tmp_path, "pr", member="r2i1p1f1", attrs={"license": "CC0"})
    text = open_one(tmp_path).attrs["license"]
    assert all(licence in text for licence in ("CC BY-SA 4.0", "CC0", "CC BY-NC 4.0"))


def test_grids_that_differ_by_rounding_are_one_grid(tmp_path):
    lat, lon = np.array([-60.0, 0.0, 60.0]), np.array([0.0, 120.0, 240.0])
    write_cmip(tmp_path, lat=lat, lon=lon, months=("2015-01", "2015-12"))
    write_cmip(tmp_path, lat=lat + 1e-7, lon=lon, months=("2016-01", "2016-12"))
    write_cmip(tmp_path, lat=lat - 1e-7, lon=lon + 1e-7, member="r2i1p1f1")
    ds = open_one(tmp_path)
    assert ds.tas.shape == (2, TWO_YEARS, 3, 3) and ds.lat.values.tolist() == [-60, 0, 60]


def test_a_member_can_be_read_by_itself(tmp_path):
    for member in ("r1i1p1f1", "r2i1p1f1"):
        write_cmip(tmp_path, member=member)
    chosen = select(scan(tmp_path))[KEY]["r2i1p1f1"]
    ds = read_member(chosen, (2015, 2015))
    assert ds.tas.dims == ("time", "lat", "lon") and ds.sizes["time"] == 12
    assert ds.tas.equals(open_one(tmp_path, years=(2015, 2015)).tas.sel(member="r2i1p1f1", drop=True))


def test_a_gap_within_a_file_is_refused(tmp_path):
    with pytest.raises(
        DataContractError, match="tas of TEST-ESM ssp245 r1i1p1f1: a gap: 2015-05 is followed by 2015-07"
    ):
        open_runs(write_cmip(tmp_path, drop_months=[5]))


def test_a_gap_between_files_is_refused(tmp_path):
    write_cmip(tmp_path, months=("2015-01", "2015-12"))
    write_cmip(tmp_path, months=("2017-01", "2017-12"))
    with pytest.raises(DataContractError, match="a gap: 2015-12 is followed by 2017-01; expected every month once"):
        open_runs(tmp_path)


def test_months_that_two_files_give_differently_are_refused(tmp_path):
    write_cmip(tmp_path, months=("2015-01", "2015-12"))
    write_cmip(tmp_path, months=("2015-12", "2016-12"))
    with pytest.raises(
        DataContractError,
        match="2015-12 is in .*201501-201512.nc and .*201512-201612.nc with values that differ by up to 2",
    ):
        open_runs(tmp_path)


def test_files_of_one_run_in_differing_calendars_are_refused(tmp_path):
    write_cmip(tmp_path, months=("2015-01", "2015-12"))
    write_cmip(tmp_path, months=("2016-01", "2016-12"), calendar="360_day")
    with pytest.raises(DataContractError, match="files with differing calendars"):
        open_runs(tmp_path)


def test_files_of_one_run_on_differing_grids_are_refused(tmp_path):
    write_cmip(tmp_path, months=("2015-01", "2015-12"))
    write_cmip(tmp_path, months=("2016-01", "2016-12"), grid=(4, 8))
    with pytest.raises(DataContractError, match="files on differing grids"):
        open_runs(tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"calendar": "360_day"}, "ssp245 r2i1p1f1: calendar 360_day, but r1i1p1f1 has noleap"),
        ({"months": ("2016-01", "2017-12")}, "months 2016-01 to 2017-12, but r1i1p1f1 has 2015-01 to 2016-12"),
        ({"grid": (6, 6)}, "a grid of 6 x 6 cells from -75, but r1i1p1f1 has 4 x 6 cells from -67.5"),
    ],
)
def test_members_that_are_not_alike_are_refused(tmp_path, other, message):
    write_cmip(tmp_path)
    write_cmip(tmp_path, member="r2i1p1f1", **other)
    with pytest.raises(DataContractError, match=message):
        open_runs(tmp_path)


@pytest.mark.parametrize("other", [{"months": ("2016-01", "2017-12")}, {"grid": (6, 6)}])
def test_variables_that_are_not_alike_are_refused(tmp_path, other):
    write_cmip(tmp_path)
    write_cmip(tmp_path, "pr", **other)
    with pytest.raises(DataContractError, match="another grid or period than the other variables"):
        open_runs(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, 1e20])
def test_missing_values_are_refused_with_their_month(tmp_path, bad):
    values = credible("tas", TWO_YEARS, 4, 6)
    values[14, 1, 2] = bad
    with pytest.raises(DataContractError, match="tas in tas_Amon_.*nc: 1 missing values, the first in 2016-03"):
        open_runs(write_cmip(tmp_path, values=values))


def test_a_wrong_unit_label_is_refused(tmp_path):
    path = write_cmip(tmp_path, values=credible("tas", TWO_YEARS, 4, 6) - np.float32(273.15))
    with pytest.raises(DataContractError, match="tas in tas_Amon_.*: values from .* is the unit label right"):
        open_runs(path)


def test_an_unknown_unit_is_refused(tmp_path):
    with pytest.raises(DataContractError, match="tas in tas_Amon_.*: units 'furlong' are unknown"):
        open_runs(write_cmip(tmp_path, units="furlong"))


def test_steps_that_are_no_months_are_refused(tmp_path):
    path = write_cmip(tmp_path)
    with netCDF4.Dataset(path, "a") as ds:
        ds["time_bnds"][5, 1] = ds["time_bnds"][5, 0] + 10
    with pytest.raises(DataContractError, match="a time step of 10 days; expected months"):
        open_runs(path)


def test_a_curvilinear_grid_is_refused(tmp_path):
    path = write_cmip(tmp_path, has_bounds=False)
    with xr.open_dataset(path, decode_times=False) as ds:
        bent = ds.load().rename(lat="j", lon="i")
    bent["lat"] = (("j", "i"), np.arange(24.0).reshape(4, 6))
    bent["lon"] = (("j", "i"), np.arange(24.0).reshape(4, 6))
    path.unlink()
    bent.to_netcdf(path)
    with pytest.raises(
        DataContractError, match="tas in tas_Amon.*: a curvilinear grid .time 24, j 4, i 6.; expected .*grid_label gr"
    ):
        open_runs(path)


def test_a_member_that_lacks_a_variable_is_refused_with_the_reason(tmp_path):
    for member in ("r1i1p1f1", "r2i1p1f1"):
        write_cmip(tmp_path, member=member)
        write_cmip(tmp_path, "pr", member=member)
    broken = tmp_path / "pr_Amon_TEST-ESM_ssp245_r2i1p1f1_gn_201501-201612.nc"
    broken.write_bytes(broken.read_bytes()[:999])
    with pytest.raises(
        DataContractError, match="TEST-ESM ssp245 r2i1p1f1: no pr; set aside: pr_Amon.*perhaps truncated"
    ):
        open_runs(tmp_path)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"experiments": ["ssp999"]}, "no usable files .found TEST-ESM/ssp245.; expected monthly tas, pr of ssp999"),
        ({"experiments": ["ssp245", "ssp999"]}, "scenario ssp999: no members in the archive"),
        ({"members": ["r7i1p1f1"]}, "archive: members r1i1p1f1; expected r7i1p1f1 of any scenario"),
        ({"members": ["r1i1p1f1", "r7i1p1f1"]}, "TEST-ESM ssp245: no member r7i1p1f1, found r1i1p1f1"),
        ({"members": {"ssp245": ["r1i1p1f1"], "ssp999": ["r1i1p1f1"]}}, "scenario ssp999: no members"),
        ({"variables": ["tas", "pr"]}, "TEST-ESM ssp245 r1i1p1f1: no pr"),
        ({"years": (2016, 2020)}, "months 2016-01 to 2016-12; expected all of 2016-2020"),
        ({"years": (2020, 2021)}, r"no month in \(2020, 2021\)"),
    ],
)
def test_what_is_asked_for_and_absent_is_refused(tmp_path, request_, message):
    write_cmip(tmp_path)
    with pytest.raises(DataContractError, match=message):
        open_runs(tmp_path, **request_)


def test_members_of_differing_physics_are_pooled_by_name_only(tmp_path):
    for member in ("r1i1p1f1", "r1i1p2f1"):
        write_cmip(tmp_path, member=member)
    with pytest.raises(DataContractError, match="TEST-ESM ssp245: members of kinds p1f1, p2f1"):
        open_runs(tmp_path)
    assert open_one(tmp_path, members=["r1i1p1f1", "r1i1p2f1"]).sizes["member"] == 2


def test_the_real_archive_is_read_bit_for_bit(climate_data):
    folder = climate_data / "CMIP6/CESM2"
    runs = open_runs(folder, experiments=["ssp370"], years=(2015, 2024))
    ds = runs["CESM2", "ssp370"]
    assert ds.member.values.tolist() == ["r4i1p1f1", "r10i1p1f1"]
    assert ds.sizes == {"member": 2, "time": 120, "lat": 48, "lon": 72, "bnds": 2} and ds.attrs["calendar"] == "noleap"
    for name in ("tas", "pr"):
        with netCDF4.Dataset(folder / f"{name}_Amon_CESM2_ssp370_r10i1p1f1_gr1_201501-209912.nc") as file:
            assert np.array_equal(ds[name].values[1], file[name][:120].data)
            assert np.array_equal(ds.lat_bnds, file["lat_bnds"][:]) and np.array_equal(ds.lon_bnds, file["lon_bnds"][:])
    assert str(ds.time_bnds.values[1, 1]) == "2015-03-01 00:00:00"


def test_a_real_gaussian_grid_with_another_name_is_read_bit_for_bit(climate_data):
    path = climate_data / "samples/xcdat-data/tas_Amon_CanESM5_historical_r13i1p1f1_gn_185001-201412_subset.nc"
    ds = open_runs(path)["CanESM5", "historical"]
    assert (
        ds.sizes["time"] == 60 and ds.year.values[[0, -1]].tolist() == [1870, 1874] and ds.attrs["calendar"] == "noleap"
    )
    with netCDF4.Dataset(path) as file:
        assert np.array_equal(ds.tas.values[0], file["tas"][:].data) and "ShareAlike" in ds.attrs["license"]


def test_a_real_file_of_every_hundredth_cell_is_refused(climate_data):
    files = sorted(
        (climate_data / "samples").rglob("pr_Amon_HadGEM3-GC31-MM_dcppA-hindcast_s2004-r3i1p1f2_gn_200[56]*.nc")
    )
    if not files:
        pytest.skip("the sample file is not here")
    with pytest.raises(DataContractError, match=r"lat_bnds in pr_Amon_HadGEM3.*do not meet"):
        open_runs(files)
