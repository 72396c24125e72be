"""What `spf sample` and `emulator.sample` leave on disk: the same words, the same fields, CF either way."""

import netCDF4
import numpy as np
import pytest
import xarray as xr

import spf
from climatesuite.errors import DataContractError
from climatesuite.export import open_ensemble
from spf import checkpoint
from spf.__main__ import main
from spf.carried import pack
from spf.config import SamplingConfig
from spf.learning.learn import learn
from spf.sampling.solvers import SOLVERS
from worlds import tiny
from worlds.cf import complaints
from worlds.fake_emulator import Fake, names, write

FAST = SamplingConfig(solver="euler", n_steps=1, batch=3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """An emulator that carries the scenario mid."""
    folder = tmp_path_factory.mktemp("run")
    codec, runs = tiny.learned()
    content = checkpoint.load(
        learn(tiny.config(max_steps=2), codec, runs, {**Fake.provenance, "source_id": "TINY"}, folder, progress=False)
    )
    content["scenarios"] = {"mid": pack(tiny.forcings(), codec)}
    return checkpoint.save(folder / "small.pt", content)


def command(path, *more):
    fast = ["--solver", "euler", "--steps", "1", "--batch", "3"]
    return main(["sample", str(path), "--scenario", "mid", "--members", "3", "--seed", "4", *fast, *map(str, more)])


def test_the_command_has_the_words_of_the_api_and_makes_the_same_fields(path, tmp_path):
    words = ["--timescale", "year", "--years", "2020", "2029", "--variables", "tas", "--calendar", "standard"]
    assert command(path, *words, "--out", tmp_path / "x.nc") == 0
    drawn = spf.load(path).sample(
        "mid",
        members=3,
        timescale="year",
        years=slice(2020, 2029),
        seed=4,
        variables=["tas"],
        calendar="standard",
        sampling=FAST,
    )
    file = open_ensemble(tmp_path / "x.nc")
    xr.testing.assert_equal(file.compute(), drawn.drop_vars([]))
    assert file.attrs["calendar"] == "standard" and file.attrs["native_calendar"] == "noleap"
    for name in ("seed", "checkpoint_sha256", "license", "solver", "experiment_id"):
        assert file.attrs[name] == drawn.attrs[name]


@pytest.mark.parametrize(
    ("given", "first", "last"), [(["2020", "2021"], 2020, 2021), (["2020-2021"], 2020, 2021), (["2020"], 2020, 2020)]
)
def test_years_are_two_numbers_a_range_or_one(path, tmp_path, given, first, last):
    assert command(path, "--years", *given, "--out", tmp_path / "x.nc") == 0
    assert open_ensemble(tmp_path / "x.nc").year.values[[0, -1]].tolist() == [first, last]


def test_what_is_no_year_and_no_scenario_is_said(path, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(path, "--years", "20x0", "--out", tmp_path / "x.nc")
    assert "argument --years: '20x0' is not a range of years" in capsys.readouterr().err
    for words, said in (
        (["venus", "--scenario", "mid"], "venus: no such checkpoint, nor an emulator that is shipped"),
        ([str(path), "--scenario", "ssp9"], "scenario 'ssp9': not among mid that the emulator carries"),
        ([str(path), "mid", "--variables", "huss"], "variables huss; expected some of tas, pr"),
        ([str(path), "mid", "--calendar", "mayan"], "calendar 'mayan': not a CF calendar"),
    ):
        assert main(["sample", *words, "--out", str(tmp_path / "x.nc")]) == 1
        assert said in capsys.readouterr().err
    assert names(tmp_path) == []


def test_help_names_every_solver_and_what_it_costs(capsys):
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    said = "euler or adams_bashforth (one network call a step), midpoint or heun (two), runge_kutta (four)"
    assert said in told and all(name in said for name in SOLVERS)


@pytest.mark.parametrize(("timescale", "calendar"), [("decade", ""), ("year", "standard"), ("month", "360_day")])
def test_files_of_both_kinds_are_cf(path, tmp_path, timescale, calendar):
    pytest.importorskip("compliance_checker")
    words = ["--timescale", timescale, "--years", "2015", "2034", *(["--calendar", calendar] if calendar else [])]
    assert command(path, *words, "--out", tmp_path / "file.nc") == 0
    drawn = spf.load(path).sample("mid", timescale, 3, (2015, 2034), seed=4, calendar=calendar, sampling=FAST)
    drawn.to_netcdf(tmp_path / "memory.nc")
    for name in ("file.nc", "memory.nc"):
        assert complaints(tmp_path / name) == [], name
        xr.testing.assert_equal(open_ensemble(tmp_path / name).compute(), drawn)
        with netCDF4.Dataset(tmp_path / name) as file:
            assert (file["tas"].units, file["pr"].units) == ("K", "kg m-2 s-1")
            assert file["time"].calendar == (calendar or "noleap") and file["CO2"].units == "Gt"


def test_each_variable_has_a_file_of_its_own_where_the_name_says_so(tmp_path):
    write(tmp_path / "{variable}_x.nc")
    write(tmp_path / "both.nc")
    assert names(tmp_path) == ["both.nc", "pr_x.nc", "tas_x.nc"]
    both = xr.open_dataset(tmp_path / "both.nc")
    for v in ("tas", "pr"):
        one = xr.open_dataset(tmp_path / f"{v}_x.nc")
        assert {"tas", "pr"} & set(one.data_vars) == {v}
        np.testing.assert_array_equal(one[v], both[v])
    again = Fake()
    write(tmp_path / "{variable}_x.nc", fake=again)
    assert again.drawn == []  # both are there
    (tmp_path / "pr_x.nc").unlink()
    write(tmp_path / "{variable}_x.nc", fake=again)
    assert again.drawn == [0, 1, 2, 3] and (tmp_path / "pr_x.nc").exists()
    with pytest.raises(DataContractError, match="a store for each variable; expected one store"):
        write(tmp_path / "{variable}.zarr")


def test_a_scenario_beyond_training_says_so_in_the_file(path):
    emulator, far = spf.load(path), tiny.forcings()
    far["CO2"] = far.CO2 + 3000.0
    drawn = emulator.sample(far, members=1, sampling=FAST)
    assert "CO2 runs from 4500 to 5398 Gt, trained on 1500 to 3295: from 2015 on" in drawn.attrs["extrapolation"]
    assert "by 117% of that range at most" in drawn.attrs["extrapolation"]
    assert "extrapolation" not in emulator.sample("mid", members=1, sampling=FAST).attrs
