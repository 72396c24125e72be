"""A build makes a sound store of what was asked for, or says in one sentence why not and leaves nothing behind."""

import os
import shutil
import subprocess
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from climatesuite.archive.read import open_runs
from climatesuite.build import build
from climatesuite.building import units
from climatesuite.errors import DataContractError
from climatesuite.harmonise.grids import area_weights
from climatesuite.store import provenance
from climatesuite.store.open import list_runs, open_run, open_statistics
from climatesuite.store.provenance import code_commit, digest, read_provenance
from climatesuite.store.verify import verify
from worlds.canonical import write_forcing_file
from worlds.cmip import write_cmip

MONTHS, MEMBERS = ("2015-01", "2026-12"), ("r9i1p1f1", "r10i1p1f1")
NAMES = ("CO2", "SO2")


def write_archive(folder, scenarios=("ssp126", "ssp245"), source="TEST-ESM", members=MEMBERS, **more):
    """tas and pr of two scenarios with two members; no two fields are equal."""
    runs = [(s, m, v) for s in scenarios for m in members for v in ("tas", "pr")]
    for seed, (scenario, member, name) in enumerate(runs):
        rng = np.random.default_rng(seed).random((144, 4, 6))
        values = 270 + 30 * rng if name == "tas" else (2 + 2 * rng) / 86400
        write_cmip(folder / "CMIP6", name, source, scenario, member, MONTHS, values.astype("f4"), **more)
    for scenario in scenarios:
        write_forcing_file(folder / "forcings", scenario)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = write_archive(tmp_path_factory.mktemp("build"))
    return folder, make(folder)


@pytest.fixture
def archive(built, tmp_path):
    """The archive without the store."""
    return shutil.copytree(built[0], tmp_path / "a", ignore=shutil.ignore_patterns("s.zarr"))


@pytest.fixture
def done(built, tmp_path):
    """The archive with its store, both free to be harmed."""
    return shutil.copytree(built[0], tmp_path / "a")


def make(folder, **settings):
    given = {"forcings": folder / "forcings", "forcing_names": NAMES, "progress": False, **settings}
    return build(folder / "CMIP6", folder / "s.zarr", **given)


def beside(folder):
    return sorted(p.name for p in folder.iterdir())


def cmip_file(folder, name="tas", scenario="ssp126", member="r9i1p1f1"):
    (path,) = folder.glob(f"CMIP6/{name}_*_{scenario}_{member}_*.nc")
    return path


def refuse(folder, words, **settings):
    """The request is refused with these words and nothing is left beside the archive."""
    before = beside(folder)
    with pytest.raises(DataContractError, match=words):
        make(folder, **settings)
    assert beside(folder) == before


def test_the_report_says_what_was_done(built):
    folder, report = built
    assert report.path == folder / "s.zarr" and not report.was_noop and report.rejected == ()
    assert report.runs == (("TEST-ESM", "ssp126"), ("TEST-ESM", "ssp245"))
    assert report.members == (MEMBERS, MEMBERS)
    assert report.bytes == sum(p.stat().st_size for p in report.path.rglob("*") if p.is_file())
    assert "TEST-ESM ssp126 (2 members)" in str(report) and report.seconds > 0


def test_a_built_store_is_sound_and_alone(built):
    folder, report = built
    assert verify(report.path) == []
    assert beside(folder) == ["CMIP6", "forcings", "s.zarr"]


def test_months_in_the_store_are_those_of_the_files(built):
    folder, report = built
    for key, month in open_runs(folder / "CMIP6").items():
        stored = open_run(report.path, *key, "month")
        assert stored.member.values.tolist() == list(MEMBERS)
        for name in ("tas", "pr"):
            np.testing.assert_array_equal(stored[name].values, month[name].values)
            assert stored[name].attrs["units"] == month[name].attrs["units"]


def test_years_are_means_weighted_with_days(built):
    ds = open_run(built[1].path, "TEST-ESM", "ssp245", "month")
    year = open_run(built[1].path, "TEST-ESM", "ssp245", "year")
    weights = ds.days.where(ds.year == 2017, 0.0) / 365
    np.testing.assert_allclose(
        (ds.tas.astype(float) * weights).sum("time"), year.tas.isel(time=2).values, rtol=1e-6
    )  # fmt: skip


def test_forcings_lie_beside_the_fields_at_every_timescale(built):
    for timescale, steps in (("month", 144), ("year", 12), ("decade", 1)):
        ds = open_run(built[1].path, "TEST-ESM", "ssp126", timescale)
        assert ds.CO2.dims == ("time",) and ds.SO2.dims == ("time", "lat", "lon")
        assert ds.CO2.sizes["time"] == steps and ds.CO2.attrs["role"] == "forcing" and ds.CO2.attrs["units"] == "Gt"


def test_provenance_names_every_file_with_digest_and_licence(built):
    folder, report = built
    known = read_provenance(report.path)
    paths = {p.name: p for part in ("CMIP6", "forcings") for p in (folder / part).iterdir()}
    assert {r["name"]: (r["sha256"], r["bytes"]) for r in known["sources"]} == {
        n: (digest(p), p.stat().st_size) for n, p in paths.items()
    }
    record = next(r for r in known["sources"] if r["name"] == cmip_file(folder).name)
    assert record["member"] == "r9i1p1f1" and record["license"] == "CC BY 4.0"
    assert known["settings"]["runs"] == {"TEST-ESM/ssp126": list(MEMBERS), "TEST-ESM/ssp245": list(MEMBERS)}


def test_the_same_again_does_nothing_and_reads_no_data(built, monkeypatch):
    folder, report = built
    monkeypatch.setattr(units, "read_variable", lambda *a: pytest.fail("read a file"))
    before = {p: p.stat().st_mtime_ns for p in report.path.rglob("*")}
    again = make(folder)
    assert again.was_noop and (again.runs, again.members, again.bytes) == (report.runs, report.members, report.bytes)
    assert {p: p.stat().st_mtime_ns for p in report.path.rglob("*")} == before
    assert make(folder, variables=("pr", "tas"), forcing_names=("SO2", "CO2")).was_noop
    assert "is there already" in str(again)


def test_a_copy_with_new_time_stamps_is_the_same_input(done):
    for path in done.rglob("*.nc"):
        os.utime(path, ns=(1, 1))
    assert make(done).was_noop


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"variables": ("tas",)}, "other settings .variables: tas pr in it, tas asked for.*repeat the options"),
        ({"years": (2015, 2020)}, "other settings .years: none in it, 2015 2020 asked for"),
        (
            {"grid": (2, 3), "forcings": None},
            "other settings .forcings: CO2 SO2 in it, none asked for; grid: none in it, 2 3",
        ),
        ({"decade_start": 2016}, "other settings .decade_start"),
        ({"forcing_names": ("CO2",)}, "other settings .forcings"),
    ],
)
def test_other_settings_are_refused_and_the_store_stays(built, settings, words):
    refuse(built[0], words, **settings)
    assert verify(built[1].path, deep=False) == []


@pytest.mark.parametrize("part", ["CMIP6", "forcings"])
def test_changed_input_is_refused_and_the_store_stays(done, part):
    path = sorted((done / part).iterdir())[0]
    with netCDF4.Dataset(path, "a") as file:
        file["pr" if part == "CMIP6" else "CO2"][0] = file["pr" if part == "CMIP6" else "CO2"][1]
    refuse(done, f"built from other files .{path.name}")
    assert verify(done / "s.zarr") == []


def test_a_damaged_store_is_not_taken_for_done(done):
    victim = next(p for p in (done / "s.zarr/TEST-ESM/ssp126/month/tas/c").rglob("*") if p.is_file())
    victim.unlink()
    refuse(done, "damaged, .*: missing.*build it again")


def test_stray_files_do_no_harm_and_only_those_that_are_not_hidden_are_mentioned(done):
    for name in (".DS_Store", "TEST-ESM/ssp126/.DS_Store", "notes.txt"):
        (done / "s.zarr" / name).write_text("mine")
    assert make(done).was_noop
    assert verify(done / "s.zarr") == ["notes.txt: not there when it was built"]
    write_archive(done, scenarios=("ssp126",), members=("r11i1p1f1",))
    assert make(done).added == 1
    assert (done / "s.zarr/notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_store_is_never_touched(archive):
    (archive / "s.zarr").mkdir()
    (archive / "s.zarr" / "mine.txt").write_text("precious")
    refuse(archive, "no provenance.json.*choose another name")
    assert (archive / "s.zarr" / "mine.txt").read_text() == "precious"


def truncate(folder):
    for name in ("tas", "pr"):
        path = cmip_file(folder, name, member="r10i1p1f1")
        path.write_bytes(path.read_bytes()[:4000])


def test_a_member_is_not_lost_because_all_its_files_are_truncated(archive):
    truncate(archive)
    with pytest.raises(DataContractError, match=r"2 of 10 parts failed.*r10i1p1f1: not readable.*download them again"):
        make(archive)
    assert not (archive / "s.zarr").exists()


@pytest.mark.parametrize(
    "settings", [{"experiments": ["ssp245"]}, {"members": {"ssp126": ["r9i1p1f1"]}}, {"sources": ["OTHER"]}], ids=str
)
def test_broken_files_that_were_not_asked_for_are_only_reported(archive, settings):
    if "sources" in settings:
        write_archive(archive, scenarios=("ssp126",), source="OTHER", members=("r10i1p1f1",))
    for path in archive.glob("CMIP6/*_TEST-ESM_ssp126_r10i1p1f1_*.nc"):
        path.write_bytes(path.read_bytes()[:4000])
    report = make(archive, **settings)
    assert len(report.rejected) == 2 and "set aside: pr_Amon" in str(report)
    assert len(read_provenance(report.path)["set_aside"]) == 2


def test_forcings_that_lie_in_the_archive_are_not_called_set_aside(archive):
    (archive / "forcings").rename(archive / "CMIP6" / "forcings")
    (archive / "CMIP6" / "forcings" / "broken.nc").write_text("")
    report = make(archive, forcings=archive / "CMIP6" / "forcings")
    assert [text.split(":")[0] for text in report.rejected] == ["broken.nc"]


def test_a_broken_file_of_an_older_version_is_only_reported(tmp_path):
    write_archive(tmp_path, scenarios=("ssp126",))
    path = cmip_file(tmp_path)
    for version, size in (("v20200101", 4000), ("v20210101", None)):
        copy = tmp_path / "CMIP6" / version / path.name
        copy.parent.mkdir()
        copy.write_bytes(path.read_bytes()[:size])
    path.unlink()
    assert len(make(tmp_path).rejected) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"members": {"ssp126": ["r1i1p1f1"]}}, "no member r1i1p1f1|members r9i1p1f1"),
        ({"members": {"ssp126": ["r9i1p1f1"], "ssp245": []}}, "scenario ssp245: no members"),
        ({"experiments": ["ssp126", "ssp119"]}, "scenario ssp119: no members"),
        ({"sources": ["TEST-ESM", "OTHER"]}, "source OTHER: no files of it"),
        ({"variables": ("tas", "huss")}, "no huss"),
        ({"variables": ()}, "variables: none"),
        ({"years": (2020, 2015)}, "years: 2020-2015"),
        ({"years": (2015, 2030)}, "all of 2015-2030.*nothing is kept"),
        ({"forcing_names": ("N2O",)}, "N2O"),
        ({"forcings": Path("nowhere")}, "nowhere"),
    ],
)
def test_what_cannot_be_had_is_refused_and_nothing_is_left(archive, settings, words):
    refuse(archive, words, **settings)


def test_a_scenario_one_source_lacks_is_refused_where_both_were_named(archive):
    write_archive(archive, scenarios=("ssp126",), source="OTHER")
    refuse(archive, "source OTHER: no files of ssp245", sources=["TEST-ESM", "OTHER"], experiments=["ssp126", "ssp245"])
    assert len(make(archive, experiments=["ssp126"]).runs) == 2


def test_a_missing_forcing_file_is_refused(archive):
    (archive / "forcings/inputs_ssp245.nc").unlink()
    refuse(archive, "forcings of ssp245: .*expected inputs_ssp245.nc")


def fails(folder, words, **settings):
    """Some parts fail with these words; there is no store, and the others are kept."""
    with pytest.raises(DataContractError, match=f"parts failed: .*{words}.*finished parts are kept"):
        make(folder, **settings)
    assert beside(folder) == ["CMIP6", "forcings", "s.zarr.partial"]


def test_a_missing_forcing_or_year_of_one_fails_alone_and_the_fields_are_kept(archive):
    fails(archive, "no BC", forcing_names=("CO2", "BC"))
    write_forcing_file(archive / "forcings", "ssp245", (2015, 2020))
    fails(archive, "forcings of ssp245 .*no year 2021")
    write_forcing_file(archive / "forcings", "ssp245")
    assert make(archive).kept == 9


def test_members_of_other_months_or_grids_are_refused_even_where_shapes_agree(archive):
    for name in ("tas", "pr"):
        cmip_file(archive, name, member="r10i1p1f1").unlink()
        write_cmip(archive / "CMIP6", name, member="r10i1p1f1", scenario="ssp126", months=("2016-01", "2027-12"))
    fails(archive, "r10i1p1f1: months 2016-01 to 2027-12, but r9i1p1f1 has 2015-01 to 2026-12")


def test_a_file_that_changes_while_it_is_read_is_refused(archive, monkeypatch):
    last = units.write_statistics

    def touch(*arguments):
        os.utime(cmip_file(archive), ns=(1, 1))
        return last(*arguments)

    monkeypatch.setattr(units, "write_statistics", touch)
    fails(archive, "it changed while it was read.*files at rest", experiments=["ssp126"])


def test_the_first_decade_begins_with_the_run_unless_it_is_told_otherwise(done):
    assert open_run(done / "s.zarr", "TEST-ESM", "ssp126", "decade").year.values.tolist() == [2015]
    build(done / "CMIP6", done / "t.zarr", experiments=["ssp126"], decade_start=2017, progress=False)
    assert open_run(done / "t.zarr", "TEST-ESM", "ssp126", "decade").year.values.tolist() == [2017]


def test_a_run_shorter_than_a_decade_has_months_and_years(archive):
    report = make(archive, years=(2015, 2018), experiments=["ssp126"])
    assert verify(report.path) == []
    with pytest.raises(DataContractError, match=r"only TEST-ESM/ssp126 \(month, year\)"):
        open_run(report.path, "TEST-ESM", "ssp126", "decade")


def test_regridding_keeps_the_global_mean(done):
    fine = open_run(done / "s.zarr", "TEST-ESM", "ssp126", "year")
    report = build(done / "CMIP6", done / "t.zarr", experiments=["ssp126"], grid=(2, 4), progress=False)
    coarse = open_run(report.path, "TEST-ESM", "ssp126", "year")
    assert coarse.tas.shape[2:] == (2, 4)
    means = [ds.tas.astype(float).weighted(area_weights(ds)).mean(("lat", "lon")) for ds in (fine, coarse)]
    xr.testing.assert_allclose(*means, rtol=1e-6)


def test_statistics_are_written_member_by_member(built):
    stored = open_statistics(built[1].path, "TEST-ESM", "ssp126")
    month = open_run(built[1].path, "TEST-ESM", "ssp126", "month")
    mean = month.tas.astype(float).groupby("month").mean("time").transpose("member", "month", "lat", "lon")
    np.testing.assert_allclose(stored.tas_mean, mean, rtol=1e-12)


def test_the_licence_of_a_run_is_the_union_over_members_and_forcings(tmp_path):
    write_archive(tmp_path, scenarios=("ssp126",), members=("r1i1p1f1",))
    write_archive(tmp_path, scenarios=("ssp126",), members=("r2i1p1f1",), attrs={"license": "CC BY-NC 4.0"})
    report = make(tmp_path)
    assert open_run(report.path, "TEST-ESM", "ssp126", "month").attrs["license"] == "CC BY 4.0; CC BY-NC 4.0"
    assert read_provenance(report.path)["licenses"] == ["CC BY 4.0", "CC BY-NC 4.0"]


def test_progress_goes_to_stderr_if_wanted(archive, capsys):
    make(archive, progress=True)
    printed = capsys.readouterr()
    assert printed.out == "" and "ingesting" in printed.err and "10/10" in printed.err


def test_real_files_make_a_sound_store(climate_data, tmp_path):
    report = build(
        climate_data / "CMIP6", tmp_path / "s", members={"ssp370": ["r4i1p1f1"]}, forcings=climate_data / "forcings",
        years=(2015, 2034), progress=False,
    )  # fmt: skip
    assert verify(report.path) == []
    assert list_runs(report.path) == [("CESM2", "ssp370")]
    assert open_run(report.path, "CESM2", "ssp370", "decade").year.values.tolist() == [2015, 2025]


def test_the_commit_is_that_of_the_checkout_and_none_without_one(tmp_path, monkeypatch):
    root = Path(provenance.__file__).parents[2]
    if not (root / ".git").exists():
        assert code_commit() is None
        return
    assert (
        code_commit()
        == subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    elsewhere = tmp_path / "provenance.py"
    elsewhere.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(elsewhere))
    assert code_commit() is None
