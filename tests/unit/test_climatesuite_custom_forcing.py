"""Custom scenarios: the parent plus what FaIR says of the emissions; against AR6's own differences, and without network."""

import socket
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from climatesuite.errors import DataContractError
from climatesuite.forcing.custom import EMISSIONS, Emissions, custom_forcing, read_emissions
from climatesuite.forcing.energy_balance import CESM2, COMPONENTS, EnergyBalance, GlobalMean, ar6_forcing

BALANCE = EnergyBalance(tuple(GlobalMean(layers, 287.0) for layers in CESM2.sets))
PARENT = "ssp370"


@pytest.fixture(scope="module")
def fair():
    """FaIR; tests that need it are skipped where it is not installed."""
    return pytest.importorskip(
        "fair", reason="the optional package fair is not installed: pip install climatesuite-spf[fair]"
    )


def emissions(name="planted", last=2100, **columns):
    """Emissions that rise smoothly from 1850 to something like those of ssp370."""
    year = np.arange(1850, last + 1)
    t = np.clip((year - 1850) / 250, 0, 1)
    table = {
        "CO2_GtCO2_yr": 2 + 80 * t**2,
        "CH4_Mt_yr": 43 + 700 * t**1.5,
        "SO2_Mt_yr": 4.5 + 100 * np.sqrt(t),
        "BC_Mt_yr": 2.5 + 7 * t,
    }
    return Emissions(name, pd.DataFrame({**table, **columns}, index=year))


def changed(base, name, first=2025, **factors):
    """Emissions times a factor from a year on."""
    table = base.yearly.copy()
    for column, factor in factors.items():
        table.loc[first:, column] *= factor
    return replace(base, experiment_id=name, yearly=table)


def forced(scenario, parent=None):
    return custom_forcing(PARENT, parent or emissions(PARENT), scenario, CESM2)


@cache
def warming(name):
    """Warming of 2081-2100 beside the parent's, by global mean, of a scenario named by what is changed."""
    factors = {"more CO2": {"CO2_GtCO2_yr": 1.2}, "fewer aerosols": {"SO2_Mt_yr": 0.4, "BC_Mt_yr": 0.4}}[name]
    scenario = changed(emissions(PARENT), name, **factors)
    change = BALANCE.evaluate(forced(scenario)) - BALANCE.evaluate(ar6_forcing(PARENT, CESM2))
    return change.sel(year=slice(2081, 2100)).mean("year").values


# ---- what holds whatever the emissions


def test_the_parents_emissions_give_the_parents_forcing(fair):
    forcing, parent = forced(replace(emissions(PARENT), experiment_id="twin")), ar6_forcing(PARENT, CESM2)
    for name in COMPONENTS:
        np.testing.assert_allclose(forcing[name].values, parent[name].values, atol=1e-12)
        assert forcing[name].attrs["units"] == "W m-2"
    assert forcing.year.values.tolist() == list(range(1850, 2101))


def test_the_result_says_where_it_comes_from_and_what_it_lacks(fair):
    forcing = forced(changed(emissions(PARENT), "mine", CO2_GtCO2_yr=0.9))
    assert (forcing.attrs["experiment_id"], forcing.attrs["parent_experiment_id"]) == ("mine", PARENT)
    assert "AR6" in forcing.attrs["source"] and f"FaIR {fair.__version__}" in forcing.attrs["source"]
    assert "NOx, CO, VOC" in forcing.attrs["comment"] and 0.5 < forcing.attrs["aerosol_ratio"] < 3
    assert BALANCE.evaluate(forcing).attrs["experiment_id"] == "mine"


def test_nothing_differs_before_the_scenario_does_and_everything_after(fair):
    halved = dict.fromkeys(EMISSIONS, 0.5)
    forcing, parent = forced(changed(emissions(PARENT), "half", first=2030, **halved)), ar6_forcing(PARENT, CESM2)
    for name in ("co2", "other", "aerosol"):
        change = (forcing[name] - parent[name]).values
        assert np.abs(change[: 2030 - 1850]).max() == 0.0
        assert np.abs(change[2031 - 1850 :]).min() > 0.005  # from the year after the first that differs
    assert (forcing.natural == parent.natural).all()


def test_aerosol_answers_in_its_year_and_is_as_strong_as_the_models_own(fair):
    parent = emissions(PARENT)
    none = changed(parent, "clean", first=2050, SO2_Mt_yr=0.0, BC_Mt_yr=0.0)
    change = forced(none).aerosol - ar6_forcing(PARENT, CESM2).aerosol
    assert float(change.sel(year=2049)) == 0.0
    assert float(change.sel(year=2050)) == pytest.approx(float(change.sel(year=2051)), rel=0.02)
    strong = custom_forcing(PARENT, parent, none, replace(CESM2, aerosol_2014=2 * CESM2.aerosol_2014))
    twice = strong.aerosol - ar6_forcing(PARENT, replace(CESM2, aerosol_2014=2 * CESM2.aerosol_2014)).aerosol
    np.testing.assert_allclose(twice, 2 * change, rtol=1e-10)


@pytest.mark.parametrize("name", ["more CO2", "fewer aerosols"])
def test_more_co2_and_fewer_aerosols_warm(fair, name):
    assert (warming(name) > 0.2).all()


def test_an_overshoot_falls_back(fair):
    table = emissions(PARENT).yearly.copy()
    later = table.index >= 2030
    table.loc[later, "CO2_GtCO2_yr"] = np.clip(table.CO2_GtCO2_yr[2030] - 2.0 * np.arange(later.sum()), -25, None)
    table.loc[later, "CH4_Mt_yr"] *= 0.5
    forcing = forced(Emissions("overshoot", table))
    series = BALANCE.evaluate(forcing).rolling(year=11, center=True).mean().dropna("year")
    peak = series.year.values[series.values.argmax(axis=1)]
    assert ((peak > 2045) & (peak < 2080)).all()
    assert (series.max("year") - series.isel(year=-1) > 0.05).all()


def test_a_scenario_that_ends_early_ends_early(fair):
    forcing = custom_forcing(PARENT, emissions(PARENT), emissions("short", last=2060), CESM2)
    whole = ar6_forcing(PARENT, CESM2)
    assert int(forcing.year[-1]) == 2060
    # the planted emissions of the short one are the parent's, cut
    np.testing.assert_allclose(forcing.co2, whole.co2.sel(year=slice(None, 2060)), atol=1e-12)


def test_no_connection_is_opened(fair, monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("a connection was tried")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refused)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refused)
    forced(replace(emissions(PARENT, last=2030), experiment_id="offline"))


# ---- refusals


def test_emissions_that_break_the_contract_are_refused():
    good = emissions()
    with pytest.raises(DataContractError, match="emissions of planted: no BC_Mt_yr; expected CO2_GtCO2_yr, CH4_Mt_yr"):
        replace(good, yearly=good.yearly.drop(columns="BC_Mt_yr"))
    with pytest.raises(DataContractError, match="years 1850 to 2100, 250 of them; expected every year once from 1850"):
        replace(good, yearly=good.yearly.drop(index=1999))
    with pytest.raises(DataContractError, match="years 2015 to 2100, 86 of them; expected every year once from 1850"):
        replace(good, yearly=good.yearly.loc[2015:])
    with pytest.raises(DataContractError, match="no years; expected every year once from 1850"):
        replace(good, yearly=good.yearly.iloc[:0])
    with pytest.raises(DataContractError, match="missing values in SO2_Mt_yr; expected finite values"):
        replace(good, yearly=good.yearly.assign(SO2_Mt_yr=good.yearly.SO2_Mt_yr.where(good.yearly.index != 1900)))
    for column, factor, found in (
        ("CO2_GtCO2_yr", 1e3, "CO2_GtCO2_yr from 2000 to"), ("CH4_Mt_yr", 1e-3, "CH4_Mt_yr from 0.043 to"),
        ("SO2_Mt_yr", 1e3, "SO2_Mt_yr from 4500 to"), ("BC_Mt_yr", -1.0, "BC_Mt_yr from -9.5 to"),
    ):  # fmt: skip
        with pytest.raises(DataContractError, match=f"{found}.*is the unit right"):
            changed(good, "planted", first=1850, **{column: factor})
    with pytest.raises(DataContractError, match="co2_ppm_1850 0.000284; expected 250 to 320"):
        replace(good, co2_ppm_1850=2.84e-4)
    with pytest.raises(DataContractError, match="ch4_ppb_1850 0.808; expected 500 to 1200; correct the unit"):
        replace(good, ch4_ppb_1850=0.808)


def test_scenarios_that_do_not_fit_their_parent_are_refused(fair):
    parent = emissions(PARENT)
    with pytest.raises(DataContractError, match="forcing of ssp999: not in the table of AR6"):
        custom_forcing("ssp999", parent, emissions(), CESM2)
    with pytest.raises(
        DataContractError, match="forcing of planted: emissions of ssp370 for the parent; expected ssp245"
    ):
        custom_forcing("ssp245", parent, emissions(), CESM2)
    with pytest.raises(
        DataContractError, match="forcing of old: CH4_Mt_yr differs from ssp370 in 1950; expected the same before"
    ):
        forced(changed(parent, "old", first=1950, CH4_Mt_yr=1.1))
    with pytest.raises(DataContractError, match="forcing of planted: emissions to 2100; expected to 2014-2060"):
        custom_forcing(PARENT, emissions(PARENT, last=2060), emissions(), CESM2)
    with pytest.raises(DataContractError, match="forcing of planted: emissions to 2010; expected to 2014-2100"):
        custom_forcing(PARENT, parent, emissions(last=2010), CESM2)
    counterfactual = changed(parent, "no sulphur", first=1950, SO2_Mt_yr=0.1)
    early = custom_forcing(PARENT, parent, counterfactual, CESM2, start=1850)
    assert float(early.aerosol.sel(year=2000) - ar6_forcing(PARENT, CESM2).aerosol.sel(year=2000)) > 0.3


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "fair", None)
    with pytest.raises(
        DataContractError, match=r"the package fair is not installed.*pip install climatesuite-spf\[fair\]"
    ):
        forced(emissions("planted"))


def test_tables_without_the_scenario_or_a_column_are_refused(tmp_path):
    table = emissions().yearly.assign(scenario="ssp370", CO2_ppm=284.3, CH4_ppb=808.0).rename_axis("year").reset_index()
    table.to_csv(tmp_path / "all.csv", index=False)
    assert read_emissions(tmp_path / "all.csv", "ssp370").co2_ppm_1850 == 284.3
    with pytest.raises(DataContractError, match="emissions of ssp999: not in all.csv; expected one of ssp370"):
        read_emissions(tmp_path / "all.csv", "ssp999")
    table.drop(columns="CO2_ppm").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(
        DataContractError, match="less.csv: no column CO2_ppm; expected scenario, year, CO2_ppm, CH4_ppb"
    ):
        read_emissions(tmp_path / "less.csv", "ssp370")
    table.drop(columns="SO2_Mt_yr").to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(DataContractError, match="emissions of ssp370: no SO2_Mt_yr"):
        read_emissions(tmp_path / "few.csv", "ssp370")


# ---- against AR6

MEASURED = {
    "ssp119": (0.13, 0.92, 0.27, 0.32), "ssp126": (0.11, 0.88, 0.26, 0.31), "ssp245": (0.09, 0.38, 0.33, 0.03),
    "ssp460": (0.14, 0.27, 0.06, 0.04), "ssp534-over": (0.17, 0.79, 0.30, 0.26), "ssp585": (0.10, 0.11, 0.30, 0.21),
}  # fmt: skip
"""Largest error of co2, other and aerosol, W m-2, and of the global mean, K, with ssp370 as parent, rounded up."""


@pytest.mark.parametrize("scenario", MEASURED)
def test_differences_between_ssps_are_those_of_ar6_within_what_was_measured(fair, climate_data, scenario):
    file = climate_data / "scenarios/ssp_forcing_annual_1850-2100.csv"
    forcing = custom_forcing(PARENT, read_emissions(file, PARENT), read_emissions(file, scenario), CESM2)
    truth, parent = ar6_forcing(scenario, CESM2), ar6_forcing(PARENT, CESM2)
    for name, tolerance in zip(("co2", "other", "aerosol"), MEASURED[scenario], strict=False):
        assert np.abs(forcing[name] - truth[name]).max() < tolerance, name
        assert (forcing[name] == parent[name]).sel(year=slice(None, 2015)).all()
    error = (BALANCE.evaluate(forcing) - BALANCE.evaluate(truth)).mean("response")
    assert np.abs(error).max() < MEASURED[scenario][-1]
    gap = (BALANCE.evaluate(parent) - BALANCE.evaluate(truth)).mean("response")
    assert np.abs(error).max() < 0.25 * np.abs(gap).max()  # what it is beside taking the parent
