"""MESMER as a baseline: its mean is the predictor's line, its spread the training residuals', its members are keyed by a seed."""

import importlib.util
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import xarray as xr

from climatesuite.baselines import mesmer as module
from climatesuite.baselines.mesmer import Mesmer
from climatesuite.errors import DataContractError
from climatesuite.harmonise.coarsen import to_decade, to_year
from worlds.fake_ensemble import fake_ensemble

YEARS, GRID = (2015, 2054), (5, 8)
WARMING = {"ssp126": 0.02, "ssp585": 0.06}
MEMBERS = {"ssp126": ("r1i1p1f1",), "ssp585": ("r1i1p1f1", "r2i1p1f1")}
VARIABLES = ("tas", "pr")
MEMORY = 0.6

needs_mesmer = pytest.mark.skipif(
    importlib.util.find_spec("mesmer") is None,
    reason='mesmer-emulator is not installed; pip install "climatesuite-spf[mesmer]"',
)
quiet = pytest.mark.filterwarnings("ignore:No local minimum found", "ignore:All-NaN slice")


def co2(warming, years=YEARS):
    """Cumulative CO2 of a scenario: the worlds of these tests warm by 1 K per 1000 Gt."""
    year = np.arange(years[0], years[1] + 1)
    return xr.DataArray(1500.0 + 1000.0 * warming * (year - 2015), {"year": year}, ("year",))


def still(warming, timescale="year", years=YEARS, calendar="noleap", grid=GRID):
    """The forced mean of a scenario, one member."""
    return fake_ensemble(timescale, ("r1i1p1f1",), years, grid, calendar, spread=0.0, warming=warming)


def run(scenario, spread=1.0, seed=0, timescale="year", years=YEARS):
    """A training run whose noise is an AR(1) process in time and smooth in space."""
    options = {"timescale": timescale, "members": MEMBERS[scenario], "years": years, "grid": GRID}
    noisy = fake_ensemble(**options, warming=WARMING[scenario], spread=spread, seed=seed + len(MEMBERS[scenario]))
    mean = fake_ensemble(**options, warming=WARMING[scenario], spread=0.0)
    for name in VARIABLES:
        shock = (noisy[name] - mean[name]).values.astype(np.float64)
        noise = shock.copy()
        for t in range(1, noise.shape[1]):
            noise[:, t] = MEMORY * noise[:, t - 1] + np.sqrt(1 - MEMORY**2) * shock[:, t]
        noisy[name] = noisy[name].copy(data=(mean[name].values + noise).astype(np.float32))
    return noisy.assign_attrs(experiment_id=scenario)


def fit(variables=VARIABLES, target=0.04, runs=None, **options):
    runs = runs or {s: run(s, **options) for s in WARMING}
    return Mesmer.fit(runs, {s: co2(w) for s, w in WARMING.items()}, co2(target), variables)


@pytest.fixture(scope="module")
def fitted():
    if importlib.util.find_spec("mesmer") is None:
        pytest.skip('mesmer-emulator is not installed; pip install "climatesuite-spf[mesmer]"')
    return fit()


@pytest.fixture(scope="module")
def like():
    return still(0.04)


@needs_mesmer
@quiet
def test_the_mean_of_members_is_the_line_of_the_predictor(like):
    """With noise of 0.01 K and a warming of 1.6 K the drawn mean is the forced mean of a scenario that was not trained on."""
    drawn = fit(spread=0.02).draw("year", like, 10, 0)
    for name in VARIABLES:
        departure = np.abs(drawn[name].mean("member") - like[name].isel(member=0))
        noise = drawn[name].std("member", ddof=1, dtype=np.float64).mean("time")
        # 10 members and a line through 120 years of which about 30 are independent, on both sides: five standard errors
        assert float((departure / noise).max()) < 5 * np.sqrt(1 / 10 + 2 / 30), name


@quiet
def test_members_spread_like_the_residuals_of_the_training_runs(fitted, like):
    drawn = fitted.draw("year", like, 40, 1)
    for name in VARIABLES:
        variance = drawn[name].var("member", ddof=1, dtype=np.float64).mean("time").values
        ratio = np.sqrt(variance / residual_variance(name))
        # the AR(p) of the global mean, fitted on 40 years, is a little too short of memory and variance
        assert ratio.mean() == pytest.approx(1.0, abs=0.04), name
        assert 0.85 < ratio.min() and ratio.max() < 1.15, name


def residual_variance(name):
    """Variance of the training runs about their least-squares line on CO2, by cell; scenarios count the same."""
    x, y, w = pooled(name)
    slope, intercept = np.polyfit(x, y, 1, w=np.sqrt(w))
    return np.average((y - intercept - np.outer(x, slope)) ** 2, axis=0, weights=w).reshape(GRID)


def pooled(name):
    """All training years one below the other: CO2, cells and weight."""
    x, y, w = [], [], []
    for s, warming in WARMING.items():
        values = run(s)[name].values.astype(np.float64)
        x.append(np.tile(co2(warming).values, len(values)))
        y.append(values.reshape(x[-1].size, -1))
        w.append(np.full(x[-1].size, 1 / len(values)))
    return np.concatenate(x), np.concatenate(y), np.concatenate(w)


@quiet
def test_members_remember_and_are_correlated_in_space_as_the_training_runs(fitted, like):
    drawn = fitted.draw("year", like, 40, 1)
    for name in VARIABLES:
        departure = (drawn[name] - drawn[name].mean("member")).values.astype(np.float64)
        given = (run("ssp585")[name] - still(0.06)[name].isel(member=0, drop=True)).values.astype(np.float64)
        lag = [np.sum(x[:, 1:] * x[:, :-1]) / np.sum(x**2) for x in (departure, given)]
        side = [np.sum(x * np.roll(x, 1, axis=-1)) / np.sum(x**2) for x in (departure, given)]
        # AR coefficients fitted on 40 years are low by (1 + 3 phi) / 40, and the taper takes some of the correlation
        assert lag[1] - 0.15 < lag[0] < lag[1] + 0.05, name
        assert 0.6 * side[1] < side[0] < side[1] + 0.05, name


@quiet
def test_trend_is_least_squares_with_scenarios_counting_the_same(fitted, like):
    x, y, w = pooled("tas")
    mean = np.average(y.reshape(-1, *GRID).mean(-1), axis=1, weights=np.cos(np.radians(like.lat)))
    slope, intercept = np.polyfit(x, mean, 1, w=np.sqrt(w))
    assert float(fitted.trend["forcing"]) == pytest.approx(slope, rel=1e-6)
    assert float(fitted.trend["intercept"]) == pytest.approx(intercept, rel=1e-6)


@needs_mesmer
@quiet
def test_a_global_mean_in_kelvin_drives_it_as_cumulative_co2_does(fitted, like):
    kelvin = {s: 287.0 + (co2(w) - 1500.0) / 1000.0 for s, w in WARMING.items()}
    other = Mesmer.fit({s: run(s) for s in WARMING}, kelvin, 287.0 + (co2(0.04) - 1500.0) / 1000.0, ["tas"])
    np.testing.assert_allclose(
        other.draw("year", like, 2, 0).tas, fitted.draw("year", like, 2, 0).tas, rtol=0, atol=1e-3
    )


@quiet
def test_without_tas_a_variables_own_global_mean_drives_it(fitted, like):
    own = fit(["pr"], runs={s: run(s).drop_vars("tas") for s in WARMING})
    mean = float(like.pr.weighted(np.cos(np.radians(like.lat))).mean()) * 86400
    assert float(own.trend["intercept"] + own.trend["forcing"] * co2(0.04).mean()) == pytest.approx(mean, rel=0.02)
    spread = [m.draw("year", like, 20, 0).pr.std("member", ddof=1).mean() for m in (own, fitted)]
    assert float(spread[0] / spread[1]) == pytest.approx(1.0, abs=0.1)


@needs_mesmer
@quiet
def test_months_are_fitted_as_their_years(like):
    months = {s: run(s, timescale="month") for s in WARMING}
    of_months, of_years = fit(["tas"], runs=months), fit(["tas"], runs={s: to_year(ds) for s, ds in months.items()})
    xr.testing.assert_identical(of_months.draw("year", like, 2, 0), of_years.draw("year", like, 2, 0))


@quiet
def test_fields_lie_on_the_labels_of_like_in_canonical_units(fitted):
    like = still(0.04, years=(2020, 2041), calendar="standard").drop_vars("tas")
    drawn = fitted.draw("year", like, 2, 0)
    for label in ("time", "time_bnds", "year", "days", "lat", "lon", "lat_bnds", "lon_bnds"):
        xr.testing.assert_identical(drawn[label].variable, like[label].variable)
    assert drawn.attrs == like.attrs
    assert drawn.member.values.tolist() == [0, 1]
    for name, units in (("tas", "K"), ("pr", "kg m-2 s-1")):
        assert drawn[name].dims == ("member", "time", "lat", "lon") and drawn[name].dtype == np.float32
        assert drawn[name].attrs["units"] == units
    assert float(drawn.pr.mean()) == pytest.approx(float(like.pr.mean()), rel=0.05)


@quiet
def test_decades_are_day_weighted_means_of_the_years(fitted):
    years = still(0.04, years=(2015, 2054), calendar="standard")
    decades = still(0.04, "decade", calendar="standard")
    drawn = fitted.draw("decade", decades, 2, 3)
    expected = to_decade(fitted.draw("year", years, 2, 3), 2015)
    for name in VARIABLES:
        np.testing.assert_array_equal(drawn[name].values, expected[name].values)
    assert drawn.year.values.tolist() == [2015, 2025, 2035, 2045]
    assert drawn.attrs["timescale"] == "decade"


@quiet
def test_the_same_seed_gives_the_same_members_and_zero_is_a_seed(fitted, like):
    first = fitted.draw("year", like, 2, 0)
    xr.testing.assert_identical(first, fitted.draw("year", like, 2, 0))
    assert float(np.abs(first.tas - fitted.draw("year", like, 2, 1).tas).max()) > 0.1
    assert float(np.abs(first.tas[0] - first.tas[1]).max()) > 0.1


@quiet
def test_a_members_year_is_the_same_whatever_is_drawn_beside_it(fitted, like):
    whole = fitted.draw("year", like, 3, 5)
    xr.testing.assert_equal(fitted.draw("year", like, 1, 5), whole.isel(member=[0]))
    xr.testing.assert_equal(fitted.draw("year", like.isel(time=slice(7, 20)), 3, 5), whole.isel(time=slice(7, 20)))
    alone = fit(["pr"]).draw("year", like, 3, 5)
    np.testing.assert_array_equal(alone.pr.values, whole.pr.values)


@quiet
def test_variables_have_independent_local_terms(fitted, like):
    drawn = fitted.draw("year", like, 40, 1)
    tas, pr = ((drawn[n] - drawn[n].mean("member")).values.ravel() for n in VARIABLES)
    assert abs(np.corrcoef(tas, pr)[0, 1]) < 0.1


@quiet
def test_requests_it_cannot_answer_are_refused(fitted, like):
    with pytest.raises(DataContractError, match="MESMER: timescale 'month'; expected year or decade"):
        fitted.draw("month", still(0.04, "month"), 2, 0)
    with pytest.raises(DataContractError, match="labels: timescale 'decade'; expected 'year'; coarsen"):
        fitted.draw("year", still(0.04, "decade"), 2, 0)
    with pytest.raises(
        DataContractError, match=r"another grid \(8 x 12 cells\); expected the training runs' \(5 x 8\)"
    ):
        fitted.draw("year", still(0.04, grid=(8, 12)), 2, 0)
    with pytest.raises(DataContractError, match="scenario to be emulated: no value for 2055; expected every year"):
        fitted.draw("year", still(0.04, years=(2015, 2060)), 2, 0)
    with pytest.raises(DataContractError, match="0 members; expected 1 or more"):
        fitted.draw("year", like, 0, 0)


@needs_mesmer
def test_runs_and_predictors_it_cannot_be_fitted_on_are_refused():
    runs, forcing = {s: run(s) for s in WARMING}, {s: co2(w) for s, w in WARMING.items()}
    target = co2(0.04)

    def refused(match, runs=runs, forcing=forcing, target=target, variables=("tas",)):
        with pytest.raises(DataContractError, match=match):
            Mesmer.fit(runs, forcing, target, variables)

    refused("no training runs; expected at least one scenario", runs={})
    refused(
        "training run ssp585: no pr; expected",
        runs={**runs, "ssp585": runs["ssp585"].drop_vars("pr")},
        variables=("pr",),
    )
    odd = runs["ssp126"].assign(tas=runs["ssp126"].tas.assign_attrs(units="degC"))
    refused("tas in training run ssp126: units 'degC'; expected 'K'", runs={**runs, "ssp126": odd})
    refused("several grids; expected one grid", runs={**runs, "ssp126": runs["ssp126"].isel(lon=slice(0, 4))})
    refused("predictor of ssp585: none; expected one for every", forcing={"ssp126": co2(0.02)})
    refused(
        "ssp585: no value for 2050; expected every year of 2015-2054",
        forcing={**forcing, "ssp585": co2(0.06, (2015, 2049))},
    )
    refused("ssp126: no value for 2015", forcing={**forcing, "ssp126": co2(0.02).where(co2(0.02).year != 2015)})
    refused("predictor: a constant; expected a predictor that varies", forcing=dict.fromkeys(WARMING, co2(0.0)))
    refused("scenario to be emulated: no value for 2020", target=target.sel(year=[2019, 2021]))


def test_where_the_package_is_absent_or_old_the_error_names_the_extra(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    for found, message in ((absent, "found for mesmer-emulator"), (lambda name: "0.10.0", "mesmer-emulator 0.10.0")):
        monkeypatch.setattr(module, "version", found)
        with pytest.raises(DataContractError, match=rf'MESMER: .*{message}.*pip install "climatesuite-spf\[mesmer\]"'):
            Mesmer.fit({}, {}, co2(0.04), ["tas"])
