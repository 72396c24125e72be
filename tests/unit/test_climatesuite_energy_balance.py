"""The energy balance: its layers against closed forms, scenarios nobody ran, the fit, and the warmings of CESM2."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

from climatesuite.errors import DataContractError
from climatesuite.forcing.energy_balance import (
    CESM2,
    EnergyBalance,
    GlobalMean,
    ar6_forcing,
    calibration_of,
    co2_forcing,
    scenarios,
)

CUMMINS, LINEAR, NONLINEAR = CESM2.sets
FORCINGS = {s: ar6_forcing(s, CESM2) for s in scenarios()}
BALANCE = EnergyBalance(tuple(GlobalMean(layers, 287.0) for layers in CESM2.sets))
"""The three parameter sets as they are, for statements about all of them."""


def warming(forcing, first=2081, last=2099):
    """Warming of every global mean from 2015-2024 to some years, K."""
    series = BALANCE.evaluate(forcing)
    return (series.sel(year=slice(first, last)).mean("year") - series.sel(year=slice(2015, 2024)).mean("year")).values


# ---- the three layers


@pytest.mark.parametrize("layers", [CUMMINS, LINEAR], ids=lambda x: x.name)
def test_linear_layers_answer_a_step_as_their_eigenvalues_say(layers):
    rates, vectors = np.linalg.eig(layers.rates())
    amplitude = vectors[0] * np.linalg.solve(vectors, [1.0 / layers.heat_capacity[0], 0, 0])
    year = np.arange(1, 151)[:, None]
    # T1(t) = sum_j amplitude_j (exp(r_j t) - 1) / r_j, averaged over each year
    mean_exp = np.exp(rates * year) * (1 - np.exp(-rates)) / rates
    expected = 3.7 * (amplitude * (mean_exp - 1) / rates).sum(1)
    np.testing.assert_allclose(layers.warming(np.full(150, 3.7)), expected, rtol=1e-10)


@pytest.mark.parametrize("forcing", [np.full(60, 8.2), 0.08 * np.arange(60)], ids=["abrupt", "ramp"])
def test_the_nonlinear_layers_follow_a_fine_integration(forcing):
    capacity = np.array(NONLINEAR.heat_capacity)

    def tendency(t, x):
        drive = forcing[min(int(t), 59)] + NONLINEAR.weakening(x[0])
        return np.array([*(NONLINEAR.rates() @ x[:3] + np.array([drive, 0, 0]) / capacity[0]), x[0]])

    state, expected = np.zeros(4), []
    for year in range(60):  # a year at a time: the forcing jumps between years
        done = solve_ivp(tendency, (year, year + 1 - 1e-12), state, rtol=1e-9, atol=1e-10).y[:, -1]
        expected.append(done[3] - state[3])
        state = done
    assert np.abs(NONLINEAR.warming(forcing) - expected).max() < (0.05 if forcing[0] else 0.01)
    np.testing.assert_allclose(NONLINEAR.warming(forcing, substeps=256), expected, atol=1e-3)


def test_layers_in_balance_warm_by_forcing_over_feedback():
    for layers in (CUMMINS, LINEAR):
        assert layers.warming(np.full(9000, 2.0))[-1] == pytest.approx(2.0 / layers.feedback, rel=1e-6)


def test_beyond_6_kelvin_the_feedback_is_linear_and_the_balance_stays_finite():
    x = np.array([3.0, 6.0, 7.0, 8.0, 9.0])
    q = NONLINEAR.weakening(x)
    assert q[:2] == pytest.approx(NONLINEAR.curvature * x[:2] ** 2)
    assert np.diff(q[1:]) == pytest.approx(12 * NONLINEAR.curvature)
    np.testing.assert_allclose(NONLINEAR.weakening(-x), -q)
    hot = NONLINEAR.warming(np.array([[14.0], [15.0], [16.0]]) + np.zeros(4000))[:, -1]
    assert hot[0] > 6 and np.diff(hot) == pytest.approx(1 / (NONLINEAR.feedback - 12 * NONLINEAR.curvature), rel=1e-3)


def test_series_run_together_are_the_series_run_alone():
    forcing = np.stack([np.linspace(0, 5, 50), np.sin(np.arange(50.0))])
    np.testing.assert_allclose(NONLINEAR.warming(forcing)[1], NONLINEAR.warming(forcing[1]), rtol=1e-12)


def test_the_forcing_of_co2_is_the_published_one():
    assert co2_forcing(284.317) == 0.0
    assert co2_forcing(2 * 284.317) == pytest.approx(3.93, abs=0.02)  # AR6 WG1 7.3.2.1
    top = 284.317 + 7.5906e-4 / (2 * 2.4785e-7)  # where the coefficient saturates
    assert co2_forcing(top + 1e-3) == pytest.approx(co2_forcing(top - 1e-3), abs=1e-5)


# ---- forcing and scenarios nobody ran


def test_forcing_is_counted_from_1850_and_the_aerosol_is_the_models_own():
    for forcing in FORCINGS.values():
        assert [float(forcing[n][0]) for n in ("co2", "other", "aerosol")] == pytest.approx([0, 0, 0], abs=1e-12)
        assert float(forcing.aerosol.sel(year=2014)) == pytest.approx(-1.37)
        assert float(forcing.natural.sel(year=slice(1850, 2014)).mean()) == pytest.approx(0, abs=1e-12)
        assert forcing.co2.attrs["units"] == "W m-2" and forcing.year.values.tolist() == list(range(1850, 2101))


def test_more_co2_warms_and_fewer_aerosols_warm():
    ssp370 = FORCINGS["ssp370"]
    more = ssp370.assign(co2=ssp370.co2.where(ssp370.year < 2025, 1.2 * ssp370.co2))
    assert (warming(more) > warming(ssp370) + 0.3).all()
    clean = ssp370.assign(aerosol=FORCINGS["ssp126"].aerosol)
    assert (warming(clean) > warming(ssp370) + 0.5).all()
    order = ["ssp119", "ssp126", "ssp245", "ssp370", "ssp585"]
    assert (np.diff([warming(FORCINGS[s]) for s in order], axis=0) > 0).all()


def test_an_overshoot_falls_back():
    series = BALANCE.evaluate(FORCINGS["ssp534-over"]).rolling(year=11, center=True).mean().dropna("year")
    peak = series.year.values[series.values.argmax(axis=1)]
    assert ((peak > 2045) & (peak < 2075)).all()
    assert (series.max("year") - series.isel(year=-1) > 0.15).all()


def test_forcing_far_beyond_any_scenario_stays_finite_and_ordered():
    ssp585 = FORCINGS["ssp585"]
    hot = [BALANCE.evaluate(ssp585.assign(co2=f * ssp585.co2)).sel(year=2100).values for f in (1.0, 1.5, 2.0, 2.5)]
    assert np.isfinite(hot).all() and (np.diff(hot, axis=0) > 1).all()
    assert (np.abs(np.diff(hot, n=2, axis=0)) < 0.2).all()  # no runaway: equal steps of forcing, nearly equal warming


# ---- the fit of the global means


def test_a_global_mean_of_the_same_layers_is_found():
    truth = GlobalMean(LINEAR, 287.3, 1.05, 1.2)
    seen = {s: truth.evaluate(FORCINGS[s]).sel(year=slice(2015, 2099)) for s in ("ssp126", "ssp585", "ssp370")}
    fitted = EnergyBalance.fit(seen, FORCINGS, replace(CESM2, sets=(LINEAR,)))
    assert fitted.names == ("linear", "linear, aerosol fitted")
    plain, free = fitted.members
    assert plain.aerosol_scale == 1.0
    assert (free.gain, free.aerosol_scale) == pytest.approx((1.05, 1.2), abs=0.03)
    other = truth.evaluate(FORCINGS["ssp245"])
    assert np.abs(fitted.evaluate(FORCINGS["ssp245"])[1] - other).sel(year=slice(2015, 2099)).max() < 0.03


def test_what_the_balance_cannot_use_is_refused():
    forcing, series = FORCINGS["ssp126"], BALANCE.evaluate(FORCINGS["ssp126"])[0]
    late = {"ssp126": series.sel(year=slice(2015, 2099))}
    with pytest.raises(DataContractError, match="forcing of ssp999: not in the table of AR6; expected one of ssp119"):
        ar6_forcing("ssp999", CESM2)
    with pytest.raises(DataContractError, match="energy balance of MIROC6: no calibration; expected one of CESM2"):
        calibration_of("MIROC6")
    with pytest.raises(DataContractError, match="forcing of ssp126: no aerosol; expected co2, other, aerosol, natural"):
        BALANCE.evaluate(forcing.drop_vars("aerosol"))
    with pytest.raises(DataContractError, match="years 2015 to 2100, 86 of them; expected every year from 1850"):
        BALANCE.evaluate(forcing.sel(year=slice(2015, None)))
    with pytest.raises(DataContractError, match="missing values"):
        BALANCE.evaluate(forcing.assign(co2=forcing.co2.where(forcing.year != 1900)))
    with pytest.raises(DataContractError, match="no training scenarios"):
        EnergyBalance.fit({}, FORCINGS, CESM2)
    with pytest.raises(DataContractError, match="energy balance, ssp126: no forcing"):
        EnergyBalance.fit(late, {}, CESM2)
    with pytest.raises(DataContractError, match="4 years; expected five or more consecutive years"):
        EnergyBalance.fit({"ssp126": series.sel(year=slice(2015, 2018))}, FORCINGS, CESM2)
    with pytest.raises(DataContractError, match="years 2015-2099; expected within 1850-2050"):
        EnergyBalance.fit(late, {"ssp126": forcing.sel(year=slice(1850, 2050))}, CESM2)


# ---- published numbers of CESM2

WARMINGS = {
    "ssp119": (0.50, 0.20, 0.59), "ssp126": (0.96, None, None), "ssp534-over": (1.45, None, None),
    "ssp245": (2.00, 1.63, 2.14), "ssp370": (2.97, None, None), "ssp370-lowNTCF": (3.33, None, None),
    "ssp585": (4.14, None, None),
}  # fmt: skip
"""Mean, least and most of the six, fitted on ssp126 and ssp585: 2081-2099 minus 2015-2024, K."""


def test_the_six_of_cesm2_warm_as_published(climate_data):
    table = pd.read_csv(climate_data / "global_mean/gsat_annual_ten_models.csv").query(
        "source_id == 'CESM2' and 2015 <= year <= 2099"
    )
    seen = {}
    for s in ("ssp126", "ssp585"):
        mean = table[table.experiment_id == s].groupby("year").tas.mean()
        seen[s] = xr.DataArray(mean.to_numpy(), {"year": mean.index.to_numpy()}, ("year",))
    six = EnergyBalance.fit(seen, FORCINGS, CESM2)
    assert len(six.members) == 6

    def of(forcing):
        series = six.evaluate(forcing)
        return (
            series.sel(year=slice(2081, 2099)).mean("year") - series.sel(year=slice(2015, 2024)).mean("year")
        ).values

    for scenario, (mean, least, most) in WARMINGS.items():
        got = of(FORCINGS[scenario])
        assert got.mean() == pytest.approx(mean, abs=0.01), scenario
        if least is not None:
            assert (got.min(), got.max()) == pytest.approx((least, most), abs=0.02), scenario
    clean = FORCINGS["ssp370"].assign(aerosol=FORCINGS["ssp126"].aerosol)
    gap = six.evaluate(clean) - six.evaluate(FORCINGS["ssp370"])
    assert float(gap.sel(year=slice(2081, 2099)).mean()) == pytest.approx(0.9, abs=0.05)
