"""The scanner: what CMIP files say they are, and why a file is set aside; catalogs of what was found."""

import json
import os
import shutil

import netCDF4
import numpy as np
import pytest

from climatesuite.archive.catalog import read_catalog, write_catalog
from climatesuite.archive.read import open_runs
from climatesuite.archive.scan import member_key, scan
from climatesuite.errors import DataContractError, RepairWarning
from worlds.cmip import credible, write_cmip
from worlds.cmip_realities import change


def reason(path) -> str:
    """Why the only file was set aside."""
    found = scan(path)
    assert not found.entries and len(found.rejected) == 1
    return found.rejected[0].reason


def test_a_file_in_a_drs_tree_is_described_by_its_header(tmp_path):
    folder = tmp_path / "CMIP6/TEST-ESM/ssp245/r1i1p1f1/Amon/tas/gn/v20200101"
    path = write_cmip(folder, attrs={"tracking_id": "hdl:1"})
    (entry,) = scan(tmp_path).entries
    assert (entry.source_id, entry.experiment_id, entry.member, entry.variable_id) == (
        "TEST-ESM",
        "ssp245",
        "r1i1p1f1",
        "tas",
    )
    assert (entry.start, entry.stop, entry.grid_label, entry.version) == ("201501", "201612", "gn", "v20200101")
    assert (entry.license, entry.tracking_id, entry.path) == ("CC BY 4.0", "hdl:1", path)


def test_files_and_folders_may_be_given_together_and_twice(tmp_path):
    a, b = write_cmip(tmp_path / "a"), write_cmip(tmp_path / "b", member="r2i1p1f1")
    assert [e.path for e in scan([tmp_path / "a", a, b]).entries] == [a, b]


def test_a_name_alone_or_attributes_alone_are_enough(tmp_path):
    nameless = {
        k: None for k in ("variable_id", "source_id", "experiment_id", "variant_label", "table_id", "frequency")
    }
    write_cmip(tmp_path / "a", attrs=nameless)
    write_cmip(tmp_path / "b", file_name="mine.nc")
    assert {(e.source_id, e.member, e.start) for e in scan(tmp_path).entries} == {("TEST-ESM", "r1i1p1f1", "201501")}


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("variant_label", "r2i1p1f1"),
        ("experiment_id", "ssp126"),
        ("source_id", "OTHER"),
        ("grid_label", "gr"),
    ],
)
def test_where_name_and_attributes_disagree_the_attributes_hold_and_it_is_said(tmp_path, attribute, value):
    write_cmip(tmp_path, attrs={attribute: value})
    (entry,) = scan(tmp_path).entries
    facet = "member" if attribute == "variant_label" else attribute
    assert getattr(entry, facet) == value
    (note,) = entry.notes
    assert note.startswith(f"{facet} is '{value}', the name says '") and note.endswith("the attribute holds")


@pytest.mark.parametrize("attribute", ["source_id", "experiment_id", "variant_label"])
@pytest.mark.parametrize("value", ["a/b", "..", "../x", "a\\b", ".building"])
def test_a_run_that_could_be_no_folder_of_a_store_is_set_aside(tmp_path, attribute, value):
    write_cmip(tmp_path, attrs={attribute: value}, file_name="mine.nc")
    facet = "member" if attribute == "variant_label" else attribute
    assert reason(tmp_path) == f"{facet} is {value!r}, which can be no folder of a store"


def test_a_name_that_promises_other_months_sets_a_file_aside(tmp_path):
    write_cmip(
        tmp_path, months=("2015-01", "2016-12"), file_name="tas_Amon_TEST-ESM_ssp245_r1i1p1f1_gn_201501-210012.nc"
    )
    assert reason(tmp_path) == "holds 201501-201612, the file name says 201501-210012"


@pytest.mark.parametrize("table", ["day", "fx", "Omon", "6hrPlev"])
def test_other_tables_are_set_aside(tmp_path, table):
    write_cmip(tmp_path, attrs={"table_id": table}, file_name="mine.nc")
    assert reason(tmp_path) == f"table {table}, only Amon (monthly atmosphere) is used"


def test_other_frequencies_are_set_aside_even_where_the_table_is_not_named(tmp_path):
    write_cmip(tmp_path, attrs={"table_id": None, "frequency": "day"}, file_name="mine.nc")
    assert reason(tmp_path) == "frequency day, only mon (months) is used"


def test_a_climatology_is_set_aside(tmp_path):
    path = write_cmip(tmp_path, file_name="mine.nc")
    with netCDF4.Dataset(path, "a") as ds:
        ds["time"].climatology = "climatology_bnds"
    assert reason(tmp_path) == "a climatology, not a run"


def test_the_start_date_of_a_hindcast_is_a_part_of_its_member(tmp_path):
    for year in (1960, 1961):
        write_cmip(
            tmp_path / str(year), scenario="dcppA-hindcast", member=f"s{year}-r1i1p1f1",
            attrs={"sub_experiment_id": f"s{year}", "variant_label": "r1i1p1f1"},
        )  # fmt: skip
    assert {e.member for e in scan(tmp_path).entries} == {"s1960-r1i1p1f1", "s1961-r1i1p1f1"}


def test_a_file_that_says_nothing_is_set_aside(tmp_path):
    nothing = {k: None for k in ("variable_id", "source_id", "experiment_id", "variant_label")}
    write_cmip(tmp_path, file_name="mine.nc", attrs=nothing)
    assert reason(tmp_path) == "neither attributes nor file name give source_id, experiment_id, member"


def test_a_file_without_its_variable_or_its_time_is_set_aside(tmp_path):
    path = write_cmip(tmp_path)
    with netCDF4.Dataset(path, "a") as ds:
        ds.renameVariable("tas", "ts")
    assert reason(tmp_path) == "no variable tas in it"
    with netCDF4.Dataset(path, "a") as ds:
        ds.renameVariable("ts", "tas")
        ds["time"].units = "day as %Y%m%d.%f"
    assert reason(tmp_path) == "no time axis that can be read: time units 'day as %Y%m%d.%f' (no such month or day)"
    with netCDF4.Dataset(path, "a") as ds:
        ds["time"].units = "fortnights since 1850-01-01"
    assert "time units 'fortnights since 1850-01-01' (not a unit of time)" in reason(tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"CDF\x01garbage"])
def test_what_is_not_netcdf_is_set_aside(tmp_path, content):
    (tmp_path / "tas_Amon_X_ssp245_r1i1p1f1_gn_201501-201512.nc").write_bytes(content)
    assert reason(tmp_path).startswith("not readable as NetCDF, perhaps truncated")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("file_format", ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET"])
def test_a_truncated_file_is_set_aside_and_never_read_as_zeros(tmp_path, share, file_format):
    whole = write_cmip(tmp_path / "whole", grid=(12, 18), file_format=file_format)
    assert len(scan(whole).entries) == 1
    os.truncate(whole, int(whole.stat().st_size * share))
    assert reason(whole).startswith("not readable as NetCDF, perhaps truncated")


@pytest.mark.parametrize("suffix", [".nc4", ".NC", ".cdf", ".Nc"])
def test_netcdf_by_other_endings_is_read_and_its_name_understood(tmp_path, suffix):
    name = f"tas_Amon_TEST-ESM_ssp245_r1i1p1f1_gn_201501-201612{suffix}"
    path = write_cmip(tmp_path, attrs={"source_id": None, "variant_label": None}, file_name=name)
    (entry,) = scan(tmp_path).entries
    assert (entry.path, entry.source_id, entry.member) == (path, "TEST-ESM", "r1i1p1f1")


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".ZIP"])
def test_packed_files_are_set_aside_with_the_way_out(tmp_path, suffix):
    path = write_cmip(tmp_path)
    packed = path.rename(f"{path}{suffix}")
    for given in (tmp_path, packed, f"file://{packed}"):
        assert reason(given) == "packed: unpack it first, e.g. with gunzip"


@pytest.mark.parametrize("steps", [slice(None, None, -1), [3, 0, 2, *range(4, 24), 1]])
def test_months_in_any_order_are_months(tmp_path, steps):
    path = change(write_cmip(tmp_path), lambda ds: ds.isel(time=steps))
    (entry,) = scan(tmp_path).entries
    assert (entry.start, entry.stop) == ("201501", "201612")
    with pytest.warns(RepairWarning, match="out of order: put in order"):
        ds = open_runs(path)["TEST-ESM", "ssp245"]
    np.testing.assert_array_equal(ds.tas[0], credible("tas", 24, 4, 6))


@pytest.mark.parametrize("says", ["tas", "pr", None])
def test_every_known_variable_of_a_file_is_found_whatever_it_is_called(tmp_path, says):
    rain = credible("pr", 24, 4, 6)
    both = lambda ds: ds.assign(pr=(ds.tas.dims, rain, {"units": "kg m-2 s-1"}))  # noqa: E731
    change(write_cmip(tmp_path / "in", file_name="both.nc", attrs={"variable_id": says}), both)
    found = scan(tmp_path / "in")
    assert sorted((e.variable_id, e.start, e.stop) for e in found.entries) == [
        ("pr", "201501", "201612"), ("tas", "201501", "201612"),
    ]  # fmt: skip
    ds = open_runs(tmp_path / "in")["TEST-ESM", "ssp245"]
    np.testing.assert_array_equal(ds.pr[0], rain)
    np.testing.assert_array_equal(ds.tas[0], credible("tas", 24, 4, 6))


def test_a_folder_called_like_a_file_is_passed_over(tmp_path):
    (tmp_path / "store.nc").mkdir()
    write_cmip(tmp_path)
    found = scan(tmp_path)
    assert len(found.entries) == 1 and not found.rejected


def test_only_the_latest_version_is_kept(tmp_path):
    old, new = (write_cmip(tmp_path / v) for v in ("v20190101", "v20200101"))
    other = write_cmip(tmp_path / "v20190101", "pr")
    found = scan(tmp_path)
    assert {e.path for e in found.entries} == {new, other}
    assert [(r.path, r.reason) for r in found.replaced] == [(old, "version v20190101 is not the latest")]


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataContractError, match="no such file or folder"):
        scan(tmp_path / "absent")


def test_members_sort_by_number():
    assert sorted(["r10i1p1f1", "r9i1p1f1", "r1i1p1f2"], key=member_key) == ["r1i1p1f2", "r9i1p1f1", "r10i1p1f1"]


def test_the_table_has_a_line_for_every_run(tmp_path):
    write_cmip(tmp_path)
    write_cmip(tmp_path, "pr", member="r2i1p1f1")
    assert scan(tmp_path).table().splitlines()[1].split() == ["TEST-ESM", "ssp245", "pr,tas", "2", "201501-201612", "2"]


def test_a_catalog_gives_the_entries_back(tmp_path):
    write_cmip(tmp_path / "data")
    write_cmip(tmp_path / "data", "pr", attrs={"license": 'CC BY 4.0, "with" commas\nand lines'})
    found = scan(tmp_path / "data")
    description = write_catalog(found, tmp_path / "catalog" / "archive.json")
    assert read_catalog(description).entries == found.entries
    content = json.loads(description.read_text())
    assert content["esmcat_version"] == "0.1.0" and content["assets"] == {"column_name": "path", "format": "netcdf"}


def test_the_shared_archive_is_read_whole(climate_data):
    found = scan(climate_data / "CMIP6")
    assert len(found.entries) == 16 and not found.rejected
    members = {(e.experiment_id, e.member) for e in found.entries}
    assert {m for e, m in members if e == "ssp370"} == {"r4i1p1f1", "r10i1p1f1"}
    assert {(e.start, e.stop, e.license) for e in found.entries} == {("201501", "209912", "CC BY 4.0")}


def test_real_files_of_many_models_are_told_apart(climate_data):
    found = scan(climate_data / "samples")
    reasons = {r.path.name: r.reason for r in found.rejected}
    assert len(found.entries) + len(found.rejected) == len(list((climate_data / "samples").rglob("*.nc")))
    sources = {e.source_id for e in found.entries}
    assert {"EC-Earth3-Veg-LR", "KACE-1-0-G", "HadGEM3-GC31-MM", "CanESM5"} & sources
    assert not any("_day_" in e.path.name for e in found.entries)
    (hadgem,) = {e.member for e in found.entries if e.source_id == "HadGEM3-GC31-MM" and e.variable_id == "pr"}
    assert hadgem == "s2004-r3i1p1f2"
    assert reasons["mrsofc_fx_MPI-ESM1-2-LR_ssp370_r1i1p1f1_gn.nc"].startswith("table fx")
    assert reasons["o3_AERmon_MPI-ESM1-2-LR_historical_r1i1p1f1_gn_185001.nc"].startswith("table AERmon")


def test_a_real_classic_file_cut_short_is_set_aside(climate_data, tmp_path):
    source = next(
        p for p in sorted((climate_data / "samples").rglob("*.nc")) if p.read_bytes()[:4] in (b"CDF\x01", b"CDF\x02")
    )
    cut = shutil.copy(source, tmp_path / source.name)
    os.chmod(cut, 0o644)
    os.truncate(cut, source.stat().st_size - 8)
    with netCDF4.Dataset(cut) as ds:  # the library itself notices nothing
        assert all(np.isfinite(ds.dimensions[d].size) for d in ds.dimensions)
    assert "shorter than its header says" in reason(cut)
