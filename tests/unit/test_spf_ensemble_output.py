"""Large ensembles: what is written, how processes share it, what a kill leaves behind."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from climatesuite.__main__ import main as climatesuite
from climatesuite.archive.synthetic import write_archive
from climatesuite.errors import DataContractError
from climatesuite.export import create_zarr, open_ensemble, write_zarr_member
from spf.__main__ import main as spf
from spf.codec import FieldCodec
from spf.commands import share as share_module
from spf.commands.ensemble import drawn_by, predict_minutes, write_ensemble
from spf.commands.sample import targets
from spf.commands.share import ALONE, Share
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
from worlds.fake_ensemble import fake_ensemble, member_by_member

ROOT = Path(__file__).resolve().parents[2]
FORCINGS = xr.Dataset({"CO2": ("time", np.arange(3.0))}, attrs={"experiment_id": "ssp370"})
HOW, YEARS = SamplingConfig(seed=5), (2015, 2034)
ATTRS = {"institution": "none", "source": "a fake ensemble", "references": "none", "seed": 3, "note": ["a", 1]}
MADE_WHEN = ("history", "sampling_seconds")
FORMATS = ("x.nc", "x.zarr")


class Fake:
    """What a command needs of an emulator; a member is a hash of seed and number, and drawing may hang or be watched."""

    digest, precision, provenance = (
        "d" * 64,
        "32-true",
        {"source_id": "SYNTHETIC-A", "license": "CC0", "training_members": {}},
    )
    codec = SimpleNamespace(variables=("tas", "pr"), beyond_training=lambda forcings: [])
    backbone = SimpleNamespace(spec=PyramidSpec())
    how_members_hang_together = "They do not."
    source = 0

    def __init__(self, grid=(4, 6), finished=None, pause=0.0):
        self.grid, self.finished, self.pause, self.drawn = grid, finished, pause, []

    def template(self, forcings, timescale, years):
        frame = fake_ensemble(timescale, [0], years, self.grid).isel(member=0, drop=True).drop_vars(["tas", "pr"])
        return frame.assign_attrs(source_id="SYNTHETIC-A")

    def windows_per_member(self, forcings, timescale, years, sampling):
        return 1

    def draw(self, forcings, timescale, members, years, seed, sampling, on_step):
        frame = self.template(forcings, timescale, years)
        for done, member in enumerate(members):
            if done == self.finished:
                time.sleep(600)
            time.sleep(self.pause)
            rng = np.random.default_rng([seed, member])
            shape = (frame.sizes["time"], *self.grid)
            fields = {
                v: (
                    ("time", "lat", "lon"),
                    np.float32(mean) * (1 + rng.random(shape, dtype=np.float32) / 10),
                    {"units": u},
                )
                for v, mean, u in (("tas", 275, "K"), ("pr", 3e-5, "kg m-2 s-1"))
            }
            self.drawn.append(member)
            yield member, frame.assign(fields)


def write(out, members=4, fake=None, forcings=FORCINGS, **how):
    return write_ensemble(fake or Fake(), forcings, "year", members, YEARS, HOW, Path(out), progress=False, **how)


def same(a, b):
    """Whether two ensembles are equal, attributes and all, but for when and how fast they were made."""
    a, b = (
        xr.open_dataset(p, decode_times=False, **({"engine": "zarr", "consolidated": False} if p.is_dir() else {}))
        for p in (a, b)
    )
    for ds in (a, b):
        for name in MADE_WHEN:
            assert ds.attrs.pop(name) is not None
    xr.testing.assert_identical(a.load(), b.load())
    return True


def names(folder):
    return sorted(p.name for p in folder.iterdir())


# A store is a CF file in another format


@pytest.mark.parametrize(("timescale", "years"), [("decade", (2015, 2044)), ("year", YEARS), ("month", (2015, 2016))])
def test_a_store_comes_back_as_written_at_every_timescale(tmp_path, timescale, years):
    ds = fake_ensemble(timescale, (0, 1, 2), years)
    create_zarr(tmp_path / "e.zarr", ds, ["tas", "pr"], [0, 1, 2], ATTRS)
    for number, fields in member_by_member(ds):
        write_zarr_member(tmp_path / "e.zarr", number, fields)
    back = open_ensemble(tmp_path / "e.zarr")
    xr.testing.assert_equal(back[["tas", "pr"]].compute(), ds[["tas", "pr"]])
    assert set(back.coords) == set(ds.coords)
    assert (back.attrs["timescale"], back.attrs["seed"], back.attrs["note"]) == (timescale, 3, '["a", 1]')
    assert back.tas.chunks[0] == (1, 1, 1)


def test_store_and_file_of_an_ensemble_hold_the_same_down_to_the_attributes(tmp_path):
    for name in FORMATS:
        write(tmp_path / name)
    a = xr.open_dataset(tmp_path / "x.nc", decode_times=False)
    b = xr.open_dataset(tmp_path / "x.zarr", engine="zarr", consolidated=False, decode_times=False)
    for ds in (a, b):
        for name in MADE_WHEN:
            del ds.attrs[name]
    xr.testing.assert_identical(a, b)
    assert names(tmp_path) == ["x.nc", "x.zarr"]
    assert drawn_by(tmp_path / "x.zarr") == drawn_by(tmp_path / "x.nc") == Fake.digest


def test_a_member_is_one_file_of_each_variable_however_long_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("climatesuite.export.CHUNK_VALUES", 8 * 12 * 7)  # 20 years are three chunks, the last not full
    ds = fake_ensemble()
    path = create_zarr(tmp_path / "e.zarr", ds, ["tas", "pr"], [0, 1, 2], ATTRS)
    write_zarr_member(path, 1, ds.isel(member=1, drop=True))
    assert [p.name for p in (path / "tas" / "c").iterdir()] == ["1"]
    assert sum(p.is_file() for p in (path / "tas" / "c").rglob("*")) == 1
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 3 and group["tas"].chunks == (1, 7, 8, 12)
    np.testing.assert_array_equal(group["tas"][1], ds.tas.values[1])
    assert np.isnan(group["tas"][0]).all()


def test_what_does_not_belong_in_a_store_is_refused(tmp_path):
    ds, path = fake_ensemble(), tmp_path / "e.zarr"
    with pytest.raises(DataContractError, match=r"members \[1, 1\]; expected each number once"):
        create_zarr(path, ds, ["tas"], [1, 1], ATTRS)
    with pytest.raises(DataContractError, match=r"variables \['wind'\]; expected some of tas"):
        create_zarr(path, ds, ["wind"], [1], ATTRS)
    create_zarr(path, ds, ["tas", "pr"], [0, 7], ATTRS)
    with pytest.raises(DataContractError, match="already there; expected a new name"):
        create_zarr(path, ds, ["tas"], [1], ATTRS)
    one = ds.isel(member=0, drop=True)
    with pytest.raises(DataContractError, match="no member 1; expected one of the store"):
        write_zarr_member(path, 1, one)
    with pytest.raises(DataContractError, match=r"member 7: variables \['tas'\]; expected pr, tas"):
        write_zarr_member(path, 7, one[["tas"]])
    with pytest.raises(DataContractError, match="tas of member 7: 96 of 1920 values are NaN"):
        write_zarr_member(path, 7, one.assign(tas=one.tas.where(one.year > 2015)))
    with pytest.raises(DataContractError, match="e: a folder without zarr.json; expected a Zarr store"):
        (tmp_path / "e").mkdir()
        open_ensemble(tmp_path / "e")


def test_a_store_is_scored_like_a_file(tmp_path, capsys):
    write_archive(tmp_path, experiments={"ssp370": 2}, years=(2015, 2034), grid=(6, 8))
    for name in FORMATS:
        write(tmp_path / name, 3, Fake(grid=(6, 8)))
        truth = [str(p) for p in (tmp_path / "CMIP6").rglob("*.nc")]
        command = ["score", str(tmp_path / name), "--truth", *truth, "--bootstrap", "0"]
        assert climatesuite([*command, "--out", str(tmp_path / f"{name}.json")]) == 0
    a, b = ((tmp_path / f"{name}.json").read_text() for name in FORMATS)
    assert a == b and '"crps"' in a


# Kills, memory, what is there already


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders where a process was killed while it drew its third member of four."""
    folders = {name: tmp_path_factory.mktemp("killed") for name in FORMATS}
    fork = multiprocessing.get_context("fork").Process
    running = {n: fork(target=write, args=(f / n,), kwargs={"fake": Fake(finished=2)}) for n, f in folders.items()}
    for name, process in running.items():
        process.start()
        deadline = time.monotonic() + 120
        while len(list(folders[name].glob(".*.parts/*.npz"))) < 2:
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    return folders


@pytest.mark.parametrize("name", FORMATS)
def test_a_killed_ensemble_goes_on_with_the_missing_members_and_ends_the_same(killed, tmp_path, name):
    out, fake = killed[name] / name, Fake()
    assert not out.exists()
    if name == "x.zarr":  # half a member is no member
        (store,) = out.parent.glob(".*.parts/store.zarr")
        frame = fake.template(FORCINGS, "year", YEARS)
        other = next(iter(fake.draw(FORCINGS, "year", [9], YEARS, 0, HOW, None)))[1]
        write_zarr_member(store, 2, other.assign(tas=other.tas + 1))
        assert frame.sizes["time"] == 20
        fake.drawn.clear()
    write(out, fake=fake)
    write(tmp_path / name)
    assert fake.drawn == [2, 3]
    assert same(out, tmp_path / name)
    assert names(out.parent) == [name]


@pytest.mark.parametrize("name", FORMATS)
def test_memory_does_not_grow_with_the_ensemble(tmp_path, name):
    def peak(members):
        tracemalloc.start()
        try:
            write(tmp_path / str(members) / name, members, Fake(grid=(24, 36)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    member = 2 * 4 * 20 * 24 * 36  # bytes of two variables
    peak(2)  # imports
    assert peak(25) < peak(5) + 2 * member


def test_an_ensemble_that_is_there_stays_and_another_one_replaces_it(tmp_path):
    for name in FORMATS:
        out, again = tmp_path / name, Fake()
        first = write(out)
        assert write(out, fake=again) == pytest.approx(first, abs=0.5) and again.drawn == []
        write(out, members=5, fake=again)
        assert again.drawn == [0, 1, 2, 3, 4] and open_ensemble(out).sizes["member"] == 5
        warmer = Fake()
        write(out, members=5, fake=warmer, forcings=FORCINGS + 1)
        assert warmer.drawn == [0, 1, 2, 3, 4]
    assert names(tmp_path) == ["x.nc", "x.zarr"]


def test_a_folder_that_is_no_ensemble_is_never_replaced(tmp_path):
    for name in FORMATS:
        (tmp_path / name).mkdir()
        with pytest.raises(DataContractError, match="a folder that is no ensemble drawn with spf"):
            write(tmp_path / name)


# Several processes


@pytest.mark.parametrize("name", FORMATS)
def test_processes_share_members_and_the_first_one_publishes(tmp_path, name):
    fakes, failed = [Fake(pause=0.02) for _ in range(3)], []

    def process(rank):
        try:
            write(tmp_path / name, 7, fakes[rank], share=Share(rank, 3), patience=20)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [f.drawn for f in fakes] == [[0, 3, 6], [1, 4], [2, 5]]
    write(tmp_path / "alone" / name, 7)
    assert same(tmp_path / name, tmp_path / "alone" / name)
    late = Fake()
    write(tmp_path / name, 7, late, share=Share(1, 3))
    assert late.drawn == [] and names(tmp_path) == ["alone", name]


def test_a_process_does_not_wait_forever(tmp_path, monkeypatch):
    monkeypatch.setattr(share_module, "POLL_SECONDS", 0.01)
    with pytest.raises(DataContractError, match="nothing new for 0.005 minutes, without the beginning of it"):
        write(tmp_path / "x.zarr", share=Share(1, 2), patience=0.3)
    with pytest.raises(DataContractError, match="without member 1, member 3; expected these from the other processes"):
        write(tmp_path / "x.zarr", share=Share(0, 2), patience=0.3)
    assert names(tmp_path)[0].startswith(".x.") and not (tmp_path / "x.zarr").exists()
    rest = Fake()
    write(tmp_path / "x.zarr", fake=rest)
    assert rest.drawn == [1, 3]


def test_torchrun_says_which_share_a_process_has():
    assert Share.from_environment({}) == ALONE == Share.from_environment({"WORLD_SIZE": "2", "LOCAL_RANK": "0"})
    share = Share.from_environment({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    assert share == Share(5, 8, 1) and share.of(range(20)) == [5, 13]
    for told in ({"RANK": "1"}, {"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}):
        with pytest.raises(DataContractError, match="RANK, WORLD_SIZE and LOCAL_RANK: "):
            Share.from_environment(told)


def test_each_process_takes_the_accelerator_of_its_local_rank(monkeypatch):
    assert Share(3, 8, 3).device() == torch.device("cpu") or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(Share(r, 8, r).device()) for r in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]


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
    prepare(order)
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
