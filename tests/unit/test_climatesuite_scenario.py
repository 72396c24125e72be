"""Scenarios of one's own: departures from named ones in one accounting, conserved, refused where they cannot be meant."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import climatesuite
from climatesuite.errors import DataContractError
from climatesuite.forcing.accounting import accounting_of, check_same
from climatesuite.forcing.energy_balance import CESM2, ar6_forcing
from climatesuite.forcing.forcings import fit_to, open_forcings
from climatesuite.forcing.reference import AOD_FORCING, carried_forcing
from climatesuite.harmonise.grids import target_grid
from spf.__main__ import main
from worlds.scenarios import BURNING_MT, LAND_USE_GT, YEARS, totals, write_world

matplotlib.use("Agg")
NAMES = ["CO2", "CH4", "SO2", "BC"]


@pytest.fixture(scope="module")
def fair():
    """FaIR; tests that need it are skipped where it is not installed."""
    return pytest.importorskip(
        "fair", reason="the optional package fair is not installed: pip install climatesuite-spf[fair]"
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with ssp126 and ssp370."""
    return write_world(tmp_path_factory.mktemp("data") / "world")


@pytest.fixture
def ssp370(world):
    return climatesuite.scenario("ssp370", world)


def yearly(**columns):
    """A DataFrame with heads that say the units."""
    heads = {"CO2": "CO2 (GtCO2/yr)", "CH4": "CH4 (Mt/yr)", "SO2": "SO2 (Mt/yr)", "BC": "BC (Mt/yr)"}
    return pd.DataFrame({heads[n]: c for n, c in columns.items()})


# ---- named ones


def test_a_named_scenario_is_its_file(ssp370, world):
    assert (ssp370.name, ssp370.years, ssp370.accounting, ssp370.parent) == ("ssp370", (2015, 2040), "input4mips", None)
    assert ssp370.forcings.equals(open_forcings(world / "forcings", NAMES, "ssp370"))
    np.testing.assert_allclose(ssp370.totals, totals("ssp370"), rtol=2e-7)
    assert repr(ssp370) == "Scenario ssp370, 2015-2040: forcings CO2, CH4, SO2, BC"


def test_the_folder_is_that_of_the_environment_unless_one_is_given(ssp370, world, monkeypatch):
    monkeypatch.setenv("CLIMATE_DATA", str(world))
    assert climatesuite.scenario("ssp370").forcings.equals(ssp370.forcings)
    with pytest.raises(DataContractError, match="forcings of ssp999: inputs_ssp126.nc, inputs_ssp370.nc in"):
        climatesuite.scenario("ssp999")
    with pytest.raises(DataContractError, match="absent.nc: no such file"):
        climatesuite.scenario("absent.nc")


# ---- departures


def test_ssp370_with_ssp126_aerosols(ssp370, world):
    mine = ssp370.with_forcings_of("ssp126", ["SO2", "BC"])
    other = climatesuite.scenario("ssp126", world)
    assert np.array_equal(mine.fields.SO2, other.fields.SO2) and np.array_equal(mine.fields.CO2, ssp370.fields.CO2)
    change = mine.difference()
    assert list(change) == ["CO2", "CO2 cumulative", "CH4", "SO2", "BC"]
    np.testing.assert_allclose(change.SO2, -3.5 * (YEARS - 2015), atol=1e-4)
    assert (change[["CO2", "CO2 cumulative", "CH4"]] == 0).all().all()
    assert repr(mine) == "Scenario ssp370-custom, 2015-2040: ssp370; SO2, BC of ssp126"


def test_a_scenario_is_never_changed(ssp370):
    before = ssp370.fields.copy(deep=True)
    ssp370.with_forcings_of("ssp126", NAMES).peak_co2(2035).with_aod({2030: 0.1}).named("mine")
    xr.testing.assert_identical(ssp370.fields, before)


def test_a_table_that_is_the_parents_changes_nothing_in_either_accounting(ssp370):
    own = totals("ssp370")
    counted = own + {"CO2": LAND_USE_GT, "CH4": 40, "SO2": 3, "BC": BURNING_MT}
    for table, name in ((own, "input4mips"), (counted, "rcmip")):
        mine = ssp370.with_table(yearly(**table))
        assert f"counted as {name}" in mine.steps[0]
        for n in NAMES:
            np.testing.assert_allclose(mine.fields[n], ssp370.fields[n], rtol=3e-7)


@pytest.mark.parametrize("accounting", ["input4mips", "rcmip"])
def test_a_table_is_applied_as_a_difference_to_its_own_accounting(ssp370, accounting):
    """Sulphur and carbon of ssp126 from the table make ssp126's totals, whatever the table counts besides."""
    more = {"CO2": LAND_USE_GT, "SO2": 3} if accounting == "rcmip" else {"CO2": 0, "SO2": 0}
    mine = ssp370.with_table(yearly(**(totals("ssp126")[["CO2", "SO2"]] + more)), accounting=accounting)
    np.testing.assert_allclose(mine.totals[["CO2", "SO2"]], totals("ssp126")[["CO2", "SO2"]], rtol=1e-6)
    np.testing.assert_allclose(mine.totals[["CH4", "BC"]], totals("ssp370")[["CH4", "BC"]], rtol=1e-6)
    gone = np.cumsum(-2.0 * (YEARS - 2015)) - (-2.0 * (YEARS - 2015)) / 2
    np.testing.assert_allclose(mine.difference()["CO2 cumulative"], gone, rtol=1e-9, atol=1e-9)


def test_a_ratio_keeps_the_share(ssp370):
    half = (totals("ssp370")[["BC"]] + BURNING_MT) / 2
    mine = ssp370.with_table(yearly(**half), accounting="rcmip", how="ratio")
    np.testing.assert_allclose(mine.totals.BC, totals("ssp370").BC / 2, rtol=1e-6)


def test_maps_keep_their_pattern_and_the_total_to_1e_6(ssp370):
    mine = ssp370.with_table(yearly(SO2=totals("ssp370").SO2 * np.linspace(1, 0.1, YEARS.size)))
    ratio = (mine.fields.SO2 / ssp370.fields.SO2).values
    assert np.ptp(ratio, axis=(1, 2)).max() < 1e-6
    np.testing.assert_allclose(mine.totals.SO2, totals("ssp370").SO2 * np.linspace(1, 0.1, YEARS.size), rtol=1e-6)


def test_years_before_a_table_are_the_parents_and_the_scenario_ends_with_it(ssp370):
    table = yearly(CO2=totals("ssp370").CO2.loc[2020:2030] * np.linspace(1, 0, 11))
    mine = ssp370.with_table(table)
    assert mine.years == (2015, 2030)
    np.testing.assert_allclose(mine.totals.CO2.loc[:2019], totals("ssp370").CO2.loc[:2019], rtol=1e-9)
    assert mine.totals.CO2[2030] == pytest.approx(0, abs=1e-9)


def test_negative_co2_is_legitimate(ssp370):
    mine = ssp370.with_table(yearly(CO2=np.linspace(36, -20, YEARS.size)).set_index(YEARS), accounting="input4mips")
    assert mine.totals.CO2[2040] == pytest.approx(-20) and mine.fields.CO2[-1] < mine.fields.CO2[-12]


def test_co2_peaks_where_it_is_told_to(ssp370):
    mine = ssp370.peak_co2(2030, start=2020)
    assert mine.totals.CO2[2020] == pytest.approx(41) and mine.totals.CO2[2025] == pytest.approx(20.5)
    assert np.abs(mine.totals.CO2.loc[2030:]).max() < 1e-9 and np.ptp(mine.fields.CO2.values[-120:]) < 1e-9
    lower = ssp370.peak_co2(2030, removal=5.0)
    assert lower.totals.CO2[2040] == pytest.approx(-5.0) and int(lower.fields.CO2.values.argmax()) // 12 + 2015 in (
        2029,
        2030,
    )


def test_aerosol_is_injected_in_steps(ssp370):
    mine = ssp370.with_aod({2030: 0.1, 2035: 0.25, 2039: 0.0})
    expected = pd.Series(0.0, YEARS)
    expected.loc[2030:2034], expected.loc[2035:2038] = 0.1, 0.25
    np.testing.assert_allclose(mine.totals.AOD, expected, atol=1e-7)
    tropical = ssp370.with_aod({2030: 0.1}, pattern=xr.DataArray([0.0, 1, 3, 3, 1, 0], dims="lat"))
    assert tropical.totals.AOD[2040] == pytest.approx(0.1, rel=0.06)  # cosine of the centre for the area of a row
    assert float(tropical.fields.AOD[-1, 0].max()) == 0 and float(tropical.fields.AOD[-1, 2].mean()) > 0.15
    twice = mine.with_aod({2030: 0.1})
    np.testing.assert_allclose(twice.totals.AOD.loc[2030:], expected.loc[2030:] + 0.1, atol=1e-7)


# ---- what cannot be meant

IMPOSSIBLE = {
    "years nobody has": (
        lambda s: s.with_table(yearly(CO2=[40.0, 41]).set_index([[2040, 2041]])),
        "forcings of ssp370: years 2015-2040; expected 2040-2041",
    ),
    "a forcing nobody has": (
        lambda s: s.with_forcings_of("ssp126", ["AOD"]),
        "no AOD in both; expected some of CO2, CH4",
    ),
    "no forcings": (lambda s: s.with_forcings_of("ssp126", []), "no names in both"),
    "no such scenario": (lambda s: s.with_forcings_of("ssp245", ["SO2"]), "forcings of ssp245: inputs_ssp126.nc"),
    "a peak in the past": (lambda s: s.peak_co2(2010), "start .*, peak 2010, .*expected 2015 <= start < peak <= 2040"),
    "a peak after the end": (lambda s: s.peak_co2(2080), "peak 2080"),
    "optical depth below zero": (
        lambda s: s.with_aod({2030: -0.1}),
        "AOD of ssp370: -0.1 from 2030 on; expected 0 to 2",
    ),
    "injection after the end": (lambda s: s.with_aod({2050: 0.1}), "0.1 from 2050 on; expected .* a year of 2015-2040"),
    "no injection": (lambda s: s.with_aod({}), "no steps"),
    "a pattern of another grid": (
        lambda s: s.with_aod({2030: 0.1}, xr.DataArray(np.ones(5), dims="lat")),
        "a pattern {'lat': 5}; expected lat 6",
    ),
    "an empty pattern": (
        lambda s: s.with_aod({2030: 0.1}, xr.DataArray(np.zeros(6), dims="lat")),
        "a pattern with missing or negative",
    ),
    "the name of an SSP": (
        lambda s: s.peak_co2(2030).named("ssp245"),
        "name of a scenario: 'ssp245'; expected letters",
    ),
    "a name that is a path": (lambda s: s.named("../mine"), "name of a scenario: '../mine'"),
    "a way that is none": (
        lambda s: s.with_table(yearly(BC=totals("ssp370").BC), how="product"),
        "'product'; expected difference or ratio",
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_impossible_requests_are_refused(ssp370, what):
    ask, message = IMPOSSIBLE[what]
    with pytest.raises(DataContractError, match=message):
        ask(ssp370)


def test_a_table_whose_accounting_cannot_be_told_is_refused(ssp370):
    table = yearly(CO2=totals("ssp370").CO2 * 0.7)
    with pytest.raises(
        DataContractError, match="CO2 25.2 in 2015, which does not tell how .*input4mips: CO2 36; rcmip: CO2 40"
    ):
        ssp370.with_table(table)
    with pytest.raises(DataContractError, match="accounting: 'mine'; expected input4mips .*; rcmip"):
        ssp370.with_table(table, accounting="mine")
    assert ssp370.with_table(table, accounting="rcmip").totals.CO2[2015] == pytest.approx(36 + 25.2 - 40)


def test_aerosol_that_a_difference_would_make_negative_is_refused(ssp370):
    with pytest.raises(
        DataContractError, match="SO2 of ssp370 with the DataFrame: -2.75 Mt .*only CO2 can be removed.*ratio"
    ):
        ssp370.with_table(yearly(SO2=np.linspace(101, 0.25, YEARS.size)).set_index(YEARS), accounting="rcmip")


def test_two_accountings_are_not_mixed(ssp370):
    other = climatesuite.scenario("ssp126", ssp370.folder)
    other.fields.attrs["accounting"] = "rcmip"
    with pytest.raises(
        DataContractError, match=r"two ways of counting emissions: ssp370 \(input4mips\) and ssp126 \(rcmip\)"
    ):
        ssp370.with_forcings_of(other, ["SO2"])
    check_same([ssp370.fields, ssp370.fields.assign_attrs(accounting="not stated")], "what states none passes")
    assert accounting_of(xr.Dataset()) == "not stated"
    assert accounting_of(ssp370.fields.assign_attrs(base_year="1750")) == "input4mips, since 1750"


# ---- for emulators, and as files


def test_an_emulator_gets_it_on_its_grid_and_calendar_with_totals_kept(ssp370):
    ds = ssp370.with_forcings_of("ssp126", ["SO2"]).on(NAMES, target_grid((5, 9)), "360_day")
    assert ds.sizes["lat"] == 5 and set(ds.days.values) == {30.0} and ds.attrs["calendar"] == "360_day"
    before = ssp370.with_forcings_of("ssp126", ["SO2"]).on(NAMES, ssp370.fields, "360_day")
    from climatesuite.forcing.totals import yearly_totals

    np.testing.assert_allclose(yearly_totals(ds).SO2, yearly_totals(before).SO2, rtol=1e-6)
    assert list(fit_to(ssp370.fields, ["CO2"], ssp370.fields, "noleap").data_vars) == ["CO2"]
    with pytest.raises(DataContractError, match="forcings of ssp370: no AOD, only CO2, CH4, SO2, BC"):
        ssp370.on(["CO2", "AOD"], ssp370.fields, "noleap")


def test_an_emulator_that_cannot_see_the_departure_refuses_it(ssp370):
    mine = ssp370.with_aod({2030: 0.1})
    with pytest.raises(
        DataContractError, match="scenario ssp370-custom: it departs from ssp370 in AOD; expected departures in CO2"
    ):
        mine.on(NAMES, ssp370.fields, "noleap")
    assert "AOD" in mine.on([*NAMES, "AOD"], ssp370.fields, "noleap")
    ssp370.with_aod({2030: 0.0}).on(NAMES, ssp370.fields, "noleap")  # nothing departs


def test_a_scenario_comes_back_from_its_file(ssp370, tmp_path, world):
    mine = ssp370.with_forcings_of("ssp126", ["BC"]).with_aod({2030: 0.1}).named("mine")
    file = mine.save(tmp_path)
    assert file == tmp_path / "inputs_mine.nc" and [p.name for p in tmp_path.iterdir()] == ["inputs_mine.nc"]
    again = climatesuite.scenario(file, world)
    assert repr(again) == repr(mine) and again.base.name == "ssp370"
    for name in [*NAMES, "AOD"]:
        assert np.array_equal(again.fields[name], mine.fields[name]), name
    with xr.open_dataset(file) as ds:
        assert ds.attrs["departures"].split("\n") == ["BC of ssp126", "AOD 0.1 from 2030"]
        assert ds.attrs["license"] == "CC BY 4.0" and "climatesuite" in ds.attrs["history"]
        assert ds.attrs["departs_in"] == "BC, AOD" and ds.attrs["accounting"] == "input4mips"
    with pytest.raises(DataContractError, match="a file .csv; expected NetCDF"):
        mine.save(tmp_path / "mine.csv")


# ---- radiative forcing and the global mean


def test_without_fair_a_departure_says_so_and_an_energy_balance_refuses(ssp370, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fair", None)
    mine = ssp370.with_forcings_of("ssp126", ["SO2"])
    assert "erf_co2" not in mine.forcings
    assert (
        "expected global mean: not known" in mine.summary() and "pip install climatesuite-spf[fair]" in mine.summary()
    )
    with pytest.raises(DataContractError, match="for an energy balance: .*the package fair is not installed"):
        carried_forcing(mine.forcings, CESM2)
    assert carried_forcing(ssp370.forcings, CESM2) is None


def test_optical_depth_forces_20_watts_a_unit_and_needs_no_fair(ssp370, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fair", None)
    carried = carried_forcing(ssp370.with_aod({2030: 0.1}).forcings, CESM2)
    change = carried - ar6_forcing("ssp370", CESM2).sel(year=slice(None, 2040))
    np.testing.assert_allclose(change.natural.sel(year=slice(2030, 2040)), 0.1 * AOD_FORCING, rtol=1e-6)
    assert np.abs(change.natural.sel(year=slice(None, 2029))).max() < 1e-12
    assert all(np.abs(change[n]).max() < 1e-12 for n in ("co2", "other", "aerosol"))


def test_the_forcing_in_a_file_is_the_one_an_energy_balance_gets(fair, ssp370, tmp_path):
    mine = ssp370.with_forcings_of("ssp126", ["SO2", "BC"]).peak_co2(2030).named("mine")
    there = open_forcings(mine.save(tmp_path), NAMES, calendar="360_day", grid=target_grid((3, 4)))
    carried = carried_forcing(there, CESM2)
    xr.testing.assert_allclose(carried, carried_forcing(mine.forcings, CESM2))
    change = carried - ar6_forcing("ssp370", CESM2).sel(year=slice(None, 2040))
    assert float(change.co2.sel(year=2040)) < -0.2 and float(change.aerosol.sel(year=2040)) > 0.1
    stronger = CESM2.__class__(CESM2.source_id, CESM2.sets, 2 * CESM2.aerosol_2014)
    np.testing.assert_allclose(carried_forcing(there, stronger).aerosol, 2 * carried.aerosol)


def test_the_expected_global_mean_has_the_sign_it_must_have(fair, ssp370):
    def warming(mine):
        response = mine.response()
        return float((response.scenario - response.parent).mean("response").sel(year=2040))

    assert warming(ssp370.with_forcings_of("ssp126", ["SO2", "BC"])) > 0.03
    assert warming(ssp370.peak_co2(2030)) < -0.03
    assert warming(ssp370.with_aod({2020: 0.1})) < -0.3
    assert warming(ssp370) == 0.0


def test_the_summary_holds_what_was_done_the_difference_and_the_response(fair, ssp370):
    text = ssp370.with_forcings_of("ssp126", ["SO2"]).summary()
    for part in ("ssp370; SO2 of ssp126", "counted as input4mips, CO2 of fossil fuels and industry since 1850", "minus ssp370",
                 "SO2, Mt year-1", "K above 1850-1900 (CESM2's energy balances", "lowest", "the parent's)"):  # fmt: skip
        assert part in text, part
    assert "<pre" in ssp370._repr_html_()


def test_the_picture_has_a_panel_for_each_forcing_and_the_global_mean(fair, ssp370):
    axes = ssp370.peak_co2(2030).plot()
    assert [a.get_title().split(",")[0] for a in axes] == ["CO2", "CH4", "SO2", "BC", "expected global mean"]
    assert len(axes[0].lines) == 2 and axes[0].get_legend() is not None
    matplotlib.pyplot.close("all")


# ---- the command


def test_the_command_has_the_words_of_the_api(fair, world, tmp_path, capsys):
    table = tmp_path / "mine.csv"
    table.write_text("\ufeffyear;CO2 (GtCO2/yr)\r\n2030;50,5\r\n2031;50,5\r\n2032;45\r\n")
    code = main([
        "scenario", "ssp370", "--folder", str(world), "--table", str(table), "--accounting", "input4mips", "--with-forcings-of",
        "ssp126", "SO2", "BC", "--aod", "2030:0.1,2031:0.2", "--as", "mine", "--out", str(tmp_path),
        "--plot", str(tmp_path / "mine.png"),
    ])  # fmt: skip
    out = capsys.readouterr().out
    assert code == 0 and "inputs_mine.nc" in out and (tmp_path / "mine.png").stat().st_size > 10_000
    assert (
        "CO2 of mine.csv as difference to ssp370, 2030-2032, counted as input4mips; columns separated by semicolons"
        in out
    )
    made = climatesuite.scenario(tmp_path / "inputs_mine.nc", world)
    assert made.totals.CO2[2031] == pytest.approx(50.5) and made.totals.AOD[2032] == pytest.approx(0.2)


def test_the_command_refuses_with_the_reason(world, capsys):
    assert main(["scenario", "ssp999", "--folder", str(world)]) == 1
    assert "error: forcings of ssp999" in capsys.readouterr().err
    assert main(["scenario", "ssp370", "--folder", str(world), "--with-forcings-of", "ssp126"]) == 1
    assert "no forcings; expected e.g. ssp126 SO2 BC" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["scenario", "ssp370", "--aod", "much"])
    assert "is not a list such as 2035:0.1" in capsys.readouterr().err


# ---- from the forcings that an emulator carries


def test_forcings_by_name_are_as_good_as_a_folder(ssp370, world, tmp_path):
    carried = {n: climatesuite.scenario(n, world).fields for n in ("ssp126", "ssp370")}
    mine = climatesuite.scenario("ssp370", carried).with_forcings_of("ssp126", ["SO2"])
    assert mine.fields.equals(ssp370.with_forcings_of("ssp126", ["SO2"]).fields) and mine.accounting == "input4mips"
    assert climatesuite.scenario(mine.save(tmp_path), carried).base.name == "ssp370"
    with pytest.raises(
        DataContractError, match="scenario ssp245: not among those given; expected one of ssp126, ssp370"
    ):
        climatesuite.scenario("ssp370", carried).with_forcings_of("ssp245", ["SO2"])


def test_without_any_folder_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIMATE_DATA", raising=False)
    with pytest.raises(DataContractError, match="scenario ssp370: CLIMATE_DATA is not set; .*emulator.scenarios"):
        climatesuite.scenario("ssp370")
    monkeypatch.setenv("CLIMATE_DATA", "nowhere")
    with pytest.raises(
        DataContractError, match="scenario ssp370: no folder nowhere; expected a folder with forcings/inputs_ssp370.nc"
    ):
        climatesuite.scenario("ssp370")
