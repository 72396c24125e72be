"""The response to the energy balance's global means: worlds that follow it, its optional terms, published scores of CESM2."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from climatesuite.archive.read import open_runs
from climatesuite.baselines.energy_balance import EnergyBalanceScaling
from climatesuite.baselines.reference import residual_pool
from climatesuite.errors import DataContractError
from climatesuite.evaluate.scores import area_mean
from climatesuite.evaluate.scoring import score_datasets
from climatesuite.forcing.energy_balance import CESM2, Calibration, GlobalMean, ar6_forcing
from climatesuite.forcing.energy_response import annual_global_mean, fit_energy_balance_response, open_patterns
from worlds import tiny

FORCINGS = {s: ar6_forcing(s, CESM2) for s in ("ssp126", "ssp370", "ssp585")}
DRIVEN_BY = {"low": FORCINGS["ssp126"], "mid": FORCINGS["ssp370"], "high": FORCINGS["ssp585"]}


def driven_world(name, truth):
    """A tiny run of two members whose tas is linear in a global mean, without noise; area mean of the slope is 1."""
    ds = tiny.scenario(name)
    level = truth.evaluate(DRIVEN_BY[name]).sel(year=np.unique(ds.year.values)).values[:, None, None, None]
    north = np.sin(np.deg2rad(ds.lat.values))[:, None] * np.ones(12)
    season = 5 * np.cos(np.arange(12.0))[:, None, None] * north
    tas = season + level + 0.5 * (level - 288) * north
    values = np.broadcast_to(tas.reshape(-1, *tas.shape[2:]), ds.tas.shape)
    return ds.assign(tas=(ds.tas.dims, values, ds.tas.attrs))


@pytest.fixture(scope="module")
def noisy():
    """Runs, other models' patterns and the response of the noisy tiny world, all terms on."""
    runs = {e: tiny.scenario(e) for e in ("low", "high")}
    rng = np.random.default_rng(1)
    like = runs["low"]
    patterns = xr.DataArray(
        1 + 0.2 * rng.standard_normal((3, 12, 8, 12)),
        {"experiment_id": ["low", "high", "mid"], "calendar_month": np.arange(1, 13), "lat": like.lat, "lon": like.lon},
        ("experiment_id", "calendar_month", "lat", "lon"),
    )
    response = fit_energy_balance_response(runs, DRIVEN_BY, ["tas", "pr"], patterns=patterns, calibration=CESM2)
    return runs, patterns, response


def test_a_world_that_follows_the_balance_is_found_in_a_scenario_it_never_saw():
    truth = GlobalMean(CESM2.sets[0], 287.3, 1.02)
    runs = {e: driven_world(e, truth) for e in ("low", "high")}
    calibration = Calibration("TINY", (CESM2.sets[0],), CESM2.aerosol_2014)
    response = fit_energy_balance_response(runs, DRIVEN_BY, ["tas"], common=0.0, calibration=calibration)
    expected = driven_world("mid", truth)
    got = response.evaluate(response.predictor(DRIVEN_BY["mid"]), "month", range(2015, 2045), member=0)
    np.testing.assert_allclose(got.tas, expected.tas[0], atol=1e-6)
    np.testing.assert_allclose(
        annual_global_mean(runs["low"]), truth.evaluate(DRIVEN_BY["low"]).sel(year=slice(2015, 2044))
    )


@pytest.mark.parametrize("calendar", ["noleap", "standard"])
@pytest.mark.parametrize("member", [None, 3])
def test_years_and_decades_are_the_day_weighted_means_of_the_months(noisy, member, calendar):
    runs, _, response = noisy
    turned = tuple(replace(line, calendar=calendar) for line in response.lines)
    terms = tuple(replace(term, calendar=calendar) for term in response.departure.terms)
    response = replace(response, lines=turned, departure=replace(response.departure, terms=terms))
    predictor = response.predictor(DRIVEN_BY["low"])
    settings = {"member": member, "pattern_of": "mid"}
    months = response.evaluate(predictor, "month", range(2015, 2045), **settings)
    days = xr.date_range("2015", "2044-12", freq="MS", calendar=calendar, use_cftime=True).days_in_month
    weights = xr.DataArray(np.asarray(days, dtype=float), dims="time")
    year = response.evaluate(predictor, "year", range(2015, 2045), **settings)
    decade = response.evaluate(predictor, "decade", [2015, 2025, 2035], **settings)
    for name in ("tas", "pr"):
        for found, step in ((year, 12), (decade, 120)):
            weighted = (months[name] * weights).values.reshape(-1, step, 8, 12).sum(1)
            total = weights.values.reshape(-1, step).sum(1)[:, None, None]
            np.testing.assert_allclose(found[name].values, weighted / total, rtol=1e-9)
    assert decade.year.values.tolist() == [2015, 2025, 2035] and months.month.values.tolist() == [*range(1, 13)] * 30


def test_members_take_turns_and_their_mean_is_the_mean_response(noisy):
    _, _, response = noisy
    predictor = response.predictor(DRIVEN_BY["mid"])
    members = [response.evaluate(predictor, "year", [2030, 2090], member=k, pattern_of="mid") for k in range(7)]
    xr.testing.assert_identical(members[6], members[0])
    mean = response.evaluate(predictor, "year", [2030, 2090], pattern_of="mid")
    assert response.size == 6 and mean.tas.dims == ("time", "lat", "lon") and mean.tas.attrs["units"] == "K"
    np.testing.assert_allclose(mean.tas, np.mean([m.tas for m in members[:6]], axis=0), rtol=1e-12)
    assert np.ptp([float(area_mean(m.tas)[1]) for m in members]) > 0.01


def test_the_common_departure_enters_with_its_share_and_is_held_beyond_training(noisy):
    runs, _, response = noisy
    predictor = response.predictor(DRIVEN_BY["low"])

    def at(common, years):
        return replace(response, common=common, kappa=0.0).evaluate(predictor, "year", years).pr.values

    whole = at(1.0, range(2015, 2045)) - at(0.0, range(2015, 2045))
    np.testing.assert_allclose(at(0.5, range(2015, 2045)) - at(0.0, range(2015, 2045)), whole / 2, atol=1e-18)
    assert np.abs(whole).max() > 0
    beyond = at(1.0, [2044, 2060, 2100]) - at(0.0, [2044, 2060, 2100])
    np.testing.assert_allclose(beyond, np.repeat(whole[-1:], 3, axis=0), atol=1e-18)
    errors = []
    for common in (0.0, 1.0):
        fitted = {e: replace(response, common=common, kappa=0.0).evaluate(
            response.predictor(DRIVEN_BY[e]), "month", range(2015, 2045)) for e in runs}  # fmt: skip
        errors.append(float((residual_pool(runs, fitted, ["tas"]).tas ** 2).mean()))
    assert errors[1] < errors[0]


def test_other_models_change_the_pattern_by_kappa_per_kelvin_since_2015_2024(noisy):
    _, patterns, response = noisy
    predictor = response.predictor(DRIVEN_BY["mid"])
    with_it, without = (
        replace(response, kappa=k).evaluate(predictor, "month", [2090], pattern_of="mid") for k in (0.5, 0.0)
    )
    xr.testing.assert_identical(with_it.pr, without.pr)
    mean = predictor.mean("response")
    kelvin = float(mean.sel(year=2090) - mean.sel(year=slice(2015, 2024)).mean())
    share = (patterns.sel(experiment_id="low") - response.pattern_change.training).values / (
        patterns.sel(experiment_id="low") - patterns.sel(experiment_id="high")
    ).values
    assert np.ptp(share) < 1e-9 and 0.5 < share[0, 0, 0] < 1  # one weight for all, most of it on the stronger scenario
    expected = 0.5 * kelvin * (patterns.sel(experiment_id="mid") - response.pattern_change.training).values
    np.testing.assert_allclose((with_it.tas - without.tas).values, expected, atol=1e-9)


def test_a_scenario_that_trained_alone_keeps_its_pattern(noisy):
    runs, patterns, _ = noisy
    alone = fit_energy_balance_response(
        {"high": runs["high"]}, DRIVEN_BY, ["tas"], patterns=patterns, calibration=CESM2
    )
    np.testing.assert_allclose(alone.pattern_change.of("high"), 0.0, atol=1e-12)


def test_patterns_are_read_onto_the_grid_of_the_runs(tmp_path):
    fine = xr.Dataset(
        {"pattern": (("experiment_id", "month", "lat", "lon"), np.full((1, 12, 73, 144), 1.5, dtype="float32"))},
        {"experiment_id": ["ssp126"], "month": range(1, 13), "lat": np.linspace(-90, 90, 73), "lon": np.arange(144) * 2.5},
    )  # fmt: skip
    fine.to_netcdf(tmp_path / "patterns.nc")
    got = open_patterns(tmp_path / "patterns.nc", tiny.scenario("low"))
    assert got.dims == ("experiment_id", "calendar_month", "lat", "lon") and got.shape == (1, 12, 8, 12)
    np.testing.assert_allclose(got, 1.5)
    fine.rename(pattern="other").to_netcdf(tmp_path / "other.nc")
    with pytest.raises(DataContractError, match=r"other.nc: variables \['other'\]; expected pattern"):
        open_patterns(tmp_path / "other.nc", tiny.scenario("low"))


def test_what_the_response_cannot_use_is_refused(noisy):
    runs, patterns, response = noisy
    predictor = response.predictor(DRIVEN_BY["mid"])
    with pytest.raises(DataContractError, match="no training runs"):
        fit_energy_balance_response({}, DRIVEN_BY, ["tas"])
    with pytest.raises(DataContractError, match="energy balance of TINY: no calibration"):
        fit_energy_balance_response(runs, DRIVEN_BY, ["tas"])
    with pytest.raises(DataContractError, match="energy balance, low: no tas"):
        fit_energy_balance_response({"low": runs["low"].drop_vars("tas")}, DRIVEN_BY, ["pr"], calibration=CESM2)
    with pytest.raises(DataContractError, match="no pattern of low"):
        few = patterns.sel(experiment_id=["mid"])
        fit_energy_balance_response(runs, DRIVEN_BY, ["tas"], patterns=few, calibration=CESM2)
    with pytest.raises(DataContractError, match="no pattern of ssp370; expected one of low, high, mid"):
        response.evaluate(predictor, "year", [2020])
    with pytest.raises(DataContractError, match="a predictor without experiment_id"):
        response.evaluate(predictor.drop_attrs(), "year", [2020])
    with pytest.raises(DataContractError, match="expected 6 global means"):
        response.evaluate(predictor.isel(response=[0]), "year", [2020])
    with pytest.raises(DataContractError, match="5 years of 2015-2024 in the predictor"):
        response.evaluate(predictor.sel(year=slice(2020, None)), "year", [2020], pattern_of="mid")
    with pytest.raises(DataContractError, match="no value for 2101"):
        response.evaluate(predictor, "year", [2101])


# ---- published numbers of CESM2

RATIOS = {
    ("ssp370", "tas", "decade"): {
        "six": (1.605, 1.706), "six + common": (1.554, 1.672), "one of six + common": (1.569, 1.688),
        "six + common + half kappa": (1.497, 1.605), "six + common + kappa": (1.451, 1.553),
    },
    ("ssp370", "tas", "year"): {
        "six": (1.067, 1.068), "six + common": (1.058, 1.059),
        "six + common + half kappa": (1.048, 1.048), "six + common + kappa": (1.040, 1.040),
    },
    ("ssp370", "pr", "decade"): {
        "six": (1.254, 1.312), "six + common": (1.239, 1.307), "one of six + common": (1.259, 1.329),
    },
    ("ssp126", "tas", "decade"): {
        "six": (1.428, 1.460), "six + common": (1.389, 1.421), "one of six + common": (1.393, 1.422),
        "six + common + half kappa": (1.386, None), "six + common + kappa": (1.398, None),
    },
    ("ssp126", "tas", "year"): {
        "six": (1.098, 1.101), "six + common": (1.091, 1.094),
        "six + common + half kappa": (1.090, None), "six + common + kappa": (1.091, None),
    },
    ("ssp126", "pr", "decade"): {
        "six": (1.200, 1.211), "six + common": (1.196, 1.208), "one of six + common": (1.216, 1.233),
    },
    ("ssp585", "tas", "decade"): {
        "six": (1.621, 1.665), "six + common": (1.609, 1.669), "one of six + common": (1.599, 1.654),
        "six + common + half kappa": (1.593, None), "six + common + kappa": (1.592, None),
    },
    ("ssp585", "tas", "year"): {
        "six": (1.167, 1.174), "six + common": (1.163, 1.171),
        "six + common + half kappa": (1.159, None), "six + common + kappa": (1.158, None),
    },
}  # fmt: skip
"""CRPS over the floor, by test scenario (the others train), variable and timescale: full period, headline period."""
FORMS = {
    "six": (0.0, 0.0), "six + common": (0.5, 0.0), "six + common + half kappa": (0.5, 0.5), "six + common + kappa": (0.5, 1.0)
}  # fmt: skip
"""Common and kappa of a mean response."""


@pytest.fixture(scope="module")
def published(climate_data):
    """CRPS over the floor by test scenario, variable, timescale, form and period."""
    runs = {s: ds for (_, s), ds in open_runs([climate_data / "CMIP6" / "CESM2"]).items()}
    patterns = open_patterns(climate_data / "patterns/cmip6_mean_warming_pattern.nc", runs["ssp370"])
    found = {}
    for test, variable, timescale in RATIOS:
        others = {s: ds for s, ds in runs.items() if s != test}
        settings = ([variable], 2015, [timescale], patterns)
        fitted = EnergyBalanceScaling.fit(others, FORCINGS, FORCINGS[test], *settings)
        forms = [fitted.variant(n, common=c, kappa=k, draws=False) for n, (c, k) in FORMS.items()]
        if timescale == "decade":
            forms.append(fitted.variant("one of six + common", common=0.5, kappa=0.0, draws=True))
        case = {"variables": [variable], "timescales": [timescale], "decade_start": 2015, "bootstrap": 0}
        for row in score_datasets([], runs[test], forms, **case):
            found[test, variable, timescale, row["model"], row["period"]] = row["crps_ratio"]
    return found


def test_energy_balance_scores_of_cesm2_are_the_published_ones(published):
    for case, forms in RATIOS.items():
        for form, ratios in forms.items():
            for period, ratio in zip(("full", "headline"), ratios, strict=True):
                if ratio is not None:
                    assert published[*case, form, period] == pytest.approx(ratio, abs=0.02), (case, form, period)


def test_the_common_departure_and_half_of_what_other_models_know_never_hurt(published):
    for case in (c for c in RATIOS if c[1] == "tas"):
        at = {name: published[*case, name, "full"] for name in FORMS}
        assert at["six + common + half kappa"] < at["six + common"] < at["six"], case
