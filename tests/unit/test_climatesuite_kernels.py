"""The arithmetic of scores against brute force and values worked out by hand."""

import itertools

import numpy as np
import pytest
import scoringrules  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from climatesuite.evaluate import kernels

NUMBERS = st.floats(-1e3, 1e3, allow_nan=False, width=32)


def samples(least: int = 2):
    """Ensembles [M, cells]; ties are likely, as the numbers shrink to few values."""
    return hnp.arrays(np.float64, st.tuples(st.integers(least, 9), st.integers(1, 4)), elements=NUMBERS)


def test_pair_sum_of_0_1_3_7_is_23():
    assert kernels.pair_sum(np.array([3.0, 0.0, 7.0, 1.0])[:, None])[0] == 23.0


@given(samples())
def test_pair_sum_is_the_sum_over_all_pairs(x):
    brute = sum(np.abs(a - b) for a, b in itertools.combinations(x, 2))
    np.testing.assert_allclose(kernels.pair_sum(x), brute, rtol=1e-9, atol=1e-6)


@given(samples())
def test_a_lone_cell_is_scored_like_a_cell_among_others(x):
    y = x[:2] + 0.5
    for kernel in (kernels.mean_abs_difference, lambda a, b: kernels.pair_sum(a), lambda a, b: kernels.variance(a)):
        alone, among = kernel(x[:, 0], y[:, 0]), kernel(x, y)[..., 0]
        np.testing.assert_allclose(alone, among, atol=1e-9)


@given(samples(), st.randoms(use_true_random=False))
def test_crps_ignores_the_order_of_members(x, random):
    y = x[:1] + 0.5
    order = random.sample(range(len(x)), len(x))
    scores = [
        kernels.crps_from(kernels.mean_abs_difference(z, y), kernels.pair_sum(z), len(z), "fair") for z in (x, x[order])
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-9)


@given(samples(), NUMBERS)
def test_plain_exceeds_fair_by_the_pair_term_and_neither_is_negative(x, shift):
    distance, pairs, size = kernels.mean_abs_difference(x, x[:1] + shift), kernels.pair_sum(x), len(x)
    fair, plain = (kernels.crps_from(distance, pairs, size, kind) for kind in ("fair", "plain"))
    np.testing.assert_allclose((plain - fair)[0], pairs / (size**2 * (size - 1)), atol=1e-8)
    assert np.all(fair >= -1e-9) and np.all(plain >= fair - 1e-9)


@given(samples(), samples(), NUMBERS)
def test_crps_agrees_with_scoringrules(x, other, shift):
    y = np.resize(other, x.shape[1]) + shift
    distance, pairs = kernels.mean_abs_difference(x, y[None])[0], kernels.pair_sum(x)
    for kind, estimator in (("fair", "fair"), ("plain", "nrg")):
        oracle = scoringrules.crps_ensemble(y, x, m_axis=0, estimator=estimator)
        np.testing.assert_allclose(kernels.crps_from(distance, pairs, len(x), kind), oracle, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize(("kind", "size"), [("fair", 1), ("unbiased", 5)])
def test_an_undefined_crps_is_refused(kind, size):
    with pytest.raises(ValueError, match=f"'{kind}' for {size} members: expected fair"):
        kernels.crps_from(np.zeros(1), np.zeros(1), size, kind)


def test_half_pair_means_average_to_half_the_mean_difference_of_pairs():
    y = np.array([0.0, 1.0, 5.0])[:, None]
    np.testing.assert_allclose(kernels.half_pair_means(y)[:, 0], [1.5, 1.25, 2.25])
    assert kernels.half_pair_means(y).mean() == pytest.approx(kernels.pair_sum(y)[0] / 6)


@given(samples(), samples(least=1))
def test_sorted_pool_gives_the_mean_distance_to_every_residual(pool, z):
    z = np.resize(z, (3, pool.shape[1]))
    ready = kernels.SortedPool(pool)
    np.testing.assert_allclose(ready.mean_abs_difference(z), np.abs(pool[:, None] - z).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(ready.pairs, kernels.pair_sum(pool), atol=1e-6)


def test_a_tie_shares_its_weight_over_the_ranks_it_spans():
    x, y = np.array([1.0, 2.0, 2.0]).reshape(3, 1, 1), np.full((1, 1, 1), 2.0)
    np.testing.assert_allclose(kernels.rank_shares(x, y, np.array([3.0]))[0, 0], [0.0, 1.0, 1.0, 1.0])


@given(samples(), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_rank_shares_sum_to_the_weights_and_keep_the_mean_rank(x, seed):
    rng = np.random.default_rng(seed)
    y, w = rng.choice(x.ravel(), (2, 1, x.shape[1])), rng.random(x.shape[1]) + 0.1
    got = kernels.rank_shares(x[:, None], y, w)
    assert got.shape == (2, 1, len(x) + 1)
    np.testing.assert_allclose(got.sum(axis=2), w.sum())
    below, ties = (x[:, None] < y[0]).sum(axis=0), (x[:, None] == y[0]).sum(axis=0)
    np.testing.assert_allclose(got[0] @ np.arange(len(x) + 1), (below + ties / 2) @ w)  # a split rank keeps its mean


def test_variance_about_a_line_sees_noise_and_not_the_trend():
    t = np.arange(21)
    x = np.stack([0.02 * t + 0.3 * (-1.0) ** t, 5 + 0.1 * t + 0.6 * (-1.0) ** t], axis=1)
    small, large = kernels.detrended_variance(x, 2015 + t, None)
    assert np.sqrt(large / small) == pytest.approx(2.0, abs=1e-12)


def test_variance_about_a_line_counts_two_fitted_numbers():
    x = np.array([[1.0], [-1.0], [-1.0], [1.0]])
    assert kernels.detrended_variance(x, 2015 + np.arange(4), None)[0] == pytest.approx(4.0 / 2.0)


def test_variance_about_a_line_leaves_out_the_season_where_months_are_given():
    year, month = np.repeat(np.arange(2015, 2025), 12), np.tile(np.arange(1, 13), 10)
    season = 8.0 * np.cos(2 * np.pi * month / 12) + 0.5 * (year - 2015) * month
    np.testing.assert_allclose(kernels.detrended_variance(season[:, None], year, month), 0.0, atol=1e-18)


def test_variance_about_a_line_needs_three_years():
    assert np.isnan(kernels.detrended_variance(np.ones((2, 4)), np.array([2015, 2016]), None)).all()
