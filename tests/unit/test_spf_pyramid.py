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
from spf.pyramid.prior import Prior, coupling_from_dict, coupling_to_dict, measure_coupling
from spf.pyramid.spec import PyramidSpec, start_level

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


def patterned_samples(stage, n=6000):
    """Fields of rank-one plus white block means and white detail; parents hang on the block means alone."""
    g = torch.Generator().manual_seed(3)
    rt, rh, rw = stage.factors
    shape = torch.linspace(-1, 1, 6, dtype=DOUBLE).reshape(1, 1, 1, 2, 3)
    shape = shape / shape.norm()
    coarse = 1.5 * torch.randn(n, 1, 1, 1, 1, generator=g, dtype=DOUBLE) * shape
    coarse = coarse + 0.5 * torch.randn(n, 1, 1, 2, 3, generator=g, dtype=DOUBLE)
    detail = torch.randn(n, 1, rt, 2 * rh, 3 * rw, generator=g, dtype=DOUBLE)
    fields = upsample(coarse, stage.factors) + detail - block_mean(detail, stage.factors)
    return fields, 1.3 * upsample(coarse, stage.factors)


@pytest.mark.parametrize("key", ["1-decade", "2-month"])
def test_the_prior_is_the_regression_of_the_target_on_the_state_in_a_patterned_world(key):
    """Compared with least squares on samples: the prior explains as much, to within the error of the samples."""
    stage = PyramidSpec().stages()[key]
    fields, parent = patterned_samples(stage)
    prior = Prior(stage, measure_coupling(fields, parent, stage, n_modes=1))
    for t in (0.1, 0.5, 0.9):
        noise = randn(*fields.shape, seed=11)
        point = path_point(fields, parent, noise, torch.full((len(fields),), t, dtype=DOUBLE), stage)
        error = (prior(point.x_t, torch.full((len(fields),), t)) - point.target).square().mean()
        x, y = point.x_t.flatten(1), point.target.flatten(1)
        best = (y - x @ torch.linalg.lstsq(x, y).solution).square().mean() * len(x) / (len(x) - x.shape[1])
        assert error == pytest.approx(float(best), rel=0.02)


def test_stage_zero_has_patterns_but_no_parent():
    stage = PyramidSpec().path("decade")[0]
    fields = randn(400, 2, 1, 4, 6)
    coupling = measure_coupling(fields, torch.zeros_like(fields), stage, 3)
    assert coupling.slope.tolist() == [0.0, 0.0]
    assert coupling.mean.patterns.shape == (2, 3, 4, 6)
    again = coupling_from_dict(coupling_to_dict(coupling))
    torch.testing.assert_close(again.mean.patterns, coupling.mean.patterns)
    total = (coupling.mean.variance[..., None, None] * coupling.mean.patterns**2).sum(1) + coupling.mean.rest
    torch.testing.assert_close(total, fields.square().mean((0, 2)), rtol=1e-6, atol=1e-6)


def test_patterns_are_orthonormal_and_found():
    stage = PyramidSpec().stages()["1-decade"]
    fields, parent = patterned_samples(stage)
    modes = measure_coupling(fields, parent, stage, 1).mean
    pattern = modes.patterns.flatten()
    assert float(pattern.norm()) == pytest.approx(1, abs=1e-6)
    shape = torch.linspace(-1, 1, 6, dtype=DOUBLE)
    assert abs(float(pattern @ (shape / shape.norm()))) > 0.99
    assert float(modes.variance) == pytest.approx(1.5**2 + 0.25, rel=0.08)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (((4, 2), (0.5, 0.2, 0.0)), "give one level a stage"),
        (((4, 3, 1), (0.6, 0.3, 0.0)), "each factor must divide"),
        (((4, 2, 1), (0.3, 0.6, 0.0)), "levels must fall"),
        (((4, 2, 1), (0.6, 0.3, 0.1)), "exactly 0"),
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
