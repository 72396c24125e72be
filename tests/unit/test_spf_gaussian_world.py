"""With exact velocities the real sampler draws the exact law, through all stages, both kinds of jump, gains and weights."""

import pytest
import torch

from spf.config import StageSteps as Steps
from spf.pyramid import jump as jump_module
from spf.pyramid.spec import PyramidSpec
from spf.sampling import sampler
from spf.sampling.sampler import cascade
from worlds.gaussian import LAT, LON, ExactVelocity, make_world, noise_for, one_window_plan


def sampled_law(spec, world, timescale, n_steps=16):
    """Exact mean and covariance of what `cascade` draws: it is an affine map of its noise."""
    path = spec.path(timescale)
    noise, total = noise_for(path)
    steps = [Steps("runge_kutta", n_steps, 1.0)] * len(path)
    plan = one_window_plan(path)
    velocity = ExactVelocity(world, spec)
    x = cascade(
        spec, timescale, plan, velocity, noise, None, range(total + 1), (1, LAT, LON), steps, batch=total + 1
    ).flatten(1)  # fmt: skip
    affine = x[1:] - x[:1]
    return x[0], affine.T @ affine


def distance(spec, world, timescale, n_steps=16):
    """Relative errors of mean and covariance (Frobenius)."""
    mean, cov = sampled_law(spec, world, timescale, n_steps)
    true_mean, true_cov = world.window_law(spec.path(timescale)[-1])
    return float((mean - true_mean).norm() / true_mean.norm()), float((cov - true_cov).norm() / true_cov.norm())


@pytest.mark.parametrize("timescale", ["decade", "year", "month"])
@pytest.mark.parametrize("gains", [False, True], ids=["one scale", "per-cell gains"])
def test_the_sampler_draws_the_exact_law_of_every_timescale(timescale, gains):
    spec = PyramidSpec()
    mean_error, cov_error = distance(spec, make_world(spec, gains=gains), timescale)
    assert mean_error < 1e-10
    assert cov_error < 1e-4


def test_what_is_left_is_the_solver_error_of_fourth_order():
    spec = PyramidSpec()
    world = make_world(spec)
    coarse, fine = (distance(spec, world, "year", n)[1] for n in (8, 16))
    assert coarse / fine > 10


@pytest.mark.parametrize(
    "defect",
    [
        lambda x, stage, z: jump_module.jump(x, stage, torch.zeros_like(z)),
        lambda x, stage, z: jump_module.jump(x, stage, 1.02 * z),
        lambda x, stage, z: 1.01 * jump_module.jump(x, stage, z),
        lambda x, stage, z: (
            jump_module.jump(x, stage, z) + stage.sigma_start * jump_module.block_mean(z, stage.factors)
        ),
    ],
    ids=["no renoising", "2% too much noise", "1% too much signal", "block mean kept"],
)
def test_a_defect_in_the_jump_is_seen(monkeypatch, defect):
    spec = PyramidSpec()
    world = make_world(spec)
    monkeypatch.setattr(sampler, "jump", defect)
    mean_error, cov_error = distance(spec, world, "year")
    assert max(mean_error, cov_error) > 1e-3


OTHERS = {
    "two stages": (PyramidSpec((2, 1), (0.5, 0.0)), "year"),
    "other levels": (PyramidSpec((4, 2, 1), (0.5, 0.2, 0.0)), "year"),
    "four stages, time by 2, 5, 12": (
        PyramidSpec((4, 2, 1, 1), (0.7, 0.4, 0.2, 0.0), {"month": ("decade", "lustrum", "year", "month")}), "month",
    ),
    "time by 10, 4, 3": (
        PyramidSpec((4, 4, 2, 1), (0.7, 0.4, 0.2, 0.0), {"month": ("decade", "year", "quarter", "month")}), "month",
    ),
    "space only": (PyramidSpec(paths={"month": ("month",) * 3}), "month"),
    "one stage": (PyramidSpec((1,), (0.0,), {"year": ("year",)}), "year"),
    "space by 4 at once": (PyramidSpec((4, 1), (0.5, 0.0), {"year": ("decade", "year")}), "year"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_pyramids_are_exact_too(name):
    spec, timescale = OTHERS[name]
    mean_error, cov_error = distance(spec, make_world(spec), timescale)
    assert mean_error < 1e-10
    assert cov_error < 1e-3  # of the solver: each stage adds its share
