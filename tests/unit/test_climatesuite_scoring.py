"""Rows of scores.json: what they say and what they are compared with."""

import json

import numpy as np
import pytest
import xarray as xr

from climatesuite.baselines.fit import Case, exact_baselines
from climatesuite.baselines.names import CLIMATOLOGY, FIRST_DECADE, FLOOR, PATTERN_SCALING
from climatesuite.errors import DataContractError
from climatesuite.evaluate import scores, scoring
from climatesuite.evaluate.protocol import Period
from climatesuite.evaluate.rows import FIELDS, Bootstrap, Comparison, finish
from climatesuite.evaluate.scoring import Prediction, anomaly_base, score_datasets
from climatesuite.harmonise.coarsen import to_decade, to_year
from worlds.fake_ensemble import fake_ensemble

DEMANDED = (
    "model variable units timescale scenario window M N target seed rmse crps crps_floor crps_ratio spread_skill bias"
).split()


def truth(timescale="year", n=3, years=(2015, 2034), **options):
    return fake_ensemble(timescale, tuple(f"r{i}i1p1f1" for i in range(1, n + 1)), years, seed=1, **options)


def forecast(timescale="year", m=5, years=(2015, 2034), **options):
    return Prediction(
        "toy", fake_ensemble(timescale, range(m), years, seed=2, **options), {"seed": 7, "runtime_s": 1.5}
    )


def co2(per_year, years=(2015, 2034)):
    labels = np.arange(years[0], years[1] + 1)
    return xr.DataArray(1500.0 + per_year * (labels - 2015), {"year": labels}, ("year",))


def training(timescale="month", years=(2015, 2034)):
    return {
        s: fake_ensemble(timescale, ("r1i1p1f1", "r2i1p1f1"), years, seed=10 + i, warming=0.02 * (i + 1))
        for i, s in enumerate(("ssp126", "ssp585"))
    }


def baselines(timescales):
    predictors = {"ssp126": co2(20.0), "ssp585": co2(40.0), "ssp370": co2(40.0)}
    return exact_baselines(Case(training(), "ssp370", predictors, decade_start=2015, timescales=timescales))


def row_of(rows, model="toy", variable="tas", timescale="year", period="full"):
    wanted = (model, variable, timescale, period)
    (row,) = [r for r in rows if (r["model"], r["variable"], r["timescale"], r["period"]) == wanted]
    return row


# ---- what a row says


def test_every_table_has_the_floor_first_then_the_references_then_the_prediction():
    rows = score_datasets([forecast()], truth(), baselines(["year"]), bootstrap=0)
    tables: dict[tuple[str, str, str], list[str]] = {}
    for r in rows:
        tables.setdefault((r["variable"], r["timescale"], r["period"]), []).append(r["model"])
    assert list(tables) == [(v, "year", p) for v in ("tas", "pr") for p in ("headline", "full")]
    assert all(models == [FLOOR, CLIMATOLOGY, FIRST_DECADE, PATTERN_SCALING, "toy"] for models in tables.values())


def test_rows_have_all_demanded_fields_and_survive_json():
    rows = score_datasets([forecast()], truth(), baselines(["year"]), bootstrap=20, commit="abc")
    for row in json.loads(json.dumps(rows, allow_nan=False)):
        assert tuple(row) == FIELDS and set(DEMANDED) <= set(row)
        assert (row["scenario"], row["esm"], row["target"], row["N"]) == ("ssp370", "FAKE-ESM", "member", 3)
        assert row["units"] == {"tas": "K", "pr": "mm day-1"}[row["variable"]]
        assert row["commit"] == "abc" and row["weights"] == "coslat"
    ours = row_of(rows)
    assert (ours["M"], ours["seed"], ours["runtime_s"], ours["crps_kind"]) == (5, 7, 1.5, "fair")
    assert ours["window"] == [2015, 2034] and row_of(rows, period="headline")["window"] == [2017, 2034]
    assert row_of(rows, FLOOR)["M"] is None and row_of(rows, CLIMATOLOGY)["M"] is None


@pytest.mark.parametrize("period", ["full", "headline"])
def test_numbers_of_a_row_are_the_scores_of_the_fields_in_its_window(period):
    x, y = forecast(bias=0.2), truth()
    row = row_of(score_datasets([x], y, bootstrap=0), variable="pr", period=period)
    a, b = ((ds.pr.where(ds.year >= row["window"][0], drop=True).astype(np.float64) * 86400.0) for ds in (x.fields, y))
    floor = float(scores.area_mean(scores.pair_floor(b)).mean())
    expected = {
        "rmse": scores.rmse(a, b), "bias": scores.bias(a, b), "spread_skill": scores.spread_skill(a, b), "crps_floor": floor,
        "crps": float(scores.area_mean(scores.crps_ensemble(a, b)).mean()),
        "crps_plain": float(scores.area_mean(scores.crps_ensemble(a, b, "plain")).mean()),
        "reliability_index": scores.reliability_index(scores.rank_histogram(a, b)),
    }  # fmt: skip
    assert {k: row[k] for k in expected} == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-9)
    assert row["crps_ratio"] == pytest.approx(row["crps"] / floor)


def test_the_floor_row_is_a_perfect_ensemble():
    row = row_of(score_datasets([forecast()], truth(), bootstrap=0), FLOOR)
    assert row["crps"] == row["crps_floor"] and row["crps_ratio"] == row["spread_skill"] == 1.0 and row["bias"] == 0.0
    assert row["rmse"] == pytest.approx(float(scores.spread(truth().tas)) / np.sqrt(3), rel=1e-9)


def test_an_ensemble_like_the_truth_scores_near_the_floor_with_calibrated_spread():
    x, y = forecast(m=20, years=(2015, 2094)), truth(n=4, years=(2015, 2094))
    row = row_of(score_datasets([x], y, bootstrap=0))
    assert row["crps_ratio"] == pytest.approx(1.0, abs=0.03)
    assert row["spread_skill"] == pytest.approx(1.0, abs=0.05) and row["var_ratio"] == pytest.approx(1.0, abs=0.05)


def test_skill_is_one_at_the_floor_and_zero_for_pattern_scaling():
    rows = score_datasets([forecast()], truth(warming=0.08), baselines(["year"]), bootstrap=0)
    base, ours = row_of(rows, PATTERN_SCALING), row_of(rows)
    assert base["skill"] == 0.0
    assert ours["skill"] == pytest.approx((base["crps"] - ours["crps"]) / (base["crps"] - base["crps_floor"]))


def test_skill_is_left_blank_where_pattern_scaling_is_no_worse_than_the_floor():
    y = truth(n=2, spread=0.0)
    apart = y.tas + xr.DataArray(
        [2.0, -2.0], dims="member"
    )  # both ends of a floor that no ensemble in the middle reaches
    rows = score_datasets(
        [forecast()],
        y.assign(tas=apart.assign_attrs(y.tas.attrs)),
        baselines(["year"]),
        variables=["tas"],
        bootstrap=50,
    )
    assert row_of(rows, PATTERN_SCALING)["crps_ratio"] < 1.0
    assert row_of(rows)["skill"] is None and row_of(rows)["skill_lo"] is None


def test_trend_error_is_the_difference_of_slopes_per_decade():
    y = truth()
    x = y.assign(tas=(y.tas + 0.03 * (y.year - 2015)).assign_attrs(y.tas.attrs)).assign_coords(member=range(3))
    rows = score_datasets([Prediction("toy", x)], y, bootstrap=0)
    assert row_of(rows)["trend_err"] == pytest.approx(0.3, rel=1e-4)
    assert row_of(rows, variable="pr")["trend_err"] == pytest.approx(0.0, abs=1e-12)


def test_nrmse_is_that_of_anomalies_over_the_last_twenty_years():
    x, y = forecast(years=(2060, 2099), bias=0.3), truth(years=(2060, 2099))
    row = row_of(score_datasets([x], y, bootstrap=0, anomaly_base={"tas": 284.0}))
    late = [ds.tas.where(ds.year >= 2080, drop=True).astype(np.float64) - 284.0 for ds in (x.fields, y)]
    expected = {k: float(v) for k, v in scores.nrmse(*late).items()}
    assert {k: row[k] for k in expected} == pytest.approx(expected, rel=1e-6)
    assert row["nrmse_window"] == [2080, 2099] and row["nrmse_base"]


def test_the_anomaly_base_is_the_training_mean_of_2015_to_2024_in_score_units():
    runs = training("year", years=(2015, 2034))
    expected = np.mean([float(scores.area_mean(ds.pr.isel(time=slice(10))).mean()) for ds in runs.values()]) * 86400.0
    assert anomaly_base(runs, ["pr"]) == {"pr": pytest.approx(expected, rel=1e-6)}
    assert anomaly_base(training("year", years=(2030, 2040))) == {}


def test_one_member_is_labelled_as_such():
    row = row_of(score_datasets([forecast(m=1)], truth(), bootstrap=0))
    assert (row["crps_kind"], row["M"], row["spread_skill"]) == ("mae", 1, None)
    assert row["crps"] == pytest.approx(row["mae"])


def test_one_truth_member_gives_scores_without_floor_and_says_so():
    rows = score_datasets([forecast()], truth(n=1), baselines(["year"]), bootstrap=20)
    for row in rows:
        assert row["crps_ratio"] is None and row["crps_floor"] is None and row["flag"].startswith("one truth member")
    assert row_of(rows)["crps"] > 0


def test_unknown_fields_of_a_row_are_refused():
    with pytest.raises(ValueError, match=r"unknown fields of a score row: \['crsp'\]"):
        finish({"crsp": 1.0})


# ---- intervals


def test_intervals_hold_the_value_and_come_out_the_same_again():
    first, second = (score_datasets([forecast()], truth(), baselines(["year"]), bootstrap=200) for _ in range(2))
    assert first == second
    for row in first:
        if row["model"] != FLOOR:
            assert row["crps_ratio_lo"] < row["crps_ratio"] < row["crps_ratio_hi"] and row["stderr"]["crps_ratio"] > 0


def test_redrawing_every_block_and_member_once_is_the_mean():
    series, years = np.random.default_rng(0).normal(size=(3, 25)), np.arange(2015, 2040)
    draws = Bootstrap.draw(years, 2015, 3, 4)
    assert draws.block_of.tolist() == [0] * 10 + [1] * 10 + [2] * 5
    assert (draws.blocks.sum(axis=1) == 3).all() and (draws.members.sum(axis=1) == 3).all()
    once = Bootstrap(np.ones((1, 3)), np.ones((1, 3)), draws.block_of)
    assert once.means(series)[0] == pytest.approx(series.mean())
    lone = Bootstrap(np.array([[0.0, 3.0, 0.0]]), np.array([[0.0, 0.0, 3.0]]), draws.block_of)
    assert lone.means(series)[0] == pytest.approx(series[2, 10:20].mean())


# ---- what is compared with what


def test_a_shorter_prediction_is_compared_year_by_year_with_its_own_floor():
    x, y = forecast(years=(2020, 2030)), truth()
    cut = y.isel(time=slice(5, 16))
    got, expected = score_datasets([x], y, bootstrap=20), score_datasets([x], cut, bootstrap=20)
    assert (
        row_of(got)["flag"]
        == "scored on 11 shared steps (2020-2030) of its 11 (2020-2030) and the truth's 20 (2015-2034)"
    )
    assert row_of(expected)["flag"] is None
    assert [{**r, "flag": None} for r in got] == expected and row_of(got)["window"] == [2020, 2030]


def test_predictions_of_different_length_get_a_floor_each():
    long, short = forecast(), Prediction("short", forecast(years=(2020, 2030)).fields)
    rows = [r for r in score_datasets([long, short], truth(), bootstrap=0) if r["variable"] == "tas"]
    floors = [r["window"] for r in rows if r["model"] == FLOOR]
    assert sorted(floors) == [[2015, 2034], [2017, 2034], [2020, 2030], [2020, 2030]]


def test_one_truth_of_months_serves_all_timescales_and_decades_begin_where_the_prediction_says():
    y = truth("month", years=(2015, 2048))
    given = [
        forecast("month", years=(2018, 2047)),
        forecast(years=(2015, 2048)),
        forecast("decade", years=(2018, 2047)),
    ]
    rows = score_datasets(given, y, bootstrap=0)
    windows = {r["timescale"]: r["window"] for r in rows if r["model"] == "toy" and r["period"] == "full"}
    assert windows == {"month": [2018, 2047], "year": [2015, 2048], "decade": [2018, 2047]}
    floor = float(scores.area_mean(scores.pair_floor(to_decade(to_year(y), 2018).tas)).mean())
    assert row_of(rows, FLOOR, timescale="decade")["crps"] == pytest.approx(floor, rel=1e-9)


def test_a_truth_may_be_given_by_timescale_and_never_refined():
    y = truth()
    assert scoring.truth_at({"year": y}, "year") is y
    assert scoring.truth_at(y, "decade").year.values.tolist() == [2015, 2025]
    with pytest.raises(DataContractError, match=r"timescales \['year'\]; expected month"):
        scoring.truth_at(y, "month")


def test_without_a_prediction_the_floor_and_the_references_are_tabled():
    rows = score_datasets([], truth(), baselines(["year"]), timescales=["year"], variables=["pr"], bootstrap=0)
    assert [r["model"] for r in rows] == 2 * [FLOOR, CLIMATOLOGY, FIRST_DECADE, PATTERN_SCALING]
    assert {r["variable"] for r in rows} == {"pr"}


def test_lazy_predictions_score_as_loaded_ones():
    x = forecast()
    lazy = Prediction("toy", x.fields.chunk(member=1, time=3), x.facts)
    ours, theirs = (row_of(score_datasets([p], truth(), bootstrap=0)) for p in (x, lazy))
    assert {k: v for k, v in ours.items() if isinstance(v, float)} == pytest.approx(
        {k: v for k, v in theirs.items() if isinstance(v, float)}, rel=1e-9
    )


def test_nothing_in_common_is_refused():
    with pytest.raises(DataContractError, match="2050 to 2060 against 2015 to 2034"):
        score_datasets([forecast(years=(2050, 2060))], truth())
    with pytest.raises(DataContractError, match="some of tas, pr in it and the truth"):
        score_datasets([Prediction("toy", forecast().fields[["tas"]])], truth()[["pr"]])
    with pytest.raises(DataContractError, match="no variable 'tas'"):
        score_datasets([forecast()], truth()[["pr"]], variables=["tas"])


def test_periods_share_one_comparison():
    y = truth()
    comparison = Comparison("year", y, baselines(["year"]), bootstrap=0)
    assert [p.name for p in comparison.spans] == ["full", "headline"] and isinstance(comparison.spans[0], Period)
    assert comparison.reference_rows("tas") == comparison.reference_rows("tas")


def test_months_a_month_late_are_refused_although_their_labels_fit():
    y = truth("month")
    x = y.assign_coords(member=range(3))
    late = x.assign({n: x[n].copy(data=np.roll(x[n].values, 1, axis=1)) for n in ("tas", "pr")})
    score_datasets([Prediction("toy", x)], y, bootstrap=0)
    with pytest.raises(DataContractError, match="tas in toy: seasonal cycle: 1 month later than the truth's"):
        score_datasets([Prediction("toy", late)], y, bootstrap=0)
    with pytest.raises(DataContractError, match="pr in toy: seasonal cycle: 1 month later"):
        score_datasets([Prediction("toy", late[["pr"]])], y, bootstrap=0)


def test_a_time_axis_ten_years_off_is_said_in_the_rows():
    x = forecast()
    moved = x.fields.assign_coords(year=x.fields.year + 10)
    row = row_of(score_datasets([Prediction("toy", moved)], truth(), bootstrap=0))
    assert row["flag"].startswith("scored on 10 shared steps (2025-2034) of its 20 (2025-2044)")


@pytest.mark.parametrize(("name", "other"), [("source_id", "UKESM1-0-LL"), ("experiment_id", "ssp585")])
def test_an_ensemble_of_another_model_or_scenario_is_refused(name, other):
    stranger = forecast().fields.assign_attrs({name: other})
    with pytest.raises(DataContractError, match=f"toy: {name} {other}; expected .*, the truth's"):
        score_datasets([Prediction("toy", stranger)], truth(), bootstrap=0)


@pytest.mark.parametrize(("ours", "theirs", "passes"), [
    ("360_day", "noleap", False), ("noleap", "360_day", False), ("standard", "360_day", True), ("standard", "noleap", True),
])  # fmt: skip
def test_months_of_thirty_days_are_not_scored_against_others(ours, theirs, passes):
    x, y = forecast("month", calendar=ours), truth("month", calendar=theirs)
    if passes:
        score_datasets([x], y, variables=["tas"], bootstrap=0)
        return
    with pytest.raises(DataContractError, match=f"toy: calendar {ours}; expected {theirs}, the truth's"):
        score_datasets([x], y, variables=["tas"], bootstrap=0)
