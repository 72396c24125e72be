"""Several ensembles on the same cases: paired differences whose intervals know what the ensembles share."""

import json

import numpy as np
import pytest
import xarray as xr

from climatesuite.__main__ import main
from climatesuite.archive.read import open_runs
from climatesuite.archive.synthetic import write_archive
from climatesuite.baselines.fit import Case, exact_baselines
from climatesuite.errors import DataContractError
from climatesuite.evaluate.compare import compare
from climatesuite.evaluate.rows import DIFFERENCE_FIELDS
from climatesuite.evaluate.scoring import Prediction, score_datasets
from climatesuite.export import open_ensemble
from worlds.fake_ensemble import fake_ensemble

YEARS = (2015, 2054)


def truth(timescale="year", n=3):
    return fake_ensemble(timescale, tuple(f"r{i}i1p1f1" for i in range(1, n + 1)), YEARS, seed=1)


def named(model, m=5, years=YEARS, seed=2, **options):
    return Prediction(model, fake_ensemble("year", range(m), years, seed=seed, **options))


def difference(found, model, against, variable="tas", period="full"):
    wanted = (model, against, variable, period)
    (row,) = [d for d in found if (d["model"], d["against"], d["variable"], d["period"]) == wanted]
    return row


def test_a_difference_is_that_of_the_rows():
    found = compare([named("a"), named("b", m=8, seed=3, bias=0.5)], truth(), bootstrap=200)
    full = [r for r in found.rows if (r["variable"], r["period"]) == ("tas", "full")]
    crps = {r["model"]: r["crps"] for r in full}
    row = difference(found.differences, "a", "b")
    assert tuple(row) == (*DIFFERENCE_FIELDS,)
    assert row["crps_difference"] == pytest.approx(crps["a"] - crps["b"], rel=1e-9)
    assert row["ratio_difference"] == pytest.approx((crps["a"] - crps["b"]) / full[0]["crps_floor"], rel=1e-9)
    assert row["crps_difference_lo"] < row["crps_difference"] < row["crps_difference_hi"] < 0.0
    assert row["better"] == "a" and (row["M"], row["M_against"], row["N"]) == (5, 8, 3)


def test_a_copy_is_no_better_and_no_worse_and_its_interval_is_a_point():
    found = compare([named("a"), named("copy")], truth(), bootstrap=100)
    row = difference(found.differences, "a", "copy")
    assert row["crps_difference"] == row["crps_difference_lo"] == row["crps_difference_hi"] == 0.0
    assert row["better"] == "undecided"


def test_pairing_finds_what_the_intervals_of_single_rows_cannot_tell():
    a = named("a")
    worse = a.fields.assign(tas=(a.fields.tas + 0.15).assign_attrs(a.fields.tas.attrs))
    found = compare([a, Prediction("worse", worse)], truth(), variables=["tas"], bootstrap=500)
    at = {r["model"]: r for r in found.rows if r["period"] == "full"}
    assert at["worse"]["crps_ratio_lo"] < at["a"]["crps_ratio_hi"]
    row = difference(found.differences, "a", "worse")
    assert row["better"] == "a"


def test_every_pair_and_every_reference_is_compared_once():
    training = {
        s: fake_ensemble("year", ("r1i1p1f1", "r2i1p1f1"), YEARS, seed=9, warming=w)
        for s, w in (("x", 0.0), ("y", 0.1))
    }
    references = exact_baselines(Case(training, "ssp370", decade_start=2015, timescales=["year"]))
    found = compare([named("a"), named("b"), named("c")], truth(), references, variables=["pr"], bootstrap=0)
    pairs = [(d["model"], d["against"]) for d in found.differences if d["period"] == "full"]
    others = ["climatology", "first decade held"]
    assert pairs == [("a", "b"), ("a", "c"), *[("a", o) for o in others], ("b", "c"), *[("b", o) for o in others],
                     *[("c", o) for o in others]]  # fmt: skip
    assert all(d["better"] is None for d in found.differences)


def test_all_are_cut_to_the_steps_that_all_hold():
    found = compare([named("a"), named("late", years=(2025, 2070))], truth(), bootstrap=0)
    assert {tuple(r["window"]) for r in found.rows if r["period"] == "full"} == {(2025, 2054)}
    alone = [named("a").fields.sel(time=named("a").fields.year >= 2025)]
    expected = score_datasets([Prediction("a", alone[0])], truth(), bootstrap=0)
    assert [r for r in found.rows if r["model"] == "a"] == [r for r in expected if r["model"] == "a"]


def test_structure_is_held_against_real_members_for_each_that_has_years_enough():
    decades = Prediction("decades only", fake_ensemble("decade", range(3), YEARS))
    found = compare([named("a"), named("b", seed=4), decades], truth("month"), real=[truth()], bootstrap=0)
    assert list(found.structure) == ["a", "b"]
    assert {r["N"] for r in found.structure["a"]} >= {3}
    assert json.dumps(found.as_json(), allow_nan=False)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataContractError, match="comparison, year: ensembles named a, a; expected different names"):
        compare([named("a"), named("a")], truth())
    training = {"x": fake_ensemble("year", ("r1i1p1f1", "r2i1p1f1"), YEARS, seed=9)}
    references = exact_baselines(Case(training, "ssp370", timescales=["year"]))
    with pytest.raises(DataContractError, match="an ensemble named climatology like a reference"):
        compare([named("climatology")], truth(), references)
    with pytest.raises(DataContractError, match="comparison: no ensembles"):
        compare([], truth())
    with pytest.raises(DataContractError, match="coordinate lat"):
        flipped = named("b").fields
        compare([named("a"), Prediction("b", flipped.assign_coords(lat=flipped.lat + 1.0))], truth())


# ---- the commands


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    base = tmp_path_factory.mktemp("compare")
    write_archive(base, members=2, years=(2015, 2034), grid=(6, 8))
    return base


def cmip(archive, *scenarios):
    return [str(p) for s in scenarios for p in sorted((archive / "CMIP6").rglob(f"*_{s}_*.nc"))]


def test_the_command_baseline_writes_what_the_command_compare_compares(archive, tmp_path, capsys):
    fitted = ["--reference", *cmip(archive, "ssp126", "ssp585"), "--forcings", str(archive / "forcings")]
    for name, timescale in (
        ("pattern-scaling", "year"),
        ("climatology", "year"),
        ("ar1", "decade"),
        ("first-decade", "month"),
    ):
        out = tmp_path / f"{name}.nc"
        command = [
            "baseline",
            name,
            "--scenario",
            "ssp370",
            "--timescale",
            timescale,
            "--members",
            "6",
            "--out",
            str(out),
        ]
        assert main([*command, *fitted]) == 0
        ds = open_ensemble(out)
        assert ds.sizes["member"] == 6 and ds.attrs["experiment_id"] == "ssp370" and ds.attrs["seed"] == 0
        real = next(iter(open_runs([archive / "CMIP6"]).values()))
        xr.testing.assert_allclose(ds.lat, real.lat)
    files = [str(tmp_path / f"{n}.nc") for n in ("pattern-scaling", "climatology")]
    out = tmp_path / "compare.json"
    assert (
        main(["compare", *files, "--truth", *cmip(archive, "ssp370"), *fitted, "--bootstrap", "50", "--out", str(out)])
        == 0
    )
    found = json.loads(out.read_text())
    row = difference(found["differences"], "pattern scaling (CO2), drawn", "climatology, drawn")
    assert row["ratio_difference"] < 0.0
    assert set(found["structure"]) == {"pattern scaling (CO2), drawn", "climatology, drawn"}
    shown = capsys.readouterr().out
    assert "CRPS/floor" in shown and "lag-1 of years, local" in shown


def test_two_files_of_one_model_are_named_by_file(archive, tmp_path):
    command = ["baseline", "climatology", "--scenario", "ssp370", "--timescale", "year", "--members", "3"]
    for seed in ("0", "1"):
        out = str(tmp_path / f"seed{seed}.nc")
        assert main([*command, "--seed", seed, "--reference", *cmip(archive, "ssp126"), "--out", out]) == 0
    out = tmp_path / "compare.json"
    files = [str(tmp_path / f"seed{s}.nc") for s in (0, 1)]
    assert main(["compare", *files, "--truth", *cmip(archive, "ssp370"), "--bootstrap", "0", "--out", str(out)]) == 0
    models = {d["model"] for d in json.loads(out.read_text())["differences"]}
    assert models == {"climatology, drawn (seed0)"}


def test_a_baseline_of_its_own_scenario_is_refused(archive, tmp_path, capsys):
    command = [
        "baseline",
        "climatology",
        "--scenario",
        "ssp126",
        "--timescale",
        "year",
        "--out",
        str(tmp_path / "x.nc"),
    ]
    assert main([*command, "--reference", *cmip(archive, "ssp126")]) == 1
    assert "runs of ssp126, the scenario to be predicted" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_differences_are_numbers_of_floors_that_do_not_depend_on_units():
    a, b, y = named("a"), named("b", seed=3), truth()
    found = compare([a, b], y, variables=["pr"], bootstrap=0)
    row = difference(found.differences, "a", "b", "pr")
    assert row["units"] == "mm day-1"
    assert np.sign(row["crps_difference"]) == np.sign(row["ratio_difference"])
