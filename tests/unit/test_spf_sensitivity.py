"""Does the forcing matter? Responses of a small trained emulator, and the warnings where there are none."""

import json

import numpy as np
import pytest

from climatesuite.forcing.variants import CO2_ONLY, LESS_CO2, MORE_CO2, NO_AEROSOL
from spf.__main__ import main
from spf.commands import sensitivity as command
from spf.commands.sensitivity import SKELETON, WHOLE, warnings_of


@pytest.fixture(scope="module")
def printed(trained, tmp_path_factory):
    """Rows of the command on the session's emulator."""
    out = tmp_path_factory.mktemp("sensitivity") / "s.json"
    file = next((trained.folder / "archive" / "forcings").glob("inputs_ssp370.nc"))
    found = main(
        [
            "sensitivity",
            str(trained.folder / "emulator.pt"),
            "--scenario",
            str(file),
            "--members",
            "2",
            "--out",
            str(out),
        ]
    )
    return found, json.loads(out.read_text())


def picked(rows, name: str, region: str = WHOLE, variable: str = "tas"):
    return next(r for r in rows if (r["name"], r["region"], r["variable"]) == (name, region, variable))


def test_every_counterfactual_is_printed_for_both_variables_with_the_forced_mean_beside(printed):
    code, rows = printed
    assert code == 0 and len(rows) == 4 * 2 * 2
    assert {r["units"] for r in rows} == {"K", "mm day-1"}
    assert {r["name"] for r in rows} == {CO2_ONLY, NO_AEROSOL, MORE_CO2, LESS_CO2}


def test_more_co2_warms_and_less_cools_as_the_forced_mean_does(printed):
    _, rows = printed
    more, less = (picked(rows, n) for n in (MORE_CO2, LESS_CO2))
    assert more["value"] > 0 > less["value"]
    assert picked(rows, MORE_CO2, SKELETON)["value"] == pytest.approx(
        -picked(rows, LESS_CO2, SKELETON)["value"], rel=1e-3
    )
    assert 0 < more["reference_lo"] < more["reference_hi"] and less["reference_hi"] < 0
    assert more["lo"] <= more["value"] <= more["hi"]


def test_a_forced_mean_on_co2_does_not_feel_aerosols_and_forty_steps_of_learning_hardly(printed):
    _, rows = printed
    assert picked(rows, NO_AEROSOL, SKELETON)["value"] == pytest.approx(0.0, abs=1e-6)
    assert any(w.startswith(NO_AEROSOL) and "INSENSITIVE" in w for w in warnings_of(rows))


def test_the_range_of_co2_is_that_of_the_assessment():
    import xarray as xr

    years = {"year": ("time", np.arange(2015, 2045))}
    plain, more = (xr.Dataset({"CO2": ("time", np.full(30, v))}, years) for v in (1500.0, 2500.0))
    assert command._expected(MORE_CO2, plain, more) == pytest.approx((0.27, 0.63))
    assert command._expected(LESS_CO2, more, plain) == pytest.approx((-0.63, -0.27))
    assert command._expected(CO2_ONLY, plain, plain) is None


@pytest.mark.parametrize(
    ("value", "expected", "word"),
    [
        (0.4, (0.27, 0.63), None),
        (0.04, (0.27, 0.63), "INSENSITIVE"),
        (-0.4, (0.27, 0.63), "GOES THE OTHER WAY"),
        (0.02, (0.03, 0.06), None),  # little is asked for where little was changed
        (0.01, (0.03, 0.06), "INSENSITIVE"),
        (0.3, (0.0, 0.8), None),
        (0.04, (0.0, 0.8), "INSENSITIVE"),
        (-0.3, None, None),
        (0.01, None, "INSENSITIVE"),
    ],
)
def test_a_response_that_is_missing_or_wrong_is_said(value, expected, word):
    found = command._row(np.full(3, value), expected, variable="tas", name="x", units="K")
    assert found["agrees"] is (word is None)
    assert (found["note"] or "").startswith(word or "") and bool(found["note"]) == (word is not None)
    assert bool(warnings_of([found])) == (word is not None)
