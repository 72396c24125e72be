"""Archives on disks and servers: copies, links, grids, partial downloads, URLs, CMIP5; and what the command says of them."""

import csv
import json
import shutil

import fsspec
import netCDF4
import numpy as np
import pytest

from climatesuite.__main__ import main
from climatesuite.archive.catalog import read_catalog, write_catalog
from climatesuite.archive.read import open_runs
from climatesuite.archive.scan import scan
from climatesuite.errors import DataContractError
from worlds import cmip_realities as real
from worlds.cmip import credible, write_cmip

DRS = "CMIP6/ScenarioMIP/INST/TEST-ESM/ssp245/r1i1p1f1/Amon/tas/gn"
NAME = "tas_Amon_TEST-ESM_ssp245_r1i1p1f1_gn_201501-201612.nc"


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """An object store in memory with one file, and a cache of its own."""
    monkeypatch.setenv("CLIMATESUITE_CACHE", str(tmp_path / "cache"))
    fs = fsspec.filesystem("memory")
    fs.rm("/archive", recursive=True) if fs.exists("/archive") else None
    fs.put_file(str(write_cmip(tmp_path / "here")), f"/archive/v20200101/{NAME}")
    yield fs
    fs.rm("/archive", recursive=True)


def test_a_tree_that_says_something_else_is_noted_and_the_attributes_hold(tmp_path):
    write_cmip(tmp_path / DRS.replace("r1i1p1f1", "r9i1p1f1") / "v20200101")
    (entry,) = scan(tmp_path).entries
    assert entry.member == "r1i1p1f1"
    assert entry.notes == ("member is 'r1i1p1f1', the folder says 'r9i1p1f1': the attribute holds",)


def test_a_tree_alone_tells_what_neither_name_nor_attributes_do(tmp_path):
    nothing = dict.fromkeys(("variable_id", "source_id", "experiment_id", "variant_label", "table_id"))
    write_cmip(tmp_path / DRS / "v20200101", file_name="mine.nc", attrs=nothing)
    (entry,) = scan(tmp_path).entries
    assert (entry.source_id, entry.experiment_id, entry.member, entry.version) == (
        "TEST-ESM", "ssp245", "r1i1p1f1", "v20200101",
    )  # fmt: skip


def test_versions_are_never_mixed_even_where_the_newer_one_is_shorter(tmp_path):
    for months in (("2015-01", "2015-12"), ("2016-01", "2016-12")):
        write_cmip(tmp_path / DRS / "v20190101", months=months)
    new = write_cmip(tmp_path / DRS / "v20200101", months=("2015-01", "2015-12"))
    found = scan(tmp_path)
    assert [e.path for e in found.entries] == [new]
    assert {r.reason for r in found.replaced} == {"version v20190101 is not the latest"} and len(found.replaced) == 2


def test_the_native_grid_is_preferred_and_two_grids_are_never_mixed(tmp_path):
    native = write_cmip(tmp_path / "gn")
    other = write_cmip(tmp_path / "gr", grid=(6, 8), attrs={"grid_label": "gr"}, file_name=NAME.replace("_gn_", "_gr_"))
    found = scan(tmp_path)
    assert [e.path for e in found.entries] == [native]
    assert [(r.path, r.reason) for r in found.replaced] == [(other, "grid gr, gn is preferred")]


def test_the_grid_that_all_members_have_is_used(tmp_path):
    write_cmip(tmp_path / "gn")
    for member in ("r1i1p1f1", "r2i1p1f1"):
        name = NAME.replace("_gn_", "_gr_").replace("r1i1p1f1", member)
        write_cmip(tmp_path / "gr", member=member, attrs={"grid_label": "gr"}, file_name=name)
    found = scan(tmp_path)
    assert {(e.member, e.grid_label) for e in found.entries} == {("r1i1p1f1", "gr"), ("r2i1p1f1", "gr")}


def test_copies_and_links_are_counted_once(tmp_path):
    first = write_cmip(tmp_path / "a")
    copy = tmp_path / "b" / "tas (1).nc"
    copy.parent.mkdir()
    shutil.copy(first, copy)
    (tmp_path / "c").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = scan(tmp_path)
    assert len(found.entries) == 1 and not found.rejected
    assert [r.reason for r in found.replaced] == [f"a copy of {first}"]
    assert np.array_equal(open_runs(tmp_path)["TEST-ESM", "ssp245"].tas.values[0], credible("tas", 24, 4, 6))


def test_partial_downloads_are_set_aside(tmp_path):
    whole = write_cmip(tmp_path)
    for suffix in (".part", ".crdownload"):
        shutil.copy(whole, f"{whole}{suffix}")
    found = scan(tmp_path)
    assert len(found.entries) == 1 and [r.reason for r in found.rejected] == ["a partial download"] * 2


def test_files_of_an_object_store_are_scanned_and_read(memory, tmp_path):
    memory.pipe_file("/archive/other.nc.part", b"")
    found = scan("memory://archive")
    (entry,) = found.entries
    assert entry.url == f"memory:///archive/v20200101/{NAME}" or entry.url.endswith(f"/archive/v20200101/{NAME}")
    assert [r.reason for r in found.rejected] == ["a partial download"]
    ds = open_runs("memory://archive")["TEST-ESM", "ssp245"]
    assert np.array_equal(ds.tas.values[0], credible("tas", 24, 4, 6))


def test_a_file_that_changes_in_an_object_store_is_fetched_again(memory, tmp_path):
    assert open_runs("memory://archive")
    values = credible("tas", 24, 4, 6, seed=5)
    memory.put_file(str(write_cmip(tmp_path / "new", values=values)), f"/archive/v20200101/{NAME}")
    assert np.array_equal(open_runs("memory://archive")["TEST-ESM", "ssp245"].tas.values[0], values)


def test_a_file_url_is_read_where_it_lies(tmp_path):
    path = write_cmip(tmp_path)
    (entry,) = scan(f"file://{path}").entries
    assert entry.path == path


def test_a_url_with_nothing_under_it_is_refused(memory):
    with pytest.raises(DataContractError, match="memory://nowhere: no such file or folder"):
        scan("memory://nowhere")


def test_a_catalog_of_urls_fetches_its_files(memory, tmp_path):
    path = write_catalog(scan("memory://archive"), tmp_path / "cat.json")
    again = read_catalog(path)
    assert again.entries == scan("memory://archive").entries
    with path.with_suffix(".csv").open() as file:
        (row,) = csv.DictReader(file)
    assert "://" in row["path"] or row["path"].startswith("memory:")


def test_a_catalog_is_valid_for_the_specification(tmp_path):
    write_cmip(tmp_path / "data")
    path = write_catalog(scan(tmp_path / "data"), tmp_path / "cat")
    about = json.loads(path.read_text())
    with (path.parent / about["catalog_file"]).open() as file:
        columns = csv.DictReader(file).fieldnames
    assert {"esmcat_version", "id", "description", "catalog_file", "attributes", "assets"} <= set(about)
    assert {a["column_name"] for a in about["attributes"]} | {about["assets"]["column_name"]} == set(columns)
    control = about["aggregation_control"]
    used = [
        control["variable_column_name"],
        *control["groupby_attrs"],
        *(a["attribute_name"] for a in control["aggregations"]),
    ]
    assert set(used) <= set(columns)
    assert {a["type"] for a in control["aggregations"]} <= {"union", "join_new", "join_existing"}


def test_cmip5_says_the_same_in_other_words(tmp_path):
    attrs = {
        "project_id": "CMIP5", "model_id": "TEST-ESM", "experiment_id": "rcp85", "table_id": "Table Amon (26 July 2011) 976b",
        "realization": np.int32(2), "initialization_method": np.int32(1), "physics_version": np.int32(1),
        "parent_experiment_id": "historical", "parent_experiment_rip": "r2i1p1", "variant_label": None, "variable_id": None,
        "source_id": None, "grid_label": None,
    }  # fmt: skip
    write_cmip(tmp_path, scenario="rcp85", attrs=attrs, file_name="tas_Amon_TEST-ESM_rcp85_r2i1p1_201501-201612.nc")
    (entry,) = scan(tmp_path).entries
    assert (entry.source_id, entry.experiment_id, entry.member, entry.table_id) == (
        "TEST-ESM",
        "rcp85",
        "r2i1p1",
        "Amon",
    )
    assert (entry.parent_experiment_id, entry.parent_member, entry.notes) == ("historical", "r2i1p1", ())


def test_a_run_called_a_climatology_is_a_run_and_it_is_noted(tmp_path):
    write_cmip(tmp_path, attrs={"frequency": "monC"})
    (entry,) = scan(tmp_path).entries
    assert entry.notes == ("frequency monC is stated, the time axis is one of months: the time axis holds",)


def test_daily_steps_called_months_are_found(tmp_path):
    path = real.change(real.sound(tmp_path), lambda ds: real.replace(ds, "time", 60225.5 + np.arange(24)))
    (rejected,) = scan(path).rejected
    assert rejected.reason == "steps of 1 days, only months are used"


def test_members_by_number_are_named_and_it_is_noted(tmp_path):
    found = scan(real.of_members(real.sound(tmp_path), [1, 3]))
    assert [(e.member, e.slot) for e in found.entries] == [("r1i1p1f1", 0), ("r3i1p1f1", 1)]
    assert found.entries[0].notes == ("members by number: named r1i1p1f1 to r3i1p1f1",)


def test_the_command_says_everything(tmp_path, capsys):
    attrs = {"parent_experiment_id": "historical", "parent_variant_label": "r1i1p1f1"}
    for variable in ("tas", "pr"):
        write_cmip(tmp_path / "v20200101", variable, attrs=attrs)
    write_cmip(tmp_path / "v20190101", attrs=attrs)
    write_cmip(tmp_path, member="r2i1p1f1", file_name=NAME.replace("r1i1p1f1", "r3i1p1f1"))
    write_cmip(tmp_path, member="r2i1p1f1", months=("2018-01", "2018-12"))
    with netCDF4.Dataset(tmp_path / "broken.nc", "w"):
        pass
    assert main(["scan", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "parent: TEST-ESM ssp245 r1i1p1f1 branches off historical r1i1p1f1, which is not here" in out
    assert "incomplete: TEST-ESM ssp245 r2i1p1f1 has no pr" in out
    assert "incomplete: tas of TEST-ESM ssp245 r2i1p1f1: no months between 201612 and 201801" in out
    assert "note: " in err and "member is 'r2i1p1f1', the name says 'r3i1p1f1': the attribute holds" in err
    assert "replaced: " in err and "version v20190101 is not the latest" in err
    assert "set aside: " in err and "broken.nc" in err
