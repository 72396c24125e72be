"""Every real file set is ingested, or refused with the right reason."""

import json
import re
import runpy
from pathlib import Path

import pytest

from climatesuite.archive.read import open_runs, read_variable
from climatesuite.archive.scan import scan
from climatesuite.errors import DataContractError, RepairWarning

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "real_files.py"
RESULT, set_name = (runpy.run_path(str(SCRIPT))[n] for n in ("RESULT", "set_name"))

INGESTED = {
    "xcdat-data: tas_Amon_CanESM5_historical_r13i1p1f1_gn_subset.nc",
    "mesmer: tas_mon_IPSL-CM6A-LR_ssp126_r1i1p1f1_g025.nc",
    "mesmer: tas_mon_IPSL-CM6A-LR_ssp585_r1i1p1f1_g025.nc",
}


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    """The table that the experiment wrote."""
    return {r["set"]: r for r in json.loads(RESULT.read_text())["rows"]}


def test_the_table_has_every_file_of_the_samples(climate_data, rows):
    folder = climate_data / "samples"
    counts: dict[str, int] = {}
    for path in folder.rglob("*.nc"):
        counts[set_name(path, folder)] = counts.get(set_name(path, folder), 0) + 1
    assert {name: r["files"] for name, r in rows.items()} == counts


def test_what_is_ingested_is_what_a_person_would_ingest(rows):
    assert {name for name, r in rows.items() if r["outcome"] == "ingested"} == INGESTED


def test_one_refused_set_can_be_used_with_a_target_grid_the_other_grids_of_cells_are_no_known_variables(rows):
    cells = {
        n: r for n, r in rows.items() if r["outcome"] == "refused" and re.search("curvilinear|unstructured", r["grid"])
    }
    assert len(cells) == 13
    assert [r["variable"] for r in cells.values() if "grid (" in r["reason"]] == [
        "tas"
    ]  # ICON-ESM-LR: test_climatesuite_cells
    assert all(re.search("only Amon|only mon|only months|grid [(]", r["reason"]) for r in cells.values())


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("tas_Amon_ICON-ESM-LR", "an unstructured grid"),
        ("tas_Amon_HadGEM2-ES_rcp85", "lat_bnds in .* do not meet"),  # every hundredth cell of the model's grid
        ("tas_Amon_AWI-ESM-1-1-LR_1pctCO2", "a gap: 1855-01 is followed by 2099-01"),
        ("tasmax_day_MPI-ESM1-2-LR_dcppA-hindcast_s1980-r1i1p1f1", "steps of 1 days"),  # its attributes say mon
        ("tas_ann_IPSL-CM6A-LR_historical_r1i1p1f1", "steps of 365 days"),  # its attributes say mon
        ("ta_Amon_FGOALS-f3-L", "not in the table of known variables"),
    ],
)
def test_reasons_are_those_that_a_person_finds(climate_data, rows, part, reason):
    (name,) = [n for n in rows if part in n]
    assert rows[name]["outcome"] == "refused" and re.search(reason, rows[name]["reason"])
    folder = climate_data / "samples"
    paths = [p for p in folder.rglob("*.nc") if set_name(p, folder) == name]
    found = scan(paths)  # and the code of today says the same
    said = [r.reason for r in found.rejected]
    if found.entries:
        with pytest.raises(DataContractError) as caught:
            read_variable(found.entries, found.entries[0].variable_id, None)
        said.append(str(caught.value))
    assert any(re.search(reason, text) for text in said)


@pytest.mark.filterwarnings("ignore::climatesuite.errors.RepairWarning")
def test_real_runs_without_bounds_are_read_and_it_is_said(climate_data):
    (path,) = (climate_data / "samples").rglob("tas_mon_IPSL-CM6A-LR_ssp585_r1i1p1f1_g025.nc")
    with pytest.warns(RepairWarning, match="no time bounds: months by their dates"):
        ds = open_runs(path)["IPSL-CM6A-LR", "ssp585"]
    assert ds.sizes["time"] == 1032 and ds.year.values[[0, -1]].tolist() == [2015, 2100]
