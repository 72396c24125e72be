"""Every file that a part was read from has a record, whatever the file is called; a change in any of them is noticed."""

import shutil

import netCDF4
import pytest

from climatesuite.build import build
from climatesuite.errors import DataContractError
from climatesuite.store.describe import describe
from climatesuite.store.provenance import digest, read_provenance
from climatesuite.store.verify import verify
from worlds.cmip import write_cmip
from worlds.cmip_realities import in_groups, sound


def make(folder, **settings):
    return build(folder / "in", folder / "s.zarr", variables=("tas",), progress=False, **settings)


def records(folder):
    return [(r["experiment_id"], r["member"], r["name"]) for r in read_provenance(folder / "s.zarr")["sources"]]


def warm(path):
    with netCDF4.Dataset(path, "a") as file:
        file["tas"][:] = file["tas"][:] + 1


def test_files_of_one_name_in_two_folders_are_two_files(tmp_path):
    for scenario in ("ssp126", "ssp370"):
        write_cmip(tmp_path / "in" / scenario, scenario=scenario, file_name="tas.nc")
    make(tmp_path)
    assert records(tmp_path) == [("ssp126", "r1i1p1f1", "tas.nc"), ("ssp370", "r1i1p1f1", "tas.nc")]
    assert make(tmp_path).was_noop
    warm(tmp_path / "in/ssp126/tas.nc")
    with pytest.raises(DataContractError, match="other files .tas.nc for tas of TEST-ESM ssp126 r1i1p1f1"):
        make(tmp_path)


def test_parts_of_one_run_may_have_one_name(tmp_path):
    for part, months in enumerate((("2015-01", "2015-12"), ("2016-01", "2016-12"))):
        write_cmip(tmp_path / f"in/part{part}", months=months, file_name="tas.nc")
    make(tmp_path)
    assert len(records(tmp_path)) == 2 and verify(tmp_path / "s.zarr") == []
    assert make(tmp_path).was_noop


def test_a_parent_that_two_scenarios_share_is_recorded_for_both(tmp_path):
    write_cmip(tmp_path / "in", scenario="historical", months=("2013-01", "2014-12"))
    for scenario in ("ssp126", "ssp370"):
        parent = {"parent_experiment_id": "historical", "parent_variant_label": "r1i1p1f1"}
        write_cmip(tmp_path / "in", scenario=scenario, attrs=parent)
    asked = {"experiments": ["ssp126", "ssp370"], "join_parents": True}
    make(tmp_path, **asked)
    (shared,) = {name for _, _, name in records(tmp_path) if "historical" in name}
    assert [e for e, _, name in records(tmp_path) if name == shared] == ["ssp126", "ssp370"]
    assert "from 3 files" in describe(tmp_path / "s.zarr") and make(tmp_path, **asked).was_noop


def test_an_added_member_from_the_same_file_has_a_record_of_its_own(tmp_path):
    path = in_groups(sound(tmp_path / "in", file_name="tas.nc"), ("r1i1p1f1", "r2i1p1f1"))
    make(tmp_path, members={"ssp245": ["r1i1p1f1"]})
    make(tmp_path)
    assert records(tmp_path) == [("ssp245", m, "tas.nc") for m in ("r1i1p1f1", "r2i1p1f1")]
    assert {r["sha256"] for r in read_provenance(tmp_path / "s.zarr")["sources"]} == {digest(path)}
    assert make(tmp_path).was_noop


def test_an_archive_that_was_moved_and_renamed_is_the_same_input(tmp_path):
    write_cmip(tmp_path / "in", file_name="a.nc")
    write_cmip(tmp_path / "in", file_name="b.nc", member="r2i1p1f1")
    make(tmp_path)
    shutil.copytree(tmp_path / "in", tmp_path / "new/in", copy_function=shutil.copyfile)
    (tmp_path / "new/in/a.nc").rename(tmp_path / "new/in/c.nc")
    shutil.copytree(tmp_path / "s.zarr", tmp_path / "new/s.zarr")
    assert make(tmp_path / "new").was_noop
