"""Calendars: lengths and edges of months, years and decades."""

import calendar as python_calendar

import cftime
import numpy as np
import pytest

from climatesuite.errors import DataContractError
from climatesuite.harmonise.calendars import CALENDARS, canonical_calendar, month_lengths, period_bounds, time_coords


def test_month_lengths_are_those_of_pythons_calendar():
    years = range(1583, 2401)
    expected = [[python_calendar.monthrange(y, m)[1] for m in range(1, 13)] for y in years]
    for name in ("standard", "gregorian", "proleptic_gregorian"):
        assert np.array_equal(month_lengths(years, name), expected)


@pytest.mark.parametrize("name", sorted(set(CALENDARS.values())))
def test_month_lengths_are_the_distances_between_first_days(name):
    years = [1500, 1581, 1582, 1583, 1600, 1700, 1900, 2000, 2015, 2016]
    firsts = [[cftime.datetime(y + m // 12, m % 12 + 1, 1, calendar=name) for m in range(13)] for y in years]
    expected = [[(b - a).days for a, b in zip(row, row[1:], strict=False)] for row in firsts]
    assert np.array_equal(month_lengths(years, name), expected)


def test_the_calendars_without_leap_years_have_constant_years():
    assert set(month_lengths(range(1900, 2100), "365_day").sum(1)) == {365}
    assert set(month_lengths(range(1900, 2100), "366_day").sum(1)) == {366}
    assert set(month_lengths(range(1900, 2100), "360_day").ravel()) == {30}


def test_spellings_of_one_calendar_get_one_name():
    assert canonical_calendar("Gregorian ") == "standard"
    assert canonical_calendar("365_day") == "noleap"


@pytest.mark.parametrize("timescale", ["month", "year", "decade"])
@pytest.mark.parametrize("name", ["noleap", "standard", "360_day"])
def test_periods_follow_one_another_and_have_their_date_in_the_middle(timescale, name):
    labels = [2015, 2025, 2035] if timescale == "decade" else [2015, 2016, 2017]
    middle, bounds = period_bounds(labels, timescale, name)
    assert all(bounds[1:, 0] == bounds[:-1, 1])
    assert all((m - a) == (b - m) for m, (a, b) in zip(middle, bounds, strict=True))
    assert (bounds[0, 0].year, bounds[0, 0].month, bounds[0, 0].day) == (2015, 1, 1)
    assert bounds[-1, 1].year == (2045 if timescale == "decade" else 2018)


def test_months_can_be_any_list():
    middle, bounds = period_bounds([2015, 2016], "month", "noleap", months=[12, 2])
    assert [str(d)[:10] for d in bounds.ravel()] == ["2015-12-01", "2016-01-01", "2016-02-01", "2016-03-01"]
    assert str(middle[1]) == "2016-02-15 00:00:00"


def test_time_coords_carry_the_labels_and_lengths_of_their_periods():
    coords = time_coords([2015, 2016], "month", "standard")
    assert coords["year"].values.tolist() == [2015] * 12 + [2016] * 12
    assert coords["month"].values.tolist() == [*range(1, 13)] * 2
    assert coords["days"].values.reshape(2, 12).sum(1).tolist() == [365, 366]
    assert "month" not in time_coords([2015], "decade", "standard")
    assert time_coords([2015], "decade", "standard")["days"].values.tolist() == [3653.0]


def test_an_unknown_calendar_is_refused():
    with pytest.raises(DataContractError, match="calendar 'lunar': not a CF calendar; expected one of standard"):
        month_lengths([2015], "lunar")


def test_an_unknown_timescale_is_refused():
    with pytest.raises(DataContractError, match="timescale 'week'; expected one of decade, year, month"):
        period_bounds([2015], "week", "noleap")


@pytest.mark.parametrize("months", [[13], [0], [1, 2]])
def test_impossible_months_are_refused(months):
    with pytest.raises(DataContractError, match="1 to 12, one a label"):
        period_bounds([2015], "month", "noleap", months=months)
