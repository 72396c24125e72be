"""Experiments are checked when they are read."""

import pytest
import yaml

from climatesuite.errors import DataContractError
from spf.commands.workspace import open_workspace
from spf.config import RunConfig, expand, load_config
from spf.plain import from_dict, to_dict

GOOD = {
    "name": "x",
    "data": {"archive": "a", "source_id": "M", "train": {"low": ["r1i1p1f1"]}, "test": {"mid": ["r1i1p1f1"]}},
}


def changed(path, value):
    content = yaml.safe_load(yaml.safe_dump(GOOD))
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("trainning", {}, "unknown key 'trainning'; did you mean 'training'"),
        ("training.minuts", 3, "unknown key 'training.minuts'; did you mean 'minutes'"),
        ("training.minutes", "ten", "training.minutes: expected float, found 'ten'"),
        ("training.minutes", -1, "training.minutes -1.0 must be positive"),
        ("training.precision", "fp8", "'fp8' is unknown; expected one of auto"),
        ("data.train", {"low": []}, "scenario 'low' has no members"),
        ("data.train", {}, "data.train is empty"),
        ("data.test", {"low": ["r2i1p1f1"]}, "also trained on"),
        ("data.test", {"a": ["r1i1p1f1"], "b": ["r1i1p1f1"]}, "name exactly one"),
        ("data.years", [2015, 2020], "no whole decade"),
        ("data.years", [2015], "expected two values, found 1"),
        ("data.train", ["low"], "expected a mapping"),
        ("sampling.members", {"day": 3}, "unknown; expected decade, year, month"),
        ("sampling.n_steps", [4, 4], "2 values for 3 stages"),
        ("sampling.month_years", [1950, 1960], r"month_years \[1950, 1960\] are not all in data.years \[2015, 2099\]"),
        (
            "pyramid",
            {"pooling": [1], "sigma_end": [0.0]},
            "year, month is no timescale of this pyramid; name some of decade",
        ),
        ("pyramid.core", {"decades": 6}, "pyramid.core: 'decades' is unknown; expected some of decade, lustrum"),
        ("pyramid.core", {"month": 0}, "pyramid.core: month 0; give 1 or more"),
        ("pyramid.halo", {"year": -3}, "pyramid.halo: year -3; give 0 or more"),
        ("network.patch", [6, 6], "2 values for 3 stages"),
        ("network.patch", 0, "network.patch 0 must be at least 1"),
        ("network.depth", 0, "network.depth 0 must be at least 1"),
        ("training.stages", [1.0, 1.0], "2 shares for 3 stages"),
        ("training.max_steps", 0, "training.max_steps 0 must be at least 1"),
        ("training.learning_rate", -1.0, "must be positive"),
        ("sampling.members", {"year": 1}, "at least 2 members"),
        ("sampling.solver", "rk45", "'rk45' is unknown"),
        ("sampling.month_years", [2099, 2080], "the first year comes first"),
        ("network", {"width": 96, "heads": 5}, "network.heads 5 does not divide width 96"),
        ("gate", True, "needs data.archive: synthetic"),
    ],
)
def test_a_faulty_experiment_says_what_is_wrong_and_where(path, value, message):
    with pytest.raises(ValueError, match=message):
        from_dict(RunConfig, changed(path, value))


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match=r"missing key 'data.source_id'"):
        from_dict(RunConfig, {"name": "x", "data": {"archive": "a", "train": {}, "test": {}}})


def test_windows_that_are_not_given_are_the_usual_ones():
    spec = from_dict(RunConfig, changed("pyramid.halo", {"month": 0})).pyramid
    assert spec.halo["month"] == 0 and spec.halo["year"] == 3 and spec.core["month"] == 12


def test_a_config_survives_yaml(tmp_path):
    config = from_dict(RunConfig, GOOD)
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    assert load_config(path) == config


def test_a_file_that_is_absent_or_broken_is_said_to_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such experiment file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("name: [x")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_config(tmp_path / "bad.yaml")


def test_the_data_folder_comes_from_one_setting(monkeypatch):
    monkeypatch.setenv("CLIMATE_DATA", "/somewhere")
    assert str(expand("${CLIMATE_DATA}/CMIP6")) == "/somewhere/CMIP6"
    monkeypatch.delenv("CLIMATE_DATA")
    assert str(expand("${CLIMATE_DATA}/CMIP6")) == "../shared/data/CMIP6"


def test_sampling_may_change_in_a_folder_and_training_may_not(tmp_path):
    open_workspace(from_dict(RunConfig, GOOD), tmp_path)
    (tmp_path / "sampling.json").write_text("{}")
    open_workspace(from_dict(RunConfig, GOOD), tmp_path)
    assert (tmp_path / "sampling.json").exists()
    with pytest.raises(DataContractError, match="other settings .training"):
        open_workspace(from_dict(RunConfig, changed("training.seed", 4)), tmp_path)
    work = open_workspace(from_dict(RunConfig, changed("sampling.n_steps", 2)), tmp_path)
    assert work.config.sampling.n_steps == 2 and not (tmp_path / "sampling.json").exists()
    assert load_config(tmp_path / "experiment.yaml").sampling.n_steps == 2
