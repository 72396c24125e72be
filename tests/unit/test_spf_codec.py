"""The codec's forced response: which one is fitted, what members and training see of it, what a checkpoint keeps."""

import logging
import time

import numpy as np
import pytest
import torch
import xarray as xr

from climatesuite.archive.read import open_runs
from climatesuite.baselines.energy_balance import EnergyBalanceScaling
from climatesuite.errors import DataContractError
from climatesuite.forcing.energy_balance import CESM2, ar6_forcing
from climatesuite.forcing.energy_response import EnergyBalanceResponse
from climatesuite.forcing.response import ForcedResponse
from spf import checkpoint
from spf.codec import FieldCodec
from spf.config import DataConfig
from spf.plain import from_dict, to_dict
from worlds import tiny

SSP = {"low": "ssp126", "high": "ssp585", "mid": "ssp370"}
YEARS = list(range(2015, 2045))


def cesm2(name: str) -> xr.Dataset:
    """The tiny world under the names of CESM2 and AR6's scenarios."""
    return tiny.scenario(name).assign_attrs(source_id="CESM2", experiment_id=SSP[name])


def training() -> dict[str, xr.Dataset]:
    return {SSP[name]: cesm2(name) for name in ("low", "high")}


def fit(runs=None, variables=("tas", "pr"), response="auto", patterns=None) -> FieldCodec:
    return FieldCodec.fit(runs or training(), variables, ("CO2", "SO2"), 4, response, patterns)


@pytest.fixture(scope="module")
def codec():
    """The energy balance with patterns of the training scenarios and ssp370."""
    like = cesm2("low")
    patterns = xr.DataArray(
        1 + 0.2 * np.random.default_rng(1).standard_normal((3, 12, 8, 12)),
        {"experiment_id": list(SSP.values()), "calendar_month": np.arange(1, 13), "lat": like.lat, "lon": like.lon},
        ("experiment_id", "calendar_month", "lat", "lon"),
    )
    return fit(patterns=patterns)


def test_auto_takes_the_energy_balance_only_where_calibration_forcing_table_and_tas_are_there():
    assert isinstance(fit().response, EnergyBalanceResponse)
    others = {e: tiny.scenario(e) for e in ("low", "high")}
    foreign = {e: ds.assign_attrs(source_id="TINY") for e, ds in training().items()}
    unknown = {e: ds.assign_attrs(source_id="CESM2") for e, ds in others.items()}
    for codec in (fit(foreign), fit(unknown), fit(variables=("pr",)), fit(response="co2")):
        assert isinstance(codec.response, ForcedResponse)
    assert isinstance(fit(variables=("pr",), response="energy-balance").response, EnergyBalanceResponse)


def test_members_draw_one_of_six_and_their_mean_is_the_response_without_member(codec):
    predictor = codec.predictor(cesm2("mid"))
    assert predictor.dims == ("response", "year") and predictor.year.values.tolist() == YEARS
    each = torch.stack([codec.forced(predictor, "year", YEARS, k) for k in range(7)])
    assert torch.equal(each[6], each[0]) and not torch.equal(each[1], each[0])
    torch.testing.assert_close(each[:6].mean(0), codec.forced(predictor, "year", YEARS), rtol=1e-6, atol=1e-9)


def test_departures_of_training_are_about_the_lines_alone(codec):
    runs = training()
    lines, rows = codec.response.lines_only(), codec.grid.row_weights().numpy()[:, None]
    squares = []
    for scenario, ds in runs.items():
        forced = lines.evaluate(lines.predictor(ar6_forcing(scenario, CESM2)), "month", YEARS)
        found = codec.forced_in_training(codec.predictor(ds), "month", YEARS)
        np.testing.assert_allclose(found[0], forced.tas, rtol=1e-6)
        squares += [float(((ds.tas[m].values - forced.tas.values) ** 2 * rows).mean()) for m in range(2)]
    assert codec.scales["tas"] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)
    assert not torch.allclose(found, codec.forced(codec.predictor(ds), "month", YEARS))


def test_on_co2_members_and_training_see_the_same():
    codec = fit(response="co2")
    predictor = codec.predictor(cesm2("mid"))
    assert predictor.dims == ("year",)
    same = codec.forced(predictor, "year", YEARS)
    assert torch.equal(same, codec.forced(predictor, "year", YEARS, 3))
    assert torch.equal(same, codec.forced_in_training(predictor, "year", YEARS))
    with pytest.raises(DataContractError, match="radiative forcing for a response on CO2"):
        codec.predictor(cesm2("mid"), ar6_forcing("ssp370", CESM2))


def test_a_scenario_outside_the_table_needs_its_own_forcing(codec):
    own = cesm2("mid").assign_attrs(experiment_id="mine")
    with pytest.raises(DataContractError, match="forcing of mine: not in the table of AR6.*give the components"):
        codec.predictor(own)
    given = codec.predictor(own, ar6_forcing("ssp370", CESM2))
    xr.testing.assert_identical(given, codec.predictor(cesm2("mid")))


def test_a_scenario_without_pattern_goes_without_and_is_named(codec, caplog):
    other = cesm2("mid").assign_attrs(experiment_id="ssp245")
    with caplog.at_level(logging.WARNING, "spf"):
        predictor = codec.predictor(other)
    assert "no warming pattern of other models for ssp245" in caplog.text
    plain = fit().forced(predictor, "month", [2040])
    torch.testing.assert_close(codec.forced(predictor, "month", [2040]), plain, rtol=1e-6, atol=1e-9)
    caplog.clear()
    known = codec.predictor(cesm2("mid"))
    assert not caplog.text
    assert not torch.allclose(
        codec.forced(known, "month", [2040])[0], fit().forced(known, "month", [2040])[0], atol=1e-3
    )


@pytest.mark.parametrize("response", ["energy-balance", "co2"])
def test_a_codec_read_from_plain_tensors_answers_alike(codec, response, tmp_path):
    mine = codec if response == "energy-balance" else fit(response="co2")
    torch.save(mine.to_dict(), tmp_path / "codec")
    back = FieldCodec.from_dict(torch.load(tmp_path / "codec", weights_only=True))
    ours, theirs = (c.forced(c.predictor(cesm2("mid")), "month", YEARS, 2) for c in (back, mine))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    assert back.calendar == mine.calendar == "noleap" and back.scales == mine.scales and back.grid == mine.grid


def test_responses_that_cannot_be_are_refused(codec):
    with pytest.raises(DataContractError, match="'linear'; expected auto, energy-balance or co2"):
        fit(response="linear")
    with pytest.raises(DataContractError, match="forced response on CO2: patterns of other models"):
        fit(response="co2", patterns=codec.response.pattern_change.patterns)
    with pytest.raises(DataContractError, match="energy balance of TINY: no calibration"):
        fit({e: tiny.scenario(e) for e in ("low", "high")}, response="energy-balance")


def test_the_config_names_response_and_patterns():
    data = to_dict(tiny.config().data)
    assert (data["response"], data["patterns"]) == ("auto", "")
    with pytest.raises(
        ValueError, match="data.response 'linear' is unknown; expected one of auto, energy-balance, co2"
    ):
        from_dict(DataConfig, data | {"response": "linear"})
    with pytest.raises(ValueError, match="data.patterns has no use with data.response co2"):
        from_dict(DataConfig, data | {"response": "co2", "patterns": "p.nc"})


def test_a_checkpoint_of_an_older_schema_asks_to_train_again(tmp_path):
    torch.save({"schema": 3, **dict.fromkeys(checkpoint.KEYS, 0)}, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match="schema 3 of an older version, this code reads 5; train again"):
        checkpoint.load(tmp_path / "old.ckpt")


def test_on_cesm2_members_stand_on_the_mean_of_the_energy_balance_reference(climate_data):
    found = open_runs([climate_data / "CMIP6" / "CESM2"], ["tas"], list(SSP.values()), years=(2015, 2034))
    runs = {s: ds.assign(CO2=("time", np.linspace(0, 1, ds.sizes["time"]))) for (_, s), ds in found.items()}
    trained = {s: runs[s] for s in ("ssp126", "ssp585")}
    codec = FieldCodec.fit(trained, ("tas",), ("CO2",), 12)
    forcings = {s: ar6_forcing(s, CESM2) for s in runs}
    reference = EnergyBalanceScaling.fit(trained, forcings, forcings["ssp370"], ("tas",), 2015, ("year",))
    predictor, years = codec.predictor(runs["ssp370"]), list(range(2015, 2035))
    expected = reference.ensemble(
        "year", runs["ssp370"].isel(time=slice(None, None, 12)).drop_vars("month")
    ).mean.tas.values
    np.testing.assert_allclose(codec.forced(predictor, "year", years)[0], expected, atol=1e-4)
    began = time.perf_counter()
    codec.forced(predictor, "month", years, member=1)
    assert time.perf_counter() - began < 2.0
