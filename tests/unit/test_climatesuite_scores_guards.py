"""What no score may depend on, and what is refused instead of scored."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from climatesuite.errors import DataContractError
from climatesuite.evaluate import scores
from worlds.cells import LAT, field


def random_pair(seed=0, m=5, n=2, t=4, lon=6):
    rng = np.random.default_rng(seed)
    return field(rng.normal(size=(m, t, 3, lon))), field(rng.normal(size=(n, t, 3, lon)))


# ---- invariances and guards


def mean_of(field_score):
    return lambda x, y, **how: scores.area_mean(field_score(x, y, **how), skipna=how.get("skipna", False)).mean()


SCORES = {
    "rmse": scores.rmse,
    "bias": scores.bias,
    "mae": scores.mae,
    "skill": scores.skill,
    "spread": lambda x, y, **how: scores.spread(x, **how),
    "crps": mean_of(scores.crps_ensemble),
    "plain": mean_of(lambda x, y, **how: scores.crps_ensemble(x, y, "plain", **how)),
    "spread_skill": scores.spread_skill,
    "floor": mean_of(lambda x, y, **how: scores.pair_floor(y, **how)),
    "nrmse_t": lambda x, y, **how: scores.nrmse(x, y, **how).nrmse_t,
    "reliability_index": lambda x, y, **how: scores.reliability_index(scores.rank_histogram(x, y, **how)),
}
DIMENSIONLESS = ("spread_skill", "nrmse_t", "reliability_index")


@pytest.mark.parametrize("name", SCORES)
@given(seed=st.integers(0, 10_000), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
@settings(max_examples=5, deadline=None)
def test_scores_do_not_depend_on_order_or_the_origin_of_longitudes_and_scale_with_the_unit(name, seed, shift, scale):
    score = lambda a, b: float(SCORES[name](a, b))  # noqa: E731
    x, y = (f + 3.0 for f in random_pair(seed, n=3))  # anomalies with a mean, for nrmse
    value = score(x, y)
    near = pytest.approx(value, rel=1e-9, abs=1e-12)
    assert score(x.isel(member=[3, 0, 4, 1, 2]), y.isel(member=[2, 0, 1])) == near
    assert score(x.roll(lon=2, roll_coords=True), y.roll(lon=2, roll_coords=True)) == near
    assert score(x.isel(lat=slice(None, None, -1)), y.isel(lat=slice(None, None, -1))) == near
    assert score(x.transpose("lon", "member", "lat", "time"), y) == near
    if name != "nrmse_t":
        assert score(x + shift, y + shift) == pytest.approx(value, rel=1e-6, abs=1e-9)
    expected = value if name in DIMENSIONLESS else value * scale
    assert score(x * scale, y * scale) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "name", sorted(set(SCORES) - {"spread", "spread_skill", "floor", "nrmse_t", "reliability_index"})
)
def test_a_perfect_forecast_scores_zero(name):
    _, y = random_pair(n=1)
    assert float(SCORES[name](xr.concat([y, y], "member"), y)) == 0.0


def test_a_perfect_mean_has_no_normalised_error():
    x, y = random_pair(n=3)
    assert {k: float(v) for k, v in scores.nrmse(y, y).items()} == {"nrmse_s": 0.0, "nrmse_g": 0.0, "nrmse_t": 0.0}


@pytest.mark.parametrize("name", SCORES)
def test_results_carry_the_unit_of_the_fields(name):
    x, y = (f.assign_attrs(units="mm day-1") for f in random_pair(n=3))
    assert SCORES[name](x, y).attrs["units"] == ("1" if name in DIMENSIONLESS else "mm day-1")


def test_results_carry_the_truths_labels_and_names():
    x, y = random_pair(n=3)
    crps = scores.crps_ensemble(x.drop_vars("member").assign_coords(lat=np.array(LAT) + 1e-6), y)
    assert crps.name == "crps" and crps.target.values.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(crps.lat, LAT)
    assert crps.year.values.tolist() == y.year.values.tolist()
    assert scores.rmse(x, y).name == "rmse" and not scores.rmse(x, y).coords
    assert scores.pair_floor(y).coords["year"].dims == ("time",)


@pytest.mark.parametrize("name", SCORES)
def test_nan_is_refused_and_never_dropped(name):
    x, y = random_pair()
    for spoilt in (x, y) if name not in ("spread", "floor") else (x if name == "spread" else y,):
        keep = float(spoilt[0, 0, 0, 0])
        spoilt[0, 0, 0, 0] = np.nan
        with pytest.raises(DataContractError, match=f"tas: 1 of {spoilt.size} values are NaN or infinite"):
            SCORES[name](x, y)
        spoilt[0, 0, 0, 0] = keep


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: y.assign_coords(lat=[-50.0, 0.0, 50.0]), "coordinate lat .* -60.0 against -50.0 at index 0"),
        (lambda y: y.assign_coords(lon=y.lon - 180.0), "coordinate lon"),
        (lambda y: y.rename(lat="lon", lon="lat"), r"coordinate lat \(3 values\) is not the truth's \(6 values\)"),
        (
            lambda y: y.assign_coords(year=("time", 2020 + np.arange(4))),
            "coordinate time .* 2015 against 2020 at index 0",
        ),
        (lambda y: y.assign_coords(year=("time", 2016 + np.arange(4))), "2015 against 2016"),  # one step late
        (lambda y: y.drop_vars("year"), "coordinate time .* 2015 against no label"),
        (lambda y: y.assign_coords(month=("time", [1, 2, 3, 4])), "2015 against 2015-01"),
        (lambda y: y.isel(time=slice(3)), r"coordinate time \(4 values\) is not the truth's \(3 values\)"),
        (lambda y: y.rename(time="step"), "nothing is broadcast"),
        (lambda y: y.assign_attrs(units="degC"), "units 'K'; expected the truth's, 'degC'"),
    ],
)
def test_fields_that_do_not_match_are_refused(spoil, message):
    x, y = random_pair()
    for score in (scores.rmse, scores.crps_ensemble, scores.spread_skill, scores.nrmse, scores.rank_test):
        with pytest.raises(DataContractError, match=message):
            score(x.assign_attrs(units="K"), spoil(y.assign_attrs(units="K")))


def test_dates_of_other_calendars_are_refused_where_nothing_labels_their_years():
    x, y = (f.drop_vars("year") for f in random_pair())
    dates = [xr.date_range("2015", periods=4, freq="YS", calendar=c, use_cftime=True) for c in ("noleap", "360_day")]
    with pytest.raises(DataContractError, match="2015-01-01 00:00:00 noleap against 2015-01-01 00:00:00 360_day"):
        scores.rmse(x.assign_coords(time=dates[0]), y.assign_coords(time=dates[1]))
    assert np.isfinite(scores.rmse(x.assign_coords(time=dates[0]), y.assign_coords(time=dates[0])))


def test_rain_in_si_units_under_the_label_of_millimetres_is_refused():
    x, y = (abs(f.rename("pr")).assign_attrs(units="mm day-1") for f in random_pair())
    assert np.isfinite(scores.rmse(x, y))
    with pytest.raises(DataContractError, match="pr: values labelled mm day-1 that vary by .* by 86400, or label them"):
        scores.rmse(x, (y / 86400.0).assign_attrs(y.attrs))


def test_a_forecast_without_a_member_dimension_is_refused():
    x, y = random_pair()
    for score in (scores.crps_ensemble, scores.skill, scores.spread_skill, scores.rank_histogram):
        with pytest.raises(DataContractError, match="a dimension 'member'"):
            score(x.isel(member=0, drop=True), y)


def test_a_pool_on_another_grid_or_of_one_residual_is_refused():
    x, y = random_pair()
    mean, pool = x.isel(member=0, drop=True), xr.DataArray(np.zeros((4, 3, 6)), dims=("sample", "lat", "lon"))
    with pytest.raises(DataContractError, match=r"\(sample, lat, lon\) on the grid of the mean"):
        scores.residual_pool_crps(mean, pool.isel(lon=slice(3)), y)
    with pytest.raises(DataContractError, match="1 residual; expected 2 or more"):
        scores.residual_pool_crps(mean, pool.isel(sample=[0]), y)


def test_dates_of_other_calendars_match_where_their_year_labels_do():
    x, y = random_pair()
    x = x.assign_coords(time=[f"{year}-07-02" for year in x.year.values])
    y = y.assign_coords(time=[f"{year}-06-30" for year in y.year.values])
    assert np.isfinite(scores.rmse(x, y))
