"""Ensembles as CF NetCDF: what is written, what is refused, and what other tools' files become when read."""

from pathlib import Path

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.export import open_ensemble, write_cf
from worlds.cf import complaints
from worlds.fake_ensemble import fake_ensemble, member_by_member

ATTRS = {"institution": "none", "source": "a fake ensemble", "references": "none", "seed": 3, "license": "CC0-1.0"}
PERIODS = {"decade": (2015, 2044), "year": (2015, 2034), "month": (2015, 2016)}


def write(path: Path, ds: xr.Dataset, **attrs) -> Path:
    return write_cf(path, member_by_member(ds), ds, {**ATTRS, **attrs})


@pytest.mark.parametrize("timescale", PERIODS)
def test_ensemble_comes_back_as_written_at_every_timescale(tmp_path, timescale):
    ds = fake_ensemble(timescale, years=PERIODS[timescale])
    back = open_ensemble(write(tmp_path / "e.nc", ds))
    xr.testing.assert_equal(back[["tas", "pr"]].compute(), ds[["tas", "pr"]])
    assert set(back.coords) == set(ds.coords)
    assert back.attrs["timescale"] == timescale and back.attrs["calendar"] == "noleap"
    assert {back[n].attrs["role"] for n in ("tas", "pr")} == {"field"} and back.pr.attrs["units"] == "kg m-2 s-1"
    assert back.member.dtype == np.int64 and back.tas.dtype == np.float32


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard", "proleptic_gregorian"])
def test_run_calendar_is_kept(tmp_path, calendar):
    ds = fake_ensemble("month", calendar=calendar, years=(2015, 2016))
    back = open_ensemble(write(tmp_path / "e.nc", ds))
    assert back.time.values[0].calendar == calendar
    assert list(back.time.values) == list(ds.time.values) and list(back.days.values) == list(ds.days.values)


@pytest.mark.parametrize("timescale", PERIODS)
def test_cf_checker_finds_no_error(tmp_path, timescale):
    pytest.importorskip("compliance_checker")
    ds = fake_ensemble(timescale, years=PERIODS[timescale])
    assert complaints(write(tmp_path / "e.nc", ds, training_sources=["a", "b"], checkpoint_sha256="0" * 64)) == []
    with netCDF4.Dataset(tmp_path / "e.nc", "a") as file:  # the checker does look
        file["pr"].units = "furlong"
    assert any("furlong" in line for line in complaints(tmp_path / "e.nc"))


def test_forcings_on_the_steps_are_written_and_come_back(tmp_path):
    ds = fake_ensemble()
    about = {"units": "Gt", "long_name": "cumulative CO2", "role": "forcing"}
    ds = ds.assign_coords(CO2=("time", np.arange(20.0), about))
    back = open_ensemble(write(tmp_path / "e.nc", ds))
    xr.testing.assert_equal(back.CO2.variable, ds.CO2.variable)
    assert back.CO2.attrs == {"units": "Gt", "long_name": "cumulative CO2"} and list(back.data_vars) == ["tas", "pr"]


def test_file_says_what_it_is(tmp_path):
    ds = fake_ensemble()
    path = write(
        tmp_path / "e.nc", ds, history="trained", training_sources=["ssp126", "ssp585"], is_test=True, nothing=None
    )
    with netCDF4.Dataset(path) as file:
        assert (file.Conventions, file.frequency, file.timescale) == ("CF-1.11", "yr", "year")
        assert (file.experiment_id, file.source_id, int(file.seed)) == ("ssp370", "FAKE-ESM", 3)
        assert file.training_sources == '["ssp126", "ssp585"]' and file.is_test == "true"
        assert file.history.endswith("write_cf\ntrained") and "nothing" not in file.ncattrs()
        assert file["member"].standard_name == "realization"
        assert file["tas"].coordinates == "height" and float(file["height"][...]) == 2.0
        assert file["tas"].cell_methods == "area: time: mean"
        assert file["time"].units == "days since 2015-01-01"
        assert all(
            "_FillValue" not in file[n].ncattrs() for n in ("member", "time", "lat", "lon", "time_bnds", "lat_bnds")
        )
        assert (
            file["pr"].filters()["zlib"] and file["pr"].filters()["shuffle"] and file["pr"].filters()["complevel"] == 1
        )
        assert file["pr"].chunking() == [1, 20, 8, 12] and file["pr"].dtype == np.float32


def test_only_one_member_is_asked_for_at_a_time(tmp_path):
    ds, alive = fake_ensemble(members=range(4)), []

    def sampler():
        for number, fields in member_by_member(ds):
            alive.append("drawn")
            yield number, fields

    write_cf(tmp_path / "e.nc", sampler(), ds, ATTRS, progress=lambda n: alive.append(f"written {n}"))
    assert alive == ["drawn", "written 1"] * 4


def test_failed_write_leaves_no_file(tmp_path):
    ds = fake_ensemble()

    def broken():
        yield 0, ds.isel(member=0)
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="the power went"):
        write_cf(tmp_path / "new" / "e.nc", broken(), ds, ATTRS)
    assert list((tmp_path / "new").iterdir()) == []


def test_failed_write_keeps_the_older_file(tmp_path):
    ds = fake_ensemble()
    path = write(tmp_path / "e.nc", ds)
    before = path.read_bytes()
    with pytest.raises(DataContractError, match="no members; expected one or more"):
        write_cf(path, [], ds, ATTRS)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def _broken(ds: xr.Dataset, what: str) -> list[tuple[int, xr.Dataset]]:
    first, second = (pair[1] for pair in list(member_by_member(ds))[:2])
    if what == "nan":
        second = second.assign(tas=second.tas.where(second.lat > 0))
    if what == "units":
        second = second.assign(pr=(second.pr * 86400.0).assign_attrs(units="mm day-1"))
    if what == "sizes":
        second = second.isel(time=slice(5))
    if what == "variables":
        second = second.drop_vars("pr")
    return [(0, first), (0 if what == "twice" else 1, second)]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", "tas of member 1: 960 of 1920 values are NaN or infinite; expected finite values"),
        ("units", "pr of member 1: units 'mm day-1'; expected 'kg m-2 s-1'"),
        ("sizes", "tas of member 1: sizes .*'time': 5.*; expected .*'time': 20.* as in the template"),
        ("variables", r"member 1: variables \['tas'\]; expected tas, pr"),
        ("twice", "member 0 twice; expected every member once"),
    ],
)
def test_members_that_break_the_contract_are_refused(tmp_path, what, message):
    ds = fake_ensemble()
    with pytest.raises(DataContractError, match=message):
        write_cf(tmp_path / "e.nc", _broken(ds, what), ds, ATTRS)
    assert list(tmp_path.iterdir()) == []


def test_attributes_and_templates_that_lack_something_are_refused(tmp_path):
    ds = fake_ensemble()
    with pytest.raises(DataContractError, match="no global attributes references; expected text"):
        write_cf(tmp_path / "e.nc", [], ds, {k: v for k, v in ATTRS.items() if k != "references"})
    with pytest.raises(DataContractError, match="a template without time_bnds; expected a canonical Dataset"):
        write_cf(tmp_path / "e.nc", [], ds.drop_vars("time_bnds"), ATTRS)
    with pytest.raises(
        DataContractError, match="timescale 'week' in the template; expected one of decade, year, month"
    ):
        write_cf(tmp_path / "e.nc", [], ds.assign_attrs(timescale="week"), ATTRS)
    dates = ds.assign_coords(time_bnds=(("time", "bnds"), np.zeros((20, 2))))
    with pytest.raises(DataContractError, match="values of type float64; expected cftime dates"):
        write_cf(tmp_path / "e.nc", [], dates, ATTRS)


def foreign(ds: xr.Dataset, member: str = "realization") -> xr.Dataset:
    """The ensemble as another tool may write it: other names, units, order of latitudes and range of longitudes."""
    out = ds.drop_vars(["time_bnds", "year", "days", "month", "lat_bnds", "lon_bnds"], errors="ignore")
    out = out.assign(
        tas=(out.tas - 273.15).assign_attrs(units="degC"), pr=(out.pr * 86400.0).assign_attrs(units="mm/day")
    )
    out = out.assign_coords(lon=(out.lon + 180.0) % 360.0 - 180.0).sortby("lon").isel(lat=slice(None, None, -1))
    return out.rename(member=member, lat="latitude", lon="longitude").transpose("time", "longitude", ..., "latitude")


@pytest.mark.parametrize("member", ["realization", "sample", "ensemble"])
@pytest.mark.parametrize("timescale", ["year", "month"])
def test_file_of_another_tool_becomes_canonical(tmp_path, timescale, member):
    ds = fake_ensemble(timescale, years=PERIODS[timescale])
    other = foreign(ds, member)
    other.attrs = {"frequency": {"year": "yr", "month": "mon"}[timescale], "scenario": "ssp370"}
    other.to_netcdf(tmp_path / "other.nc")
    back = open_ensemble(tmp_path / "other.nc")
    assert back.tas.dims == ("member", "time", "lat", "lon") and back.attrs["experiment_id"] == "ssp370"
    np.testing.assert_allclose(back.tas, ds.tas, atol=1e-4)
    np.testing.assert_allclose(back.pr, ds.pr, atol=1e-10)
    for name in ("lat", "lon", "lat_bnds", "lon_bnds", "days"):
        np.testing.assert_allclose(back[name], ds[name], atol=1e-9)
    assert list(back.year.values) == list(ds.year.values) and list(back.time_bnds.values.flat) == list(
        ds.time_bnds.values.flat
    )


@pytest.mark.parametrize(("timescale", "step"), [("year", 1), ("decade", 10)])
def test_integer_years_are_accepted_as_time(tmp_path, timescale, step):
    ds = fake_ensemble(timescale, years=PERIODS[timescale])
    years = np.arange(2015, 2015 + step * ds.sizes["time"], step)
    plain = ds[["tas"]].drop_vars(["year", "days"]).assign_coords(time=years)  # bounds go with the selection
    plain.attrs = {"calendar": "noleap"}
    plain.to_netcdf(tmp_path / "plain.nc")
    back = open_ensemble(tmp_path / "plain.nc")
    assert back.attrs["timescale"] == timescale
    assert list(back.time.values) == list(ds.time.values) and list(back.days.values) == list(ds.days.values)


def test_variables_are_found_by_standard_name_and_text_members_numbered(tmp_path):
    ds = fake_ensemble(members=("r1i1p1f1", "r2i1p1f1"))[["tas"]].rename(tas="T2m")
    ds.to_netcdf(tmp_path / "e.nc")
    back = open_ensemble(tmp_path / "e.nc")
    assert list(back.data_vars) == ["tas"] and list(back.member.values) == [0, 1]


def test_single_field_without_member_dimension_is_an_ensemble_of_one(tmp_path):
    ds = fake_ensemble(members=(0,)).isel(member=0, drop=True).drop_vars("time_bnds")
    ds.to_netcdf(tmp_path / "e.nc")
    assert open_ensemble(tmp_path / "e.nc").tas.shape == (1, 20, 8, 12)


def _file_with(tmp_path: Path, ds: xr.Dataset) -> Path:
    ds.drop_vars([n for n in ("time_bnds", "year", "days") if n in ds.variables]).to_netcdf(tmp_path / "bad.nc")
    return tmp_path / "bad.nc"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.rename(tas="x", pr="y").drop_attrs(deep=True), "variables .*; expected one or more of tas, pr"),
        (lambda d: d.assign(tas=d.tas.drop_attrs()), "tas in bad.nc: no units; expected e.g. K"),
        (lambda d: d.assign(tas=d.tas.assign_attrs(units="furlong")), "tas in bad.nc: .*furlong"),
        (lambda d: d.rename(time="when"), "expected a dimension time with a coordinate"),
        (lambda d: d.assign_attrs(timescale="week"), "timescale 'week'; expected one of"),
        (lambda d: d.assign_attrs(timescale="month"), "timescale month stated, periods of a year"),
        (lambda d: d.isel(time=slice(None, None, -1)), "repeated or unsorted steps; expected rising times"),
        (lambda d: d.expand_dims(sample=2), "dimensions member, sample; expected one of"),
        (lambda d: d.expand_dims(level=2), r"expected \(member, time, lat, lon\)"),
    ],
)
def test_unreadable_files_are_refused_with_a_remedy(tmp_path, change, message):
    with pytest.raises(DataContractError, match=message):
        open_ensemble(_file_with(tmp_path, change(fake_ensemble())))


def test_absent_file_and_decades_without_bounds_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_ensemble(tmp_path / "none.nc")
    with pytest.raises(DataContractError, match="decades without time bounds"):
        open_ensemble(_file_with(tmp_path, fake_ensemble("decade", years=(2015, 2044))))
    fraction = fake_ensemble().drop_vars("time_bnds").assign_coords(time=np.arange(20) + 2015.5)
    with pytest.raises(DataContractError, match="values from 2015.5 without units; expected integer years or CF units"):
        open_ensemble(_file_with(tmp_path, fraction))


def test_bounds_name_of_another_tool_is_followed(tmp_path):
    ds = fake_ensemble("decade", years=(2015, 2044))
    path = write(tmp_path / "e.nc", ds)
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("time_bnds", "climatology_edges")
        file["time"].bounds = "climatology_edges"
    back = open_ensemble(path)
    assert list(back.year.values) == [2015, 2025, 2035]
    assert back.time_bnds.values[0, 0] == cftime.datetime(2015, 1, 1, calendar="noleap")


def test_a_file_without_members_is_an_ensemble_of_one_whose_bounds_stay_bounds(tmp_path):
    ds = fake_ensemble("year", years=PERIODS["year"])
    with xr.open_dataset(write(tmp_path / "e.nc", ds), decode_times=False) as written:
        written.isel(member=0, drop=True).load().to_netcdf(tmp_path / "one.nc")
    back = open_ensemble(tmp_path / "one.nc")
    assert back.tas.dims == ("member", "time", "lat", "lon") and back.sizes["member"] == 1
    assert back.lat_bnds.dims == ("lat", "bnds")
    np.testing.assert_array_equal(back.tas[0], ds.tas[0])
