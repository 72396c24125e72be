"""What a climate scientist asks first: known worlds, planted differences, real members."""

import json

import numpy as np
import pytest
import xarray as xr

from climatesuite.__main__ import main
from climatesuite.archive.read import open_runs
from climatesuite.archive.synthetic import write_archive
from climatesuite.errors import DataContractError
from climatesuite.evaluate import masks
from climatesuite.evaluate.answers import FIELDS, disagreeing
from climatesuite.evaluate.questions import OFFSET, QUESTIONS, ask, question_rows
from climatesuite.export import write_cf
from climatesuite.harmonise.coarsen import to_year
from worlds.fake_ensemble import fake_ensemble, member_by_member

YEARS = (2015, 2074)


def world(seed: int, size: int, timescale: str = "month", **changes) -> xr.Dataset:
    return fake_ensemble(timescale, range(size), YEARS, (12, 18), seed=seed, **changes)


def found(rows, name: str, **about):
    same = [r for r in rows if r["name"] == name and all(r[k] == v for k, v in about.items())]
    assert len(same) == 1, [(r["name"], r["region"], r["season"]) for r in rows]
    return same[0]


@pytest.fixture(scope="module")
def truth():
    return world(1, 3)


@pytest.fixture(scope="module")
def rows(truth):
    return question_rows(ask(world(2, 8), truth))


def test_members_of_the_same_world_answer_alike(rows):
    assert {r["question"] for r in rows} == set(QUESTIONS)
    assert all(tuple(r) == FIELDS and r["units"] for r in rows)
    judged = [r for r in rows if r["agrees"] is not None]
    assert len(disagreeing(rows)) < 0.25 * len(judged)


def test_the_planted_trend_comes_back(rows):
    trend = found(rows, "trend", variable="tas", region=masks.GLOBE, season="annual")
    assert trend["value"] == pytest.approx(0.4, abs=0.01) and trend["units"] == "K decade-1"
    crossed = found(rows, "2 K crossed")
    # the mean of 2015-2024 is 2019.5's: 0.04 (Y - 0.5 - 2019.5) + 1.24 = 2 in 2039
    assert crossed["value"] == pytest.approx(2039, abs=2) and OFFSET == 1.24
    north, south = (found(rows, f"{p} amplification", season="annual")["value"] for p in ("Arctic", "Antarctic"))
    assert north == pytest.approx(1.57, abs=0.05) and south == pytest.approx(0.43, abs=0.05)  # 1 + 0.6 sin(lat) at +-73


def test_rain_grows_by_the_planted_two_percent_per_kelvin(rows):
    # the base of the planted growth is 2015, that of the answer the first twenty years, in which it is 0.76 % larger
    rain = found(rows, "rain per global warming", region=masks.GLOBE)
    assert rain["value"] == pytest.approx(2.0, abs=0.15) and rain["units"] == "% K-1"


def test_another_offset_moves_crossings(truth):
    years = [
        found(question_rows(ask(world(2, 4), truth, offset=o), ["warming levels"]), "2 K crossed")["value"]
        for o in (1.0, 1.5)
    ]
    assert years[0] - years[1] == pytest.approx(0.5 / 0.04, abs=1.5)


def test_a_biased_warming_is_seen_and_where(truth):
    rows = question_rows(ask(world(2, 8, warming=0.05), truth), ["trends", "warming levels", "dry months"])
    bad = disagreeing(rows)
    assert found(bad, "trend", variable="tas", region=masks.GLOBE, season="annual")["value"] == pytest.approx(
        0.5, abs=0.01
    )
    assert found(bad, "3 K crossed")
    assert not [r for r in bad if r["question"] == "dry months"]


def test_negative_rain_is_seen(truth):
    ensemble = world(2, 4)
    values = ensemble.pr.values.copy()
    values[:, ::10] = -1e-6
    row = found(
        question_rows(ask(ensemble.assign(pr=ensemble.pr.copy(data=values)), truth), ["dry months"]),
        "values below zero",
    )
    assert row["value"] == pytest.approx(10.0) and row["reference"] == 0.0 and row["agrees"] is False


def test_variability_that_grows_is_told_from_one_that_does_not(truth):
    years = to_year(world(2, 8))
    growth = np.linspace(1.0, 1.5, years.sizes["time"])
    smooth = to_year(world(2, 1, spread=0.0)).tas.isel(member=0, drop=True)
    grown = smooth + (years.tas - smooth) * xr.DataArray(growth, dims="time")
    rows = question_rows(ask(years.assign(tas=grown.transpose(*years.tas.dims).assign_attrs(years.tas.attrs)), truth),
                         ["variability and warming"])  # fmt: skip
    row = found(rows, "growth of local yearly sd", variable="tas", region=masks.GLOBE)
    # thirds: 0.0-0.33 and 0.67-1 of a growth of half, so 1.417 / 1.083, over 0.04 K a year in 40 years
    assert row["value"] == pytest.approx(100 * (1.417 / 1.083 - 1) / 1.6, abs=2.5)
    assert row["agrees"] is False


def test_years_alone_answer_all_but_seasons_and_dry_months(truth):
    rows = question_rows(ask(to_year(world(2, 4)), to_year(truth)))
    assert {r["season"] for r in rows} == {None, "annual"}
    assert {r["question"] for r in rows} == set(QUESTIONS) - {"dry months"}


def test_sampled_years_are_preferred_to_means_of_months(truth):
    years = to_year(world(2, 4)).assign_attrs(timescale="year")
    moved = years.assign(tas=(years.tas + 0.02 * (years.year - 2015)).astype("float32").assign_attrs(units="K"))
    rows = question_rows(ask({"year": moved, "month": world(2, 4)}, truth), ["trends"])
    by_season = {
        s: found(rows, "trend", variable="tas", region=masks.GLOBE, season=s)["value"] for s in ("annual", "DJF")
    }
    assert by_season["annual"] == pytest.approx(0.6, abs=0.01) and by_season["DJF"] == pytest.approx(0.4, abs=0.03)


def test_a_few_years_are_refused_with_the_reason(truth):
    short = truth.isel(time=slice(0, 60))
    with pytest.raises(DataContractError, match="no 10 whole years shared"):
        ask(short, truth)


def test_real_members_answer_sanely(climate_data):
    files = list((climate_data / "CMIP6" / "CESM2").glob("*ssp370*"))
    run = next(iter(open_runs(files).values()))
    rows = question_rows(ask(to_year(run), to_year(run)))
    crossed = found(rows, "2 K crossed")
    assert 2040 <= crossed["reference"] <= 2050
    assert 1.3 < found(rows, "Arctic amplification", season="annual")["reference"] < 4.0
    assert 1.2 < found(rows, "land over ocean warming", season="annual")["reference"] < 1.8
    assert 1.0 < found(rows, "rain per global warming", region=masks.GLOBE)["reference"] < 3.0
    assert all(r["value"] == pytest.approx(r["reference"]) for r in rows if r["value"] is not None)


# -------------------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An archive of two real members of the synthetic Earth system, and the same as an ensemble file."""
    folder = tmp_path_factory.mktemp("questions")
    write_archive(folder / "archive", experiments=["ssp370"], members=2, years=(2015, 2034), grid=(12, 18))
    run = next(iter(open_runs([folder / "archive" / "CMIP6"]).values()))
    about = {"institution": "i", "source": "s", "references": "r"}
    return folder / "archive" / "CMIP6", write_cf(folder / "drawn.nc", member_by_member(run), run, about)


def test_the_command_answers_from_files_and_writes_json(files, tmp_path, capsys):
    archive, drawn = files
    out = tmp_path / "questions.json"
    options = ["--offset", "1.0", "--parts", "answers", "blame", "--pictures", str(tmp_path), "--out", str(out)]
    assert main(["questions", str(drawn), "--truth", str(archive), *options]) == 0
    rows = json.loads(out.read_text())["answers"]
    assert found(rows, "2 K crossed")["note"].startswith("2015–2024 is 1 K above pre-industrial")
    assert {r["status"] for r in json.loads(out.read_text())["blame"]} == {"passes"}
    assert {p.stem for p in tmp_path.glob("*.png")} == {
        "warming-levels",
        "warming-ratios",
        "hydrological-sensitivity",
        "blame",
    }
    assert "leave the truth outside" in capsys.readouterr().out


def test_two_files_of_one_timescale_are_refused(files, capsys):
    archive, drawn = files
    assert main(["questions", str(drawn), str(drawn), "--truth", str(archive)]) == 1
    assert "second file of the timescale month" in capsys.readouterr().err


def test_too_few_members_for_calibration_leave_that_part_out_and_say_so(files, tmp_path, capsys):
    archive, drawn = files
    out = tmp_path / "questions.json"
    assert (
        main(["questions", str(drawn), "--truth", str(archive), "--parts", "regions", "blame", "--out", str(out)]) == 0
    )
    assert set(json.loads(out.read_text())) == {"blame"}
    assert "left out: calibration by region: 2 members; expected 4 or more" in capsys.readouterr().err
