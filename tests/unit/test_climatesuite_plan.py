"""Plans: what would be built, counted from headers or an index; what is missing is named and nothing is written."""

import csv
from pathlib import Path

import netCDF4
import pytest
import yaml

from climatesuite.__main__ import main
from climatesuite.archive.synthetic import write_archive
from climatesuite.errors import DataContractError
from climatesuite.plan import plan

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = {"ssp126": ["r1i1p1f1", "r2i1p1f1"], "ssp585": ["r1i1p1f1"]}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Two scenarios, three runs, 2015-2026, tas and pr."""
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder, experiments={"ssp126": 2, "ssp585": 1}, years=(2015, 2026), grid=(6, 8), progress=False)
    return folder


@pytest.fixture
def archive(pristine, tmp_path):
    """A copy to break."""
    import shutil

    return Path(shutil.copytree(pristine, tmp_path / "archive"))


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe and returns its path."""

    def write(**content):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"name": "mine", "members": MEMBERS, **content}))
        return path

    return write


def files(archive, pattern):
    found = sorted(archive.rglob(pattern))
    assert found
    return found


def test_an_archive_is_counted_from_its_headers(archive, recipe):
    before = sorted(p for p in archive.rglob("*"))
    made = plan(recipe(archive=str(archive), forcing_files=str(archive / "forcings"), forcings=["CO2", "SO2"]))
    assert (made.members, made.years, made.is_complete) == (3, 36, True)
    (part,) = made.parts
    assert part.shape == (6, 8) and {r.years for r in part.runs} == {(2015, 2026)}
    assert sum(r.bytes for r in part.runs) == sum(p.stat().st_size for p in archive.rglob("*_Amon_*.nc"))
    # 36 years, 13.1 fields of a year, 48 cells, 2 variables, 4 bytes; 24 years of one map
    text = str(made)
    assert f"{36 * 13.1 * 48 * 2 * 4 / 1e3:.3g} kB of fields" in text
    assert (
        f"{24 * 12 * 48 * 4 / 1e3:.3g} kB of forcings" in text and "months, years, decades on the source's grid" in text
    )
    assert before == sorted(p for p in archive.rglob("*"))


def test_another_grid_is_another_size(archive, recipe):
    text = str(plan(recipe(archive=str(archive), grid=[3, 4], out=str(archive / "deep" / "store.zarr"))))
    assert f"{36 * 13.1 * 12 * 2 * 4 / 1e3:.3g} kB of fields" in text and "on 3 x 4" in text
    assert "free where" in text and not (archive / "deep").exists()


def test_what_is_missing_is_named(archive, recipe):
    for gone in files(archive, "pr_*ssp126_r2i1p1f1*"):
        gone.unlink()
    for gone in files(archive, "*_ssp585_*"):
        gone.unlink()
    (archive / "forcings/inputs_ssp126.nc").unlink()
    made = plan(recipe(archive=str(archive), forcing_files=str(archive / "forcings")))
    text = str(made)
    assert (made.members, made.years, made.is_complete) == (1, 12, False)
    assert "not whole: SYNTHETIC-A ssp126 r2i1p1f1: no pr" in text
    assert "missing: ssp585 r1i1p1f1: no file of tas, pr" in text
    assert "missing: forcings of ssp126: inputs_ssp585.nc in" in text


def renamed(path, old, new):
    """A file of other months: its name, and its dates moved by whole 365-day years."""
    with netCDF4.Dataset(path, "a") as file:
        shift = 365 * (int(new[:4]) - int(old[:4]))
        for name in ("time", "time_bnds"):
            file[name][:] = file[name][:] + shift
    out = path.with_name(path.name.replace(old, new))
    path.rename(out)
    return out


def test_gaps_and_overlaps_are_found_without_reading_a_field(archive, recipe):
    import shutil

    (tas,) = files(archive, "tas_*ssp585_r1i1p1f1*")
    months = tas.stem.rsplit("_", 1)[1]
    twin = tas.with_name("copy.nc")
    shutil.copy(tas, twin)
    twin = twin.rename(tas.with_name(tas.name))
    copy = tas.parent / "later" / tas.name
    copy.parent.mkdir()
    shutil.copy(tas, copy)
    renamed(copy, months, "202801-203912")
    text = str(plan(recipe(archive=str(archive), members={"ssp585": ["r1i1p1f1"]})))
    assert "SYNTHETIC-A ssp585 r1i1p1f1: tas has no 202701 to 202712" in text
    renamed(copy.with_name(tas.name.replace(months, "202801-203912")), "202801-203912", "202601-203712")
    text = str(plan(recipe(archive=str(archive), members={"ssp585": ["r1i1p1f1"]})))
    assert "tas twice in 202601-202612" in text


def test_years_that_a_run_has_not_are_named(archive, recipe):
    made = plan(recipe(archive=str(archive), years=[2015, 2030]))
    assert made.members == 0 and "years 2015-2026, asked for 2015-2030" in str(made)
    assert plan(recipe(archive=str(archive), years=[2016, 2020])).years == 15


def test_a_plan_is_complete_only_where_a_build_would_be(archive, recipe):
    """Without years asked for, all variables and members of an experiment have to hold the same ones."""
    (pr,) = files(archive, "pr_*ssp585_r1i1p1f1*")
    later_from(pr, 12, "201601-202612")
    made = plan(recipe(archive=str(archive)))
    assert "ssp585 r1i1p1f1: pr has 2016-2026, tas has 2015-2026: set years" in str(made) and not made.is_complete
    assert plan(recipe(archive=str(archive), years=[2016, 2026])).is_complete
    for name in ("tas", "pr"):
        later_from(*files(archive, f"{name}_*ssp126_r2i1p1f1*"), 24, "201701-202612")
    made = plan(recipe(archive=str(archive), members={"ssp126": MEMBERS["ssp126"]}))
    assert "ssp126 r2i1p1f1: years 2017-2026, r1i1p1f1 has 2015-2026: set years" in str(made) and made.members == 1


def later_from(path, month, months):
    """A file without its first months."""
    import xarray as xr

    with xr.open_dataset(path, decode_cf=False) as ds:
        ds.isel(time=slice(month, None)).to_netcdf(path.with_name(f"{path.stem.rsplit('_', 1)[0]}_{months}.nc"))
    path.unlink()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"sources": ["SYNTHETIC-X"]}, "SYNTHETIC-X ssp126 r1i1p1f1: no file of tas, pr"),
        ({"sources": ["SYNTHETIC-X"], "members": None}, "SYNTHETIC-X: no run"),
        ({"sources": ["SYNTHETIC-A", "CESM2"], "members": None}, "CESM2: no run"),
        ({"sources": ["SYNTHETIC-A", "CESM2"], "members": None, "experiments": ["ssp126"]}, "CESM2 ssp126: no run"),
        ({"variables": ["huss"], "members": None}, "huss: no run"),
    ],
)
def test_sources_and_variables_without_a_run_are_missing(archive, recipe, asked, said):
    path = recipe(archive=str(archive), **asked)
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    assert f"missing: {said}" in str(plan(path))
    assert main(["plan", str(path)]) == 1


def test_members_of_another_physics_are_missing_in_a_plan_as_a_build_would_refuse_them(archive, recipe):
    for name in ("tas", "pr"):
        (path,) = files(archive, f"{name}_*ssp126_r2i1p1f1*")
        with netCDF4.Dataset(path, "a") as file:
            file.variant_label = "r2i1p2f1"
    path = recipe(archive=str(archive))
    path.write_text(yaml.safe_dump({"archive": str(archive)}))
    assert "missing: SYNTHETIC-A ssp126: members of kinds p1f1, p2f1" in str(plan(path))


def test_forcings_that_nobody_knows_are_not_counted_as_written(archive, recipe):
    with pytest.raises(DataContractError, match="forcings: .'XX'.; expected a list of names out of CO2, CH4"):
        plan(recipe(archive=str(archive), forcings=["XX"]))


def test_files_that_are_set_aside_are_named_with_the_reason(archive, recipe):
    (archive / "tas_Amon_SYNTHETIC-A_ssp126_r9i1p1f1_gn_201501-202612.nc").write_bytes(b"<html>")
    assert "set aside: tas_Amon_SYNTHETIC-A_ssp126_r9i1p1f1_gn_201501-202612.nc: " in str(
        plan(recipe(archive=str(archive)))
    )


def test_the_data_of_an_experiment_are_a_recipe(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_DATA", str(archive))
    data = {
        "archive": "${MY_DATA}", "source_id": "SYNTHETIC-A",
        "train": {"ssp126": MEMBERS["ssp126"]}, "test": {"ssp585": MEMBERS["ssp585"]},
        "years": [2015, 2026], "forcing_files": "${MY_DATA}/forcings",
    }  # fmt: skip
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "data": data, "training": {"minutes": 1}}))
    made = plan(path)
    assert (made.members, made.years, made.is_complete) == (3, 36, True)
    with pytest.raises(
        DataContractError, match="experiment quickstart: archive synthetic; expected a folder of CMIP files"
    ):
        plan(ROOT / "experiments/quickstart.yaml")


def test_recipes_that_cannot_be_meant_are_refused(recipe, tmp_path):
    with pytest.raises(DataContractError, match="variabels unknown; expected about, archive"):
        plan(recipe(archive="x", variabels=["tas"]))
    with pytest.raises(DataContractError, match="part mine: neither archive nor index"):
        plan(recipe())
    with pytest.raises(
        DataContractError, match="recipe.yaml: ..NOT_SET./x: a variable that is not set; expected a path"
    ):
        plan(recipe(archive="${NOT_SET}/x"))
    with pytest.raises(DataContractError, match="catalog absent: no such file or name"):
        plan("absent")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(DataContractError, match="list.yaml: no recipe"):
        plan(tmp_path / "list.yaml")


# ---- indices


def index(
    path,
    rows,
    columns=("source_id", "experiment_id", "member_id", "table_id", "variable_id", "grid_label", "dcpp_init_year"),
):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


PART = {"sources": ["A", "B"], "experiments": {"historical": [1850, 2014], "ssp126": [2015, 2100]}, "table_id": "Amon"}


def test_an_index_like_the_public_catalog_is_counted_by_complete_members(tmp_path):
    rows = [
        ("A", "historical", "r1i1p1f1", "Amon", "tas", "gn", ""), ("A", "historical", "r1i1p1f1", "Amon", "pr", "gn", ""),
        ("A", "historical", "r1i1p1f1", "Amon", "pr", "gr", ""), ("A", "ssp126", "r10i1p1f1", "Amon", "tas", "gn", ""),
        ("A", "ssp126", "r9i1p1f1", "Amon", "tas", "gn", ""), ("A", "ssp126", "r9i1p1f1", "Amon", "pr", "gn", ""),
        ("A", "ssp126", "r9i1p1f1", "day", "pr", "gn", ""), ("C", "ssp126", "r1i1p1f1", "Amon", "tas", "gn", ""),
        ("A", "dcppA-hindcast", "r1i1p1f1", "Amon", "tas", "gn", "1960"), ("A", "ssp126", "r9i1p1f1", "Amon", "tos", "gn", ""),
    ]  # fmt: skip
    file = index(tmp_path / "catalog.csv", rows)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "x", "parts": [{"name": "cmip", "index": "catalog.csv", **PART}]}))
    made = plan(recipe)
    assert (made.members, made.years) == (2, 165 + 86)
    assert [(r.member, r.problems) for r in made.parts[0].runs] == [
        ("r1i1p1f1", ()),
        ("r9i1p1f1", ()),
        ("r10i1p1f1", ("no pr",)),
    ]
    assert made.parts[0].missing == ("B: no run",)
    with pytest.raises(DataContractError, match="no source_id, experiment_id, variable_id; expected source_id"):
        plan(recipe, index=index(tmp_path / "odd.csv", [("x",)], ("name",)))
    with pytest.raises(DataContractError, match="absent.csv: no such index"):
        plan(recipe, index=tmp_path / "absent.csv")
    assert plan(recipe, index=file).members == 2


def test_climatesuite_is_planned_from_the_committed_index(capsys):
    assert main(["plan", "climatesuite"]) == 1  # pr is not in the index
    text = capsys.readouterr().out
    with (ROOT / "catalogs/climatesuite-index.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    runs = {(r["source_id"], r["experiment_id"], r["member_id"]) for r in rows}
    assert len(runs) == len(rows), "every run once"
    years = {"historical": 165, "ssp534-over": 61, "ARISE-SAI-1.5": 35}
    total = sum(years.get(experiment, 86) for _, experiment, _ in runs)
    assert f"members found {len(runs)}, aimed at 345 ({len(runs) - 345:+d})" in text
    assert f"simulation-years found {total:,d}, aimed at 33,000 ({total - 33000:+,d})" in text
    assert "NorESM2-LM: 12 of p1f1, 1 of p4f1; other physics or forcings are another version" in text
    assert (
        "search (intake-esgf" in text
        and "of 2025-11-07" in text
        and text.count("difference: ") >= 5
        and "192 x 288" in text
    )
    for source in {r["source_id"] for r in rows}:
        assert source in text


def test_the_experiment_of_ten_models_asks_for_runs_of_the_index_and_no_others(archive):
    content = yaml.safe_load((ROOT / "experiments/climatesuite.yaml").read_text())["data"]
    asked = {content["source_id"]: {**content["train"], **content["test"]}, **content["also"]}
    with (ROOT / "catalogs/climatesuite-index.csv").open() as file:
        known = {
            (r["source_id"], r["experiment_id"], r["member_id"]) for r in csv.DictReader(x for x in file if x[0] != "#")
        }
    runs = {(s, e, m) for s, members in asked.items() for e, ms in members.items() for m in ms}
    assert len(asked) == 10 and runs <= known
    made = plan(ROOT / "experiments/climatesuite.yaml", archive=archive)
    assert made.members == 0 and sum(len(p.missing) for p in made.parts) == len(runs)


def test_every_run_of_the_index_says_where_it_is_known_from():
    text = (ROOT / "catalogs/climatesuite-index.csv").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    letters = {line[2] for line in comments if line[3] == ":"}
    with (ROOT / "catalogs/climatesuite-index.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert {x for r in rows for x in r["found_in"].split("+")} == letters == {"H", "W", "A"}
    assert {r["variable_id"] for r in rows} == {"tas", "TREFHT"}


def test_runs_whose_global_means_are_here_are_in_the_index(climate_data):
    import pandas as pd

    known = pd.read_csv(
        climate_data / "global_mean/gsat_annual_ten_models.csv",
        usecols=["source_id", "experiment_id", "member", "source"],
    )
    named = known[known.source.str.contains("hector") & (known.source_id != "CESM2")].drop_duplicates()
    listed = pd.read_csv(ROOT / "catalogs/climatesuite-index.csv", comment="#")
    pairs = set(zip(listed.source_id, listed.experiment_id, listed.member_id, strict=True))
    absent = [r for r in zip(named.source_id, named.experiment_id, named.member, strict=True) if r not in pairs]
    assert not absent, absent
