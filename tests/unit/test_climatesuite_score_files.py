"""Scores of files: what the commands score, compare, baseline and structure do with CMIP files and ensembles."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from climatesuite.__main__ import main
from climatesuite.archive.read import open_runs
from climatesuite.archive.synthetic import write_archive
from climatesuite.baselines.fit import Case, exact_baselines
from climatesuite.baselines.names import CLIMATOLOGY, FIRST_DECADE, FLOOR
from climatesuite.errors import DataContractError
from climatesuite.evaluate.score_files import score
from climatesuite.evaluate.scoring import Prediction, anomaly_base, score_datasets
from climatesuite.export import open_ensemble, write_cf
from climatesuite.forcing.forcings import open_forcings
from climatesuite.forcing.response import annual_predictor
from climatesuite.harmonise.coarsen import to_decade, to_year
from worlds.fake_ensemble import member_by_member


def row_of(rows, model, variable="tas", timescale="year", period="full"):
    wanted = (model, variable, timescale, period)
    (row,) = [r for r in rows if (r["model"], r["variable"], r["timescale"], r["period"]) == wanted]
    return row


@dataclass(frozen=True)
class Files:
    """An archive of three scenarios and an ensemble of the third at two timescales."""

    archive: Path
    ensembles: dict[str, Path]

    def cmip(self, *scenarios):
        return [p for s in scenarios for p in sorted((self.archive / "CMIP6").rglob(f"*_{s}_*.nc"))]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    base = tmp_path_factory.mktemp("score")
    write_archive(base, members=2, years=(2015, 2034), grid=(6, 8))
    runs = open_runs([base / "CMIP6"])
    months = runs["SYNTHETIC-A", "ssp370"]
    about = {"institution": "-", "source": "-", "references": "-", "model": "copy", "seed": 3}
    ensembles = {}
    for timescale, ds in {"year": to_year(months), "decade": to_decade(to_year(months), 2015)}.items():
        numbered = ds.assign_coords(member=np.arange(2))
        ensembles[timescale] = write_cf(base / f"ensemble_{timescale}.nc", member_by_member(numbered), numbered, about)
    return Files(base, ensembles)


def test_files_are_scored_as_the_datasets_in_them(files):
    got = score(
        list(files.ensembles.values()), files.cmip("ssp370"), files.cmip("ssp126", "ssp585"), files.archive / "forcings",
        bootstrap=20, commit="abc",
    )  # fmt: skip
    runs = {e: ds for (_, e), ds in open_runs([files.archive / "CMIP6"]).items()}
    y = runs.pop("ssp370")
    drivers = {
        e: annual_predictor(open_forcings(files.archive / "forcings", ["CO2"], experiment_id=e))
        for e in ("ssp126", "ssp370", "ssp585")
    }
    references = exact_baselines(Case(runs, "ssp370", drivers, None, 2015, ["decade", "year"]))
    predictions = [Prediction("copy", open_ensemble(p), {"seed": 3}) for p in files.ensembles.values()]
    expected = score_datasets(predictions, y, references, bootstrap=20, anomaly_base=anomaly_base(runs), commit="abc")
    assert got == expected
    ours = row_of(got, "copy")
    assert ours["rmse"] == pytest.approx(0.0, abs=1e-4) and ours["seed"] == 3 and ours["scenario"] == "ssp370"


def test_the_command_structure_finds_the_copied_run_and_no_other(files, tmp_path, capsys):
    real, training = ([str(p) for p in files.cmip(*which)] for which in (("ssp370",), ("ssp126", "ssp585")))
    for seen, copies in ((training, 0.0), (real, 1.0)):
        command = ["structure", *map(str, files.ensembles.values()), "--real", *(training if seen is real else real)]
        assert main([*command, "--training", *seen, "--out", str(tmp_path / "structure.json")]) == 0
        rows = {(r["name"], r["variable"]): r for r in json.loads((tmp_path / "structure.json").read_text())}
        assert rows["copies among years", "tas"]["value"] == copies
        assert rows["lag-1 of years, local", "pr"]["N"] == 6
        assert ("OUTSIDE" in capsys.readouterr().out) is (seen is real)


def test_runs_that_are_open_already_are_taken_as_they_are(files):
    runs = open_runs([files.archive / "CMIP6"])
    truths = {k: v for k, v in runs.items() if k[1] == "ssp370"}
    others = {k: v for k, v in runs.items() if k[1] != "ssp370"}
    paths = [files.ensembles["year"]]
    opened = score(paths, truths, others, files.archive / "forcings", bootstrap=0)
    assert opened == score(
        paths, files.cmip("ssp370"), files.cmip("ssp126", "ssp585"), files.archive / "forcings", bootstrap=0
    )


def test_a_file_of_another_tool_is_named_by_its_file_and_carries_the_seed_given(files, tmp_path):
    with xr.open_dataset(files.ensembles["year"], decode_times=False) as ds:
        foreign = ds.rename(member="realization", lat="latitude", lon="longitude").drop_attrs(deep=False)
        foreign.encoding.clear()
        foreign.assign_attrs(timescale="year").to_netcdf(tmp_path / "mesmer.nc")
    row = row_of(score([tmp_path / "mesmer.nc"], files.cmip("ssp370"), seed=11, bootstrap=0), "mesmer")
    assert row["seed"] == 11 and row["rmse"] == pytest.approx(0.0, abs=1e-4)


def test_a_rival_among_the_references_is_scored_under_the_name_of_its_file(files):
    year = files.ensembles["year"]
    rows = score([year], files.cmip("ssp370"), [*files.cmip("ssp126"), year], bootstrap=0)
    models = [r["model"] for r in rows if (r["variable"], r["period"]) == ("tas", "full")]
    assert models == [FLOOR, CLIMATOLOGY, FIRST_DECADE, "copy", "ensemble_year"]


def test_the_test_scenario_among_the_training_files_is_refused(files):
    with pytest.raises(DataContractError, match="runs of ssp370, the test scenario; expected training scenarios only"):
        score([files.ensembles["year"]], files.cmip("ssp370"), files.cmip("ssp126", "ssp370"))


def test_a_truth_of_another_scenario_is_refused(files):
    with pytest.raises(DataContractError, match=r"the truth: scenarios \['ssp126'\]; expected ssp370"):
        score([files.ensembles["year"]], files.cmip("ssp126"))
    with pytest.raises(DataContractError, match="expected one scenario, as the predictions state none"):
        score([], files.cmip("ssp126", "ssp585"))


def test_earth_system_models_are_never_mixed(files):
    runs = open_runs(files.cmip("ssp126"))
    foreign = {("OTHER-ESM", "ssp126"): runs["SYNTHETIC-A", "ssp126"]}
    with pytest.raises(DataContractError, match="source_id OTHER-ESM; expected only SYNTHETIC-A"):
        score([files.ensembles["year"]], files.cmip("ssp370"), foreign)
    with pytest.raises(DataContractError, match="source_id OTHER-ESM, SYNTHETIC-A; expected one source_id"):
        score([], {**runs, **foreign})


def test_predictions_of_two_scenarios_are_refused(files, tmp_path):
    with xr.open_dataset(files.ensembles["year"], decode_times=False) as ds:
        ds.assign_attrs(experiment_id="ssp126").to_netcdf(tmp_path / "other.nc")
    with pytest.raises(DataContractError, match=r"scenarios \['ssp126', 'ssp370'\]; expected one scenario"):
        score([files.ensembles["year"], tmp_path / "other.nc"], files.cmip("ssp370"))


def as_mesmer_writes(source: Path, path: Path, change=lambda ds: ds) -> Path:
    """Yearly fields in another tool's words: realisation last, standard calendar, west first, Celsius, no bounds."""
    ds = open_ensemble(source)
    tas = (ds.tas - 273.15).drop_attrs().assign_attrs(units="degC")
    rain = (ds.pr * 86400).drop_attrs().assign_attrs(units="mm/day")
    out = xr.Dataset({"tas": tas, "pr": rain}).reset_coords(drop=True).drop_vars("member")
    days = (np.array([f"{y}-07-01" for y in ds.year.values], "M8[ns]") - np.datetime64("1850-01-01")).astype("m8[D]")
    out = out.assign_coords(time=("time", days.astype(int), {"units": "days since 1850-01-01", "calendar": "standard"}))
    out = out.assign_coords(lon=(out.lon + 180) % 360 - 180).sortby("lon").isel(lat=slice(None, None, -1))
    change(out.rename(member="realisation").transpose("lat", "lon", "time", "realisation")).to_netcdf(path)
    return path


def test_a_rivals_own_file_is_scored_like_the_same_fields_in_our_words(files, tmp_path):
    theirs = as_mesmer_writes(files.ensembles["year"], tmp_path / "mesmer.nc")
    given = files.cmip("ssp370"), (), None
    found, expected = (score([path], *given, bootstrap=0) for path in (theirs, files.ensembles["year"]))
    for name in ("tas", "pr"):
        rival, ours = row_of(found, "mesmer", name), row_of(expected, "copy", name)
        assert rival["M"] == 2 and rival["crps"] == pytest.approx(ours["crps"], abs=1e-5)
        assert rival["rmse"] == pytest.approx(0.0, abs=1e-4) and rival["spread_skill"] == pytest.approx(
            ours["spread_skill"]
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.assign(tas=ds.tas.assign_attrs(units="K")), "tas in "),
        (lambda ds: ds.assign(pr=ds.pr.assign_attrs(units="kg m-2 s-1")), "pr in "),
        (lambda ds: ds.assign(pr=ds.pr.assign_attrs(units="m")), "pr in mesmer.nc"),
        (lambda ds: ds.assign(tas=ds.tas.drop_attrs()), "tas in mesmer.nc: no units"),
    ],
)
def test_a_rivals_mislabelled_units_are_refused(files, tmp_path, change, message):
    theirs = as_mesmer_writes(files.ensembles["year"], tmp_path / "mesmer.nc", change)
    with pytest.raises(DataContractError, match=message):
        score([theirs], files.cmip("ssp370"), bootstrap=0)
