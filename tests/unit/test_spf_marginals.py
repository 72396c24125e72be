"""Marginals: every cell's own scale and skewness between departures and standard normal numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spf.learning.measure import Sums, agreement, marginal_of
from spf.pyramid.marginals import MOST_BEND, Marginal, averaged, bend_of


def bent(bend, gain=2.0, seasons=1):
    """One variable, one cell, the same in every season."""
    shape = (1, seasons, 1, 1)
    return Marginal(torch.full(shape, gain), torch.full(shape, bend))


def quantiles(n=20_001):
    """Standard normal, evenly likely (var, step, lat, lon)."""
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).reshape(1, n, 1, 1)


@pytest.mark.parametrize("bend", [-0.6, -0.2, 0.0, 0.005, 0.3, 0.7])
def test_departures_have_mean_zero_the_gain_as_deviation_and_the_skewness_of_their_bend(bend):
    x = bent(bend).departure(quantiles(), 0)
    w = math.exp(bend**2)
    assert float(x.mean()) == pytest.approx(0, abs=2e-3)
    assert float(x.std()) == pytest.approx(2.0, rel=5e-3)
    expected = math.copysign((w + 2) * math.sqrt(w - 1), bend) if abs(bend) >= 0.01 else 0.0
    assert float(((x / x.std()) ** 3).mean()) == pytest.approx(expected, rel=0.03, abs=2e-3)


@given(bend=st.floats(-0.8, 0.8), z=st.floats(-3.5, 3.5), gain=st.floats(1e-3, 1e3))
def test_there_and_back(bend, z, gain):
    marginal, number = bent(bend, gain), torch.full((1, 1, 1, 1), z, dtype=torch.float64)
    assert float(marginal.normal(marginal.departure(number, 0), 0)) == pytest.approx(z, abs=1e-4)


@pytest.mark.parametrize("skewness", [-3.0, -0.2, 0.0, 0.5, 1.0, 3.5])
def test_the_bend_of_a_skewness_is_the_root_of_the_lognormals(skewness):
    bend = float(bend_of(torch.tensor(skewness, dtype=torch.float64)))
    w = math.exp(bend**2)
    assert (w + 2) * math.sqrt(w - 1) == pytest.approx(abs(skewness), rel=1e-9, abs=1e-9)
    assert math.copysign(1.0, bend) == math.copysign(1.0, skewness) or bend == 0


def test_rare_skewness_is_cut():
    assert float(bend_of(torch.tensor(50.0))) == pytest.approx(MOST_BEND)


def test_without_bend_it_is_a_division():
    x = torch.randn(2, 3, 4, 5)
    gain = torch.rand(2, 1, 4, 5) + 0.5
    torch.testing.assert_close(Marginal(gain).normal(x, 7), x / gain)
    torch.testing.assert_close(Marginal(gain, torch.zeros_like(gain)).normal(x, 7), x / gain)


def test_values_beyond_the_end_of_a_lognormal_stay_finite_and_in_order():
    x = torch.tensor([-1e6, -100.0, -2.0, 0.0, 100.0]).reshape(1, 5, 1, 1)
    z = bent(0.5).normal(x, 0).flatten()
    assert torch.isfinite(z).all()
    assert (z.diff() >= 0).all()
    assert float(z[0]) == pytest.approx(-4.0)


def test_each_step_has_the_marginal_of_its_season():
    marginal = Marginal(torch.arange(1.0, 13.0).reshape(1, 12, 1, 1))
    ones = torch.ones(1, 14, 1, 1)
    assert marginal.departure(ones, 12 * 2015 + 10).flatten().tolist() == [11, 12, *range(1, 13)]


def test_a_skewed_variable_needs_its_bend():
    """Mean absolute difference between the law and its model's draws, beyond that among draws: a Gaussian pays for gamma rain."""
    generator = torch.Generator().manual_seed(0)
    rain = torch._standard_gamma(torch.full((4000,), 1.2, dtype=torch.float64), generator=generator)
    x = rain - rain.mean()
    skewness = (x**3).mean() / x.std() ** 3

    def crps(draws):
        def distance(a, b):
            return (a[:, None] - b[None]).abs().mean()

        return float(distance(draws, x) - distance(draws, draws) / 2)

    z = quantiles(2001)
    gaussian = crps(Marginal(x.std().reshape(1, 1, 1, 1)).departure(z, 0).flatten())
    lognormal = crps(
        Marginal(x.std().reshape(1, 1, 1, 1), bend_of(skewness).reshape(1, 1, 1, 1)).departure(z, 0).flatten()
    )
    assert gaussian > 1.03 * crps(x)
    assert lognormal < 1.01 * crps(x)


def test_the_average_of_sources_has_their_mean_variance_and_bend():
    found = averaged([bent(0.2, 3.0), bent(0.4, 4.0)])
    assert float(found.gain) == pytest.approx(math.sqrt(12.5))
    assert float(found.bend) == pytest.approx(0.3)
    assert averaged([Marginal(torch.ones(1, 1, 1, 1))]).bend is None


def test_plain_tensors_keep_all():
    for marginal in (bent(0.3), Marginal(torch.ones(1, 1, 1, 1))):
        again = Marginal.from_dict(marginal.to_dict())
        assert torch.equal(again.gain, marginal.gain)
        assert (again.bend is None) == (marginal.bend is None)


LEVELS = torch.linspace(0.0, 4.0, 400)
RUNS = 6


def runs_that_grow(rate, seed=0):
    """Departures (var, year, season, lat, lon) of six runs with warming, their deviation 2 exp(rate (t - 2))."""
    g = torch.Generator().manual_seed(seed)
    deviation = 2 * torch.exp(rate * (LEVELS - 2)).reshape(1, -1, 1, 1, 1)
    return [[deviation * torch.randn(1, 400, 1, 4, 6, generator=g)] for _ in range(RUNS)]


@pytest.mark.parametrize("rate", [-0.2, 0.1])
def test_a_deviation_that_changes_with_warming_is_measured(rate):
    found = marginal_of(runs_that_grow(rate), [LEVELS] * RUNS)
    assert float(found.growth.mean()) == pytest.approx(rate, rel=0.15)
    assert float(found.gain.mean()) == pytest.approx(2.0, rel=0.04)
    for years in (slice(0, 40), slice(180, 220), slice(360, 400)):
        z = torch.stack([found.normal(x[0][:, years, 0], 0, LEVELS[years]) for x in runs_that_grow(rate, seed=1)])
        assert float(z.square().mean()) == pytest.approx(1.0, abs=0.08)


def test_what_two_halves_of_the_runs_do_not_agree_on_is_not_believed():
    found = marginal_of(runs_that_grow(0.0), [LEVELS] * RUNS)
    assert float(found.growth.abs().max()) < 0.02
    one = torch.randn(1, 1, 40, 60, generator=torch.Generator().manual_seed(2))
    assert float(agreement(one, one)) == pytest.approx(1.0)
    assert float(agreement(one, -one)) == 0
    assert float(agreement(one, torch.zeros(()))) == 0


def test_growth_goes_there_and_back_and_ends_where_training_did():
    growth, levels = torch.full((1, 1, 1, 1), 0.2), torch.tensor([1.0, 0.0, 3.0])
    marginal = Marginal(torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 0.3), growth, levels)
    z, level = torch.ones(1, 4, 1, 1), torch.tensor([1.0, 2.0, 3.0, 9.0])
    x = marginal.departure(z, 0, level)
    torch.testing.assert_close(marginal.normal(x, 0, level), z)
    assert float(x[0, 1] / x[0, 0]) == pytest.approx(math.exp(0.2), rel=1e-5)
    assert float(x[0, 3]) == float(x[0, 2])
    torch.testing.assert_close(Marginal.from_dict(marginal.to_dict()).departure(z, 0, level), x)


def test_without_levels_that_vary_there_is_no_growth():
    assert marginal_of(runs_that_grow(0.1), [torch.zeros(400)] * RUNS).growth is None
    still = Sums()
    still.add(torch.randn(1, 5, 1, 2, 3), torch.ones(5))
    assert float(still.growth().abs().max()) == 0
