"""Reference ensembles: a forced mean and every residual that training left about it; published numbers of CESM2."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from climatesuite.archive.read import open_runs
from climatesuite.baselines.climatology import Climatology
from climatesuite.baselines.fit import Case, fit_baseline
from climatesuite.baselines.names import CLIMATOLOGY, FLOOR, PATTERN_SCALING
from climatesuite.baselines.pattern_scaling import PatternScaling
from climatesuite.baselines.reference import coarse_runs, field_names, residual_pool
from climatesuite.errors import DataContractError
from climatesuite.evaluate.scoring import score_datasets
from climatesuite.forcing.forcings import open_forcings
from climatesuite.forcing.response import annual_predictor
from climatesuite.harmonise.coarsen import to_decade, to_year
from worlds.fake_ensemble import fake_ensemble

YEARS = (2015, 2037)


def runs(timescale="month", **options):
    """Two scenarios with two and one members; 23 years leave three after the second decade."""
    labels = {"ssp126": ("r1i1p1f1", "r2i1p1f1"), "ssp585": ("r1i1p1f1",)}
    made = {
        s: fake_ensemble(timescale, members, YEARS, warming=0.02 * (i + 1), seed=i, **options)
        for i, (s, members) in enumerate(labels.items())
    }
    return {s: ds.assign_attrs(experiment_id=s) for s, ds in made.items()}


def co2(per_year, first=2015, last=2037):
    return xr.DataArray(
        1500.0 + per_year * np.arange(last - first + 1), {"year": np.arange(first, last + 1)}, ("year",)
    )


PREDICTORS = {"ssp126": co2(20.0), "ssp585": co2(60.0)}


def pooled(training, name="tas"):
    """All members and years of all runs, one after the other, float64."""
    return np.concatenate(
        [ds[name].values.astype(np.float64).reshape(-1, *ds[name].shape[2:]) for ds in training.values()]
    )


def test_yearly_climatology_is_the_mean_over_scenarios_members_and_years():
    training, truth = runs("year"), fake_ensemble("year", ("r9i1p1f1",), (2040, 2045))
    got = Climatology.fit(training, timescales=["year"]).ensemble("year", truth)
    values = pooled(training)
    np.testing.assert_allclose(got.mean.tas, np.broadcast_to(values.mean(axis=0), (6, 8, 12)), rtol=1e-12)
    assert got.mean.year.values.tolist() == list(range(2040, 2046))
    np.testing.assert_allclose(got.pool.tas, values - values.mean(axis=0), atol=2e-5)
    assert got.pool.sizes["sample"] == 3 * 23 and got.variables == ("tas", "pr")


def test_monthly_climatology_has_a_mean_and_a_pool_for_every_calendar_month():
    training, truth = runs(), fake_ensemble("month", ("r9i1p1f1",), (2040, 2041))
    got = Climatology.fit(training, timescales=["month"]).ensemble("month", truth)
    july = np.concatenate([ds.tas.values[:, ds.month == 7].reshape(-1, 8, 12) for ds in training.values()])
    np.testing.assert_allclose(got.mean.tas.isel(time=[6, 18]), [july.mean(axis=0, dtype=np.float64)] * 2, rtol=1e-9)
    assert got.pool.tas.dims == ("calendar_month", "sample", "lat", "lon") and got.pool.sizes["sample"] == 3 * 23
    np.testing.assert_allclose(got.pool.tas.mean("sample"), 0.0, atol=1e-4)


def test_the_climatology_of_decades_is_the_mean_of_single_years_also_of_those_left_over():
    training = runs("year")
    like = to_decade(training["ssp126"], 2015)
    got = Climatology.fit(training, decade_start=2015, timescales=["decade"]).ensemble("decade", like)
    np.testing.assert_allclose(got.mean.tas[0], pooled(training).mean(axis=0), rtol=1e-12)
    assert got.pool.year.values.tolist() == [2015, 2025] * 3
    assert abs(float(got.pool.tas.mean())) > 1e-3  # the warm last years are in the mean and in no decade


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
def test_pattern_scaling_recovers_a_climate_that_is_linear_in_co2(calendar):
    training = runs(calendar=calendar, spread=0.0)
    predictors = {s: co2(20.0 * (i + 1)) for i, s in enumerate(training)}  # warming is 0.02 K a year and scenario
    truth = fake_ensemble("month", ("r9i1p1f1",), (2015, 2034), warming=0.07, spread=0.0, calendar=calendar)
    reference = PatternScaling.fit(training, predictors, co2(70.0), ["tas"], 2015)
    for timescale, like in {"month": truth, "year": to_year(truth), "decade": to_decade(to_year(truth), 2015)}.items():
        got = reference.ensemble(timescale, like)
        np.testing.assert_allclose(got.mean.tas, like.tas[0], atol=2e-4)
        np.testing.assert_allclose(got.pool.tas, 0.0, atol=2e-4)
        np.testing.assert_array_equal(got.mean.year, like.year)


def test_years_and_decades_of_pattern_scaling_are_the_day_weighted_means_of_its_months():
    truth = fake_ensemble("month", ("r9i1p1f1",), (2015, 2034))
    reference = PatternScaling.fit(runs(), PREDICTORS, co2(40.0), ["tas"], 2015)
    months = reference.ensemble("month", truth).mean.assign_attrs(timescale="month")
    year = reference.ensemble("year", to_year(truth)).mean
    np.testing.assert_allclose(to_year(months).tas, year.tas, rtol=1e-12)
    decade = reference.ensemble("decade", to_decade(to_year(truth), 2015)).mean
    np.testing.assert_allclose(to_decade(to_year(months), 2015).tas, decade.tas, rtol=1e-12)


def test_residuals_and_mean_of_pattern_scaling_rebuild_the_training_runs():
    training = runs()
    reference = PatternScaling.fit(training, PREDICTORS, PREDICTORS["ssp585"], ["pr"], 2015)
    like = to_year(training["ssp585"])
    got = reference.ensemble("year", like)
    np.testing.assert_allclose(got.mean.pr + got.pool.pr.values[-23:], like.pr[0], rtol=1e-5)


def test_steps_of_one_calendar_month_share_a_pool():
    truth = fake_ensemble("month", ("r9i1p1f1",), (2015, 2016))
    got = Climatology.fit(runs(), ["tas"], timescales=["month"]).ensemble("month", truth)
    groups = list(got.pools("tas"))
    assert [steps.tolist() for steps, _ in groups] == [[m, m + 12] for m in range(12)]
    np.testing.assert_array_equal(groups[4][1], got.pool.tas[4])
    assert groups[0][1].dtype == np.float64


def test_a_period_keeps_the_residuals_of_its_own_years():
    truth = fake_ensemble("year", ("r9i1p1f1",))
    got = Climatology.fit(runs("year"), timescales=["year"]).ensemble("year", truth)
    assert got.since(2017).pool.year.values.min() == 2017 and got.since(2017).pool.sizes["sample"] == 3 * 21
    assert got.since(2015) is got
    with pytest.raises(DataContractError, match="0 residuals from 2090 on; expected 2 or more"):
        got.since(2090)


def test_runs_are_coarsened_once_for_every_timescale():
    training = runs()
    got = coarse_runs(training, 2015)
    assert [got[t]["ssp126"].sizes["time"] for t in ("decade", "year", "month")] == [2, 23, 276]
    xr.testing.assert_identical(got["year"]["ssp585"], to_year(training["ssp585"]))


def test_impossible_references_are_refused():
    with pytest.raises(DataContractError, match="no training runs"):
        coarse_runs({}, 2015)
    with pytest.raises(DataContractError, match="training run ssp126: yearly data; expected months"):
        coarse_runs(runs("year"), 2015)
    yearly = Climatology.fit(runs("year"), timescales=["year"])
    with pytest.raises(DataContractError, match="climatology: fitted for year; expected month"):
        yearly.ensemble("month", fake_ensemble("month"))


def test_a_truth_beyond_the_predictor_is_refused():
    reference = PatternScaling.fit(runs(), PREDICTORS, co2(40.0), ["tas"], 2015, ["year"])
    with pytest.raises(DataContractError, match="no value for 2038"):
        reference.ensemble("year", fake_ensemble("year", years=(2030, 2040)))


def test_fields_are_those_with_members_time_and_space():
    ds = fake_ensemble().assign(CO2=("time", np.arange(20.0)))
    assert field_names({"ssp126": ds}) == ("tas", "pr") and field_names({"ssp126": ds}, ["pr"]) == ("pr",)


def test_the_pool_lists_scenarios_then_members_then_years():
    training = runs("year")
    zero = {s: ds.isel(member=0, drop=True) * 0 for s, ds in training.items()}
    got = residual_pool(training, zero, ["tas"])
    np.testing.assert_array_equal(got.tas, pooled(training).astype(np.float32))
    assert got.year.values.tolist() == list(range(2015, 2038)) * 3


# ---- published numbers: RMSE of the mean, CRPS over the floor, three decimals

PARTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("ssp370", ("tas", "pr"), ("decade", "year")),
    ("ssp370", ("tas",), ("month",)),
    ("ssp126", ("tas", "pr"), ("decade", "year")),
    ("ssp585", ("tas", "pr"), ("decade",)),
)
"""Test scenario (the others train), variables, timescales; what takes long is done once."""
FLOORS = {
    ("ssp370", "tas", "decade"): 0.090, ("ssp370", "tas", "year"): 0.285, ("ssp370", "tas", "month"): 0.529,
    ("ssp370", "pr", "decade"): 0.081, ("ssp370", "pr", "year"): 0.320,
    ("ssp126", "tas", "decade"): 0.101, ("ssp126", "tas", "year"): 0.268,
    ("ssp126", "pr", "decade"): 0.089, ("ssp126", "pr", "year"): 0.298,
}  # fmt: skip
HEADLINE = {
    ("ssp370", "tas", "decade"): ((0.944, 6.016), (0.351, 2.322)),
    ("ssp370", "tas", "year"): ((1.159, 2.399), (0.492, 1.140)),
    ("ssp370", "tas", "month"): ((1.395, 1.558), (0.876, 1.049)),
    ("ssp370", "pr", "decade"): ((0.273, 1.568), (0.209, 1.343)),
    ("ssp370", "pr", "year"): ((0.583, 1.028), (0.546, 0.995)),
    ("ssp126", "tas", "decade"): ((1.063, 5.583), (0.320, 1.752)),
    ("ssp126", "tas", "year"): ((1.197, 2.506), (0.433, 1.170)),
    ("ssp126", "pr", "decade"): ((0.225, 1.373), (0.195, 1.243)),
    ("ssp126", "pr", "year"): ((0.466, 1.054), (0.448, 1.027)),
}
"""Climatology and CO2 pattern scaling, each RMSE and CRPS over the floor, labels from 2017 on."""
PATTERN_RATIOS = {
    ("ssp370", "tas", "decade", "full"): 2.107, ("ssp370", "tas", "year", "full"): 1.135,
    ("ssp370", "pr", "decade", "full"): 1.278, ("ssp126", "tas", "decade", "full"): 1.754,
    ("ssp126", "tas", "year", "full"): 1.166, ("ssp126", "pr", "decade", "full"): 1.231,
    ("ssp585", "tas", "decade", "full"): 1.724, ("ssp585", "tas", "decade", "headline"): 1.726,
    ("ssp585", "pr", "decade", "headline"): 1.287,
}  # fmt: skip
PRINTED = 0.0011
"""Printed to three decimals: one unit of the last, as fields are float32."""


@pytest.fixture(scope="module")
def published(climate_data):
    """Rows of the floor and the references of CESM2, by scenario, variable, timescale, period and model."""
    runs = {e: ds for (_, e), ds in open_runs([climate_data / "CMIP6" / "CESM2"]).items()}
    drivers = {e: annual_predictor(open_forcings(climate_data / "forcings", ["CO2"], experiment_id=e)) for e in runs}
    rows = []
    for test, variables, timescales in PARTS:
        others = {e: ds for e, ds in runs.items() if e != test}
        case = Case(others, test, drivers, variables, 2015, timescales)
        references = [fit_baseline(name, case) for name in ("climatology", "pattern-scaling")]
        rows += score_datasets(
            [], runs[test], references, variables=variables, timescales=timescales, decade_start=2015,
            bootstrap=1000 if test == "ssp370" else 0,
        )  # fmt: skip
    return {(r["scenario"], r["variable"], r["timescale"], r["period"], r["model"]): r for r in rows}


def test_floors_of_cesm2_are_the_published_ones(published):
    for key, value in FLOORS.items():
        assert published[*key, "headline", FLOOR]["crps"] == pytest.approx(value, abs=PRINTED), key


def test_references_of_cesm2_are_the_published_ones(published):
    for key, values in HEADLINE.items():
        for model, expected in zip((CLIMATOLOGY, PATTERN_SCALING), values, strict=True):
            row = published[*key, "headline", model]
            assert (row["rmse"], row["crps_ratio"]) == pytest.approx(expected, abs=PRINTED), (key, model)
    for where, ratio in PATTERN_RATIOS.items():
        assert published[*where, PATTERN_SCALING]["crps_ratio"] == pytest.approx(ratio, abs=PRINTED), where


def test_intervals_of_cesm2_are_the_published_ones(published):
    expected = {"decade": (2.06, 2.66), "year": (1.08, 1.20), "month": (1.03, 1.07)}
    for timescale, (low, high) in expected.items():
        row = published["ssp370", "tas", timescale, "headline", PATTERN_SCALING]
        # another bootstrap of the same few blocks: the ends move by a tenth of the width
        tolerance = 0.1 * (high - low) + 0.01
        assert (row["crps_ratio_lo"], row["crps_ratio_hi"]) == pytest.approx((low, high), abs=tolerance), timescale


def test_the_headline_of_cesm2_depends_on_which_residuals_are_in_the_pool(climate_data):
    """A period is scored with its own residuals; with those of all years the headline's ratio is a tenth of it lower."""
    runs = {e: ds for (_, e), ds in open_runs([climate_data / "CMIP6" / "CESM2"], variables=["tas"]).items()}
    drivers = {e: annual_predictor(open_forcings(climate_data / "forcings", ["CO2"], experiment_id=e)) for e in runs}
    others = {e: ds for e, ds in runs.items() if e != "ssp370"}
    own = fit_baseline("pattern-scaling", Case(others, "ssp370", drivers, ["tas"], 2015, ["decade"]))
    every = replace(own, name="all residuals", residuals={t: p.drop_vars("year") for t, p in own.residuals.items()})
    rows = score_datasets([], runs["ssp370"], [own, every], timescales=["decade"], decade_start=2015, bootstrap=0)
    at = {(r["model"], r["period"]): (r["crps_ratio"], r["spread_skill"]) for r in rows}
    assert at["all residuals", "headline"] == pytest.approx((2.100, 0.74), abs=0.006)
    assert at[PATTERN_SCALING, "headline"] == pytest.approx((2.322, 0.66), abs=0.006)
    assert at["all residuals", "full"] == at[PATTERN_SCALING, "full"]
