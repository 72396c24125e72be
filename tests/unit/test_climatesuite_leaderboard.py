"""The leaderboard: any tool's submission beside baselines and published rows, in one order and one unit."""

import json

import numpy as np
import pytest
import xarray as xr

from climatesuite import cli
from climatesuite.__main__ import main
from climatesuite.errors import DataContractError
from climatesuite.evaluate import climatebench_published as published
from climatesuite.evaluate.climatebench import LinearPatternScaling, member_mean, open_outputs, open_pair, score
from climatesuite.evaluate.climatebench_synthetic import write_synthetic
from climatesuite.evaluate.leaderboard import BASELINES, NO_CHANGE, NOISE, as_html, as_text, leaderboard

ALL = ("tas", "diurnal_temperature_range", "pr", "pr90")


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """A synthetic set in the official layout."""
    folder = tmp_path_factory.mktemp("climatebench")
    write_synthetic(folder, members=2, grid=(6, 8))
    return folder


@pytest.fixture(scope="module")
def board(layout):
    return leaderboard(layout, baselines=["pattern-scaling"])


def of(board, model, variable="tas"):
    (row,) = [r for r in board.rows if (r["model"], r["variable"]) == (model, variable)]
    return row


def rival(layout, path, change=lambda ds: ds):
    """The member mean of the target as another tool would write it: `realisation`, dates, west and east, spelt out."""
    ds = open_outputs(layout, "ssp245").isel(member=[0])
    ds = ds.assign(pr=(ds.pr / 86400).assign_attrs(units="kg m-2 s-1")).drop_attrs(deep=False)
    days = (ds.time.values - 2015) * 360 + 180
    ds = ds.assign_coords(time=("time", days, {"units": "days since 2015-01-01", "calendar": "360_day"}))
    ds = ds.assign_coords(lon=(ds.lon + 180) % 360 - 180).sortby("lon").isel(lat=slice(None, None, -1))
    change(ds.rename(member="realisation", lat="latitude", lon="longitude")).to_netcdf(path)
    return path


def test_the_synthetic_set_has_the_official_layout_and_says_what_it_is(layout):
    ds = open_outputs(layout, "historical")
    assert set(ds) == set(ALL) and ds.attrs["source_id"] == "SYNTHETIC-A" and "Synthetic" in ds.attrs["comment"]
    base = member_mean(ds).sel(time=slice(1851, 1880)).mean("time")
    assert float(abs(base["tas"]).max()) < 1e-5 and float(abs(base["pr"]).max()) < 1e-5
    inputs, outputs = open_pair(layout, "ssp245")
    assert inputs["SO2"].dims == ("time", "lat", "lon") and (inputs.time == outputs.time).all()
    a, b = (open_outputs(layout, e, ["tas"]).isel(time=slice(0, 40)) for e in ("historical", "ssp245"))
    noise = [(x.tas - x.tas.mean("member")).values.ravel() for x in (a, b)]
    assert abs(np.corrcoef(*noise)[0, 1]) < 0.2, "historical and scenario have noise of their own"


def test_rows_are_those_of_the_scorer_ordered_with_the_noise_first(board, layout):
    for name in ALL:
        rows = [r for r in board.rows if r["variable"] == name]
        assert [r["model"] for r in rows][0] == NOISE and {r["source"] for r in rows} == {"computed here"}
        totals = [r["nrmse_t"] for r in rows[1:]]
        assert totals == sorted(totals)
    pairs = {e: open_pair(layout, e) for e in ("ssp126", "ssp370", "ssp585", "historical")}
    inputs, target = open_pair(layout, "ssp245")
    expected = score(LinearPatternScaling.fit(pairs).predict(inputs), target, variables=["tas"])[0]
    found = of(board, "linear pattern scaling")
    assert found["nrmse_t"] == pytest.approx(expected["nrmse_t"]) and found["floor_s"] == of(board, NOISE)["nrmse_s"]
    assert found["nrmse_t"] < of(board, NO_CHANGE)["nrmse_t"]


def test_published_rows_are_marked_and_kept_apart_from_other_data(board):
    assert not board.comparable and all(r["source"] == "published" and r["ref"] for r in board.published)
    assert "ClimaX" not in as_text(board) and "no part of this table" in as_text(board)
    html = as_html(board)
    assert html.count("published: ") == len(board.published) and "not comparable with it" in html


def test_published_totals_are_spatial_plus_five_times_global():
    for row in published.published_rows():
        tolerance = 0.0035 if row["ref"] == published.CLIMAX else 5e-5 * max(1.0, row["nrmse_t"])
        assert row["nrmse_t"] == pytest.approx(row["nrmse_s"] + 5 * row["nrmse_g"], abs=tolerance), row


def test_official_data_is_comparable_and_shows_published_rows_at_once(layout, tmp_path):
    for path in layout.glob("*.nc"):
        ds = xr.load_dataset(path)
        ds.attrs.pop("source_id", None)  # as the official files, which name no model
        ds.to_netcdf(tmp_path / path.name)
    board = leaderboard(tmp_path, baselines=[], variables=["tas"])
    assert board.comparable and "ClimaX" in as_text(board)
    assert not leaderboard(tmp_path, baselines=[], variables=["tas"], window=(2080, 2099)).comparable


def test_a_rivals_file_is_scored_as_the_same_fields_in_our_words(layout, tmp_path):
    path = rival(layout, tmp_path / "their emulator.nc")
    board = leaderboard(layout, [path], baselines=[])
    target = open_outputs(layout, "ssp245")
    expected = {r["variable"]: r for r in score(target.isel(member=[0]), target)}
    for name in ALL:
        row = of(board, "their emulator", name)
        assert row["nrmse_t"] == pytest.approx(expected[name]["nrmse_t"], rel=1e-5), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.assign(pr=ds.pr.assign_attrs(units="mm day-1")), "pr in p.nc: a standard deviation of .*still in kg"),
        (lambda ds: ds.assign(tas=(ds.tas + 288).assign_attrs(units="K")), "tas in p.nc: a mean of .*expected anomalies"),
        (lambda ds: ds.assign(tas=ds.tas.assign_attrs(units="m")), "tas in p.nc.*'m'"),
        (lambda ds: ds.assign_attrs(experiment_id="ssp126"), "p.nc: experiment_id ssp126; expected ssp245"),
        (lambda ds: ds.isel(latitude=slice(1, None)), "lat"),
        (lambda ds: ds.isel(time=slice(0, 80)), "expected all of 2080-2100"),
        (lambda ds: ds.rename(tas="t", pr="p", pr90="q", diurnal_temperature_range="d"), "p.nc: variables"),
    ],
)  # fmt: skip
def test_submissions_that_are_mislabelled_are_refused(layout, tmp_path, change, message):
    with pytest.raises(DataContractError, match=message):
        leaderboard(layout, [rival(layout, tmp_path / "p.nc", change)], baselines=[])


def test_the_scored_scenario_never_trains(layout):
    assert (
        "ssp245" not in leaderboard(layout, baselines=["pattern-scaling"]).about["trained on"]["linear pattern scaling"]
    )
    with pytest.raises(DataContractError, match="training: ssp245, the scored scenario"):
        leaderboard(layout, training=["ssp126", "ssp245"])
    with pytest.raises(DataContractError, match="none of ssp119"):
        leaderboard(layout, baselines=["pattern-scaling"], training=["ssp119"])


def test_the_command_writes_numbers_and_page(layout, tmp_path, capsys):
    assert tuple(BASELINES) == cli.BOARD_BASELINES
    path = rival(layout, tmp_path / "rival.nc")
    out = tmp_path / "board.json"
    options = ["--data", str(layout), "--baselines", "pattern-scaling", "--variables", "tas", "--out", str(out)]
    assert main(["leaderboard", str(path), *options]) == 0
    printed, kept = capsys.readouterr().out, json.loads(out.read_text())
    assert "rival" in printed and {r["model"] for r in kept["rows"]} == {
        NOISE,
        NO_CHANGE,
        "linear pattern scaling",
        "rival",
    }
    assert "<title>ClimateBench leaderboard</title>" in out.with_suffix(".html").read_text()
    assert main(["leaderboard", "--data", str(tmp_path / "none"), "--out", str(out)]) == 1


# ---- the official data


@pytest.fixture(scope="module")
def official(climate_data):
    folder = climate_data / "climatebench"
    if not (folder / "outputs_ssp245.nc").is_file():
        pytest.skip(f"no official ClimateBench files in {folder}; climatesuite fetch climatebench gets them")
    return folder


def test_the_official_target_has_the_known_denominators_and_global_means(official):
    rows = {r["variable"]: r for r in leaderboard(official, baselines=[]).rows if r["model"] == NOISE}
    known = {"tas": 2.0705421003592264, "diurnal_temperature_range": 0.011198246732586495, "pr": 0.06519245518062773,
             "pr90": 0.15468088979008324}  # fmt: skip
    for name, value in known.items():
        assert rows[name]["D"] == pytest.approx(value, rel=1e-6)
    tas = member_mean(open_outputs(official, "ssp245", ["tas"]))["tas"]
    mean = tas.weighted(np.cos(np.radians(tas.lat))).mean(("lat", "lon"))
    assert float(mean.sel(time=2015)) == pytest.approx(0.713779, rel=1e-4)
    assert float(mean.sel(time=slice(2091, 2100)).mean()) == pytest.approx(2.100824, rel=1e-4)


def test_pattern_scaling_gives_its_published_row_on_the_official_data(official):
    row = of(leaderboard(official, baselines=["pattern-scaling"], variables=["tas"]), "linear pattern scaling")
    found = [row[k] for k in ("nrmse_s", "nrmse_g", "nrmse_t")]
    assert found == pytest.approx([0.0786087528, 0.0409974797, 0.2835961515], rel=1e-4)
    assert row["rmse_s"] == pytest.approx(0.1627627321, rel=1e-4)
