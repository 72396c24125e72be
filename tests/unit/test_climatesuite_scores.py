"""Scores against closed forms and against the libraries scores, scoringrules and xskillscore."""

import numpy as np
import pytest
import scores as oracle  # type: ignore[import-untyped]
import scoringrules  # type: ignore[import-untyped]
import xarray as xr
import xskillscore  # type: ignore[import-untyped]
from scipy.stats import norm

from climatesuite.errors import DataContractError
from climatesuite.evaluate import scores
from climatesuite.harmonise import grids
from worlds.cells import LAT, at_one_cell, field

SQRT_PI = np.sqrt(np.pi)


def rows(*by_lat, times=1, members=1):
    """Field constant along time, longitude and members."""
    return field(np.broadcast_to(np.reshape(by_lat, (1, 1, 3, 1)), (members, times, 3, 2)))


def random_pair(seed=0, m=5, n=2, t=4, lon=6):
    rng = np.random.default_rng(seed)
    return field(rng.normal(size=(m, t, 3, lon))), field(rng.normal(size=(n, t, 3, lon)))


# ---- area means, RMSE, bias


def test_area_mean_of_a_constant_is_the_constant_and_of_an_odd_field_is_zero():
    lat = np.linspace(-90, 90, 96)
    sine = field(np.broadcast_to(np.sin(np.radians(lat))[:, None], (1, 1, 96, 4)), lat)
    np.testing.assert_allclose(scores.area_mean(0 * sine + 7.0), 7.0)
    np.testing.assert_allclose(scores.area_mean(sine), 0.0, atol=1e-15)
    np.testing.assert_allclose(scores.area_mean(sine**2), 0.3332725620, atol=1e-10)
    assert float(grids.cos_weights(sine.lat).sum()) == pytest.approx(1 / np.tan(np.pi / 190), rel=1e-12)


def test_area_mean_with_the_weights_of_cells_is_that_of_the_sphere():
    lat = np.linspace(-90, 90, 96)
    sine = field(np.broadcast_to(np.sin(np.radians(lat))[:, None], (1, 1, 96, 4)), lat)
    cells = grids.area_weights(grids.with_bounds(xr.Dataset(coords={"lat": lat, "lon": sine.lon})))
    assert float(cells.sum()) == pytest.approx(2.0, rel=1e-12)
    np.testing.assert_allclose(scores.area_mean(sine**2, cells), 0.3333637003, atol=1e-10)


def test_rows_without_latitudes_in_degrees_have_no_area():
    z = rows(1.0, 2.0, 4.0)
    with pytest.raises(DataContractError, match="rows without latitudes; expected a coordinate lat"):
        scores.area_mean(z.drop_vars("lat"))
    with pytest.raises(DataContractError, match="a latitude beyond 90"):
        scores.area_mean(z.assign_coords(lat=[0, 60, 120]))


def test_area_mean_takes_other_weights_of_the_same_latitudes_only():
    z = rows(1.0, 2.0, 4.0)
    even = xr.DataArray(np.ones(3), {"lat": LAT}, ("lat",))
    assert float(scores.area_mean(z, even).squeeze()) == pytest.approx(7 / 3)
    with pytest.raises(DataContractError, match="one weight per latitude of the field"):
        scores.area_mean(z, even.assign_coords(lat=[-50.0, 0.0, 50.0]))
    with pytest.raises(DataContractError, match="lat and lon among them"):
        scores.area_mean(z.rename(lat="y"))
    with pytest.raises(DataContractError, match="weights from -1"):
        scores.area_mean(z, even - [2.0, 0.0, 0.0])


def test_rmse_weights_rows_by_the_cosine_of_latitude():
    assert scores.rmse(rows(1.0, 0.0, 2.0), rows(0.0, 0.0, 0.0)) == pytest.approx(np.sqrt(1.25), abs=1e-12)


def test_rmse_pools_squares_over_time_before_the_root():
    y = field(np.zeros((1, 2, 3, 2)))
    x = y + xr.DataArray([0.0, 2.0], dims="time")
    assert float(scores.rmse(x, y)) == pytest.approx(np.sqrt(2.0), abs=1e-12)
    assert float(scores.rmse_by_step(x, y).mean()) == pytest.approx(1.0, abs=1e-12)  # a mean of yearly roots is smaller


def test_bias_is_forecast_minus_truth():
    _, y = random_pair()
    assert float(scores.bias(y + 0.3, y)) == pytest.approx(0.3) == -float(scores.bias(y, y + 0.3))


def test_mae_is_that_of_the_ensemble_mean_against_single_members():
    x, y = at_one_cell(0.0, 4.0), at_one_cell(1.0, 2.0, 6.0)
    assert float(scores.mae(x, y)) == pytest.approx((1 + 0 + 4) / 3, abs=1e-12)


def test_rmse_compares_the_mean_of_members_with_the_mean_of_the_truths_members():
    x = field(np.stack([np.full((2, 3, 2), v) for v in (0.0, 4.0)]))
    y = field(np.stack([np.full((2, 3, 2), v) for v in (1.0, 2.0, 6.0)]))
    assert scores.rmse(x, y) == pytest.approx(1.0)
    assert scores.bias(x, y) == pytest.approx(-1.0)
    assert scores.bias(y, x) == pytest.approx(1.0)


def test_rmse_and_bias_agree_with_scores_and_xskillscore():
    x, y = random_pair()
    a, b = x.mean("member"), y.mean("member")
    w = np.cos(np.radians(x.lat))
    assert scores.rmse(x, y) == pytest.approx(float(oracle.continuous.rmse(a, b, weights=w)), rel=1e-12)
    assert scores.bias(x, y) == pytest.approx(float(oracle.continuous.additive_bias(a, b, weights=w)), rel=1e-12)
    flat = w.broadcast_like(a.isel(time=0))
    by_step = xskillscore.rmse(a, b, dim=["lat", "lon"], weights=flat)
    assert scores.rmse(x, y) == pytest.approx(float(np.sqrt((by_step**2).mean())), rel=1e-12)
    np.testing.assert_allclose(scores.rmse_by_step(x, y), by_step, rtol=1e-12)
    theirs = oracle.continuous.mae(a.expand_dims(target=2), y.rename(member="target").drop_vars("target"), weights=w)
    assert scores.mae(x, y) == pytest.approx(float(theirs), rel=1e-12)


# ---- CRPS


@pytest.mark.parametrize(
    ("members", "y", "plain", "fair"),
    [((1, 2, 4), 2.5, 0.5, 1 / 6), ((0, 1, 3, 7), 2.0, 0.8125, 1 / 3), ((0, 2), 1.0, 0.5, 0.0)],
)
def test_crps_of_small_ensembles_worked_out_by_hand(members, y, plain, fair):
    x, truth = at_one_cell(*members), at_one_cell(y)
    assert float(scores.crps_ensemble(x, truth, "plain").squeeze()) == pytest.approx(plain, abs=1e-12)
    assert float(scores.crps_ensemble(x, truth, "fair").squeeze()) == pytest.approx(fair, abs=1e-12)


def test_one_member_has_an_absolute_error_and_no_fair_crps():
    x, y = at_one_cell(1.0), at_one_cell(1.5)
    assert float(scores.crps_ensemble(x, y, "mae").squeeze()) == 0.5
    with pytest.raises(DataContractError, match="1 member; expected 2 or more for the fair CRPS"):
        scores.crps_ensemble(x, y)


def test_crps_agrees_with_scores_and_xskillscore():
    x, y = random_pair()
    target = y.rename(member="target")
    for kind, method in (("fair", "fair"), ("plain", "ecdf")):
        theirs = oracle.probability.crps_for_ensemble(x, target, "member", method=method, preserve_dims="all")
        ours = scores.crps_ensemble(x, y, kind)
        assert ours.dims == ("target", "time", "lat", "lon")
        xr.testing.assert_allclose(ours, theirs.transpose(*ours.dims), rtol=1e-12)
    first = y.isel(member=0, drop=True)
    theirs = xskillscore.crps_ensemble(first, x, dim=[])
    np.testing.assert_allclose(scores.crps_ensemble(x, first, "plain"), theirs, rtol=1e-12, atol=1e-14)
    for kind, estimator in (("fair", "fair"), ("plain", "nrg")):
        theirs = scoringrules.crps_ensemble(first.values, x.values, m_axis=0, estimator=estimator)
        np.testing.assert_allclose(scores.crps_ensemble(x, first, kind), theirs, rtol=1e-12, atol=1e-14)


def test_crps_of_the_tail_is_that_of_values_raised_to_the_threshold():
    x, y = at_one_cell(1.0, 2.0, 4.0, 5.0), at_one_cell(4.5)
    assert float(scores.tail_crps(x, y, 3.0, "plain").squeeze()) == pytest.approx(0.5625, abs=1e-12)
    assert float(scores.tail_crps(x, y, 3.0).squeeze()) == pytest.approx(0.4166666667, abs=1e-9)
    x, y = random_pair()
    local = y.mean(("member", "time"))
    target = y.rename(member="target")
    for kind, method in (("fair", "fair"), ("plain", "ecdf")):
        theirs = oracle.probability.tail_tw_crps_for_ensemble(
            x, target, "member", local, tail="upper", method=method, preserve_dims="all"
        )
        np.testing.assert_allclose(
            scores.tail_crps(x, y, local, kind),
            theirs.transpose("target", "time", "lat", "lon"),
            rtol=1e-12,
            atol=1e-14,
        )
    with pytest.raises(DataContractError, match="another lat than the truth's"):
        scores.tail_crps(x, y, local.assign_coords(lat=[-50.0, 0.0, 50.0]))


def test_an_unknown_kind_of_crps_is_refused_before_anything_is_read():
    x, y = random_pair()
    with pytest.raises(ValueError, match="'almost fair' for 5 members"):
        scores.crps_ensemble(x.chunk(time=1), y, "almost fair")


def test_expected_crps_of_a_calibrated_normal_ensemble_is_the_closed_form():
    rng = np.random.default_rng(0)
    x, y = field(rng.normal(size=(5, 50, 3, 1334))), field(rng.normal(size=(1, 50, 3, 1334)))
    assert float(scores.crps_ensemble(x, y).mean()) == pytest.approx(1 / SQRT_PI, abs=0.005)
    assert float(scores.crps_ensemble(x, y, "plain").mean()) == pytest.approx(1.2 / SQRT_PI, abs=0.005)


def test_a_large_normal_ensemble_tends_to_the_gaussian_formula():
    x = at_one_cell(*norm.ppf(np.linspace(0.5, 1999.5, 2000) / 2000))
    for y in (0.0, 1.3):
        expected = scoringrules.crps_normal(y, 0.0, 1.0)
        assert float(scores.crps_ensemble(x, at_one_cell(y)).squeeze()) == pytest.approx(expected, abs=2e-3)
    assert scoringrules.crps_normal(0.0, 0.0, 1.0) == pytest.approx((np.sqrt(2) - 1) / SQRT_PI)


def test_residual_pool_crps_is_the_fair_crps_of_mean_plus_every_residual():
    rng = np.random.default_rng(1)
    mean, (_, y) = field(rng.normal(size=(1, 4, 3, 6))).isel(member=0, drop=True), random_pair(2)
    pool = xr.DataArray(rng.normal(size=(7, 3, 6)), dims=("sample", "lat", "lon"))
    explicit = (mean + pool.rename(sample="member")).transpose("member", "time", "lat", "lon")
    explicit = explicit.assign_coords(member=np.arange(7))
    np.testing.assert_allclose(scores.residual_pool_crps(mean, pool, y), scores.crps_ensemble(explicit, y), atol=1e-12)


def test_residual_pool_crps_is_the_expectation_over_draws_without_replacement():
    rng = np.random.default_rng(3)
    pool, mean, y = rng.normal(size=4), at_one_cell(0.2).isel(member=0, drop=True), at_one_cell(0.9)
    pairs = [(a, b) for a in range(4) for b in range(4) if a < b]
    drawn = [float(scores.crps_ensemble(at_one_cell(*(0.2 + pool[[a, b]])), y).squeeze()) for a, b in pairs]
    residuals = xr.DataArray(pool[:, None, None], dims=("sample", "lat", "lon"))
    assert float(scores.residual_pool_crps(mean, residuals, y).squeeze()) == pytest.approx(np.mean(drawn), abs=1e-12)


# ---- floor, spread, ranks, NRMSE


def test_floor_of_three_members_is_half_their_mean_difference():
    assert float(scores.pair_floor(at_one_cell(0.0, 1.0, 5.0)).squeeze()) == pytest.approx(0.5 * (1 + 4 + 5) / 3)


def test_floor_is_the_leave_one_out_fair_crps_of_the_members():
    _, y = random_pair(n=4)
    left_out = [
        scores.crps_ensemble(y.drop_isel(member=n), y.isel(member=n, drop=True)).mean()
        for n in range(y.sizes["member"])
    ]
    assert float(scores.pair_floor(y).mean()) == pytest.approx(float(np.mean(left_out)), rel=1e-12)


@pytest.mark.parametrize(("members", "square"), [((-1, 0, 1), 1.5), ((0, 1, 5), 10.5)])
def test_leaving_one_member_out_gives_n_over_n_minus_one_times_the_variance(members, square):
    y, left_out = at_one_cell(*members), []
    for n in range(3):
        left_out.append(float(scores.rmse(y.drop_isel(member=n), y.isel(member=n, drop=True))) ** 2)
    assert np.mean(left_out) == pytest.approx(square, abs=1e-12)
    assert 3 / 2 * float(scores.spread(y)) ** 2 == pytest.approx(square, abs=1e-12)


def test_floor_of_one_member_is_refused():
    with pytest.raises(DataContractError, match="2 or more members of the truth"):
        scores.pair_floor(at_one_cell(1.0))


def test_spread_skill_of_a_balanced_pair_is_one():
    assert scores.spread_skill(at_one_cell(-1.0, 1.0), at_one_cell(np.sqrt(3.0))) == pytest.approx(1.0, abs=1e-15)
    ratio = scores.spread(at_one_cell(-1.0, 1.0)) / scores.skill(at_one_cell(-1.0, 1.0), at_one_cell(np.sqrt(3.0)))
    assert float(ratio) == pytest.approx(0.8164965809, abs=1e-9)  # without (M + 1) / M it would be called too narrow


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_spread_skill_is_near_one_if_calibrated_and_below_if_too_narrow(scale):
    rng = np.random.default_rng(4)
    forced = rng.normal(size=(1, 40, 3, 50))
    x, y = field(forced + scale * rng.normal(size=(8, 40, 3, 50))), field(forced + rng.normal(size=(3, 40, 3, 50)))
    expected = np.sqrt(9 / 8) * scale / np.sqrt(1 + scale**2 / 8)
    assert scores.spread_skill(x, y) == pytest.approx(expected, rel=0.02)


def test_spread_needs_two_members():
    with pytest.raises(DataContractError, match="2 or more for a spread"):
        scores.spread(at_one_cell(1.0))


def test_ranks_split_ties_and_agree_with_scores():
    np.testing.assert_allclose(scores.rank_histogram(at_one_cell(1, 2, 2), at_one_cell(2)), [0, 1 / 3, 1 / 3, 1 / 3])
    x, y = random_pair(t=30)
    x, y = x.round(1), y.round(1)  # ties
    even = xr.DataArray(np.ones(3), {"lat": LAT}, ("lat",))
    theirs = oracle.probability.rank_histogram(x, y.rename(member="target"), "member")
    np.testing.assert_allclose(scores.rank_histogram(x, y, even), theirs, atol=1e-12)


@pytest.mark.parametrize(
    ("counts", "chi2", "p", "index"), [([30, 10], 10.0, 0.0015654, 0.5), ([10, 20, 30], 10.0, 0.0067379, 1 / 3)]
)
def test_rank_counts_are_tested_against_a_flat_histogram(counts, chi2, p, index):
    assert scores.rank_chi2(counts) == pytest.approx(chi2)
    assert scores.rank_p_value(counts) == pytest.approx(p, abs=1e-7)
    assert scores.reliability_index(counts) == pytest.approx(index)


def test_chi_square_falls_into_a_slope_a_bowl_and_the_rest():
    for counts, which in (([10, 20, 30], "linear"), ([30, 15, 30], "quadratic"), ([30, 10], "linear")):
        parts = scores.rank_parts(counts)
        assert float(parts[which]) == pytest.approx(float(parts["chi2"]), abs=1e-12)
        assert sum(float(parts[k]) for k in ("linear", "quadratic", "rest")) == pytest.approx(float(parts["chi2"]))


def test_the_rank_test_takes_every_tenth_year_eighth_row_and_eighth_column():
    rng = np.random.default_rng(6)
    lat = np.linspace(-80, 80, 17)
    draw = lambda m, scale: field(scale * rng.normal(size=(m, 21, 17, 160)), lat)  # noqa: E731
    y = draw(3, 1.0)
    calibrated, narrow = scores.rank_test(draw(4, 1.0), y), scores.rank_test(draw(4, 0.5), y)
    assert float(calibrated.n) == 3 * 3 * 3 * 20 and calibrated.attrs["thinning"] == [10, 8, 8]
    assert float(calibrated.p_value) > 0.01 > float(narrow.p_value)
    assert float(calibrated.chi2_ratio) == pytest.approx(float(calibrated.chi2) / 4)
    assert narrow["quadratic"] > 0.9 * narrow["chi2"]
    biased = scores.rank_test(draw(4, 1.0) + 0.6, y)
    assert biased["linear"] > 0.6 * biased["chi2"]


def test_the_rank_test_takes_one_month_of_a_kept_year():
    x, y = random_pair(t=24)
    labels = {"year": ("time", np.repeat([2015, 2016], 12)), "month": ("time", np.tile(np.arange(1, 13), 2))}
    test = scores.rank_test(x.assign_coords(labels), y.assign_coords(labels), every=(1, 1, 1))
    assert float(test.n) == 2 * 2 * 3 * 6


def test_ranks_of_independent_calibrated_draws_pass_the_test_and_narrow_ones_fail():
    rng = np.random.default_rng(5)
    y = field(rng.normal(size=(1, 30, 3, 20)))
    even = xr.DataArray(np.ones(3), {"lat": LAT}, ("lat",))
    for scale, passes in ((1.0, True), (0.6, False)):
        shares = scores.rank_histogram(field(scale * rng.normal(size=(9, 30, 3, 20))), y, even)
        assert (scores.rank_p_value(shares * y.size) > 0.01) == passes


def test_nrmse_of_a_truth_that_does_not_change_is_refused_not_infinite():
    y = rows(0.0, 0.0, 0.0, times=3)
    with pytest.raises(DataContractError, match="a time mean whose area mean is 0"):
        scores.nrmse(rows(1.0, 1.0, 1.0, times=3), y)


def test_nrmse_follows_climatebenchs_order_of_averaging():
    y = field(np.stack([np.full((21, 3, 2), v) for v in (1.0, 2.0, 3.0)]))
    got = scores.nrmse(rows(3.0, 2.0, 3.0, times=21), y)
    assert [got[k] for k in ("nrmse_s", "nrmse_g", "nrmse_t")] == pytest.approx(
        [0.3535533906, 0.25, 1.6035533906], abs=1e-9
    )
    got = scores.nrmse(rows(3.0, 1.0, 3.0, times=21), y)  # cancels in the area mean
    assert [got[k] for k in ("nrmse_s", "nrmse_g")] == pytest.approx([0.5, 0.0], abs=1e-12)
    even = y.isel(time=slice(20))
    x = even.mean("member") + xr.DataArray((-1.0) ** np.arange(20), dims="time")  # cancels in time
    got = scores.nrmse(x, even)
    assert [got[k] for k in ("nrmse_s", "nrmse_g", "nrmse_t")] == pytest.approx([0.0, 0.5, 2.5], abs=1e-12)
