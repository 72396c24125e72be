"""Recipes: what a key may hold; anything else is refused with key, found and expected before anything is looked for."""

import re
from pathlib import Path

import pytest
import yaml

from climatesuite.__main__ import main
from climatesuite.archive.cloud import read_recipe
from climatesuite.archive.download import read_product
from climatesuite.archive.layouts import read_layout
from climatesuite.errors import DataContractError
from climatesuite.plan import plan
from climatesuite.recipe import content_of
from worlds.cmip import write_cmip
from worlds.cmip_realities import in_groups

ROOT = Path(__file__).resolve().parents[2]


def written(folder, **content):
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"years": 2015}, "r.yaml, part mine: years: 2015; expected the first and the last year, e.g. [2015, 2099]"),
        ({"years": [2099, 2015]}, "part mine: years: [2099, 2015]; expected the first and the last year"),
        ({"grid": "18x36"}, "r.yaml: grid: '18x36'; expected rows and columns, e.g. [48, 72]"),
        ({"grid": [18]}, "r.yaml: grid: [18]; expected rows and columns"),
        ({"experiments": "ssp126"}, "experiments: 'ssp126'; expected a list of names, e.g. [ssp126], or years by experiment"),
        ({"experiments": {"ssp126": 2015}}, "experiments: {'ssp126': 2015}; expected a list of names"),
        ({"variables": "tas"}, "variables: 'tas'; expected a list of names, e.g. [tas, pr]"),
        ({"sources": "CESM2"}, "sources: 'CESM2'; expected a list of names"),
        ({"forcings": "CO2"}, "r.yaml: forcings: 'CO2'; expected a list of names"),
        ({"members": ["r1i1p1f1"]}, "members: ['r1i1p1f1']; expected members by experiment, numbers in quotes"),
        ({"members": {"GLENS": [1]}}, "members: {'GLENS': [1]}; expected members by experiment, numbers in quotes"),
        ({"archive": 7}, "archive: 7; expected text"),
        ({"archive": None}, "archive: nothing; expected text"),
        ({"target": {"members": 3}}, "target: {'members': 3}; expected numbers"),
        ({"parts": {"a": 1}}, "parts: {'a': 1}; expected a list of parts"),
        ({"parts": ["a"]}, "parts: ['a']; expected a list of parts"),
        ({"parts": [{"index": "x"}]}, "r.yaml, part 1: sources: nothing; expected a list of names"),
        ({"parts": [{"index": "x", "sources": ["A"], "experiments": ["ssp126"]}]},
         "r.yaml, part 1: experiments: ['ssp126']; expected years by experiment, e.g. {ssp126: [2015, 2100]}"),
    ],
)  # fmt: skip
def test_a_value_of_another_shape_is_refused_with_its_key(tmp_path, change, words):
    usual = {} if "parts" in change else {"name": "mine", "archive": str(tmp_path)}
    with pytest.raises(DataContractError, match=re.escape(words)):
        plan(written(tmp_path, **{**usual, **change}))


def test_an_experiment_whose_data_cannot_be_meant_is_refused_too(tmp_path):
    members = "experiment x: train: ['ssp126']; expected members by experiment"
    cases = (
        ({}, "experiment x: source_id: nothing; expected text"),
        ({"source_id": "A", "train": ["ssp126"]}, members),
    )
    for data, words in cases:
        with pytest.raises(DataContractError, match=re.escape(words)):
            plan(written(tmp_path, name="x", data={"archive": "here", **data}))


def test_recipes_and_experiments_that_come_with_the_project_pass():
    for path in (ROOT / "catalogs/climatesuite.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))):
        if "archive: synthetic" not in path.read_text():
            assert content_of(path)["parts"]


def test_broken_yaml_is_said_to_be_with_its_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: [a\nb: c: d\n")
    for read in (plan, read_layout, read_recipe, read_product):
        with pytest.raises(DataContractError, match="r.yaml: not readable as YAML .*line 2, column"):
            read(str(path))


def test_only_catalogs_that_are_recipes_are_offered_as_recipes():
    with pytest.raises(DataContractError, match="expected a YAML file or one of climatesuite; correct it"):
        plan("nosuchname")
    with pytest.raises(DataContractError, match="one of climatebench, cmip6-cloud; correct it"):
        read_product("nosuchname")


def test_members_in_groups_of_a_file_are_planned_and_its_bytes_counted_once(tmp_path):
    file = in_groups(write_cmip(tmp_path / "in", file_name="mine.nc"), ("r1i1p1f1", "r2i1p1f1"))
    made = plan(written(tmp_path, name="mine", archive=str(tmp_path / "in"), variables=["tas"]))
    assert made.members == 2 and made.parts[0].shape == (4, 6)
    assert sum(r.bytes for r in made.parts[0].runs) == pytest.approx(file.stat().st_size, abs=1)


def test_a_command_answers_with_one_sentence_where_a_file_stands_in_its_way(tmp_path, capsys):
    write_cmip(tmp_path / "in")
    (tmp_path / "file").write_text("")
    for out in ("file", "file/x.zarr"):
        assert main(["build", str(tmp_path / "in"), str(tmp_path / out), "--variables", "tas"]) == 1
        (line,) = [x for x in capsys.readouterr().err.splitlines() if "ingesting" not in x]
        assert line.startswith(f"error: {tmp_path / 'file'}")


def test_a_command_that_is_interrupted_says_so(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("climatesuite.plan.plan", interrupted)
    assert main(["plan", "climatesuite"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
