"""Coarsening in time: exact means weighted with days, whole periods only."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import month_lengths, time_coords
from climatesuite.harmonise.coarsen import to_decade, to_year, weighted_means
from worlds.fake_ensemble import fake_ensemble

CALENDARS = ("noleap", "standard", "360_day")


def months(
    calendar: str = "noleap", years: tuple[int, int] = (2015, 2036), grid: tuple[int, int] = (3, 4)
) -> xr.Dataset:
    """A monthly run with a gridded and a scalar forcing, in float64."""
    ds = fake_ensemble("month", ("r1i1p1f1", "r2i1p1f1"), years, grid, calendar).astype(np.float64)
    rng = np.random.default_rng(1)
    forcing = {
        "CO2": ("time", rng.random(ds.sizes["time"])),
        "SO2": (("time", "lat", "lon"), rng.random(ds.tas.shape[1:])),
    }
    return ds.assign({n: (*v, {"role": "forcing"}) for n, v in forcing.items()})


@pytest.mark.parametrize("calendar", CALENDARS)
def test_a_year_is_the_mean_of_its_days(calendar):
    ds, days = months(calendar), month_lengths([2016], calendar)[0]
    expected = np.average(ds.tas.values[:, 12:24], axis=1, weights=days)
    assert to_year(ds).tas.values[:, 1] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("name", ["tas", "CO2", "SO2"])
def test_a_decade_of_years_is_the_mean_of_its_120_months(calendar, name):
    ds = months(calendar)
    decade = to_decade(to_year(ds), 2016)[name]
    days = month_lengths(range(2016, 2026), calendar).ravel()
    axis = ds[name].dims.index("time")
    values = np.take(ds[name].values, np.arange(12, 132), axis=axis)
    assert decade.isel(time=0).values == pytest.approx(np.average(values, axis=axis, weights=days), rel=1e-13)


def test_february_weighs_28_of_365_days_without_leap_years():
    ds = months().isel(time=slice(0, 12))
    ds["CO2"] = ("time", np.eye(12)[1])
    assert float(to_year(ds).CO2[0]) == pytest.approx(28 / 365, rel=1e-15)


def test_labels_bounds_and_attributes_go_along():
    year = to_year(months("standard"))
    expected = time_coords(range(2015, 2037), "year", "standard")
    for name, values in expected.items():
        assert np.array_equal(year[name], values)
    assert year.attrs["timescale"] == "year" and year.attrs["source_id"] == "FAKE-ESM"
    assert year.tas.attrs["role"] == "field" and year.CO2.attrs == {"role": "forcing"}
    assert "month" not in year.coords and year.member.values.tolist() == ["r1i1p1f1", "r2i1p1f1"]
    decade = to_decade(year, 2016)
    assert decade.year.values.tolist() == [2016, 2026] and decade.days.values.tolist() == [3653, 3652]
    assert decade.attrs["timescale"] == "decade" and decade.attrs["decade_start"] == 2016


def test_decades_keep_the_phase_of_their_start_in_a_run_that_begins_later():
    assert to_decade(to_year(months()), 2007).year.values.tolist() == [2017, 2027]


@pytest.mark.parametrize("chunks", [7, 12, 30, 500])
def test_lazy_arrays_stay_lazy_and_give_the_same_numbers(chunks):
    ds = months()
    lazy = to_decade(to_year(ds.chunk({"member": 1, "time": chunks, "lat": 2})), 2015)
    assert all(isinstance(lazy[n].data, da.Array) for n in ("tas", "pr", "CO2", "SO2"))
    eager = to_decade(to_year(ds), 2015)
    for name in ("tas", "pr", "CO2", "SO2"):
        assert lazy[name].dims == eager[name].dims
        assert np.array_equal(lazy[name].values, eager[name].values)


def test_sums_are_made_in_float64_and_the_dtype_is_kept():
    ds = months(grid=(2, 2)).astype(np.float32)
    year = to_year(ds)
    assert year.tas.dtype == np.float32
    assert np.array_equal(year.tas.values, to_year(ds.astype(np.float64)).tas.values.astype(np.float32))


def test_weighted_means_work_along_any_axis():
    x, w = np.random.default_rng(0).random((2, 6, 3)), np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 0.0]])
    out = weighted_means(x, w, 1)
    assert out[:, 0] == pytest.approx(np.average(x[:, :3], axis=1, weights=w[0]))
    assert out[:, 1] == pytest.approx((x[:, 3] + x[:, 4]) / 2)


def test_a_missing_month_is_refused():
    ds = months()
    with pytest.raises(DataContractError, match="FAKE-ESM/ssp370: time goes from 2015-05 to 2015-07"):
        to_year(ds.isel(time=[i for i in range(24) if i != 5]))


def test_an_incomplete_year_is_refused():
    with pytest.raises(DataContractError, match="months 2015-12 to 2017-11; expected whole years"):
        to_year(months().isel(time=slice(11, 35)))


def test_a_missing_year_is_refused():
    with pytest.raises(DataContractError, match="time goes from 2019 to 2021"):
        to_decade(to_year(months()).isel(time=[i for i in range(22) if i != 5]), 2015)


def test_a_run_without_a_whole_decade_is_refused():
    with pytest.raises(DataContractError, match="years 2015 to 2036; expected a whole decade that begins in 2030"):
        to_decade(to_year(months()), 2030)


def test_the_wrong_timescale_is_refused():
    with pytest.raises(DataContractError, match="expected a yearly Dataset; coarsen with to_year first"):
        to_decade(months(), 2015)
    with pytest.raises(DataContractError, match="no coordinate month"):
        to_year(to_year(months()))


def test_bounds_that_do_not_meet_are_refused():
    ds = months()
    bounds = ds.time_bnds.values.copy()
    bounds[3, 1] = bounds[3, 1].replace(day=2)
    with pytest.raises(DataContractError, match="a period ends 2015-05-02"):
        to_year(ds.assign_coords(time_bnds=(("time", "bnds"), bounds)))


def test_a_dataset_without_bounds_or_months_is_refused():
    with pytest.raises(DataContractError, match="no time_bnds; expected a canonical Dataset"):
        to_year(months().drop_vars("time_bnds"))
    with pytest.raises(DataContractError, match="no time steps"):
        to_year(months().isel(time=slice(0, 0)))
