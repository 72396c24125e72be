"""ClimateBench's layout: read, or refused with file and reason, and written for other models."""

from functools import partial

import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.evaluate.climatebench import member_mean
from climatesuite.evaluate.climatebench_files import open_inputs, open_outputs, open_pair, write_layout
from climatesuite.harmonise.calendars import month_lengths, time_coords
from climatesuite.harmonise.grids import grid_coords, target_grid
from worlds.climatebench import official_inputs, official_outputs, write_files


@pytest.fixture
def write(tmp_path):
    """Writes the files of an experiment and returns their folder."""
    return partial(write_files, tmp_path)


def test_outputs_come_sorted_by_label_in_float64_and_millimetres_a_day(write):
    source = official_outputs()
    ds = open_outputs(write(outputs=source), "ssp245")
    assert ds.member.values.tolist() == [1, 2, 3] and ds.time.values[[0, -1]].tolist() == [2015, 2100]
    assert all(f.dims == ("member", "time", "lat", "lon") and f.dtype == np.float64 for f in ds.data_vars.values())
    np.testing.assert_allclose(ds.pr.sel(member=2), source.pr.sel(member=2) * 86400, rtol=1e-12)
    np.testing.assert_allclose(ds.pr90, source.pr90.sortby("member").astype(np.float64) * 86400, rtol=1e-12)
    assert {n: f.attrs["units"] for n, f in ds.data_vars.items()} == {
        "tas": "K", "diurnal_temperature_range": "K", "pr": "mm day-1", "pr90": "mm day-1",
    }  # fmt: skip
    assert "quantile" not in ds.coords and ds.attrs["anomaly_base"] == "piControl"


def test_latitude_and_longitude_may_be_spelt_out_and_start_in_the_north_or_west(write):
    plain = open_outputs(write(outputs=official_outputs()), "ssp245")
    turned = official_outputs().rename(lat="latitude", lon="longitude").isel(latitude=[2, 1, 0], longitude=[2, 3, 0, 1])
    turned = turned.assign_coords(longitude=[-180.0, -90.0, 0.0, 90.0]).transpose(
        "longitude", "member", "latitude", "time"
    )
    assert open_outputs(write("turned", turned), "turned").tas.equals(plain.tas)


def test_a_stated_unit_wins_over_the_layouts_own(write):
    source = official_outputs()
    source["pr"] = (source.pr * 86400).assign_attrs(units="mm/day")
    np.testing.assert_allclose(open_outputs(write(outputs=source), "ssp245").pr, source.pr.sortby("member"), rtol=1e-12)


def test_members_and_variables_are_chosen_by_label(write):
    root = write(outputs=official_outputs())
    chosen = open_outputs(root, "ssp245", variables=["tas"], members=[3, 2])
    assert list(chosen.data_vars) == ["tas"] and chosen.member.values.tolist() == [2, 3]
    assert chosen.tas.sel(member=2).equals(open_outputs(root, "ssp245").tas.sel(member=2))
    with pytest.raises(DataContractError, match="members 2, 1, 3; expected member 7"):
        open_outputs(root, "ssp245", members=[7])
    with pytest.raises(DataContractError, match="expected sfcWind"):
        open_outputs(root, "ssp245", variables=["sfcWind"])


def test_a_member_with_missing_values_is_named_with_its_variable_and_years(write):
    source = official_outputs(range(1850, 2015))
    source["diurnal_temperature_range"].loc[{"member": 1, "time": slice(1850, 1859)}] = np.nan
    root = write("historical", source)
    found = r"diurnal_temperature_range of member 1 \(1850-1859, 10 years\).*2, 3 are complete"
    with pytest.raises(DataContractError, match=found):
        open_outputs(root, "historical")
    assert open_outputs(root, "historical", members=[2, 3]).sizes["member"] == 2
    assert open_outputs(root, "historical", variables=["tas", "pr"]).sizes["member"] == 3


def test_the_member_mean_takes_the_members_that_go_on_and_refuses_years_without_any(write):
    source = official_outputs()
    source["tas"].loc[{"member": [2, 3], "time": slice(2055, None)}] = np.nan
    y = open_outputs(write(outputs=source), "ssp245", ["tas"], allow_missing=True)
    mean = member_mean(y).tas
    np.testing.assert_allclose(mean.sel(time=2054), source.tas.sel(time=2054).astype(float).mean("member"), rtol=1e-12)
    np.testing.assert_allclose(mean.sel(time=2055), source.tas.sel(time=2055, member=1))
    with pytest.raises(DataContractError, match="NaN"):
        member_mean(y.where(y.time != 2030))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.assign(pr=ds.pr * 86400), "converted twice"),
        (lambda ds: ds.assign(pr=ds.pr.assign_attrs(units="mm day-1")), "still in kg m-2 s-1"),
        (lambda ds: ds.assign(pr=ds.pr.assign_attrs(units="furlong")), "units 'furlong' are unknown"),
        (lambda ds: ds.assign(tas=ds.tas + 287), "expected anomalies"),
        (lambda ds: ds.isel(member=0, drop=True), "no labelled dimension member"),
        (lambda ds: ds.drop_vars("member"), "no labelled dimension member"),
        (lambda ds: ds.assign_coords(time=np.arange(86) + 0.5), "every year once, as integers"),
        (lambda ds: ds.isel(time=[0, 1, 3]), "every year once, as integers"),
        (lambda ds: ds.assign(tas=ds.tas.isel(lat=0)), r"expected \(\[member,\] time, lat, lon\)"),
        (lambda ds: ds.rename(time="year"), "expected time; rename the dimension of the years"),
        (lambda ds: ds[[]], "variables nothing; expected tas"),
    ],
)
def test_outputs_that_break_the_layout_are_refused(write, change, message):
    with pytest.raises(DataContractError, match=message):
        open_outputs(write(outputs=change(official_outputs())), "ssp245")


def test_files_that_are_absent_or_broken_are_refused(tmp_path):
    with pytest.raises(DataContractError, match="outputs_ssp245.nc: no such file"):
        open_outputs(tmp_path, "ssp245")
    with pytest.raises(DataContractError, match="no inputs exist for piControl"):
        open_inputs(tmp_path, "piControl")
    (tmp_path / "outputs_ssp245.nc").write_bytes(b"CDF")
    with pytest.raises(DataContractError, match="not readable"):
        open_outputs(tmp_path, "ssp245")


def test_picontrol_is_raw_and_says_so(write):
    raw = official_outputs(range(1600, 1610))
    ds = open_outputs(write("piControl", raw.assign(tas=raw.tas + 287)), "piControl")
    assert float(ds.tas.mean()) > 200 and ds.attrs["anomaly_base"] == "none"


def test_inputs_come_in_canonical_units_on_years(write):
    ds = open_inputs(write(inputs=official_inputs()), "ssp245")
    assert ds.SO2.dims == ("time", "lat", "lon") and ds.CO2.dims == ("time",)
    assert {n: f.attrs["units"] for n, f in ds.data_vars.items()} == {
        "CO2": "Gt", "CH4": "Gt year-1", "SO2": "kg m-2 s-1", "BC": "kg m-2 s-1",
    }  # fmt: skip
    assert ds.CO2.attrs["quantity"] == "cumulative emissions" and ds.CO2.sel(time=2016) == 1576.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("CO2"), r"expected CO2 \(time\)"),
        (lambda ds: ds.assign(CO2=ds.CO2 * 1e3), "is the unit label right"),
        (lambda ds: ds.assign(SO2=ds.SO2.mean(["latitude", "longitude"])), r"expected \('time', 'lat', 'lon'\)"),
        (lambda ds: ds.assign(BC=ds.BC.where(ds.time != 2050)), "NaN"),
        (lambda ds: ds.assign(CH4=ds.CH4.assign_attrs(units="parsec")), "units 'parsec' are unknown"),
        (
            lambda ds: ds.assign_coords(time=("time", np.arange(86) * 30.0, {"units": "days since 2015-01-01"})),
            "every year once",
        ),
    ],
)
def test_inputs_that_break_the_layout_are_refused(write, change, message):
    with pytest.raises(DataContractError, match=message):
        open_inputs(write(inputs=change(official_inputs())), "ssp245")


def test_inputs_in_other_known_units_are_converted(write):
    source = official_inputs()
    source["CO2"] = source.CO2.assign_attrs(units="GtC")
    source["CH4"] = (source.CH4 * 1e3).assign_attrs(units="Mt/yr")
    ds = open_inputs(write(inputs=source), "ssp245")
    np.testing.assert_allclose(ds.CO2, source.CO2 * 44.009 / 12.011)
    np.testing.assert_allclose(ds.CH4, 0.4)


def test_shorter_outputs_are_paired_with_the_inputs_of_their_years(write):
    root = write("ssp370-lowNTCF", official_outputs(range(2015, 2055)), official_inputs())
    x, y = open_pair(root, "ssp370-lowNTCF")
    assert x.time.equals(y.time) and x.time.values[[0, -1]].tolist() == [2015, 2054]


def test_inputs_of_other_years_are_refused(write):
    root = write(outputs=official_outputs(), inputs=official_inputs(range(1850, 2015)))
    with pytest.raises(
        DataContractError, match="inputs of ssp245: years 1850-2014; expected years of the outputs, 2015-2100"
    ):
        open_pair(root, "ssp245")


# ---- the layout, written


def months(scenario="ssp126", members=2, years=(2015, 2016), rise=0.0, calendar="noleap"):
    """Canonical months whose yearly mean is easy: the month's number plus ``rise`` per year, plus the member's index."""
    labels = range(years[0], years[1] + 1)
    coords = time_coords(labels, "month", calendar)
    grid = target_grid((3, 4))
    values = np.tile(np.arange(1.0, 13.0), len(labels)) + np.repeat(rise * np.arange(len(labels)), 12)
    data = 280.0 + values[None, :, None, None] + np.arange(members)[:, None, None, None] + np.zeros((1, 1, 3, 4))
    dims = ("member", "time", "lat", "lon")
    space = grid_coords(*(grid[n].values for n in ("lat", "lat_bnds", "lon", "lon_bnds")))
    fields = {
        "tas": (dims, data.astype(np.float32), {"units": "K"}),
        "pr": (dims, (data * 1e-7).astype(np.float32), {"units": "kg m-2 s-1"}),
    }
    attrs = {
        "experiment_id": scenario,
        "source_id": "TEST",
        "timescale": "month",
        "calendar": calendar,
        "license": "CC0",
    }
    labels_of = {"member": [f"r{i}i1p1f1" for i in range(1, members + 1)]}
    run = xr.Dataset(fields, {**coords, **space, **labels_of}, attrs)
    drivers = xr.Dataset({"CO2": ("time", 1500 + values, {"units": "Gt"})}, coords, attrs)
    return run, drivers.assign(
        SO2=(("time", "lat", "lon"), 1e-12 + 0 * data[0], {"units": "kg m-2 s-1"})
    ).assign_coords(space)


def test_written_files_hold_day_weighted_anomalies_from_the_training_mean(tmp_path):
    runs, forcings = {}, {}
    for name, members, rise in (("ssp126", 2, 0.0), ("ssp585", 1, 1.0), ("ssp370", 1, 3.0)):
        runs[name], forcings[name] = months(name, members, rise=rise)
    made = write_layout(runs, forcings, tmp_path, ["ssp126", "ssp585"], base_years=(2015, 2016))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in made) and len(made) == 6
    mean = 2382 / 365  # of the months' numbers, weighted with their days
    assert mean == pytest.approx((month_lengths([2015], "noleap")[0] * np.arange(1, 13)).sum() / 365)
    x, y = open_pair(tmp_path, "ssp370")
    base = (0.0 + 1.0 + 0.5) / 3  # members r1 and r2 of ssp126, r1 of ssp585, above 280 + mean
    np.testing.assert_allclose(y.tas.values[0, :, 0, 0], [0 - base, 3 - base], atol=1e-4)
    np.testing.assert_allclose(x.CO2, 1500 + mean + np.array([0, 3]))
    assert x.time.values.tolist() == [2015, 2016] and x.SO2.dims == ("time", "lat", "lon")
    with xr.open_dataset(tmp_path / "outputs_ssp126.nc") as raw:
        assert raw.member.values.tolist() == [1, 2] and raw.attrs["members"] == "1 r1i1p1f1, 2 r2i1p1f1"
        assert raw.pr.attrs["units"] == "kg m-2 s-1" and raw.pr.dtype == np.float32
        assert raw.attrs["source_id"] == "TEST" and "no piControl" in raw.attrs["anomaly_base"]
    with xr.open_dataset(tmp_path / "inputs_ssp126.nc") as raw:
        assert raw.SO2.dims == ("time", "latitude", "longitude") and raw.attrs["license"] == "CC0"


def test_a_leap_year_weighs_more_in_the_base(tmp_path):
    run, drivers = months(members=1, rise=30.0, calendar="standard")
    write_layout({"ssp126": run}, {"ssp126": drivers}, tmp_path, ["ssp126"], base_years=(2015, 2016))
    tas = open_outputs(tmp_path, "ssp126", ["tas"]).tas.mean(("lat", "lon")).squeeze()
    days = np.array([365, 366])
    assert float((tas * days).sum() / days.sum()) == pytest.approx(0.0, abs=1e-4)


def test_a_layout_without_base_years_training_or_forcings_is_refused(tmp_path):
    run, drivers = months()
    with pytest.raises(DataContractError, match="2 of these years; expected all of 2015-2024"):
        write_layout({"ssp126": run}, {"ssp126": drivers}, tmp_path, ["ssp126"])
    with pytest.raises(DataContractError, match="no run ssp585, forcing ssp126"):
        write_layout({"ssp126": run}, {}, tmp_path, ["ssp585"])
    with pytest.raises(DataContractError, match="no training"):
        write_layout({"ssp126": run}, {"ssp126": drivers}, tmp_path, [])
