"""Emulators and scenarios of one's own: the energy balance gets their radiative forcing; what counts otherwise is refused."""

import numpy as np
import pytest
import torch
import xarray as xr

import climatesuite
from climatesuite.archive.synthetic import write_archive
from climatesuite.build import build
from climatesuite.errors import DataContractError
from climatesuite.forcing.accounting import accounting_of
from climatesuite.forcing.energy_balance import CESM2, ar6_forcing
from climatesuite.forcing.forcings import open_forcings
from climatesuite.harmonise.grids import target_grid
from climatesuite.store.open import open_run
from spf.codec import FieldCodec
from worlds import tiny
from worlds.scenarios import write_world

SSP = {"low": "ssp126", "high": "ssp585"}
YEARS = list(range(2015, 2041))


@pytest.fixture(scope="module")
def ssp370(tmp_path_factory):
    return climatesuite.scenario("ssp370", write_world(tmp_path_factory.mktemp("data") / "world"))


def training(accounting: str) -> dict[str, xr.Dataset]:
    runs = {SSP[n]: tiny.scenario(n).assign_attrs(source_id="CESM2", experiment_id=SSP[n]) for n in SSP}
    for ds in runs.values():
        ds["CO2"].attrs["accounting"] = accounting
    return runs


@pytest.fixture(scope="module")
def codec():
    """On the energy balance, trained on forcings of input4MIPs."""
    return FieldCodec.fit(training("input4mips"), ("tas",), ("CO2", "SO2"), 4)


def test_a_custom_scenario_draws_on_its_own_radiative_forcing(codec, ssp370):
    mine = ssp370.with_aod({2020: 0.1})  # needs no FaIR
    own, parent = codec.predictor(mine.forcings), codec.predictor(ssp370.forcings)
    assert own.attrs["experiment_id"] == "ssp370-custom" and own.year.values.tolist() == YEARS
    assert ((own - parent).sel(year=slice(2020, 2040)) < -0.2).all()
    given = ar6_forcing("ssp370", CESM2).sel(year=slice(None, 2040)).assign_attrs(experiment_id="ssp370-custom")
    given["natural"] = given.natural + xr.where(given.year >= 2020, -2.0, 0.0)
    xr.testing.assert_allclose(own, codec.predictor(mine.forcings, given), rtol=1e-6)


def test_a_custom_scenario_from_its_file_draws_the_same(codec, ssp370, tmp_path):
    mine = ssp370.with_aod({2020: 0.1})
    there = open_forcings(mine.save(tmp_path), ["CO2", "SO2", "AOD"], grid=target_grid((8, 12)))
    ours, theirs = (codec.forced(codec.predictor(f), "year", YEARS) for f in (mine.forcings, there))
    torch.testing.assert_close(ours, theirs)


def test_a_departure_keeps_the_warming_pattern_of_its_parent(ssp370, caplog):
    runs = training("input4mips")
    like = runs["ssp126"]
    names = ["ssp126", "ssp370", "ssp585"]
    patterns = xr.DataArray(
        1 + 0.2 * np.random.default_rng(1).standard_normal((3, 12, 8, 12)),
        {"experiment_id": names, "calendar_month": np.arange(1, 13), "lat": like.lat, "lon": like.lon},
        ("experiment_id", "calendar_month", "lat", "lon"),
    )
    codec = FieldCodec.fit(runs, ("tas",), ("CO2", "SO2"), 4, patterns=patterns)
    nearly = ssp370.with_aod({2020: 1e-9})
    ours, theirs = (codec.forced(codec.predictor(f), "year", YEARS) for f in (nearly.forcings, ssp370.forcings))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert "no warming pattern" not in caplog.text


def test_emulators_refuse_emissions_that_are_counted_otherwise(codec):
    month = tiny.scenario("low")[["CO2", "SO2"]]
    codec.encode_forcings(month)  # states nothing
    codec.encode_forcings(month.assign_attrs(accounting="input4mips"))
    again = FieldCodec.from_dict(codec.to_dict())
    for one in (codec, again):
        with pytest.raises(
            DataContractError, match="forcings of low: emissions counted as rcmip; expected input4mips, as this emul"
        ):
            one.encode_forcings(month.assign_attrs(accounting="rcmip"))


def test_training_on_two_ways_of_counting_is_refused():
    runs = {"ssp126": training("input4mips")["ssp126"], "ssp585": training("rcmip")["ssp585"]}
    with pytest.raises(
        DataContractError, match=r"training scenarios: two ways of counting emissions: ssp126 .input4mips. and ssp585"
    ):
        FieldCodec.fit(runs, ("tas",), ("CO2", "SO2"), 4)


def test_a_store_keeps_how_its_forcings_are_counted(tmp_path):
    write_archive(tmp_path, experiments={"ssp126": 1}, years=(2015, 2024), grid=(6, 8), progress=False)
    file = tmp_path / "forcings/inputs_ssp126.nc"
    with xr.open_dataset(file, decode_times=False) as ds:
        ds = ds.load().assign_attrs(accounting="input4mips")
    ds.assign(erf_co2=("erf_year", np.zeros(250))).to_netcdf(file)  # a store has no use for it
    build(tmp_path, tmp_path / "store", variables=["tas"], forcings=file.parent, forcing_names=["CO2"], progress=False)
    run = open_run(tmp_path / "store", "SYNTHETIC-A", "ssp126", "month")
    assert accounting_of(run.drop_attrs(deep=False)) == "input4mips" and "erf_co2" not in run


def test_who_has_no_folder_of_forcings_is_told_what_to_set(monkeypatch, tmp_path):
    monkeypatch.delenv("CLIMATE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataContractError, match=r"CLIMATE_DATA is not set; expected a folder with forcings/inputs_ssp370"
    ):
        climatesuite.scenario("ssp370")
    with pytest.raises(DataContractError, match="no folder .*nowhere"):
        climatesuite.scenario("ssp370", tmp_path / "nowhere")
