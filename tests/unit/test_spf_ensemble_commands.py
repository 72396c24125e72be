"""`spf sample` with a checkpoint: processes, tasks, several scenarios, steps and solvers."""

import os
import pickle
import subprocess
import sys
import time
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest
import torch

from climatesuite.errors import DataContractError
from climatesuite.export import open_ensemble
from spf.__main__ import main as spf
from spf.codec import FieldCodec
from spf.commands import ensemble as ensemble_module
from spf.commands.ensemble import predict_minutes, write_ensemble
from spf.commands.sample import changed, targets
from spf.commands.spread import Order, draw_members, prepare, publish
from spf.config import SamplingConfig
from spf.learning.data import open_training_runs
from spf.learning.learn import learn
from spf.plain import from_dict, to_dict
from spf.pyramid.noise import SeededNoise
from spf.pyramid.spec import PyramidSpec
from spf.sampling.emulator import Emulator
from spf.sampling.plan import plan_windows
from spf.sampling.sampler import cascade
from worlds import tiny
from worlds.fake_emulator import FORCINGS, ROOT, YEARS, Fake, names, same

# With a checkpoint


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint and forcing files of two scenarios."""
    base = tmp_path_factory.mktemp("run")
    scenarios = {e: tiny.scenario(e) for e in ("low", "high")}
    config = tiny.config(max_steps=2)
    codec = FieldCodec.fit(scenarios, config.data.variables, config.data.forcings, 4)
    learn(config, codec, open_training_runs(scenarios, codec), Fake.provenance, base, progress=False)
    for name in ("low", "mid"):
        ds = tiny.scenario(name, 1)[["CO2", "SO2"]].isel(time=slice(None, None, 12))
        ds = ds.assign_coords(time=ds.year.values).rename(lat="latitude", lon="longitude")
        ds.drop_vars(["year", "month", "days"]).to_netcdf(base / f"inputs_{name}.nc")
    return base


OPTIONS = ["--timescale", "decade", "--members", "5", "--seed", "3", "--steps", "1"]


def sample(files, *more):
    return ["sample", str(files / "emulator.pt"), *map(str, more), *OPTIONS]


def test_two_processes_write_what_one_writes_bit_for_bit(files, tmp_path):
    path = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    line = [sys.executable, "-m", "spf", *sample(files, files / "inputs_mid.nc", "--out", tmp_path / "two.zarr")]
    running = [
        subprocess.Popen(line, env={**path, "RANK": r, "LOCAL_RANK": r}, stderr=subprocess.PIPE, text=True)
        for r in "01"
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert spf(sample(files, files / "inputs_mid.nc", "--out", tmp_path / "one.zarr")) == 0
    torch.set_num_threads(threads)
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert same(tmp_path / "one.zarr", tmp_path / "two.zarr")
    assert names(tmp_path) == ["one.zarr", "two.zarr"]


def test_tasks_of_a_scheduler_draw_one_ensemble_in_any_order(files, tmp_path):
    how = SamplingConfig(seed=3, n_steps=1)
    order = Order(files / "emulator.pt", files / "inputs_mid.nc", "decade", 5, tmp_path / "tasks.zarr", sampling=how)
    assert prepare(order) == [[0, 1, 2, 3, 4]]  # two windows each: a batch holds them all
    draw = dask.delayed(pickle.loads(pickle.dumps(partial(draw_members, order))))
    assert dask.compute(draw([4, 1]), draw([0]), scheduler="threads") == ([4, 1], [0])
    with pytest.raises(DataContractError, match="2 of 5 members are missing, first 2"):
        publish(order)
    assert dask.compute(draw([1, 2, 3]), scheduler="synchronous") == ([1, 2, 3],)
    assert publish(order) == tmp_path / "tasks.zarr" == publish(order)
    assert spf(sample(files, files / "inputs_mid.nc", "--out", tmp_path / "one.zarr")) == 0
    assert same(tmp_path / "one.zarr", tmp_path / "tasks.zarr")


def test_several_scenarios_are_drawn_in_one_call_into_a_file_each(files, tmp_path, capsys):
    both = [files / f"inputs_{name}.nc" for name in ("low", "mid")]
    assert spf(sample(files, *both, "--precision", "bf16-mixed", "--out", f"{tmp_path / 'all'}/")) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "all" / f"{n}.nc") for n in ("low", "mid")]
    low, mid = (open_ensemble(tmp_path / "all" / f"{n}.nc") for n in ("low", "mid"))
    assert float(mid.tas[:, -1].mean() - low.tas[:, -1].mean()) > 0.3
    assert low.attrs["precision"] == "bf16-mixed"
    assert spf(sample(files, *both, "--out", tmp_path / "x.nc")) == 1
    assert "one file for low, mid; expected a file each" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        spf(sample(files, "--out", tmp_path / "x.nc"))


def test_an_ensemble_is_drawn_as_its_experiment_says_unless_told_otherwise(files, tmp_path, capsys):
    assert Emulator.load(files / "emulator.pt").sampling == tiny.config().sampling
    assert spf(sample(files, files / "inputs_mid.nc", "--source", "ELSE", "--out", tmp_path / "x.nc")) == 1
    assert "emulator of ELSE: not trained on it; expected one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"solver": "euler"}, (16, 10)),
        ({"solver": "runge_kutta"}, (4, 2)),
        ({"solver": "euler", "n_steps": 3}, 3),
        ({"shift": 2.0}, (8, 5)),
    ],
)
def test_a_solver_alone_keeps_the_number_of_network_calls(settings, steps):
    found = changed(SamplingConfig(n_steps=(8, 5), shift=(1.5, 4.0)), settings)
    assert found.n_steps == steps and found.solver == settings.get("solver", "midpoint")


def test_names_of_several_scenarios(tmp_path):
    pair = [Path("inputs_a.nc"), Path("b.nc")]
    assert targets(Path("all"), pair) == [Path("all/a.nc"), Path("all/b.nc")]
    assert targets(tmp_path, pair[:1]) == [tmp_path / "a.nc"]
    assert targets(Path("d/{scenario}_year.zarr"), pair) == [Path("d/a_year.zarr"), Path("d/b_year.zarr")]
    assert targets(Path("x.zarr"), pair[:1]) == [Path("x.zarr")]


def test_the_prediction_counts_the_steps_of_each_stage(files):
    emulator = Emulator.load(files / "emulator.pt")
    calls = []
    object.__setattr__(emulator.backbone, "velocity", lambda x, *_: calls.append(x) or time.sleep(0.01 * len(x)) or x)
    drivers = emulator.open_forcings(files / "inputs_mid.nc")
    few, many = (
        predict_minutes(emulator, drivers, "decade", 1, tiny.YEARS, SamplingConfig(n_steps=n, solver="euler"))
        for n in ((1, 1, 1), (1, 1, 98))
    )
    assert many / few == pytest.approx(100 / 3, rel=0.5)


def test_the_prediction_counts_whole_groups(files, monkeypatch):
    emulator = Emulator.load(files / "emulator.pt")
    a_second_a_call = SimpleNamespace(monotonic=count().__next__)
    monkeypatch.setattr(ensemble_module, "time", a_second_a_call)
    drivers, how = emulator.open_forcings(files / "inputs_mid.nc"), SamplingConfig(n_steps=1, solver="euler")
    together = len(emulator.groups(drivers, "year", range(99), tiny.YEARS, how)[0])
    assert together > 2
    one, whole, more = (
        predict_minutes(emulator, drivers, "year", n, tiny.YEARS, how) for n in (1, together, together + 1)
    )
    assert 0 < one == whole and more == pytest.approx(2 * one)


# Steps and solvers


def test_steps_and_shift_are_one_number_or_one_a_stage():
    assert SamplingConfig().steps(3) == (("midpoint", 4, 1.5),) * 3
    config = from_dict(SamplingConfig, {"solver": "heun", "n_steps": [6, 4, 2], "shift": 1})
    assert config.steps(3) == (("heun", 6, 1.0), ("heun", 4, 1.0), ("heun", 2, 1.0))
    assert config.steps(3)[0].n_steps == 6 and hash(config.n_steps)
    assert from_dict(SamplingConfig, to_dict(config)) == config
    message = r"sampling.n_steps \[6, 4, 2\]: 3 values for 2 stages; give one number, or one for each stage"
    with pytest.raises(ValueError, match=message):
        config.steps(2)
    with pytest.raises(ValueError, match="3 values for 2 stages"):
        SamplingConfig(shift=(1.0, 2.0, 3.0)).steps(2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_steps", 0), ("n_steps", True), ("n_steps", 2.5), ("n_steps", []), ("n_steps", [4, "a"]), ("shift", -1.0),
     ("shift", [1.0, None]), ("shift", float("nan")), ("batch", 0)],
)  # fmt: skip
def test_steps_that_are_none_are_refused(name, value):
    with pytest.raises(ValueError, match=f"sampling.{name}.*(expected a|must be at least 1)"):
        SamplingConfig(**{name: value})


def test_lists_that_do_not_fit_the_stages_are_refused_before_anything_is_made(tmp_path):
    how = SamplingConfig(n_steps=(4, 4))
    with pytest.raises(ValueError, match="2 values for 3 stages"):
        write_ensemble(Fake(), FORCINGS, "year", 2, YEARS, how, tmp_path / "x.zarr", progress=False)
    assert names(tmp_path) == []


def test_the_history_of_adams_bashforth_is_cleared_at_every_jump():
    """Windows of one step a stage, one after another, are Euler's; those of more steps are not."""
    spec = PyramidSpec()
    plan = plan_windows(spec, "month", (2015, 2034), (2015, 2016), 2015, [2, 2, 2])

    def drawn(solver, n_steps):
        steps = [*SamplingConfig(solver=solver, n_steps=n_steps).steps(3)]
        velocity = lambda x, t, stage, _: (1 + stage.index) * torch.cos(3 * t.view(-1, 1, 1, 1, 1)) - x * x / 9  # noqa: E731
        return cascade(spec, "month", plan.segments, velocity, SeededNoise(1), None, [0], (1, 8, 8), steps, batch=1)

    torch.testing.assert_close(drawn("adams_bashforth", 1), drawn("euler", 1), rtol=0, atol=0)
    assert (drawn("adams_bashforth", (1, 1, 2)) - drawn("euler", (1, 1, 2))).abs().max() > 0.01
