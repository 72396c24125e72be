"""The forced response: what it was made from is what it finds, and averaging commutes with it."""

import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.forcing.response import annual_predictor, fit_response
from climatesuite.harmonise.coarsen import to_decade, to_year
from worlds import tiny


@pytest.fixture(scope="module")
def fitted():
    runs = {e: tiny.scenario(e) for e in ("low", "high")}
    predictors = {e: annual_predictor(ds) for e, ds in runs.items()}
    return runs, predictors, fit_response(runs, predictors, ["tas", "pr"])


def test_a_linear_world_is_found_exactly(fitted):
    runs, predictors, _ = fitted
    slope = np.linspace(-1, 1, 96).reshape(8, 12)
    exact = {}
    for name, ds in runs.items():
        co2 = np.repeat(predictors[name].values, 12)[None, :, None, None]
        values = 280 + ds.month.values[None, :, None, None] + 0.001 * slope * co2 + np.zeros((2, 1, 1, 1))
        exact[name] = ds.assign(tas=(ds.tas.dims, values, ds.tas.attrs))
    response = fit_response(exact, predictors, ["tas"])
    np.testing.assert_allclose(response.slope.tas.values, np.broadcast_to(0.001 * slope, (12, 8, 12)), atol=1e-9)
    np.testing.assert_allclose(response.intercept.tas.values[:, 0, 0], 280 + np.arange(1, 13), atol=1e-6)


def test_years_and_decades_are_the_day_weighted_means_of_the_months(fitted):
    runs, predictors, response = fitted
    frame = runs["low"].isel(member=0).drop_vars(["CO2", "SO2"])
    months = response.evaluate(predictors["low"], "month")
    as_run = frame.assign({v: (("time", "lat", "lon"), months[v].values, frame[v].attrs) for v in ("tas", "pr")})
    year = to_year(as_run)
    for timescale, expected in (("year", year), ("decade", to_decade(year, 2015))):
        found = response.evaluate(predictors["low"], timescale, decade_start=2015)
        for name in ("tas", "pr"):
            np.testing.assert_allclose(found[name].values, expected[name].values, rtol=1e-9)


def test_members_weigh_the_same_and_their_order_does_not_matter(fitted):
    runs, predictors, response = fitted
    turned = {e: ds.isel(member=[1, 0]) for e, ds in reversed(runs.items())}
    again = fit_response(turned, predictors, ["tas", "pr"])
    np.testing.assert_allclose(again.slope.tas.values, response.slope.tas.values, rtol=1e-9, atol=1e-12)


def test_the_annual_predictor_weighs_with_days():
    ds = tiny.scenario("low")
    ds = ds.assign(CO2=("time", ds.month.values.astype(float)))
    assert float(annual_predictor(ds)[0]) == pytest.approx(2382 / 365)


def test_more_co2_never_cools_where_the_slope_is_positive(fitted):
    _, predictors, response = fitted
    high = response.evaluate(predictors["high"] + 1000, "year")
    low = response.evaluate(predictors["high"], "year")
    warming = (high.tas - low.tas).values
    assert (warming > 0).mean() > 0.95


def test_what_cannot_be_fitted_or_evaluated_is_refused(fitted):
    runs, predictors, response = fitted
    with pytest.raises(DataContractError, match="no training runs"):
        fit_response({}, {}, ["tas"])
    with pytest.raises(DataContractError, match="the predictor is constant"):
        fit_response(runs, {e: xr.zeros_like(p) for e, p in predictors.items()}, ["tas"])
    with pytest.raises(DataContractError, match="no value for 2044"):
        fit_response(runs, {e: p.isel(year=slice(0, -1)) for e, p in predictors.items()}, ["tas"])
    with pytest.raises(DataContractError, match="calendars"):
        fit_response({**runs, "low": runs["low"].assign_attrs(calendar="360_day")}, predictors, ["tas"])
    with pytest.raises(DataContractError, match="no value for 2045"):
        response.evaluate(predictors["low"], "year", [2045])
    with pytest.raises(DataContractError, match=r"no CO2, only"):
        annual_predictor(runs["low"].drop_vars("CO2"))
