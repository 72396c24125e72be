"""The algebra of the pyramid: operators, levels, paths, jumps, noise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spf.pyramid.jump import jump
from spf.pyramid.noise import SeededNoise
from spf.pyramid.operators import block_mean, pool_rows, pool_space, pool_time, upsample
from spf.pyramid.path import endpoints, noise_fall, noise_level, path_point
from spf.pyramid.spec import MONTHS_IN, PyramidSpec, start_level

FACTORS = [(1, 2, 2), (10, 1, 1), (12, 1, 1), (10, 2, 2), (12, 2, 2)]
DOUBLE = torch.float64


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4]))
@settings(max_examples=25, deadline=None)
def test_pooling_undoes_upsampling_for_any_weights(seed, factor):
    x = randn(2, 3, 2, 3, seed=seed)
    rows = torch.rand(2 * factor, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE) + 0.1
    torch.testing.assert_close(pool_space(upsample(x, (1, factor, factor)), factor, rows), x)


def test_pooling_twice_with_summed_weights_is_pooling_once():
    x, rows = randn(3, 2, 8, 12), torch.rand(8, dtype=DOUBLE) + 0.1
    twice = pool_space(pool_space(x, 2, rows), 2, pool_rows(rows, 2))
    torch.testing.assert_close(twice, pool_space(x, 4, rows))


def test_pooling_keeps_the_weighted_mean_and_constants_and_rolls_with_longitude():
    x, rows = randn(1, 1, 8, 12), torch.rand(8, dtype=DOUBLE) + 0.1
    pooled, pooled_rows = pool_space(x, 2, rows), pool_rows(rows, 2)
    mean = lambda f, w: (f.mean(-1) * w).sum() / w.sum()  # noqa: E731
    torch.testing.assert_close(mean(x, rows), mean(pooled, pooled_rows))
    torch.testing.assert_close(
        pool_space(torch.full_like(x, 3.0), 4, rows), torch.full((1, 1, 2, 3), 3.0, dtype=DOUBLE)
    )
    torch.testing.assert_close(pool_space(x.roll(2, -1), 2, rows), pooled.roll(1, -1))


def test_a_noleap_year_weighs_february_28_of_365():
    days = torch.tensor([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=DOUBLE)
    month = torch.arange(1, 13, dtype=DOUBLE).reshape(12, 1, 1)
    assert pool_time(month, 12, days).item() == pytest.approx(2382 / 365, abs=1e-12)
    assert pool_time(month, 12, torch.full((12,), 30.0, dtype=DOUBLE)).item() == pytest.approx(6.5)


@pytest.mark.parametrize("factors", FACTORS)
def test_block_mean_is_an_unweighted_projection_and_what_it_leaves_has_no_block_mean(factors):
    z = randn(2, 1, 2 * factors[0], 4, 6)
    mean = block_mean(z, factors)
    torch.testing.assert_close(block_mean(mean, factors), mean)
    assert block_mean(z - mean, factors).abs().max() < 1e-12


def test_centred_noise_has_the_variance_and_covariance_of_its_block():
    z = randn(40_000, 1, 1, 2, 2)
    left = (z - block_mean(z, (1, 2, 2))).flatten(1)
    cov = left.T @ left / len(left)
    expected = torch.full((4, 4), -1 / 4, dtype=DOUBLE) + torch.eye(4, dtype=DOUBLE)
    assert (cov - expected).abs().max() < 5 / math.sqrt(len(left))


@pytest.mark.parametrize("n", [1, 4, 10, 12, 40, 48])
@pytest.mark.parametrize("sigma", [0.2, 1 / 3, 0.4, 2 / 3, 0.8])
def test_the_jump_keeps_signal_and_noise_coefficients(n, sigma):
    """gain x (1 - sigma) = 1 - sigma' and gain^2 sigma^2 11' + sigma'^2 (I - 11'/n) = sigma'^2 I."""
    start = start_level(sigma, n)
    gain = start / (sigma * math.sqrt(n))
    ones, eye = torch.ones(n, n, dtype=DOUBLE), torch.eye(n, dtype=DOUBLE)
    assert gain * (1 - sigma) == pytest.approx(1 - start, abs=1e-12)
    cov = gain**2 * sigma**2 * ones + start**2 * (eye - ones / n)
    torch.testing.assert_close(cov, start**2 * eye, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("n", "end", "signal"), [(4, 2 / 3, 0.2), (40, 2 / 3, 0.07326), (4, 1 / 3, 0.5), (48, 1 / 3, 0.22401)]
)
def test_start_levels_are_those_of_the_specification(n, end, signal):
    assert 1 - start_level(end, n) == pytest.approx(signal, abs=1e-5)


def test_the_three_paths_refine_time_as_early_as_they_can():
    spec = PyramidSpec()
    walk = {t: [(s.timescale, s.block_size) for s in spec.path(t)] for t in ("decade", "year", "month")}
    assert walk["decade"] == [("decade", 1), ("decade", 4), ("decade", 4)]
    assert walk["year"] == [("decade", 1), ("year", 40), ("year", 4)]
    assert walk["month"] == [("decade", 1), ("year", 40), ("month", 48)]
    assert list(spec.stages()) == ["0-decade", "1-decade", "2-decade", "1-year", "2-year", "2-month"]


def test_time_may_refine_by_any_factors_that_divide():
    spec = PyramidSpec((6, 2, 1, 1), (0.7, 0.4, 0.2, 0.0), {"month": ("decade", "lustrum", "year", "month")})
    assert [s.factors for s in spec.path("month")] == [(1, 1, 1), (2, 3, 3), (5, 2, 2), (12, 1, 1)]
    assert spec.timescales == ("month",)
    with pytest.raises(ValueError, match="has paths to month only"):
        spec.path("year")
    for scale, months in MONTHS_IN.items():
        assert 120 % months == 0, scale


def test_one_stage_and_space_only_pyramids_are_paths_too():
    one = PyramidSpec((1,), (0.0,), {"year": ("year",), "month": ("month",)})
    assert [list(one.path(t)) for t in one.timescales] == [[one.stages()["0-year"]], [one.stages()["0-month"]]]
    space = PyramidSpec(paths={"year": ("year",) * 3, "month": ("month",) * 3})
    assert {s.block_size for t in space.timescales for s in space.path(t)[1:]} == {4}


def test_a_simulated_jump_has_the_promised_conditional_law():
    stage = PyramidSpec((2, 1), (0.5, 0.0)).path("decade")[1]
    clean, draws = randn(1, 1, 1, 2, 2), 60_000
    coarse = 0.5 * clean + 0.5 * randn(draws, 1, 1, 2, 2, seed=1)
    x = jump(coarse, stage, randn(draws, 1, 1, 4, 4, seed=2)).flatten(1)
    mean = (1 - stage.sigma_start) * upsample(clean, (1, 2, 2)).flatten()
    bound = 5 / math.sqrt(draws)
    assert (x.mean(0) - mean).abs().max() < bound
    assert (torch.cov(x.T) - stage.sigma_start**2 * torch.eye(16, dtype=DOUBLE)).abs().max() < bound


def test_stage_zero_is_not_jumped_into():
    with pytest.raises(ValueError, match="stage 0 is entered from noise"):
        jump(randn(1, 1, 1, 2, 2), PyramidSpec().path("decade")[0], randn(1, 1, 1, 2, 2))


@pytest.mark.parametrize("timescale", ["decade", "year", "month"])
def test_a_path_begins_in_noisy_parents_and_ends_in_less_noisy_fields(timescale):
    for stage in PyramidSpec().path(timescale):
        fields, parent, noise = (randn(2, 1, 2, 4, 4, seed=s) for s in range(3))
        start, end = endpoints(fields, parent, noise, stage)
        at = lambda t: path_point(fields, parent, noise, torch.full((2,), t, dtype=DOUBLE), stage)  # noqa: E731, B023
        torch.testing.assert_close(at(0.0).x_t, start)
        torch.testing.assert_close(at(1.0).x_t, end)
        torch.testing.assert_close((at(0.75).x_t - at(0.25).x_t) / 0.5, noise_fall(stage) * at(0.3).target)
        assert noise_level(torch.tensor(1.0), stage) == pytest.approx(stage.sigma_end)
        if stage.index == 0:
            torch.testing.assert_close(start, noise)
    torch.testing.assert_close(end, fields)


def test_noise_belongs_to_member_window_stage_and_seed():
    stage, other = PyramidSpec().path("year")[1:]
    noise = SeededNoise(7)
    together = noise((1, 2, 3), stage, [(0, 2015), (1, 2015), (1, 2025)])
    torch.testing.assert_close(together[1:2], noise((1, 2, 3), stage, [(1, 2015)]), rtol=0, atol=0)
    for different in (
        noise((1, 2, 3), other, [(0, 2015)]),
        SeededNoise(8)((1, 2, 3), stage, [(0, 2015)]),
        together[1:2],
    ):
        assert (different - together[:1]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (((4, 2), (0.5, 0.2, 0.0)), "give one level a stage"),
        (((4, 3, 1), (0.6, 0.3, 0.0)), "each factor must divide"),
        (((4, 2, 1), (0.3, 0.6, 0.0)), "levels must fall"),
        (((4, 2, 1), (0.6, 0.3, 0.1)), "exactly 0"),
        (((2, 1), (0.5, 0.0), {"year": ("decade", "month")}), "ends in year"),
        (((2, 1), (0.5, 0.0), {"year": ("week", "year")}), "'week' is unknown"),
        (((2, 1), (0.5, 0.0), {"year": ("month", "year")}), "never coarsens"),
        (((2, 1), (0.5, 0.0), {"quarter": ("year", "quarter")}), "cannot be sampled"),
        (((2, 1), (0.5, 0.0), {"month": ("year", "month"), "year": ("decade", "month")}), "ends in year"),
        (
            ((1, 1, 1), (0.6, 0.3, 0.0), {"year": ("decade", "year", "year"), "month": ("year", "year", "month")}),
            "one parent",
        ),
    ],
)
def test_a_pyramid_that_does_not_refine_is_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        PyramidSpec(*settings_)


def test_a_grid_that_cannot_be_pooled_is_refused():
    with pytest.raises(ValueError, match=r"grid 96x145 cannot be pooled by 4: 145 \(lon\)"):
        PyramidSpec().check_grid(96, 145)


def test_an_unknown_timescale_is_refused():
    with pytest.raises(ValueError, match="'day' is unknown; expected one of decade, year, month"):
        PyramidSpec().path("day")
