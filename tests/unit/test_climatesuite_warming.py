"""Crossing years, emergence, trends and ratios: closed forms and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climatesuite.evaluate import warming
from climatesuite.evaluate.answers import answer_table, beside, disagreeing, row

YEAR = np.arange(2015, 2100)


def line(rate: float, start: float = 0.0) -> np.ndarray:
    return start + rate * (YEAR - 2015.0)


def test_a_line_crosses_where_its_twenty_years_do():
    # years Y-10 to Y+9 have the mean of Y - 0.5: 0.04 (Y - 2015.5) = 1.5 in 2053
    assert warming.crossing_years(line(0.04), YEAR, 1.5).item() == 2053
    assert warming.crossing_years(line(0.04), YEAR, 3.4).item() == np.inf
    assert warming.crossing_years(line(0.04, 2.0), YEAR, 1.5).item() == 2025  # already above: the first central year


@given(st.floats(0.01, 0.1), st.floats(0.0, 1.0))
def test_higher_levels_are_crossed_later(rate, start):
    years = [warming.crossing_years(line(rate, start), YEAR, level).item() for level in (1.5, 2.0, 3.0)]
    assert years == sorted(years)


def test_running_means_are_means():
    x = np.random.default_rng(0).standard_normal((3, 85))
    got = warming.running_mean(x)
    assert got.shape == (3, 66)
    np.testing.assert_allclose(got[:, 5], x[:, 5:25].mean(axis=1), atol=1e-12)


def test_a_trend_emerges_where_it_passes_twice_the_noise():
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((400, 85))
    years = warming.emergence_years(line(0.1) + noise, YEAR, (2015, 2034))
    # the signal counts from the base period's mean, 2024.5: 0.1 (t - 2024.5) = 2 in 2044.5
    assert np.median(years) == pytest.approx(2045, abs=1)
    assert np.isinf(warming.emergence_years(noise, YEAR, (2015, 2034))).mean() > 0.95


def test_what_comes_back_below_the_noise_has_not_emerged():
    arch = 4.0 * (1.0 - ((YEAR - 2057.0) / 42.0) ** 2) + (-1.0) ** YEAR
    assert np.isinf(warming.emergence_years(arch, YEAR, (2015, 2034)))
    assert warming.emergence_years(np.maximum(arch, line(0.1)), YEAR, (2015, 2034)).item() < 2070


def test_slopes_are_per_decade():
    assert warming.slopes(line(0.03, 288.0), YEAR) == pytest.approx(0.3)
    assert warming.slopes((-1.0) ** YEAR, YEAR) == pytest.approx(0.0, abs=0.01)


def test_sensitivity_of_rain_is_percent_of_the_first_years_per_kelvin():
    rain = 3.0 * (1.0 + 0.02 * (line(0.04) - line(0.04)[:20].mean()))
    assert warming.per_kelvin(rain, line(0.04)) == pytest.approx(2.0, rel=1e-12)


def test_ratios_to_no_warming_are_not_given():
    got = warming.ratio(np.array([2.0, 2.0]), np.array([1.0, 0.1]))
    assert got[0] == 2.0 and np.isnan(got[1])


def test_a_variance_that_quadruples_grows_by_log_four():
    rng = np.random.default_rng(2)
    scale = np.repeat([1.0, 1.5, 2.0], 20)[:, None]
    got = warming.variance_change(scale * rng.standard_normal((60, 4000)), np.full((1, 4000), 1 / 4000))
    assert got[0] == pytest.approx(np.log(4.0), abs=0.03)


# --------------------------------------------------------------------------------------------------------------- rows


def test_a_row_holds_the_truth_beside_five_to_ninety_five_percent_of_members():
    found = beside((np.arange(101.0), np.array([40.0, 44.0])), name="n", units="K")
    assert (found["value"], found["lo"], found["hi"]) == (50.0, 5.0, 95.0)
    assert (found["reference"], found["reference_lo"], found["reference_hi"], found["agrees"]) == (
        42.0,
        40.0,
        44.0,
        True,
    )
    assert beside((np.arange(101.0), np.array([99.0])))["agrees"] is False


def test_years_that_never_come_are_counted_not_averaged():
    x = np.array([2040.0, 2050.0, np.inf, np.inf, np.inf])
    found = beside((x, np.array([2045.0, np.inf])), centre="median")
    assert found["value"] is None and found["lo"] == pytest.approx(2042.0) and found["hi"] is None
    assert found["note"] == "not by the end: 3 of 5 members, 1 of 2 of the truth"
    early = beside((np.array([2040.0, 2050.0, 2060.0, np.inf]), np.array([2045.0, 2046.0])), centre="median")
    assert early["value"] == pytest.approx(2055.0) and early["agrees"] is True


def test_one_member_has_no_interval_and_no_verdict():
    found = beside((np.array([1.0]), np.array([2.0, 3.0])))
    assert found["lo"] is None and found["agrees"] is None


def test_members_without_a_ratio_are_left_out_and_none_at_all_is_said():
    found = beside((np.array([1.0, np.nan, 3.0]), np.array([2.0])))
    assert found["M"] == 2 and found["value"] == 2.0
    empty = beside((np.array([np.nan, np.nan]), np.array([2.0])))
    assert empty["value"] is None and "too little warming" in empty["note"]


def test_a_misspelt_field_is_refused():
    with pytest.raises(ValueError, match="regoin"):
        row(regoin="land")


def test_the_table_marks_what_disagrees():
    rows = [beside((np.arange(11.0), np.array([v])), question="q", name=f"n{v:g}", units="K") for v in (5.0, 50.0)]
    lines = answer_table(rows).splitlines()
    assert ["*" in line for line in lines[2:]] == [False, True]
    assert [r["name"] for r in disagreeing(rows)] == ["n50"]
