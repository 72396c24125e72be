"""Members are trajectories: what crosses the border of two windows, in worlds where the answer is known."""

from functools import cache

import pytest

from spf.pyramid.spec import PyramidSpec
from worlds.red_noise import DECADES, WORLDS, correlation, means, sampled_covariance, truth

PIXELS = {"pooling": (1, 1, 1)}
ALONE = PyramidSpec(halo=dict.fromkeys(("decade", "lustrum", "year", "quarter", "month"), 0), **PIXELS)
HALO = PyramidSpec(**PIXELS)


@cache
def drawn(world, with_halo):
    return sampled_covariance(HALO if with_halo else ALONE, world)


def yearly(covariance):
    return means("year") @ covariance @ means("year").T


@pytest.mark.parametrize("world", WORLDS)
def test_windows_alone_keep_their_own_law_and_lose_what_crosses_their_borders(world):
    found, true = drawn(world, False), truth(world)
    for year in range(0, 120 * DECADES, 12):
        window = slice(year, year + 12)
        assert (found - true)[window, window].abs().max() < 1e-3
    assert abs(correlation(yearly(found), 10, 10)) < 0.01  # across decades
    assert correlation(found, 12, 12) < 0.25 * correlation(true, 12, 12)  # December to January


@pytest.mark.parametrize("world", WORLDS)
def test_with_halos_december_and_january_belong_together(world):
    found, true = drawn(world, True), truth(world)
    assert correlation(found, 12, 12) == pytest.approx(correlation(true, 12, 12), abs=0.01)
    assert correlation(found, 120, 120) == pytest.approx(correlation(true, 120, 120), abs=0.01)  # and across decades


@pytest.mark.parametrize("world", WORLDS)
def test_with_halos_years_persist_across_decades_as_within(world):
    found, true = yearly(drawn(world, True)), yearly(truth(world))
    assert correlation(found, 10, 10) == pytest.approx(correlation(true, 10, 10), abs=0.06)
    assert correlation(found, 1, 1) == pytest.approx(correlation(true, 1, 1), abs=0.04)


@pytest.mark.parametrize("world", WORLDS)
def test_halos_cost_little_of_a_windows_own_law(world):
    found, true = drawn(world, True), truth(world)
    errors = [
        (found - true)[m : m + 12, m : m + 12].norm() / true[m : m + 12, m : m + 12].norm()
        for m in range(0, 120 * DECADES, 12)
    ]
    assert sum(errors) / len(errors) < 0.03
    assert (yearly(found).trace() / yearly(true).trace()).sqrt() == pytest.approx(1.0, abs=0.012)
