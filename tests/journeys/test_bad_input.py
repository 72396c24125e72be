"""Bad input ends in one clear sentence and a non-zero exit, and leaves nothing half-written."""

import time
from pathlib import Path

import netCDF4
import pytest
import yaml

from climatesuite.__main__ import main as climatesuite
from climatesuite.archive.synthetic import write_archive
from spf.__main__ import main as spf
from worlds.small import CONTENT


@pytest.fixture
def archive(tmp_path):
    write_archive(tmp_path / "archive", experiments={"ssp126": 2}, years=(2015, 2026), grid=(8, 12))
    return tmp_path / "archive"


def build(archive, *more):
    arguments = [
        "build",
        str(archive / "CMIP6"),
        str(archive.parent / "store.zarr"),
        "--forcings",
        str(archive / "forcings"),
    ]
    return climatesuite([*arguments, *more])


def files(archive, name="tas"):
    return sorted(archive.rglob(f"{name}_*.nc"))


def cut(archive):
    path = files(archive)[0]
    path.write_bytes(path.read_bytes()[:5000])


def relabel(archive, units):
    for path in files(archive):
        with netCDF4.Dataset(path, "a") as file:
            file["tas"].units = units


def drop_forcing(archive):
    (path,) = archive.glob("forcings/inputs_ssp126.nc")
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("SO2", "sulphur")


def blot(archive):
    with netCDF4.Dataset(files(archive)[0], "a") as file:
        file["tas"][7, 2, 3] = 1e20


@pytest.mark.parametrize(
    ("harm", "more", "message"),
    [
        (cut, [], "truncated|not readable"),
        (lambda a: relabel(a, "fathom"), [], "units 'fathom' are unknown"),
        (lambda a: relabel(a, "degC"), [], "tas in tas_Amon_SYNTHETIC-A.*(values|mean)"),
        (drop_forcing, [], "no SO2"),
        (lambda a: next(a.glob("forcings/*.nc")).unlink(), [], "inputs_ssp126.nc"),
        (blot, [], "missing values, the first in 2015-08"),
        (lambda a: files(a)[0].unlink(), [], "no tas"),
        (lambda a: None, ["--experiments", "ssp585"], "ssp585"),
        (lambda a: None, ["--members", '{"ssp126": ["r9i1p1f1"]}'], "expected r9i1p1f1 of ssp126"),
        (lambda a: None, ["--members", '{"ssp126": []}'], "ssp126"),
        (lambda a: None, ["--years", "2015-2060"], "2015-2060"),
        (lambda a: None, ["--forcing-names", "CO2", "N2O"], "N2O"),
        (lambda a: None, ["--sources", "CESM2"], "CESM2|no usable files"),
    ],
)
def test_a_build_that_cannot_be_right_is_refused_and_leaves_nothing(archive, capsys, harm, more, message):
    import re

    harm(archive)
    assert build(archive, *more) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "error: " in error and "Traceback" not in error
    assert {p.name for p in archive.parent.iterdir()} <= {
        "archive",
        "store.zarr.partial",
    }  # no store, at most finished parts


def test_a_missing_archive_is_said_to_be(tmp_path, capsys):
    assert climatesuite(["build", str(tmp_path / "nowhere"), str(tmp_path / "store.zarr")]) == 1
    assert "no such file or folder" in capsys.readouterr().err


def test_another_request_does_not_overwrite_a_store(archive, capsys):
    assert build(archive) == 0
    assert build(archive, "--variables", "tas") == 1
    assert "a store of other settings (variables: " in capsys.readouterr().err


def test_changed_input_is_noticed(archive, capsys):
    assert build(archive) == 0
    time.sleep(0.01)
    with netCDF4.Dataset(files(archive)[0], "a") as file:
        file["tas"][0, 0, 0] = 250.0
    assert build(archive) == 1
    assert "built from other files (tas_Amon" in capsys.readouterr().err


def experiment(tmp_path, **changes):
    path = tmp_path / "x.yaml"
    content = yaml.safe_load(yaml.safe_dump(CONTENT))
    for key, value in changes.items():
        section, _, name = key.partition("__")
        content[section] = value if not name else {**content[section], name: value}
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainning": {}}, "did you mean 'training'"),
        ({"data__train": {"ssp126": []}}, "scenario 'ssp126' has no members"),
        ({"data__source_id": "CESM2"}, "not a synthetic model"),
        ({"data__archive": "/nowhere"}, "/nowhere"),
        ({"data__forcings": ["CO2", "N2O"]}, "N2O"),
        ({"data__grid": [22, 36]}, "grid 22x36 cannot be pooled by 4"),
        ({"network__patch": 4}, "network.patch 4 does not tile"),
    ],
)
def test_an_experiment_that_cannot_be_right_is_refused(tmp_path, capsys, changes, message):
    assert spf(["train", experiment(tmp_path, **changes), "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert not (tmp_path / "run" / "emulator.pt").exists()


def test_sampling_without_what_it_needs_is_refused(trained, tmp_path, capsys):
    checkpoint, out = str(trained.folder / "emulator.pt"), tmp_path / "x.nc"
    forcings = Path(trained.folder / "archive/forcings/inputs_ssp370.nc")
    cases = {
        "no such checkpoint": ["nowhere.pt", "--forcings", str(forcings)],
        "no such file": [checkpoint, "--forcings", str(tmp_path / "none.nc")],
        "expected 2090-2099 inside them": [checkpoint, "--forcings", str(forcings), "--years", "2090-2099"],
        "no whole decade": [checkpoint, "--forcings", str(forcings), "--years", "2016-2020", "--timescale", "decade"],
    }
    for message, arguments in cases.items():
        assert spf(["sample", *arguments, "--out", str(out)]) == 1
        assert message in capsys.readouterr().err
        assert not out.exists() and not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_a_folder_is_one_sentence(tmp_path, capsys):
    (tmp_path / "a").write_text("")
    assert spf(["inspect", str(tmp_path / "a" / "emulator.pt")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "emulator.pt" in said and "Traceback" not in said
