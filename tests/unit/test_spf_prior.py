"""The Gaussian prior: it is the best linear answer in worlds of patterns and persistence, and holds what was measured."""

from dataclasses import replace

import pytest
import torch

from spf.pyramid.coupling import (
    CLASSES,
    Coupling,
    Series,
    coupling_from_dict,
    coupling_to_dict,
    follow,
    pool_blocks,
    spread_blocks,
    white_coupling,
)
from spf.pyramid.covariance import measure_coupling
from spf.pyramid.operators import block_mean, upsample
from spf.pyramid.path import path_point
from spf.pyramid.prior import Prior, rows_by_class
from spf.pyramid.regression import block_moments
from spf.pyramid.spec import PyramidSpec

DOUBLE = torch.float64
LAGS = 40


def red_noise(*shape, rho, seed):
    """Unit AR(1) along the second dimension from the left, stationary."""
    g = torch.Generator().manual_seed(seed)
    white = torch.randn(shape, generator=g, dtype=DOUBLE)
    out = [white[:, 0]]
    for i in range(1, shape[1]):
        out.append(rho * out[-1] + (1 - rho**2) ** 0.5 * white[:, i])
    return torch.stack(out, 1)


def run(stage, steps, seed):
    """Two variables that share a persistent pattern of block means; a rest in which they covary; detail; a parent."""
    _, rh, rw = stage.factors
    ratio = stage.factors[0]
    shape = torch.tensor([1.0, -1.0], dtype=DOUBLE).reshape(1, 1, 1, 2) / 2
    pattern = torch.stack([shape[0], 0.5 * shape[0]])
    series = red_noise(1, steps, rho=0.8, seed=seed)
    rest = red_noise(2, steps, 1, 2, rho=0.4, seed=seed + 1)
    rest = torch.stack([rest[0], 0.8 * rest[0] + 0.6 * rest[1]])
    coarse = 2 * series[:, :, None, None] * pattern + 0.5 * rest
    detail = red_noise(2, steps, rh, 2 * rw, rho=0.3, seed=seed + 2)
    fields = upsample(coarse, (1, rh, rw)) + detail - block_mean(detail, (1, rh, rw))
    parent = 1.3 * block_mean(coarse, (ratio, 1, 1))
    return Series(fields, upsample(parent, (1, rh, rw)), torch.arange(steps) % ratio)


@pytest.mark.parametrize(
    ("key", "phase", "length"), [("1-decade", 0, 3), ("1-year", 0, 10), ("1-year", 7, 13), ("2-month", 10, 16)]
)
def test_no_linear_answer_is_better_in_a_world_of_patterns_and_persistence(key, phase, length):
    """Windows may begin inside a block of parents and see only parts of it."""
    stage = PyramidSpec().stages()[key]
    ratio = stage.factors[0]
    series = run(stage, ratio * 4000, 5)
    prior = Prior(stage, measure_coupling([series], stage, 1, LAGS, taper=1e6))
    starts = range(phase, series.fields.shape[1] - length, 2 * ratio if ratio > 1 else 1)
    fields, parent = (torch.stack([x[:, s : s + length] for s in starts]) for x in (series.fields, series.parent))
    g = torch.Generator().manual_seed(9)
    for t in (0.1, 0.5, 0.9):
        noise = torch.randn(fields.shape, generator=g, dtype=DOUBLE)
        when = torch.full((len(fields),), t, dtype=DOUBLE)
        point = path_point(fields, parent, noise, when, stage)
        error = (prior(point.x_t, when, phase) - point.target).square().mean()
        x, y = point.x_t.flatten(1), point.target.flatten(1)
        best = (y - x @ torch.linalg.lstsq(x, y).solution).square().mean() * len(x) / (len(x) - x.shape[1])
        assert error == pytest.approx(float(best), rel=0.02)


def swing(stage, steps, seed):
    """Two patterns of block means between which a damped oscillation swings, and a rest: neither persists by itself alone."""
    g = torch.Generator().manual_seed(seed)
    turn = 0.9 * torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=DOUBLE)
    state, states = torch.zeros(2, dtype=DOUBLE), []
    for kick in torch.randn(steps, 2, generator=g, dtype=DOUBLE):
        state = turn @ state + 0.19**0.5 * kick
        states.append(state)
    patterns = torch.tensor([[[[1.0, -1.0]], [[1.0, -1.0]]], [[[1.0, 1.0]], [[-1.0, -1.0]]]], dtype=DOUBLE) / 2
    coarse = 2 * torch.einsum("tn,nvhw->vthw", torch.stack(states), patterns)
    coarse = coarse + 0.3 * torch.randn(coarse.shape, generator=g, dtype=DOUBLE)
    _, rh, rw = stage.factors
    detail = torch.randn(2, steps, rh, 2 * rw, generator=g, dtype=DOUBLE)
    fields = upsample(coarse, (1, rh, rw)) + detail - block_mean(detail, (1, rh, rw))
    parent = 1.3 * block_mean(coarse, (stage.factors[0], 1, 1))
    return Series(fields, upsample(parent, (1, rh, rw)), torch.arange(steps) % stage.factors[0])


@pytest.mark.parametrize(("key", "phase", "length"), [("1-decade", 0, 3), ("1-year", 7, 6)])
def test_what_swings_between_patterns_is_known_where_they_are_taken_together(key, phase, length):
    """The best linear answer again; patterns that are taken one by one miss it."""
    stage = PyramidSpec().stages()[key]
    ratio = stage.factors[0]
    series = swing(stage, ratio * 4000, 5)
    weights = torch.ones(1, 2, stage.factors[1], 2 * stage.factors[2], dtype=DOUBLE) * torch.tensor(
        [1.0, -1.0]
    ).reshape(1, 2, 1, 1)
    priors = [Prior(stage, measure_coupling([series], stage, 2, LAGS, 1e6, averages)) for averages in (weights, None)]
    starts = range(phase, series.fields.shape[1] - length, 2 * ratio if ratio > 1 else 1)
    fields, parent = (torch.stack([x[:, s : s + length] for s in starts]) for x in (series.fields, series.parent))
    when = torch.full((len(fields),), 0.5, dtype=DOUBLE)
    noise = torch.randn(fields.shape, generator=torch.Generator().manual_seed(9), dtype=DOUBLE)
    point = path_point(fields, parent, noise, when, stage)
    errors = [float((prior(point.x_t, when, phase) - point.target).square().mean()) for prior in priors]
    x, y = point.x_t.flatten(1), point.target.flatten(1)
    best = (y - x @ torch.linalg.lstsq(x, y).solution).square().mean() * len(x) / (len(x) - x.shape[1])
    assert errors[0] == pytest.approx(float(best), rel=0.02)
    assert errors[1] > 1.005 * errors[0]


def test_averages_are_among_the_patterns_and_leave_nothing_to_the_rest():
    stage = PyramidSpec().stages()["1-decade"]
    series = run(stage, 2000, 7)
    weights = torch.rand(1, 2, 2, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    part = measure_coupling([series], stage, 1, 8, 1e6, weights).mean
    wide = pool_blocks(weights, stage)[0]
    along = torch.einsum("vhw,nvhw->n", wide, part.patterns)
    torch.testing.assert_close(torch.einsum("n,nvhw->vhw", along, part.patterns), wide)
    average = torch.einsum("vthw,vhw->t", pool_blocks(series.fields, stage), wide)
    assert float(along @ part.together[..., 0] @ along) == pytest.approx(float(average.square().mean()), rel=1e-6)


def test_block_moments_are_those_of_the_means():
    lagged = 0.7 ** torch.arange(30, dtype=DOUBLE)
    own, mixed, above = block_moments(lagged, steps=7, ratio=5, phase=3)
    full = 0.7 ** (torch.arange(10)[:, None] - torch.arange(10)).abs().double()
    mean = torch.kron(torch.eye(2, dtype=DOUBLE), torch.full((5, 5), 0.2, dtype=DOUBLE))
    part = slice(3, 10)
    torch.testing.assert_close(own, full[part, part])
    torch.testing.assert_close(mixed, (full @ mean)[part, part])
    torch.testing.assert_close(above, (mean @ full @ mean)[part, part])


def test_what_is_measured_holds_the_variance_of_every_cell_and_step():
    stage = PyramidSpec().stages()["1-year"]
    series = run(stage, 2000, 1)
    coupling = measure_coupling([series], stage, 2, LAGS, taper=30.0)
    for part, fields in (
        (coupling.mean, pool_blocks(series.fields, stage)),
        (coupling.detail, series.fields - spread_blocks(pool_blocks(series.fields, stage), stage)),
    ):
        room = 1 - part.patterns.square().sum(0)
        rest = room * (part.axes.square() * part.rest[:, None]).sum(0)
        explained = (part.covariance[:, 0, None, None, None] * part.patterns.square()).sum(0)
        cross = fields.square().mean(1) - rest - explained
        assert cross.abs().max() < 0.02 * fields.square().mean()


def test_variables_that_covary_in_a_cell_are_known_to():
    stage = PyramidSpec().stages()["1-decade"]
    coupling = measure_coupling([run(stage, 4000, 2)], stage, 0, 8, taper=30.0)
    axes, rest = coupling.mean.axes.double(), coupling.mean.rest.double()
    covariance = torch.einsum("avhw,ahw,auhw->hwvu", axes, rest, axes)[0, 0]
    assert float(covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]).sqrt()) == pytest.approx(
        0.7 / 0.625**0.5, abs=0.05
    )


def test_patterns_are_orthonormal_and_found_with_their_persistence():
    stage = PyramidSpec().stages()["1-decade"]
    part = measure_coupling([run(stage, 6000, 3)], stage, 1, 8, taper=1e6).mean
    pattern = part.patterns.flatten()
    assert float(pattern.norm()) == pytest.approx(1, abs=1e-6)
    truth = torch.tensor([1.0, -1.0, 0.5, -0.5], dtype=DOUBLE)
    assert abs(float(pattern @ truth / truth.norm())) > 0.99
    assert float(part.covariance[0, 1] / part.covariance[0, 0]) == pytest.approx(0.75, abs=0.05)
    assert float(part.slope[0]) == pytest.approx(1.3, abs=0.02)


def test_detail_that_comes_with_a_pattern_of_the_means_is_its_companion():
    """Wherever on the grid it lies, and for the prior too: nothing of it is left to chance."""
    stage = PyramidSpec().stages()["1-decade"]
    series = run(stage, 4000, 6)
    pattern = torch.tensor([[[1.0, -1.0]], [[0.5, -0.5]]], dtype=DOUBLE)
    amplitude = torch.einsum("vthw,vhw->t", pool_blocks(series.fields, stage), pattern) / pattern.square().sum()
    shape = torch.tensor([[1.0, -1.0, 0.5, -0.5], [-1.0, 1.0, -0.5, 0.5]], dtype=DOUBLE)  # no mean in any block
    detail = 0.6 * amplitude[None, :, None, None] * shape
    before = measure_coupling([series], stage, 1, LAGS, taper=1e6)
    coupling = measure_coupling([replace(series, fields=series.fields + detail)], stage, 1, LAGS, taper=1e6)
    assert before.companions.abs().max() < 0.05
    assert float(coupling.detail.rest.mean()) == pytest.approx(float(before.detail.rest.mean()), rel=0.02)
    implied = follow(
        pool_blocks(series.fields, stage), coupling.surroundings, coupling.mean.patterns, coupling.companions, stage
    )
    assert float((implied - detail).square().mean() / detail.square().mean()) < 0.06


def test_a_coupling_travels_as_plain_data():
    stage = PyramidSpec().path("decade")[0]
    coupling = measure_coupling([run(PyramidSpec().stages()["1-decade"], 200, 4)], stage, 2, 4, taper=2.0)
    assert coupling.detail is None and coupling.mean.slope.tolist() == [0.0, 0.0]
    again = coupling_from_dict(coupling_to_dict(coupling))
    torch.testing.assert_close(again.mean.covariance, coupling.mean.covariance)
    with pytest.raises(ValueError, match="train again"):
        coupling_from_dict({"slope": torch.zeros(2)})


def test_the_answer_is_finite_where_the_state_holds_whole_parents_only():
    """At flow time 0; eigenvectors in single precision were NaN, or not found, for some of these autocorrelations."""
    stage, generator = PyramidSpec().stages()["2-month"], torch.Generator().manual_seed(0)
    white, lags = white_coupling(stage, 2, (2, 2)), torch.arange(40)
    window = torch.exp(-0.5 * (lags / 24) ** 2)
    for _ in range(150):
        rho = 0.9 * torch.rand(2, CLASSES, 1, generator=generator)
        correlation = (rho**lags + 0.02 * (lags > 0) * torch.randn(2, CLASSES, 40, generator=generator)) * window
        prior = Prior(stage, Coupling(replace(white.mean, correlation=correlation, rest_slope=torch.ones(2))))
        for phase, steps in ((10, 12), (10, 14), (11, 13)):
            x = torch.randn(1, 2, steps, 2, 2, generator=generator)
            assert torch.isfinite(prior(x, torch.zeros(1), phase)).all()


def test_a_window_has_the_answer_that_it_has_alone():
    """Whatever flow times, and however many windows, stand beside it."""
    stage = PyramidSpec().stages()["1-year"]
    prior = Prior(stage, measure_coupling([run(stage, 400, 8)], stage, 1, LAGS, taper=30.0))
    g = torch.Generator().manual_seed(1)
    x, t = torch.randn(5, 2, 13, 2, 4, generator=g, dtype=DOUBLE), torch.tensor([0.3, 0.9, 0.3, 0.0, 0.5])
    together = prior(x, t, 7)
    for i in range(5):
        torch.testing.assert_close(together[i : i + 1], prior(x[i : i + 1], t[i : i + 1], 7))


def test_rows_by_class_name_every_cell_once_and_fill_up_short_classes():
    kinds = torch.tensor([[0, 2, 2, 0, 2], [1, 1, 1, 1, 1]])
    order, inside, sets = rows_by_class(kinds)
    assert sets == [(0, 0), (0, 2), (1, 1)]
    assert sorted(order[inside].tolist()) == list(range(10))
    assert order[inside][:2].tolist() == [0, 3] and order[inside][2:5].tolist() == [1, 2, 4]
    assert len(order) == 15
