"""Scenarios begin with the runs that they branch off, by their parent attributes, and the seam is checked."""

import numpy as np
import pytest
import xarray as xr

from climatesuite.__main__ import main
from climatesuite.archive.lineage import joined, parents
from climatesuite.archive.read import open_runs
from climatesuite.archive.scan import scan
from climatesuite.errors import DataContractError, RepairWarning
from climatesuite.store.provenance import read_provenance
from worlds.cmip import write_cmip

YEARS = {"historical": (2005, 2014), "ssp585": (2015, 2024), "ssp534-over": (2020, 2024)}
PARENT = {"ssp585": "historical", "ssp534-over": "ssp585"}


def seasonal(first: int, last: int, shift: float = 0.0) -> np.ndarray:
    """Months (n, 4, 6) with a season, a trend and noise of 0.3 K; the same month of the same seed is the same in any run."""
    month = np.arange(12 * first, 12 * last + 12)
    base = 285 + 10 * np.cos(2 * np.pi * month / 12) + 0.002 * (month - 12 * 2005)
    noise = np.stack([np.random.default_rng(int(m)).normal(0, 0.3, (4, 6)) for m in month])
    return (base[:, None, None] + shift + noise).astype(np.float32)


def write(folder, scenario, member="r1i1p1f1", parent_member="r1i1p1f1", shift=0.0, years=None, **settings):
    first, last = years or YEARS[scenario]
    attrs = {"parent_experiment_id": PARENT.get(scenario, "piControl"), "parent_variant_label": parent_member}
    months = (f"{first}-01", f"{last}-12")
    values = seasonal(first, last, shift)
    return write_cmip(folder, scenario=scenario, member=member, months=months, values=values, attrs=attrs, **settings)


def test_a_scenario_begins_with_its_parent(tmp_path):
    for scenario in ("historical", "ssp585"):
        write(tmp_path, scenario)
    ds = open_runs(tmp_path, experiments=["ssp585"], join_parents=True)["TEST-ESM", "ssp585"]
    assert ds.year.values[[0, -1]].tolist() == [2005, 2024] and ds.sizes["time"] == 240
    assert np.array_equal(ds.tas.values[0], seasonal(2005, 2024))


def test_an_overshoot_begins_with_both_its_ancestors_up_to_where_it_branches_off(tmp_path):
    for scenario in YEARS:
        write(tmp_path, scenario)
    ds = open_runs(tmp_path, experiments=["ssp534-over"], join_parents=True)["TEST-ESM", "ssp534-over"]
    assert np.array_equal(ds.tas.values[0], seasonal(2005, 2024)) and set(ds.experiment_id.split()) == {"ssp534-over"}
    origins = {(e.origin, e.stop) for e in joined(scan(tmp_path)).entries if e.experiment_id == "ssp534-over"}
    assert origins == {("historical r1i1p1f1", "201412"), ("ssp585 r1i1p1f1", "201912"), ("", "202412")}


def test_the_parent_is_the_member_that_is_named_and_not_the_one_of_the_same_label(tmp_path):
    write(tmp_path, "historical", member="r1i1p1f1", shift=3.0)
    write(tmp_path, "historical", member="r7i1p1f1")
    write(tmp_path, "ssp585", parent_member="r7i1p1f1")
    ds = open_runs(tmp_path, experiments=["ssp585"], join_parents=True)["TEST-ESM", "ssp585"]
    assert np.array_equal(ds.tas.values[0], seasonal(2005, 2024))


def test_without_its_parent_or_unless_asked_a_scenario_stays_as_it_is(tmp_path):
    write(tmp_path / "a", "ssp585")
    assert joined(scan(tmp_path / "a")).entries == scan(tmp_path / "a").entries
    write(tmp_path / "a", "historical")
    assert open_runs(tmp_path / "a", experiments=["ssp585"])["TEST-ESM", "ssp585"].sizes["time"] == 120


def test_a_jump_at_the_seam_is_refused(tmp_path):
    write(tmp_path, "historical", shift=4.0)
    write(tmp_path, "ssp585")
    message = "tas of TEST-ESM ssp585 r1i1p1f1: its mean jumps by .* after 2014-12, where historical r1i1p1f1 ends"
    with pytest.raises(DataContractError, match=message):
        open_runs(tmp_path, experiments=["ssp585"], join_parents=True)


def test_a_parent_that_ends_too_early_is_refused(tmp_path):
    write(tmp_path, "historical", years=(2005, 2013))
    write(tmp_path, "ssp585")
    with pytest.raises(
        DataContractError, match="its parent historical r1i1p1f1 ends in 201312; expected months to 201412"
    ):
        joined(scan(tmp_path))


def test_a_parent_in_another_calendar_is_refused(tmp_path):
    write(tmp_path, "historical", calendar="360_day")
    write(tmp_path, "ssp585")
    with pytest.raises(DataContractError, match="calendars 360_day and noleap in it and its parent historical"):
        joined(scan(tmp_path))


def test_files_of_a_run_that_name_differing_parents_are_refused(tmp_path):
    write(tmp_path, "ssp585", years=(2015, 2019))
    write(tmp_path, "ssp585", years=(2020, 2024), parent_member="r2i1p1f1")
    with pytest.raises(DataContractError, match="differing parents historical r1i1p1f1 and historical r2i1p1f1"):
        joined(scan(tmp_path))


def test_parents_are_listed_and_those_that_are_not_here(tmp_path):
    write(tmp_path, "ssp585")
    (line,) = parents(scan(tmp_path))
    assert line == "parent: TEST-ESM ssp585 r1i1p1f1 branches off historical r1i1p1f1, which is not here"
    write(tmp_path, "historical")
    assert parents(scan(tmp_path)) == [line.removesuffix(", which is not here")]


def test_real_scenarios_without_parent_attributes_are_not_joined(climate_data):
    found = scan(climate_data / "CMIP6")
    assert joined(found).entries == found.entries


def test_a_store_holds_scenarios_with_their_parents_if_asked(tmp_path):
    for scenario in ("historical", "ssp585"):
        write(tmp_path / "in", scenario)
    out = str(tmp_path / "s.zarr")
    asked = ["build", str(tmp_path / "in"), out, "--experiments", "ssp585", "--variables", "tas"]
    assert main([*asked, "--join-parents"]) == 0
    ds = xr.open_zarr(out, group="TEST-ESM/ssp585/month", consolidated=False)
    assert np.array_equal(ds.tas.values[0], seasonal(2005, 2024))
    records = {r["name"]: r for r in read_provenance(out)["sources"]}
    assert {r.get("origin") for r in records.values()} == {None, "historical r1i1p1f1"}
    assert main(asked) == 1  # not the same store


def test_a_store_keeps_the_file_that_is_said_to_hold_and_says_so(tmp_path):
    values = seasonal(2015, 2016)
    write_cmip(tmp_path / "in", months=("2015-01", "2015-12"), values=values[:12])
    write_cmip(tmp_path / "in", months=("2015-12", "2016-12"), values=values[11:] + 1)
    asked = ["build", str(tmp_path / "in"), str(tmp_path / "s.zarr"), "--variables", "tas"]
    assert main(asked) == 1
    with pytest.warns(RepairWarning, match="1 months differ between files .2015-12 to 2015-12.: the last one kept"):
        assert main([*asked, "--on-overlap", "last"]) == 0
    ds = xr.open_zarr(str(tmp_path / "s.zarr"), group="TEST-ESM/ssp245/month", consolidated=False)
    assert np.array_equal(ds.tas.values[0, 11], values[11] + 1)
    repairs = [text for r in read_provenance(tmp_path / "s.zarr")["sources"] for text in r.get("repairs", [])]
    assert repairs == ["1 months differ between files (2015-12 to 2015-12): the last one kept"]
