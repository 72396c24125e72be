"""Experiments are checked when they are read."""

import pytest
import yaml

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
