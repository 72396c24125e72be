"""Files of a layout of their own (CESM history, as aerosol injections are published): scanned, built, refused with the reason."""

import re

import numpy as np
import pytest
import yaml

from climatesuite.__main__ import main
from climatesuite.archive.catalog import read_catalog, write_catalog
from climatesuite.archive.layouts import read_layout
from climatesuite.archive.scan import scan
from climatesuite.build import build
from climatesuite.building import units
from climatesuite.errors import DataContractError
from climatesuite.plan import plan
from climatesuite.store.open import list_runs, open_run
from climatesuite.store.provenance import read_provenance
from climatesuite.store.verify import verify
from worlds.cesm import ARISE, GRID, credible, write_history
from worlds.cmip import write_cmip

KEY, CESM = ("CESM2-WACCM", "ARISE-SAI-1.5"), read_layout("cesm")
pytestmark = pytest.mark.filterwarnings("ignore::climatesuite.errors.RepairWarning")  # no bounds of lat and lon


def write_run(folder, member="001", rain=("PRECC", "PRECL"), **more):
    for stored in ("TREFHT", *rain):
        write_history(folder, stored, member=member, **more)
    return folder


def made(folder, **more):
    build(folder, folder.parent / "s.zarr", layout="cesm", progress=False, **more)
    return open_run(folder.parent / "s.zarr", *KEY, "month")


# ---- what is read


def test_a_scan_knows_model_experiment_member_and_months_by_the_file_name(tmp_path):
    write_run(tmp_path, months=("203501", "203612"))
    found = scan(tmp_path, CESM)
    assert not found.rejected and not found.replaced
    assert {(e.source_id, e.experiment_id, e.member, e.start, e.stop, e.grid_label) for e in found.entries} == {
        (*KEY, "001", "203501", "203612", "gn")
    }
    assert {(e.variable_id, e.stored, e.terms) for e in found.entries} == {
        ("tas", "TREFHT", ("TREFHT",)), ("pr", "PRECC", ("PRECC", "PRECL")), ("pr", "PRECL", ("PRECC", "PRECL")),
    }  # fmt: skip
    assert read_catalog(write_catalog(found, tmp_path / "catalog")).entries == found.entries
    assert scan(tmp_path).entries == ()  # without the layout they are nobody's


def test_a_store_holds_kelvin_and_the_sum_of_both_rains_in_the_right_months(tmp_path):
    write_run(tmp_path / "in")
    ds = made(tmp_path / "in")
    np.testing.assert_array_equal(ds.tas[0], credible("TREFHT", 36))
    rain = 1000 * (credible("PRECC", 36).astype("f8") + credible("PRECL", 36))  # m s-1 to kg m-2 s-1
    np.testing.assert_allclose(ds.pr[0], rain, rtol=2e-7)
    assert ds.pr.attrs["units"] == "kg m-2 s-1" and ds.member.values.tolist() == ["001"]
    assert ds.year.values[[0, -1]].tolist() == [2035, 2037] and ds.month.values[:2].tolist() == [1, 2]  # not February
    np.testing.assert_allclose(ds.lat_bnds[[0, -1]], [[-90, -75], [75, 90]])  # rows at the poles are half as high
    assert verify(tmp_path / "s.zarr") == []
    records = {r["stored"]: r for r in read_provenance(tmp_path / "s.zarr")["sources"]}
    assert set(records) == {"TREFHT", "PRECC", "PRECL"} and records["PRECL"]["variable_id"] == "pr"


def test_total_rain_is_taken_where_it_is_there(tmp_path):
    write_run(tmp_path / "in", rain=("PRECT", "PRECC", "PRECL"))
    found = scan(tmp_path / "in", CESM)
    assert {r.reason for r in found.replaced} == {"PRECT is there, of 36 months, this one of 36"} and len(
        found.replaced
    ) == 2
    np.testing.assert_allclose(made(tmp_path / "in").pr[0], 1000 * credible("PRECT", 36).astype("f8"), rtol=2e-7)


def test_the_way_to_rain_that_holds_more_months_is_taken(tmp_path):
    write_run(tmp_path / "in", rain=("PRECC", "PRECL"), months=("203501", "204412"))
    for months in (("203501", "203512"), ("203601", "203612")):
        write_history(tmp_path / "in", "PRECT", months=months)
    found = scan(tmp_path / "in", CESM)
    assert {(e.stored, e.stop) for e in found.entries if e.variable_id == "pr"} == {
        ("PRECC", "204412"), ("PRECL", "204412"),
    }  # fmt: skip
    assert {r.reason for r in found.replaced} == {"PRECC + PRECL is there, of 120 months, this one of 24"}
    assert made(tmp_path / "in").pr.sizes["time"] == 120


def test_files_split_in_time_are_joined_term_by_term_in_blocks_and_at_once(tmp_path, monkeypatch):
    values = {s: credible(s, 60) for s in ("TREFHT", "PRECC", "PRECL")}
    for stored, cut in (("TREFHT", 36), ("PRECC", 24), ("PRECL", 36)):  # cut at other years
        last = 2034 + cut // 12
        write_history(tmp_path / "in", stored, months=("203501", f"{last}12"), values=values[stored][:cut])
        write_history(tmp_path / "in", stored, months=(f"{last + 1}01", "203912"), values=values[stored][cut:])
    assert main(["scan", str(tmp_path / "in"), "--layout", "cesm"]) == 0
    rain = 1000 * (values["PRECC"].astype("f8") + values["PRECL"])
    np.testing.assert_allclose(made(tmp_path / "in").pr[0], rain, rtol=2e-7)
    monkeypatch.setattr(units, "BLOCK_BYTES", 1)
    build(tmp_path / "in", tmp_path / "blocks.zarr", layout="cesm", progress=False)
    np.testing.assert_allclose(open_run(tmp_path / "blocks.zarr", *KEY, "month").pr[0], rain, rtol=2e-7)


def test_injections_join_a_store_of_cmip_files_and_a_folder_may_hold_both(tmp_path, capsys):
    for name in ("tas", "pr"):
        write_cmip(tmp_path / "in", name, "CESM2-WACCM", "ssp245", months=("2035-01", "2037-12"))
    store = str(tmp_path / "s.zarr")
    assert main(["build", str(tmp_path / "in"), store, "--grid", "4x6"]) == 0
    write_run(tmp_path / "in", "001")
    write_run(tmp_path / "in", "002", rain=("PRECT",))
    assert main(["build", str(tmp_path / "in"), store, "--grid", "4x6", "--layout", "cesm"]) == 0
    assert "2 members added" in capsys.readouterr().out
    assert set(list_runs(store)) == {KEY, ("CESM2-WACCM", "ssp245")} and verify(store) == []
    assert open_run(store, *KEY, "year").tas.shape == (2, 3, 4, 6)
    assert main(["build", str(tmp_path / "in"), store, "--grid", "4x6", "--layout", "cesm"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_recipe_plans_them_from_their_headers(tmp_path):
    write_run(tmp_path / "in", "001")
    write_run(tmp_path / "in", "002", rain=("PRECT",))
    write_history(tmp_path / "in", "TREFHT", member="003")
    part = {"name": "sai", "layout": "cesm", "archive": str(tmp_path / "in"), "experiments": {KEY[1]: [2035, 2037]}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "mine", "parts": [part]}))
    made_plan = plan(recipe)
    assert (made_plan.members, made_plan.years) == (2, 6) and made_plan.parts[0].shape == GRID
    assert "not whole: CESM2-WACCM ARISE-SAI-1.5 003: no pr" in str(made_plan) and "note: layout cesm: history" in str(
        made_plan
    )


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"said": f"{ARISE}.002"}, f"attribute case is '{ARISE}.002', the file name says '{ARISE}.001'"),
        ({"units": "degC"}, "TREFHT in degC, the layout cesm says K"),
        ({"stored": "TS"}, r"TS is not among the variables of the layout cesm \(TREFHT, PRECT, PRECC, PRECL\)"),
        ({"case": "b.e21.MINE"}, "case b.e21.MINE is not among the runs of the layout cesm"),
        ({"file_name": f"{ARISE}.001.cam.h0.TREFHT.203501-203812.nc"}, "holds 203501-203712, the file name says 203501-203812"),
        ({"file_name": f"{ARISE}.001.cam.h0.PRECT.203501-203712.nc"}, "no variable PRECT in it"),
        ({"file_name": f"Ensmean_{ARISE}.001-010.cam.h0.TREFHT.203501-203712.nc"}, "no variable of the table of known variables"),
        ({"file_name": f"{ARISE}.001.cam.h1.TREFHT.20350101-20371231.nc"}, "no variable of the table of known variables"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_its_layout_is_set_aside_with_the_reason(tmp_path, settings, reason):
    write_history(tmp_path, **settings)
    found = scan(tmp_path, CESM)
    assert not found.entries and re.search(reason, found.rejected[0].reason)


def refused(folder, words, **more):
    with pytest.raises(DataContractError, match=words):
        made(folder, **more)


def test_half_of_the_rain_is_refused_not_taken_for_the_whole(tmp_path):
    write_run(tmp_path / "in", rain=("PRECC",))
    refused(tmp_path / "in", "pr of CESM2-WACCM ARISE-SAI-1.5 001: PRECC without PRECL")


def test_years_that_one_of_two_rains_lacks_are_refused_in_every_block(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "BLOCK_BYTES", 1)
    write_run(tmp_path / "in", rain=("PRECC",))
    write_history(tmp_path / "in", "PRECL", months=("203501", "203612"))
    refused(tmp_path / "in", "PRECL for pr of CESM2-WACCM ARISE-SAI-1.5 001: no month in .2037, 2037.")


def test_a_truncated_file_fails_its_member_and_is_not_overlooked(tmp_path):
    write_run(tmp_path / "in", rain=("PRECT",))
    path = write_history(tmp_path / "in", months=("203801", "203912"))
    write_history(tmp_path / "in", "PRECT", months=("203801", "203912"))
    path.write_bytes(path.read_bytes()[:3000])
    refused(tmp_path / "in", "tas of CESM2-WACCM ARISE-SAI-1.5 001: not readable as NetCDF, perhaps truncated")


def test_rain_of_a_wrong_size_is_found_in_the_sum(tmp_path):
    write_history(tmp_path / "in")
    for stored in ("PRECC", "PRECL"):
        write_history(tmp_path / "in", stored, values=1000 * credible(stored, 36))  # already mm s-1
    refused(tmp_path / "in", "pr of CESM2-WACCM ARISE-SAI-1.5 001: values from .* is the unit label right")


# ---- layouts


def test_a_layout_of_ones_own_is_a_file(tmp_path):
    mine = {
        "name": "mine", "file": r"(?P<case>\w+)-(?P<member>\d+)\.cam\.h0\.(?P<stored>\w+)\.(?P<start>\d{6})-(?P<stop>\d{6})\.nc",
        "variables": {"tas": [{"TREFHT": "K"}]}, "runs": {"spray": {"source_id": "MY-ESM", "experiment_id": "spray"}},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    write_history(tmp_path / "in", file_name="spray-7.cam.h0.TREFHT.203501-203712.nc")
    build(
        tmp_path / "in", tmp_path / "s.zarr", layout=tmp_path / "mine.yaml", variables=("tas",), progress=False
    )  # fmt: skip
    assert open_run(tmp_path / "s.zarr", "MY-ESM", "spray", "month").member.values.tolist() == ["7"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "layout l.yaml: keys .*colour.*; expected about, attribute, file, name, runs, variables"),
        (
            {"file": r"(?P<case>\w+)\.nc"},
            "layout l.yaml: not understood .file has no group member, start, stop, stored",
        ),
        ({"file": "("}, "layout l.yaml: not understood .missing"),
        ({"variables": {"tos": [{"SST": "K"}]}}, "layout l.yaml: not understood .tos unknown, known are tas, pr"),
        (
            {"variables": {"tas": [{"TREFHT": "furlong"}]}},
            "layout l.yaml: not understood .TREFHT of the layout: units 'furlong'",
        ),
        ({"runs": {"a": {"source_id": "A"}}}, "layout l.yaml: not understood .'experiment_id'"),
        (
            {"runs": {case: {"source_id": "A", "experiment_id": "b"} for case in ("x", "y")}},
            "layout l.yaml: not understood .cases x, y are all A b: their members would be mixed",
        ),
    ],
)
def test_a_layout_that_says_too_little_or_too_much_is_refused(tmp_path, change, words):
    good = {"name": "l", "file": CESM.file.pattern, "variables": {"tas": [{"T": "K"}]},
            "runs": {"a": {"source_id": "A", "experiment_id": "b"}}}  # fmt: skip
    (tmp_path / "l.yaml").write_text(yaml.safe_dump({**good, **change}))
    with pytest.raises(DataContractError, match=words):
        read_layout(tmp_path / "l.yaml")
    with pytest.raises(
        DataContractError, match="layout absent: no such file or name; expected a YAML file or one of cesm"
    ):
        read_layout("absent")
