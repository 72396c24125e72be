"""Forced responses as plain data: what goes in comes out, whatever scenario it is then asked for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.forcing.energy_balance import CESM2, ar6_forcing
from climatesuite.forcing.energy_response import fit_energy_balance_response
from climatesuite.forcing.plain import from_dict, to_dict
from climatesuite.forcing.response import annual_predictor, fit_response
from worlds import tiny

FORCINGS = {"low": ar6_forcing("ssp126", CESM2), "high": ar6_forcing("ssp585", CESM2)}


@pytest.fixture(scope="module")
def balance():
    """The energy balance on the tiny world, all terms on, with patterns named as in AR6's table."""
    runs = {e: tiny.scenario(e) for e in ("low", "high")}
    like, rng = runs["low"], np.random.default_rng(1)
    patterns = xr.DataArray(
        1 + 0.2 * rng.standard_normal((3, 12, 8, 12)),
        {"experiment_id": ["low", "high", "ssp370"], "calendar_month": np.arange(1, 13), "lat": like.lat, "lon": like.lon},
        ("experiment_id", "calendar_month", "lat", "lon"),
    )  # fmt: skip
    return fit_energy_balance_response(runs, FORCINGS, ["tas", "pr"], patterns=patterns, calibration=CESM2)


def leaves(value: Any) -> list[Any]:
    """Everything in nested dicts and lists."""
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in leaves(v)]
    return [leaf for v in value for leaf in leaves(v)] if isinstance(value, list | tuple) else [value]


def assert_same_fields(ours: xr.Dataset, theirs: xr.Dataset) -> None:
    for name in ("tas", "pr"):
        size = float(np.abs(theirs[name]).max())
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-6 * size)
        assert ours[name].attrs == theirs[name].attrs
    xr.testing.assert_identical(ours.drop_vars(["tas", "pr"]), theirs.drop_vars(["tas", "pr"]))


@pytest.mark.parametrize("timescale", ["month", "year", "decade"])
@pytest.mark.parametrize("member", [None, 4])
def test_an_energy_balance_read_back_answers_alike_for_a_scenario_it_never_saw(balance, member, timescale):
    back = from_dict(to_dict(balance))
    forcing, theirs = ar6_forcing("ssp370", back.calibration), balance.predictor(ar6_forcing("ssp370", CESM2))
    ours = back.predictor(forcing)
    xr.testing.assert_identical(ours, theirs)
    when = (timescale, [2015, 2060, 2090])
    assert_same_fields(back.evaluate(ours, *when, member=member), balance.evaluate(theirs, *when, member=member))


def test_a_response_on_co2_read_back_answers_alike():
    runs = {e: tiny.scenario(e) for e in ("low", "high")}
    response = fit_response(runs, {e: annual_predictor(ds) for e, ds in runs.items()}, ["tas", "pr"])
    back, predictor = from_dict(to_dict(response)), annual_predictor(tiny.scenario("mid"))
    assert_same_fields(back.evaluate(predictor, "month"), response.evaluate(predictor, "month"))
    assert back.slope.tas.attrs == {"units": "K per Gt"} and back.calendar == "noleap" and back.predictor == "CO2"


def test_plain_data_are_numbers_strings_and_arrays_and_maps_are_single_precision(balance):
    found = leaves(to_dict(balance))
    assert {type(leaf) for leaf in found} <= {str, int, float, np.ndarray}
    assert all(leaf.dtype == np.float32 for leaf in found if isinstance(leaf, np.ndarray) and leaf.ndim > 1)


def test_six_lines_share_one_mean_and_patterns_are_kept_as_differences_only(balance):
    data = to_dict(balance)
    assert data["lines"]["mean"]["tas"].shape == (12, 8, 12) and data["lines"]["slopes"]["tas"].shape == (6, 12, 8, 12)
    expected = balance.pattern_change.of("ssp370").values
    np.testing.assert_allclose(data["pattern_change"]["difference"][2], expected, atol=1e-6)
    assert to_dict(replace(balance, pattern_change=None))["pattern_change"] is None


def test_writing_what_was_read_changes_nothing(balance):
    once = to_dict(balance)
    for a, b in zip(leaves(once), leaves(to_dict(from_dict(once))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_predictor_cut_to_a_late_period_still_counts_warming_from_2015_2024(balance):
    forcing = ar6_forcing("ssp370", CESM2)
    cut = balance.predictor(forcing, range(2050, 2061))
    assert cut.year.values.tolist() == list(range(2050, 2061))
    for member in (None, 2):
        ours = balance.evaluate(cut, "month", [2055], member=member)
        theirs = balance.evaluate(balance.predictor(forcing), "month", [2055], member=member)
        xr.testing.assert_allclose(ours, theirs, rtol=1e-12)
    with pytest.raises(DataContractError, match="forcing of ssp370: years to 2100; expected every year of 2090-2101"):
        balance.predictor(forcing, range(2090, 2102))


def test_what_is_no_response_and_lines_of_different_runs_are_refused(balance):
    with pytest.raises(DataContractError, match="expected ForcedResponse or EnergyBalanceResponse"):
        to_dict("a response")
    with pytest.raises(DataContractError, match="kind 'other'"):
        from_dict({"kind": "other"})
    moved = replace(balance.lines[1], centre=balance.lines[1].centre + 3)
    with pytest.raises(DataContractError, match="lines of tas: means up to .* apart"):
        to_dict(replace(balance, lines=(balance.lines[0], moved, *balance.lines[2:])))
