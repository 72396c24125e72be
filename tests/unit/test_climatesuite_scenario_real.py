"""Scenarios of one's own on real forcings: made from another and a table, and without the table of emissions."""

import numpy as np
import pandas as pd
import pytest

import climatesuite


@pytest.fixture(scope="module")
def fair():
    """FaIR; tests that need it are skipped where it is not installed."""
    return pytest.importorskip(
        "fair", reason="the optional package fair is not installed: pip install climatesuite-spf[fair]"
    )


@pytest.mark.parametrize("names", [["CO2"], ["CH4"], ["SO2", "BC"]])
def test_the_past_of_a_departure_matters_little(fair, climate_data, names):
    with_table = climatesuite.scenario("ssp370", climate_data)
    without = climatesuite.scenario(
        "ssp370", {n: climatesuite.scenario(n, climate_data).fields for n in ("ssp126", "ssp370")}
    )
    change = [
        r.scenario - r.parent for r in (s.with_forcings_of("ssp126", names).response() for s in (with_table, without))
    ]
    assert float(np.abs(change[0]).max()) > 0.5 and float(np.abs(change[1] - change[0]).max()) < 0.01


ERRORS = {"ssp126": (320, 17.5, 1.7, 0.56), "ssp585": (185, 8.0, 1.7, 0.14)}
"""Largest error of cumulative CO2 (Gt), CH4, SO2, BC (Mt a year), rounded up, of a scenario made from ssp370's forcing file and
the SSP table alone."""


@pytest.mark.parametrize("name", ERRORS)
def test_a_real_ssp_comes_back_from_another_and_the_table_within_what_was_measured(climate_data, name):
    real = climatesuite.scenario(name, climate_data)
    table = pd.read_csv(climate_data / "scenarios/ssp_forcing_annual_1850-2100.csv")
    rows = table[(table.scenario == name) & table.year.between(2015, 2099)].set_index("year")
    columns = ["CO2_GtCO2_yr", "CH4_Mt_yr", "SO2_Mt_yr", "BC_Mt_yr"]
    made = climatesuite.scenario("ssp370", climate_data).with_table(rows[columns])
    assert "counted as rcmip" in made.steps[0]
    found = [
        np.abs(made.fields.CO2 - real.fields.CO2).max(),
        *np.abs(made.totals - real.totals)[["CH4", "SO2", "BC"]].max(),
    ]
    assert (np.array(found, dtype=float) <= ERRORS[name]).all(), found
