"""Ensembles of the baselines: drawn members, remembered residuals, several responses, all by one name."""

import numpy as np
import pytest
import xarray as xr

from climatesuite import cli
from climatesuite.baselines.ar1 import AutoregressiveScaling, Process
from climatesuite.baselines.climatology import Climatology, first_decade
from climatesuite.baselines.fit import BASELINES, Case, exact_baselines, fit_baseline
from climatesuite.baselines.names import AR1, CLIMATOLOGY, FIRST_DECADE, PATTERN_SCALING
from climatesuite.baselines.pattern_scaling import PatternScaling
from climatesuite.baselines.reference import ReferenceEnsemble, draw
from climatesuite.errors import DataContractError
from climatesuite.evaluate.protocol import periods
from climatesuite.evaluate.scores import area_mean, crps_ensemble, spread_skill
from climatesuite.evaluate.scoring import score_datasets
from climatesuite.evaluate.series import pool_series
from climatesuite.forcing.energy_balance import CESM2, ar6_forcing
from climatesuite.harmonise.coarsen import to_decade, to_year
from worlds.fake_ensemble import fake_ensemble

YEARS = (2015, 2044)


def runs(timescale="month", years=YEARS):
    labels = {"ssp126": ("r1i1p1f1", "r2i1p1f1"), "ssp585": ("r1i1p1f1",)}
    made = {
        s: fake_ensemble(timescale, members, years, warming=0.02 * (i + 1), seed=i)
        for i, (s, members) in enumerate(labels.items())
    }
    return {s: ds.assign_attrs(experiment_id=s) for s, ds in made.items()}


def co2(per_year):
    return xr.DataArray(1500.0 + per_year * np.arange(30), {"year": np.arange(2015, 2045)}, ("year",))


def case(timescales, **options):
    predictors = {"ssp126": co2(20.0), "ssp585": co2(60.0), "ssp370": co2(40.0)}
    return Case(runs(), "ssp370", predictors, decade_start=2015, timescales=timescales, **options)


def like(timescale):
    months = fake_ensemble("month", ("r1i1p1f1",), YEARS, seed=9)
    return {"month": months, "year": to_year(months), "decade": to_decade(to_year(months), 2015)}[timescale]


# ---- drawn members


@pytest.mark.parametrize("timescale", ["decade", "year", "month"])
@pytest.mark.parametrize("name", ["climatology", "first-decade", "pattern-scaling"])
def test_a_member_is_the_forced_mean_and_residuals_of_the_pool(name, timescale):
    fitted = fit_baseline(name, case([timescale]))
    exact = fitted.ensemble(timescale, like(timescale))
    drawn = draw(fitted, timescale, like(timescale), members=3, seed=1)
    assert drawn.tas.dims == ("member", "time", "lat", "lon") and drawn.tas.dtype == np.float32
    assert drawn.attrs["model"] == fitted.name and drawn.attrs["seed"] == 1
    np.testing.assert_array_equal(drawn.year, like(timescale).year)
    at = 5 if timescale != "decade" else 1
    residual = drawn.tas[2, at].values - exact.mean.tas[at].values
    pool = exact.pool.tas if timescale != "month" else exact.pool.tas.sel(calendar_month=6)
    assert np.abs(pool.values - residual).max(axis=(1, 2)).min() < 1e-4


def test_months_of_a_year_and_variables_take_one_residual_year():
    fitted = fit_baseline("pattern-scaling", case(["month"]))
    exact, drawn = fitted.ensemble("month", like("month")), draw(fitted, "month", like("month"), 1, 3)
    residual = {v: (drawn[v][0] - exact.mean[v]).values.reshape(30, 12, 8, 12) for v in ("tas", "pr")}
    pools = {v: exact.pool[v].values for v in ("tas", "pr")}
    for year in range(3):
        which = {
            (v, m): int(np.abs(pools[v][m] - residual[v][year, m]).max(axis=(1, 2)).argmin())
            for v in pools for m in range(12)
        }  # fmt: skip
        assert len(set(which.values())) == 1


def test_a_member_is_the_same_whatever_is_drawn_beside_it():
    for name in ("pattern-scaling", "ar1"):
        fitted = fit_baseline(name, case(["year"]))
        few, many = (draw(fitted, "year", like("year"), members, 4) for members in (2, 5))
        xr.testing.assert_identical(few.tas, many.tas[:2])
        assert not np.allclose(many.tas[1], many.tas[2])
        assert not np.allclose(few.tas, draw(fitted, "year", like("year"), 2, 5).tas)


def test_drawn_scores_scatter_about_the_exact_expectation():
    fitted = fit_baseline("pattern-scaling", case(["year"]))
    y = fake_ensemble("year", ("r7i1p1f1", "r8i1p1f1"), YEARS, seed=30, warming=0.03)
    span = periods(y, "year")[0]
    exact = pool_series(fitted.ensemble("year", y), y, "tas", span, np.array([], dtype=int)).crps.mean()
    draws = [float(area_mean(crps_ensemble(draw(fitted, "year", y, 20, s).tas, y.tas)).mean()) for s in range(12)]
    assert np.mean(draws) == pytest.approx(exact, abs=3 * np.std(draws) / np.sqrt(len(draws)))


# ---- first decade held


def test_the_first_decade_is_held_with_its_own_departures_in_every_period():
    fitted = first_decade(runs(), ["tas"], 2015, ["year", "decade"])
    assert fitted.name == FIRST_DECADE
    got = fitted.ensemble("year", like("year"))
    early = np.concatenate([to_year(ds).tas.values[:, :10].reshape(-1, 8, 12) for ds in runs().values()])
    np.testing.assert_allclose(
        got.mean.tas, np.broadcast_to(early.mean(axis=0, dtype=np.float64), (30, 8, 12)), rtol=1e-6
    )
    assert got.pool.sizes["sample"] == 30 and got.since(2017) is got
    assert fitted.ensemble("decade", like("decade")).pool.sizes["sample"] == 3


# ---- residuals that remember


def ar1_pool(phi, n_years=400, runs_of=4):
    rng, x = np.random.default_rng(0), np.zeros((runs_of, n_years, 2, 3))
    shocks = rng.standard_normal(x.shape)
    for t in range(1, n_years):
        x[:, t] = phi * x[:, t - 1] + shocks[:, t]
    year = np.tile(np.arange(2000, 2000 + n_years), runs_of)
    return xr.Dataset(
        {"tas": (("sample", "lat", "lon"), x.reshape(-1, 2, 3).astype("float32"))}, {"year": ("sample", year)}
    )


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_the_autoregression_is_found_and_drawn_series_have_its_persistence_and_variance(phi):
    process = Process.fit(ar1_pool(phi), ["tas"])
    np.testing.assert_allclose(process.phi, phi, atol=0.08)
    series = np.stack(list(process.run(np.zeros(4000, dtype=int), np.random.default_rng(1))))[:, 0]
    lag1 = (series[1:] * series[:-1]).mean(axis=0) / (series**2).mean(axis=0)
    np.testing.assert_allclose(lag1, phi, atol=0.1)
    np.testing.assert_allclose(series.var(axis=0), 1 / (1 - phi**2), rtol=0.15)


def test_the_step_before_january_is_december_of_the_year_before():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 60, 2, 3)).astype("float32")
    x[0, 1:] = 0.9 * x[11, :-1]
    x[0, 30] = 50.0  # another run begins here: its January follows no December
    year = np.concatenate([np.arange(2015, 2045)] * 2)
    pool = xr.Dataset({"tas": (("calendar_month", "sample", "lat", "lon"), x)}, {"year": ("sample", year)})
    phi = Process.fit(pool, ["tas"]).phi
    np.testing.assert_allclose(phi[0], 0.9, rtol=1e-4)
    assert np.abs(phi[1:]).max() < 0.6


def test_decades_of_remembered_residuals_are_the_means_of_their_years():
    fitted = AutoregressiveScaling(fit_baseline("pattern-scaling", case(["year"])))
    years = draw(fitted, "year", like("year"), 2, 0)
    decades = draw(fitted, "decade", like("decade"), 2, 0)
    np.testing.assert_allclose(decades.tas, to_decade(years.assign_attrs(timescale="year"), 2015).tas, rtol=1e-5)
    with pytest.raises(DataContractError, match="fitted for year; expected month"):
        draw(fitted, "month", like("month"), 1, 0)


# ---- several responses


def mixture(timescale="year", k=3):
    fitted = fit_baseline("pattern-scaling", case([timescale]))
    one = fitted.ensemble(timescale, like(timescale))
    shift = (
        np.linspace(-1.0, 1.0, k)[:, None, None, None] * np.linspace(0.2, 2.0, one.mean.sizes["time"])[:, None, None]
    )
    offsets = {
        n: (("response", "time", "lat", "lon"), np.broadcast_to(shift * s, (k, *one.mean[n].shape)))
        for n, s in (("tas", 1.0), ("pr", 1e-6))
    }
    return one, ReferenceEnsemble("mixed", one.mean, one.pool, xr.Dataset(offsets))


@pytest.mark.parametrize("timescale", ["decade", "year"])
@pytest.mark.parametrize("name", ["tas", "pr"])
def test_the_exact_score_of_several_responses_is_that_of_all_pairs_of_response_and_residual(timescale, name):
    _, mixed = mixture(timescale)
    y = fake_ensemble("month", ("r7i1p1f1", "r8i1p1f1"), YEARS, seed=30)
    y = {"year": to_year(y), "decade": to_decade(to_year(y), 2015)}[timescale]
    span = periods(y, timescale)[0]
    got = pool_series(mixed, y, name, span, np.array([], dtype=int))
    members = np.concatenate(
        [(mixed.mean[name].values + o)[None] + mixed.pool[name].values[:, None] for o in mixed.offsets[name].values]
    )
    everything = xr.DataArray(
        members, {c: y.coords[c] for c in ("year", "lat", "lon")}, ("member", "time", "lat", "lon")
    )
    factor = 1.0 if name == "tas" else 86400.0
    expected = area_mean(crps_ensemble(everything, y[name].drop_attrs())) * factor
    np.testing.assert_allclose(got.crps, expected, rtol=1e-6)
    ratio = np.sqrt(got.inflation * got.variance.mean() / got.square.mean())
    assert ratio == pytest.approx(float(spread_skill(everything, y[name].drop_attrs())), rel=1e-5)


def test_one_response_scores_as_a_mixture_of_equal_ones():
    one, mixed = mixture()
    same = ReferenceEnsemble("same", one.mean, one.pool, xr.zeros_like(mixed.offsets))
    y = fake_ensemble("year", ("r7i1p1f1", "r8i1p1f1"), YEARS, seed=30)
    span = periods(y, "year")[0]
    a, b = (pool_series(e, y, "tas", span, np.array([], dtype=int)).crps for e in (one, same))
    n, k = one.pool.sizes["sample"], 3
    assert (b > a).all()  # copies are no spread: among n k members each residual meets itself
    np.testing.assert_allclose(a, b, rtol=2 * (k - 1) / n)


def test_members_take_the_responses_in_turn():
    one, mixed = mixture()
    drawn, plain = mixed.draw(4, 0), one.draw(4, 0)
    shift = (drawn.tas - plain.tas).values
    np.testing.assert_allclose(shift[:3], mixed.offsets.tas.values, atol=1e-4)
    np.testing.assert_allclose(shift[3], mixed.offsets.tas.values[0], atol=1e-4)


# ---- all of them


def test_every_name_of_the_command_is_a_baseline_and_the_reverse():
    assert tuple(BASELINES) == cli.BASELINE_NAMES
    with pytest.raises(DataContractError, match="'persistence'; expected one of climatology, first-decade"):
        fit_baseline("persistence", case(["year"]))


def test_exact_baselines_are_those_the_case_allows():
    assert [b.name for b in exact_baselines(case(["year"]))] == [CLIMATOLOGY, FIRST_DECADE, PATTERN_SCALING]
    yearly = Case({"ssp126": runs("year")["ssp126"].isel(member=[0])}, "ssp370", timescales=["year"])
    assert [b.name for b in exact_baselines(yearly)] == [CLIMATOLOGY]
    assert isinstance(fit_baseline("climatology", yearly), Climatology)
    assert isinstance(fit_baseline("ar1", case(["year"])).scaling, PatternScaling)
    assert fit_baseline("ar1", case(["year"])).name == AR1


def test_what_a_baseline_lacks_is_said():
    with pytest.raises(DataContractError, match="baseline for ssp370: no forcings; expected cumulative CO2"):
        fit_baseline("pattern-scaling", Case(runs(), "ssp370"))
    with pytest.raises(DataContractError, match="energy balance of FAKE-ESM: no calibration"):
        fit_baseline("energy-balance", case(["year"]))
    with pytest.raises(DataContractError, match="0 members; expected 1 or more"):
        draw(fit_baseline("climatology", case(["year"])), "year", like("year"), 0)


def test_the_energy_balance_is_among_the_references_of_a_model_that_has_a_calibration():
    alike = {s: ds.assign_attrs(source_id="CESM2") for s, ds in runs().items()}
    known = Case(alike, "ssp370", case(["year"]).predictors, ["tas"], 2015, ["year"])
    y = fake_ensemble("year", ("r7i1p1f1", "r8i1p1f1"), YEARS, seed=30, warming=0.03)
    rows = score_datasets([], y, exact_baselines(known), variables=["tas"], timescales=["year"], bootstrap=0)
    assert [r["model"] for r in rows if r["period"] == "full"][1:] == [
        CLIMATOLOGY, FIRST_DECADE, PATTERN_SCALING, "energy balance"
    ]  # fmt: skip
    drawn = draw(exact_baselines(known)[-1], "year", y, 7, 0)
    assert drawn.sizes["member"] == 7


def test_a_custom_scenario_is_predicted_from_its_own_forcing():
    alike = {s: ds.assign_attrs(source_id="CESM2") for s, ds in runs().items()}
    table = ar6_forcing("ssp370", CESM2)
    more = table.assign(co2=table.co2 + xr.where(table.year >= 2015, 1.0, 0.0)).assign_attrs(experiment_id="mine")
    means = {}
    for name, forcing in (("ssp370", None), ("mine", more)):
        mine = Case(alike, name, None, ["tas"], 2015, ["year"], forcing=forcing)
        assert mine.has_balance()
        means[name] = fit_baseline("energy-balance", mine).ensemble("year", like("year")).mean.tas
    warmer = area_mean(means["mine"] - means["ssp370"])
    assert float(warmer[-1]) > float(warmer[5]) > 0
    assert not Case(alike, "mine").has_balance()
