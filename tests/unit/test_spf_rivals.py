"""Autoregressive pyramidal flow: exact persistence in a Gaussian world, clean history in training, trajectories of an emulator."""

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from climatesuite.errors import DataContractError
from spf.codec import FieldCodec
from spf.commands.ensemble import predict_minutes, write_ensemble
from spf.config import RunConfig, SamplingConfig, StageSteps
from spf.learning.data import Windows, WindowStream
from spf.learning.measure import measure_couplings, measure_marginals
from spf.network.backbone import Backbone
from spf.plain import from_dict, to_dict
from spf.pyramid.coupling import CLASSES, white_coupling
from spf.pyramid.marginals import Marginal
from spf.pyramid.path import noise_fall
from spf.pyramid.prior import Prior
from spf.pyramid.spec import PyramidSpec
from spf.pyramid.windows import Segment, january
from spf.rivals.autoregressive import (
    Scales,
    StepBackbone,
    StepEmulator,
    StepStream,
    draw_autoregressive,
    train_autoregressive,
)
from spf.rivals.history import HistoryPrior, next_step, predictor
from spf.sampling.emulator import Emulator
from worlds import tiny
from worlds.gaussian import UnitNoise

DOUBLE = torch.float64
KNOWN = {
    "source_id": "TINY", "license": "CC0", "training_members": {"low": ["r1i1p1f1"]}, "training_years": [2015, 2044],
    "version": "0", "torch": "2", "hardware": "none",
}  # fmt: skip
FAST = SamplingConfig(n_steps=1, solver="euler", seed=5)


def space_only(window=4, timescales=("year", "month")):
    return PyramidSpec(
        paths={t: (t,) * 3 for t in timescales},
        core=dict.fromkeys(timescales, window),
        halo=dict.fromkeys(timescales, 0),
    )


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# An exact world


def ar1_coupling(stage, rho, lags=8):
    """Of fields that are white in space with unit variance on every grid, and AR(1) in time."""
    coupling, (_, rh, rw) = white_coupling(stage, 1, (4 // stage.pooling, 4 // stage.pooling)), stage.factors
    correlation = (rho ** torch.arange(lags, dtype=DOUBLE)).expand(1, CLASSES, lags)
    share, slope = 1 / (rh * rw), (rh * rw) ** 0.5 if stage.index else 0.0
    mean = replace(
        coupling.mean, rest=coupling.mean.rest * share, correlation=correlation, rest_slope=torch.tensor([slope])
    )
    if coupling.detail is None:
        return replace(coupling, mean=mean)
    return replace(
        coupling,
        mean=mean,
        detail=replace(coupling.detail, rest=coupling.detail.rest * (1 - share), correlation=correlation),
    )


def drawn_covariance(rho, window, timescale="year", steps=4):
    """Covariance (step, cell, step, cell) of what is drawn with the exact conditional velocity, an affine map of the noise."""
    spec = space_only(window)
    priors = {s.key: HistoryPrior(s, ar1_coupling(s, rho)) for s in spec.path(timescale)}
    gains = {
        s.key: Marginal(torch.full((1, 1, 4 // s.pooling, 4 // s.pooling), 3.0 / s.pooling))
        for s in spec.path(timescale)
    }
    unit, offsets, total = {"year": 10, "month": 12}[timescale], {}, 0
    for s in spec.path(timescale):
        offsets[s.key, 2000] = total
        total += unit * (4 // s.pooling) ** 2
    months = {"year": 12, "month": 1}[timescale]
    x = draw_autoregressive(
        spec, timescale, Segment(january(2000), steps, months, january(2000)),
        lambda x, t, stage, condition: noise_fall(stage) * priors[stage.key](x, t), UnitNoise(offsets), None,
        Scales(gains, torch.ones(4)), range(total + 1), (1, 4, 4), [StageSteps("runge_kutta", 8, 1.0)] * 3,
    ).flatten(1)  # fmt: skip
    affine = x[1:] - x[:1]
    assert float(x[0].abs().max()) == 0
    return (affine.T @ affine).reshape(steps, 16, steps, 16)


@pytest.mark.parametrize(("timescale", "window"), [("year", 2), ("year", 3), ("month", 2)])
def test_with_the_exact_velocity_an_ar1_world_keeps_its_variance_and_persistence(timescale, window):
    steps = torch.arange(4)
    exact = torch.einsum("ij,ab->iajb", 0.8 ** (steps[:, None] - steps).abs().to(DOUBLE), torch.eye(16, dtype=DOUBLE))
    torch.testing.assert_close(drawn_covariance(0.8, window, timescale), exact, rtol=0, atol=1e-3)


def test_without_history_steps_are_independent():
    found = drawn_covariance(0.8, window=1)
    assert float(found[1, :, 0].abs().max()) < 1e-9
    torch.testing.assert_close(found[1, :, 1], torch.eye(16, dtype=DOUBLE), rtol=0, atol=1e-3)


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("key", ["0-year", "2-year"])
def test_the_next_step_is_the_regression_on_state_and_history(key, before):
    """Against the covariance of target, state and history written out."""
    stage, slope, noise = space_only().stages()[key], 1.7, 0.25
    slope = slope if stage.index else 0.0
    lagged = 2.5 * (0.6 * 0.9 ** torch.arange(6, dtype=DOUBLE) + 0.4 * (torch.arange(6) == 0))
    place = torch.arange(before + 1)
    clean = lagged[(place[:, None] - place).abs()]
    for time in (0.0, 0.4, 0.95):
        level = (1 - time) * stage.sigma_start + time * stage.sigma_end
        a = time * (1 - stage.sigma_end) + (1 - time) * (1 - stage.sigma_start) * slope
        b = (1 - stage.sigma_end - (1 - stage.sigma_start) * slope) / noise_fall(stage)
        scale = torch.ones(before + 1, dtype=DOUBLE)
        scale[-1] = a
        seen, across = scale[:, None] * clean * scale, b * clean[-1] * scale
        seen[-1, -1] += noise * level**2
        across[-1] -= noise * level
        x = randn(5, before + 1)
        expected = x @ torch.linalg.solve(seen, across)
        weights, left = predictor(lagged, before)
        when = torch.full((5,), time, dtype=DOUBLE)
        found, value = next_step(x, weights, left, torch.tensor(slope), noise, when, stage)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        clear = x @ torch.linalg.solve(seen, clean[-1] * scale)
        torch.testing.assert_close(value, clear, rtol=1e-4, atol=1e-4)


# A tiny world


@pytest.fixture(scope="module")
def config():
    content = to_dict(tiny.config(max_steps=3))
    pyramid = space_only()
    content["pyramid"] |= {"paths": dict(pyramid.paths), "core": pyramid.core, "halo": pyramid.halo}
    content["sampling"]["members"] = {scale: 8 for scale in pyramid.timescales}
    return from_dict(RunConfig, content)


@pytest.fixture(scope="module")
def world():
    return tiny.learned()


@pytest.fixture(scope="module")
def windows(config, world):
    rows = world[0].grid.row_weights()
    return Windows(config.pyramid, rows, measure_marginals(world[1], config.pyramid, rows, growth=False))


@pytest.fixture(scope="module")
def checkpoint(config, world, tmp_path_factory):
    config = replace(config, data=replace(config.data, growth=False))
    return train_autoregressive(config, *world, KNOWN, tmp_path_factory.mktemp("steps"), progress=False)


@pytest.fixture(scope="module")
def emulator(checkpoint):
    return StepEmulator.load(checkpoint)


@pytest.fixture(scope="module")
def forcings():
    return tiny.forcings()


def test_a_window_of_one_step_has_the_prior_of_the_pyramid(config, world, windows):
    couplings = measure_couplings(world[1], windows)
    t = torch.tensor([0.1, 0.6])
    for key, stage in config.pyramid.stages().items():
        x = randn(2, 2, 1, 8 // stage.pooling, 12 // stage.pooling).float()
        alone, both = (kind(stage, couplings[key])(x, t) for kind in (HistoryPrior, Prior))
        torch.testing.assert_close(
            alone, both, rtol=2e-2, atol=2e-2
        )  # the pyramid's knows how uncertain block means are


def test_history_is_clean_and_of_the_same_run_and_only_the_last_step_is_learned(world, windows):
    runs = world[1][:1]
    stream = StepStream(runs, windows, (1, 1, 1), 512, seed=3)
    lengths = set()
    for number in range(40):
        batch = stream.batch(number)
        stage = windows.spec.stages()[batch.stage]
        lengths.add(batch.x_t.shape[2])
        assert batch.target.shape[2] == 1
        assert batch.forcings.shape[2] == batch.calendar.shape[1] == batch.x_t.shape[2]
        everything, _ = windows.fields(runs[0], stage, january(2015), 30 * 12 // stage.months, january(2015))
        for row, history in enumerate(batch.x_t[:, :, :-1] if batch.x_t.shape[2] > 1 else ()):
            n = history.shape[1]
            stretches = everything.unfold(1, n, 1).movedim(-1, 2)  # (var, place, step, lat, lon)
            distance = (stretches - history[:, None]).abs().amax((0, 2, 3, 4))
            assert float(distance.min()) < 1e-4
            if stage.timescale == "month":
                assert batch.calendar[row, 0] == int(distance.argmin()) % 12 + 1
    assert {1, 4} <= lengths <= {1, 2, 3, 4}


@pytest.mark.parametrize("key", ["0-year", "1-month", "2-month"])
def test_what_is_drawn_becomes_history_as_it_was_in_training(world, windows, key):
    stage, run = windows.spec.stages()[key], world[1][0]
    scales = Scales(windows.marginals, windows.row_weights)
    for start in (january(2017), january(2020) + (5 if stage.months == 1 else 0)):
        last = windows.spec.path(stage.timescale)[-1]
        clean = windows.fields(run, last, start, 1, start)[0][None]
        departures = scales.departures(clean, last, start)
        torch.testing.assert_close(departures[0], run.fields(stage.timescale, start, 1), rtol=1e-4, atol=1e-5)
        found = scales.normalised(departures, stage, start)[0]
        torch.testing.assert_close(found, windows.fields(run, stage, start, 1, start)[0], rtol=1e-4, atol=1e-5)


def test_the_same_number_gives_the_same_batch_and_another_stream_has_other_targets(world, windows):
    first, again = (StepStream(world[1], windows, (1, 1, 1), 512, seed=3).batch(7) for _ in range(2))
    torch.testing.assert_close(first.x_t, again.x_t, rtol=0, atol=0)
    assert WindowStream(world[1], windows, (1, 1, 1), 512, seed=3).batch(7).target.shape != first.target.shape


def test_the_network_sees_history_beyond_the_prior(config, emulator):
    stage, net = config.pyramid.stages()["2-year"], copy.deepcopy(emulator.backbone)
    torch.manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 4, 8, 12, generator=generator)
    condition = emulator.calls(tiny.forcings(), "year")[-1][3]
    other = x.clone()
    other[:, :, 0] += 1
    t = torch.full((1,), 0.5)
    with torch.no_grad():
        change = net(other, t, stage, condition) - net(x, t, stage, condition)
        prior = net.priors[stage.key](other, t) - net.priors[stage.key](x, t)
        answer = Backbone._corrections(net, [(x, t, stage, condition)])[0][:, :, -1:]
        torch.testing.assert_close(net(x, t, stage, condition), net.priors[stage.key](x, t) + answer)
    assert change.shape[2] == 1
    assert float((change - prior).abs().max()) > 1e-3


@pytest.mark.parametrize(("timescale", "first", "last"), [("year", 2034, 2036), ("month", 2015, 2016)])
def test_members_and_years_do_not_depend_on_what_is_drawn_beside_them(emulator, forcings, timescale, first, last):
    both = emulator.sample(forcings, timescale, [0, 3], (first, last), sampling=FAST)
    alone = emulator.sample(forcings, timescale, [3], (last, last), sampling=FAST)
    assert np.isfinite(both.tas.values).all()
    np.testing.assert_allclose(
        alone.tas.sel(member=3).values, both.tas.sel(member=3, time=both.year == last).values, rtol=0, atol=1e-3
    )
    assert float(np.abs(both.tas.sel(member=0).values - both.tas.sel(member=3).values).max()) > 0.1


def test_almost_untrained_it_has_the_spread_of_the_world(emulator, forcings):
    drawn = emulator.sample(
        forcings, "year", 12, (2015, 2018), seed=1, sampling=replace(FAST, n_steps=3, solver="midpoint")
    )
    truth = tiny.scenario("mid", members=30, seed=9)
    yearly = (truth.tas * truth.days).groupby(truth.year).sum() / truth.days.groupby(truth.year).sum()
    ours, theirs = drawn.tas.std("member").mean().item(), yearly.std("member").mean().item()
    assert ours == pytest.approx(theirs, rel=0.2)


def test_what_a_member_costs_is_what_it_calls(emulator, forcings, tmp_path):
    how, told = replace(FAST, n_steps=2), []
    years = (2015, 2019)
    list(emulator.draw(forcings, "year", [0, 1], years, sampling=how, on_step=told.append))
    assert sum(told) == 2 * emulator.windows_per_member(forcings, "year", years, how)
    assert len(told) == emulator.serial_calls(forcings, "year", years, how) == 5 * 3 * 2
    assert sorted({shape[1] for _, _, shape, _ in emulator.calls(forcings, "year", years, how)}) == [1, 2, 3, 4]
    assert predict_minutes(emulator, forcings, "year", 2, years, how) > 0
    write_ensemble(emulator, forcings, "year", 2, years, how, tmp_path / "steps.nc", progress=False)
    import netCDF4

    with netCDF4.Dataset(tmp_path / "steps.nc") as file:
        assert "one after another" in file.comment


def test_a_pyramid_that_refines_time_is_refused(config):
    spec = PyramidSpec()
    couplings = {k: white_coupling(s, 2, (8 // s.pooling, 12 // s.pooling)) for k, s in spec.stages().items()}
    with pytest.raises(ValueError, match="autoregressive: stage 1-year refines time"):
        StepBackbone(config.network, spec, couplings, [0.0] * 8, [0.0] * 12, 2, 2)


def test_each_kind_of_emulator_reads_its_own_checkpoints_only(checkpoint):
    with pytest.raises(ValueError, match="its network is autoregressive, not pyramid"):
        Emulator.load(checkpoint)


# Forcings on their own grid


def test_forcings_keep_their_grid_whatever_the_stages(world):
    codec, runs = world
    spec = PyramidSpec(pooling=(1,), sigma_end=(0.0,), paths={"year": ("year",)}, halo={"year": 0})
    rows = codec.grid.row_weights()
    couplings = measure_couplings(runs, Windows(spec, rows, measure_marginals(runs, spec, rows)))
    size = replace(tiny.config().network, patch=4)
    net = Backbone(size, spec, couplings, codec.grid.lat, codec.grid.lon, 2, 2)
    assert runs[0].forcing.years.shape[-2:] == (2, 3)
    assert len(net.place) == 6 == len(net.place_0)


def test_blocks_of_forcings_that_do_not_tile_the_grid_are_refused():
    with pytest.raises(DataContractError, match="a grid of 8x12 cells.*blocks of 5 to tile it.*data.forcing_pooling"):
        FieldCodec.fit({"low": tiny.scenario("low", members=1)}, ("tas",), ("CO2",), 5)
    with pytest.raises(ValueError, match="data.forcing_pooling 0 must be at least 1"):
        replace(tiny.config().data, forcing_pooling=0)


# The comparisons of experiments/comparisons.py


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).resolve().parents[2] / "experiments" / "comparisons.py"
    found = importlib.util.spec_from_file_location("comparisons", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_all_comparisons_have_one_data_set_one_budget_and_as_many_network_calls_for_a_window(script):
    configs = {name: script.experiment(name, None) for name in (*script.DRAWN, *script.DETERMINISTIC)}
    assert {path.stem for path in script.FILES.glob("*.yaml")} == set(script.DRAWN)
    base = configs["spf"]
    assert (
        base.training.max_steps < type(base.training).max_steps
    )  # steps and not minutes, or a busy machine would decide
    for name, config in configs.items():
        assert config.name == name
        assert replace(config.data, response="auto", growth=True) == base.data
        learned = (
            config.training
            if name != "untrained"
            else replace(config.training, max_steps=base.training.max_steps, learning_rate=6e-4)
        )
        assert replace(learned, times=base.training.times) == base.training
        assert replace(config.network, patch=6, attention="joint") == replace(base.network, patch=6)
        stages = len(config.pyramid.pooling)
        assert sum(how.n_steps for how in config.sampling.steps(stages)) == 12
        assert set(config.sampling.members) <= set(config.pyramid.timescales)


def test_another_scenario_can_be_tested_and_then_the_old_one_trains(script):
    config = script.experiment("one-stage", "ssp126")
    assert list(config.data.test) == ["ssp126"] and sorted(config.data.train) == ["ssp370", "ssp585"]
    assert config.data.train["ssp370"] == ("r4i1p1f1", "r10i1p1f1")
    with pytest.raises(ValueError, match="--test ssp245: spf has ssp126, ssp585, ssp370 only"):
        script.experiment("spf", "ssp245")


def test_the_table_holds_what_was_scored_and_dashes_elsewhere(script):
    row = {"variable": "tas", "timescale": "year", "period": "headline", "crps_ratio": 1.2345}
    result = {
        "rows": [row, {**row, "variable": "pr", "period": "full"}], "parameters": 8_123_456, "steps": 77,
        "cost": {"decade": {"serial_calls": 5}, "year": {"serial_calls": 24, "tflop": 0.5}},
        "seconds_per_member": {"decade": 3.0, "year": 0.25},
    }  # fmt: skip
    line = script.table({"spf": result}).splitlines()[-1]
    assert line == "| spf | – | – | 1.234 | – | – | – | 8.12M | 77 | years | 24 | 0.50 | 0.25 |"


def test_results_are_kept_by_scenario_and_name(script, tmp_path):
    for test, name in (("ssp370", "spf"), ("ssp126", "spf"), ("ssp370", "unet")):
        script.keep(test, name, {"steps": len(name)}, tmp_path / "out.json")
    found = script.kept(tmp_path / "out.json")
    assert {test: list(by) for test, by in found.items()} == {"ssp370": ["spf", "unet"], "ssp126": ["spf"]}
    assert found["ssp370"]["unet"]["command"] == "python experiments/comparisons.py --test ssp370 --only unet"
    assert len(found["ssp370"]["spf"]["commit"]) == 40
