"""Calibration in a region: closed forms, scipy and scores as oracles, and what a perfect ensemble shows."""

import numpy as np
import pytest
import scores.probability
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import genextreme

from climatesuite.evaluate import calibration
from climatesuite.evaluate.calibration import against_perfect

EVEN = np.full(10, 0.1)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_a_wide_ensemble_has_few_outer_ranks_and_a_narrow_one_many():
    y = normal(0, 2, 60, 10)
    outer = [calibration.rank_statistics(s * normal(1, 9, 60, 10), y, EVEN)["outer ranks"] for s in (0.5, 1.0, 2.0)]
    assert outer[0] > 1.5 and outer[1] == pytest.approx(1.0, abs=0.15) and outer[2] < 0.6


def test_spread_skill_is_the_ratio_of_pooled_variances():
    x, y = np.array([-1.0, 1.0]).reshape(2, 1, 1), np.full((1, 1, 1), np.sqrt(3.0))
    assert calibration.spread_statistics(x, y, np.ones(1))["spread–skill"] == pytest.approx(1.0, abs=1e-12)


def test_the_parts_of_the_brier_score_sum_to_that_of_the_scores_library():
    x, y = (
        normal(2, 7, 40, 10) + np.linspace(0, 1, 40)[:, None],
        normal(3, 3, 40, 10) + np.linspace(0, 1.3, 40)[:, None],
    )
    parts = calibration.brier_parts(*calibration.exceedance_curve(x, y, EVEN))
    limit = np.quantile(x.reshape(-1, 10), 0.9, axis=0)
    fcst = xr.DataArray(np.broadcast_to((x > limit).mean(axis=0), y.shape), dims=("n", "t", "p"))
    obs = xr.DataArray((y > limit).astype(float), dims=("n", "t", "p"))
    assert parts["score"] == pytest.approx(float(scores.probability.brier_score(fcst, obs)), abs=1e-12)
    assert parts["observed"] == pytest.approx(float(obs.mean()), abs=1e-12)


def test_a_forecast_that_knows_all_is_reliable():
    x = np.broadcast_to(normal(4, 1, 50, 10), (5, 50, 10))
    parts = calibration.brier_parts(*calibration.exceedance_curve(x, x[:2], EVEN))
    assert parts["score"] == pytest.approx(0.0, abs=1e-15) and parts["reliability"] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.2])
def test_return_levels_are_those_of_the_distribution(shape):
    maxima = genextreme.rvs(shape, 300.0, 2.0, size=(20000, 4), random_state=0)
    exact = genextreme.ppf(0.95, shape, 300.0, 2.0)
    np.testing.assert_allclose(calibration.return_level(maxima), exact, atol=0.15)
    location, scale, k = calibration.gev_by_l_moments(maxima)
    np.testing.assert_allclose(location, 300.0, atol=0.1)
    np.testing.assert_allclose(scale, 2.0, atol=0.05)
    np.testing.assert_allclose(k, shape, atol=0.03)


def test_gumbel_of_twenty_years():
    # metrics: mu = 0, sigma = 1, T = 20 -> 2.9701952490
    assert genextreme.ppf(0.95, 0.0) == pytest.approx(2.9701952490, abs=1e-9)
    maxima = genextreme.ppf((np.arange(1, 40001) - 0.35) / 40000, 0.0)[:, None]
    assert calibration.return_level(maxima)[0] == pytest.approx(2.9701952490, abs=5e-3)


def test_few_blocks_give_the_empirical_quantile_and_constant_ones_themselves():
    maxima = np.arange(1.0, 41.0)[:, None]
    assert calibration.return_level(maxima)[0] == np.quantile(maxima, 0.95)
    assert calibration.return_level(np.full((80, 2), 7.0)) == pytest.approx(7.0)


@given(st.floats(-50, 50), st.floats(0.1, 10))
def test_return_levels_move_and_scale_with_the_data(shift, factor):
    maxima = genextreme.rvs(0.1, size=(100, 3), random_state=1)
    moved = calibration.return_level(shift + factor * maxima)
    np.testing.assert_allclose(moved, shift + factor * calibration.return_level(maxima), rtol=1e-7, atol=1e-6)


def test_a_trend_is_not_a_tail():
    maxima = genextreme.rvs(0.1, size=(4, 30, 50), random_state=2)
    trend = 0.5 * (np.arange(30.0) - 14.5)[:, None]
    plain, trended = (calibration.return_statistics(x, maxima, np.full(50, 0.02)) for x in (maxima, maxima + trend))
    assert plain["20-year return level"] == 0.0
    assert trended["20-year return level"] == pytest.approx(0.0, abs=1e-9)


# ----------------------------------------------------------------------------------------------------- perfect ensembles


def share_outside(make, statistic, name: str, trials: int = 30) -> float:
    outside = 0
    for seed in range(trials):
        x, y = make(np.random.default_rng(seed))
        outside += against_perfect(x, y, EVEN, statistic)[name].agrees(name in calibration.SMALL_IS_GOOD) is False
    return outside / trials


def red(rng: np.random.Generator, size: int, spread: float = 1.0) -> np.ndarray:
    """Correlated in time and over cells: what would make a chi-square far too sure."""
    common = np.cumsum(rng.standard_normal((size, 40, 1)), axis=1) / 4.0
    return spread * (common + 0.3 * rng.standard_normal((size, 40, 10)))


@pytest.mark.parametrize(
    ("statistic", "name"),
    [
        (calibration.rank_statistics, "reliability index"),
        (calibration.spread_statistics, "spread–skill"),
        (calibration.exceedance_statistics, "reliability"),
        (calibration.tail_statistics, "95 % quantile"),
    ],
)
def test_a_perfect_ensemble_is_outside_one_time_in_ten_even_where_cells_and_years_are_correlated(statistic, name):
    assert share_outside(lambda rng: (red(rng, 15), red(rng, 2)), statistic, name) <= 0.25


def test_a_narrow_ensemble_is_outside_most_of_the_time():
    def narrow(rng):
        return red(rng, 15, 0.35), red(rng, 2)

    assert share_outside(narrow, calibration.spread_statistics, "spread–skill", 20) > 0.7
    assert share_outside(narrow, calibration.rank_statistics, "outer ranks", 20) > 0.7


def test_draws_are_the_same_for_a_seed_and_too_few_members_are_refused():
    x, y = normal(5, 6, 20, 10), normal(6, 2, 20, 10)
    first, second = (against_perfect(x, y, EVEN, calibration.spread_statistics, seed=3) for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="3 members: expected at least 4"):
        against_perfect(x[:3], y, EVEN, calibration.spread_statistics)


def test_what_cannot_be_judged_is_not():
    verdict = against_perfect(np.zeros((4, 5, 10)), np.zeros((1, 5, 10)), EVEN, calibration.spread_statistics)
    assert verdict["spread–skill"].agrees(False) is None
