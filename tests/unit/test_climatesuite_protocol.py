"""What is compared with what: timescales, year labels, periods, units."""

import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.evaluate import protocol
from worlds.fake_ensemble import fake_ensemble


def unmarked(ds):
    return ds.assign_attrs({k: v for k, v in ds.attrs.items() if k != "timescale"})


def without(ds, *names):
    return ds.drop_vars(names)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
@pytest.mark.parametrize("timescale", ["month", "year", "decade"])
def test_timescale_is_read_from_the_attribute_the_lengths_or_the_bounds(timescale, calendar):
    ds = fake_ensemble(timescale, calendar=calendar, grid=(2, 3))
    assert protocol.timescale_of(ds) == timescale
    assert protocol.timescale_of(unmarked(ds)) == timescale
    assert protocol.timescale_of(without(unmarked(ds), "days")) == timescale


def test_timescale_is_read_from_bounds_in_numpy_dates():
    bounds = np.array([["2015-01-01", "2016-01-01"], ["2016-01-01", "2017-01-01"]], dtype="datetime64[ns]")
    assert protocol.timescale_of(xr.Dataset({"time_bnds": (("time", "bnds"), bounds)})) == "year"


@pytest.mark.parametrize(
    ("ds", "message"),
    [
        (xr.Dataset(attrs={"timescale": "monthly"}), "timescale 'monthly'; expected one of decade, year, month"),
        (xr.Dataset(), "no timescale attribute and no time bounds"),
        (xr.Dataset(coords={"days": ("time", [31.0, 365.0])}), "periods of 31 to 365 days"),
        (xr.Dataset(coords={"days": ("time", [])}), "no time steps"),
    ],
)
def test_a_timescale_that_cannot_be_told_is_refused(ds, message):
    with pytest.raises(DataContractError, match=message):
        protocol.timescale_of(ds)


def test_runs_of_other_lengths_meet_on_their_labels_and_never_on_positions():
    early, late = fake_ensemble(years=(2015, 2030)), fake_ensemble(years=(2020, 2034))
    x, y = protocol.align(early, late)
    assert x.year.values.tolist() == y.year.values.tolist() == list(range(2020, 2031))
    np.testing.assert_array_equal(x.tas, early.tas[:, 5:])


def test_months_meet_on_year_and_month_across_calendars():
    x, y = protocol.align(
        fake_ensemble("month", years=(2015, 2017), calendar="360_day"), fake_ensemble("month", years=(2017, 2018))
    )
    assert protocol.labels(x).tolist() == protocol.labels(y).tolist() == [12 * 2017 + m for m in range(12)]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (fake_ensemble(years=(2015, 2020)), fake_ensemble(years=(2021, 2030)), "2015 to 2020 against 2021 to 2030"),
        (
            fake_ensemble("month", years=(2015, 2015)),
            fake_ensemble("month", years=(2016, 2016)),
            "2015-01 to 2015-12 against 2016-01",
        ),
        (
            fake_ensemble("decade", years=(2015, 2044)),
            fake_ensemble("decade", years=(2020, 2049)),
            "check decade_start",
        ),
        (fake_ensemble().drop_isel(time=4), fake_ensemble(), r"1 steps are in one only \(2019"),
        (fake_ensemble().isel(time=[0, 1, 1]), fake_ensemble(), "labels of the prediction: repeated or unsorted"),
        (fake_ensemble("month"), fake_ensemble(), "a prediction with months, a truth without months"),
    ],
)
def test_labels_that_do_not_fit_are_refused(x, y, message):
    with pytest.raises(DataContractError, match=message):
        protocol.align(x, y)


def test_the_headline_period_begins_in_2017_and_with_the_second_decade():
    full, headline = protocol.periods(fake_ensemble(years=(2015, 2099)), "year")
    assert (full.name, full.window, full.steps.size) == ("full", (2015, 2099), 85)
    assert (headline.name, headline.window, headline.steps[0]) == ("headline", (2017, 2099), 2)
    full, headline = protocol.periods(fake_ensemble("decade", years=(2015, 2094)), "decade")
    assert (full.window, headline.window, headline.steps.tolist()) == ((2015, 2094), (2025, 2094), list(range(1, 8)))


def test_a_run_that_ends_before_2017_has_no_headline_period():
    assert [p.name for p in protocol.periods(fake_ensemble(years=(2015, 2016)), "year")] == ["full"]


def pair():
    return fake_ensemble(), fake_ensemble(members=("r1i1p1f1", "r2i1p1f1"), seed=1)


def test_a_matching_pair_is_accepted():
    x, y = pair()
    for name in ("tas", "pr"):
        protocol.check_pair(name, x, y, "toy")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.drop_vars("tas"), "toy: no variable 'tas'"),
        (lambda x: x.assign(tas=x.tas.assign_attrs(units="degC")), "tas in toy: units 'degC'; expected 'K'"),
        (lambda x: x.assign(tas=x.tas.drop_attrs()), "tas in toy: units None"),
        (lambda x: x.assign(tas=x.tas.isel(lat=0)), "tas in toy: dims"),
        (lambda x: x.isel(lon=slice(6)), r"coordinate lon \(6 values\)"),
        (lambda x: x.assign_coords(lat=x.lat + 1), "coordinate lat"),
    ],
)
def test_a_prediction_that_does_not_fit_its_truth_is_refused(spoil, message):
    x, y = pair()
    with pytest.raises(DataContractError, match=message):
        protocol.check_pair("tas", spoil(x), y, "toy")


def test_values_that_belie_their_unit_are_refused():
    rain = fake_ensemble().pr
    with pytest.raises(DataContractError, match="a global mean of 2.9 kg m-2 s-1; expected 1e-05 to 7e-05"):
        protocol.check_field("pr", rain, "toy", 2.9)
    with pytest.raises(DataContractError, match="variable 'snow'; expected one of tas, pr"):
        protocol.check_field("snow", rain, "toy")


def test_json_gets_plain_numbers_lists_and_null():
    given = [np.float64(1.5), np.float32("nan"), float("inf"), np.int64(3), np.arange(2), "text", None]
    assert [protocol.plain_value(v) for v in given] == [1.5, None, None, 3, [0, 1], "text", None]
