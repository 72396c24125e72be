"""A sound store has no problems; every fault is found and named, also where digests were made to agree with it."""

import json
import shutil

import numpy as np
import pytest
import zarr

from climatesuite.errors import DataContractError
from climatesuite.store.open import open_run
from climatesuite.store.provenance import provenance_name
from climatesuite.store.verify import axes_problems, verify
from worlds.canonical import MEMBERS, SCENARIO, SOURCE, edit_provenance, seal, write_store

RUN = f"{SOURCE}/{SCENARIO}"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("verify") / "s")


@pytest.fixture
def store(original, tmp_path):
    return shutil.copytree(original, tmp_path / "s")


def change(store, name, at, value):
    zarr.open_array(str(store / RUN / name), mode="r+")[at] = value


def chunk_file(store, name):
    return next(p for p in sorted((store / RUN / name / "c").rglob("*")) if p.is_file())


@pytest.mark.parametrize("deep", [True, False])
def test_a_sound_store_has_no_problems(original, deep):
    assert verify(original, deep) == []


@pytest.mark.parametrize("deep", [True, False])
def test_a_missing_chunk_is_found_without_reading_data(store, deep):
    chunk_file(store, "year/tas").unlink()
    (problem,) = verify(store, deep)
    assert problem.startswith(f"{RUN}/year/tas/c/") and problem.endswith(": missing")


def test_a_file_of_another_size_or_an_added_one_is_found_without_reading_data(store):
    path = chunk_file(store, "month/pr")
    path.write_bytes(path.read_bytes() + b"x")
    (store / RUN / "month" / "stray").touch()
    problems = verify(store, deep=False)
    assert len(problems) == 2
    assert any("bytes, " in p for p in problems) and any("stray: not there when it was built" in p for p in problems)


def test_a_changed_byte_is_found_only_by_reading(store):
    path = chunk_file(store, "month/pr")
    content = bytearray(path.read_bytes())
    content[50] ^= 255
    path.write_bytes(bytes(content))
    assert verify(store, deep=False) == []
    (problem,) = verify(store)
    assert problem.endswith("changed since it was built")


def test_a_damaged_group_does_not_hide_the_faults_of_others(store):
    chunk_file(store, "decade/tas").unlink()
    change(store, "year/pr", (0, 3, 1, 1), 9.0)
    seal(store)
    chunk_file(store, "decade/pr").unlink()
    problems = verify(store)
    assert any("decade/pr" in p and "missing" in p for p in problems)
    assert any("r9i1p1f1 pr: year means are not those of the months" in p for p in problems)


DATA_FAULTS = [
    ("decade/tas", (0, 1, 2, 2), np.nan, "r9i1p1f1 tas: 1 missing values at timescale decade"),
    ("year/tas", (0, 2, 0, 0), 271.0, "r9i1p1f1 tas: year means are not those of the months"),
    ("decade/pr", (1, 0, 0, 0), 4e-5, "r10i1p1f1 pr: decade means are not those of the months"),
    ("statistics/tas_mean", (0, 3, 0, 0), 1.0, "r9i1p1f1 tas: mean in the statistics is not that of the months"),
    ("statistics/pr_m2", (1, 3, 0, 0), 1.0, "r10i1p1f1 pr: m2 in the statistics is not that of the months"),
    ("statistics/tas_min", (0, 7, 0, 0), 1.0, "r9i1p1f1 tas: min in the statistics is not that of the months"),
    ("statistics/pr_count", (1, 3), 1.0, "r10i1p1f1 pr: count in the statistics is not that of the months"),
    ("decade/CO2", 1, np.nan, " CO2: missing values at timescale decade"),
    ("year/SO2", (2, 1, 1), 1e-9, " SO2: year means are not those of the months"),
]
AXIS_FAULTS = [
    ("month/year", 30, 2001, "time does not rise by one month after 2017-06"),
    ("year/year", slice(3, 5), [2019, 2018], "time does not rise by one year"),
    ("decade/year", 1, 2026, "time does not rise by one decade"),
    ("month/time_bnds", (4, 1), 3.0, "periods do not follow one another"),
    ("year/time", 0, 5000.0, "dates lie outside their periods"),
    ("month/days", 1, 29.0, "days are not the lengths of the periods"),
    ("month/lat", slice(0, 2), [10.0, -10.0], "lat does not rise"),
]


def test_every_fault_of_the_data_is_named_and_nothing_else_though_digests_agree(store):
    for name, at, value, _ in DATA_FAULTS:
        change(store, name, at, value)
    seal(store)
    assert sorted(verify(store)) == sorted(f"{RUN}{'' if w[0] == ' ' else ' '}{w}" for *_, w in DATA_FAULTS)


@pytest.mark.parametrize(("name", "at", "value", "words"), AXIS_FAULTS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_fault_of_an_axis_is_named_without_reading_data(store, name, at, value, words):
    change(store, name, at, value)
    seal(store)
    (problem,) = verify(store, deep=False)
    assert problem.startswith(f"{RUN}/{name.split('/')[0]}: ") and words in problem


def test_missing_values_of_months_are_counted(store):
    change(store, "month/tas", (1, 5, 2, 2), np.nan)
    seal(store)
    assert f"{RUN} r10i1p1f1 tas: 1 missing values at timescale month" in verify(store)


def test_months_that_no_climate_has_are_found_though_digests_agree(store):
    change(store, "month/tas", (1, 5, 2, 2), 15.0)
    seal(store)
    assert any("r10i1p1f1 tas: values from 15 to 3" in p and "credible are 150 to 350" in p for p in verify(store))


def test_one_chunk_that_is_gone_with_its_record_reads_as_missing_values(store):
    chunk_file(store, "month/tas").unlink()
    seal(store)
    assert any("missing values at timescale month" in p for p in verify(store))


def test_a_member_list_or_a_run_that_contradicts_the_settings_is_found(store):
    edit_provenance(store, settings={"runs": {RUN: [MEMBERS[1], MEMBERS[0]], "TEST-ESM/ssp119": ["r1i1p1f1"]}})
    problems = verify(store, deep=False)
    assert "TEST-ESM/ssp119: not in the list of runs, which the settings name" in problems
    assert any("members r9i1p1f1, r10i1p1f1, r10i1p1f1, r9i1p1f1 in the settings" in p for p in problems)


@pytest.mark.parametrize(("part", "words"), [("statistics", "no such group"), (".", "no data at any timescale")])
def test_groups_that_are_gone_with_their_record_are_found(store, part, words):
    shutil.rmtree(store / RUN / part)
    seal(store)
    assert any(words in p for p in verify(store))


def test_metadata_of_an_array_that_is_not_the_roots_is_found_though_digests_agree(store):
    (store / RUN / "month" / "tas" / "zarr.json").write_text("{}")
    seal(store)
    assert verify(store, deep=False) == [f"{RUN}/month/tas/zarr.json: not the metadata that the root holds"]


def test_metadata_that_cannot_be_read_is_a_problem_and_not_a_crash(store):
    root = json.loads((store / "zarr.json").read_text())
    root["consolidated_metadata"]["metadata"][f"{RUN}/month/tas"]["shape"] = "long"
    (store / "zarr.json").write_text(json.dumps(root))
    assert any("month" in p and "not readable" in p for p in verify(store))


def test_a_root_that_is_no_json_is_an_error(store):
    (store / "zarr.json").write_text("{")
    with pytest.raises(DataContractError, match="zarr.json: damaged"):
        verify(store)


def test_no_store_is_an_error(tmp_path):
    with pytest.raises(DataContractError, match="no store there"):
        verify(tmp_path / "nowhere")


def test_a_store_without_provenance_is_an_error(store):
    (store / provenance_name(store)).unlink()
    with pytest.raises(DataContractError, match="no provenance-[0-9a-f]*.json"):
        verify(store)


def test_axes_of_a_dataset_in_memory_can_be_checked_too(original):
    ds = open_run(original, SOURCE, SCENARIO, "year")
    assert axes_problems(ds) == []
    assert axes_problems(ds.isel(time=[0, 2])) == [
        f"time does not rise by one year after {ds.time.values[0]}", "periods do not follow one another",
    ]  # fmt: skip
