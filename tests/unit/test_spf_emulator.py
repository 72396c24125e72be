"""An emulator from a checkpoint: who a member is, what is refused, how an ensemble gets to disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from climatesuite.errors import DataContractError
from climatesuite.export import open_ensemble
from spf.checkpoint import load, save
from spf.codec import FieldCodec
from spf.commands import ensemble as ensemble_module
from spf.commands.ensemble import predict_minutes, write_ensemble
from spf.commands.inspect import describe
from spf.commands.widths import drawn_departures, training_departures, widths
from spf.config import SamplingConfig
from spf.learning.data import open_training_runs
from spf.learning.learn import learn
from spf.pyramid.spec import PyramidSpec
from spf.sampling.emulator import Emulator
from spf.sampling.waves import wave_power, widened
from worlds import tiny

KNOWN = {
    "source_id": "TINY", "license": "CC0", "training_members": {"low": ["r1i1p1f1"]}, "training_years": [2015, 2044],
    "version": "0", "torch": "2", "hardware": "none",
}  # fmt: skip
FAST = SamplingConfig(n_steps=2, seed=5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = tiny.config(max_steps=2, learning_rate=1e-6)
    scenarios = {e: tiny.scenario(e, members=3) for e in ("low", "high")}
    codec = FieldCodec.fit(scenarios, config.data.variables, config.data.forcings, 4)
    return learn(
        config, codec, open_training_runs(scenarios, codec), KNOWN, tmp_path_factory.mktemp("run"), progress=False
    )


@pytest.fixture(scope="module")
def emulator(checkpoint):
    return Emulator.load(checkpoint)


@pytest.fixture(scope="module")
def forcings():
    return tiny.forcings()


@pytest.mark.parametrize("timescale", ["decade", "year", "month"])
def test_before_any_learning_mean_and_spread_are_already_those_of_the_forced_response_and_its_residuals(
    emulator, forcings, timescale
):
    drawn = emulator.sample(forcings, timescale, 12, seed=1)
    truth = tiny.scenario("mid", members=40, seed=9)
    days = truth.days
    if timescale != "month":
        span = 10 if timescale == "decade" else 1
        label = ("time", 2015 + (truth.year.values - 2015) // span * span)
        truth = (truth[["tas", "pr"]] * days).groupby(truth.year.copy(data=label[1])).sum() / days.groupby(
            truth.year.copy(data=label[1])
        ).sum()
    for name in ("tas", "pr"):
        ours, theirs = drawn[name].std("member").mean().item(), truth[name].std("member").mean().item()
        assert ours == pytest.approx(theirs, rel=0.3 if timescale == "decade" else 0.15)
    error = abs(drawn.tas.mean().item() - truth.tas.mean().item())
    assert error < 0.1


def test_a_member_is_the_same_whatever_is_drawn_beside_it(emulator, forcings):
    many = emulator.sample(forcings, "month", 3, (2020, 2023), seed=1, sampling=FAST)
    one = emulator.sample(forcings, "month", [2], (2020, 2023), seed=1, sampling=FAST)
    np.testing.assert_array_equal(one.tas.values[0], many.tas.values[2])
    one = emulator.sample(forcings, "month", [2], (2022, 2023), seed=1, sampling=FAST)  # other batches round otherwise
    np.testing.assert_allclose(one.tas.values[0], many.tas.values[2, 24:], rtol=1e-5)
    other = emulator.sample(forcings, "month", [2], (2022, 2023), seed=2, sampling=FAST)
    assert np.abs(other.tas.values - one.tas.values).max() > 0.1


def test_coordinates_say_what_a_step_is(emulator, forcings):
    decades = emulator.sample(forcings, "decade", 2, sampling=FAST)
    assert decades.year.values.tolist() == [2015, 2025, 2035]
    assert [str(d) for d in decades.time_bnds.values[0]] == ["2015-01-01 00:00:00", "2025-01-01 00:00:00"]
    months = emulator.sample(forcings, "month", 2, (2020, 2020), sampling=FAST)
    assert months.month.values.tolist() == list(range(1, 13))
    assert months.tas.attrs["units"] == "K"
    assert months.attrs["calendar"] == "noleap"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: {"timescale": "day"}, "timescale 'day'; expected one of decade, year, month"),
        (lambda f: {"years": (2000, 2020)}, "years 2015-2044; expected 2000-2020 inside them"),
        (lambda f: {"years": slice(2000, 2020)}, "years 2015-2044; expected 2000-2020 inside them"),
        (lambda f: {"years": slice(2015, 2044, 5)}, "a slice without a step"),
        (lambda f: {"years": (2015,)}, "first and last"),
        (lambda f: {"scenario": f.drop_vars("SO2")}, "'SO2'.* missing"),
        (lambda f: {"scenario": f.drop_vars("CO2")}, "no CO2|'CO2'.* missing"),
        (
            lambda f: {"scenario": "ssp999"},
            "scenario 'ssp999': not among none that the emulator carries, and .*expected",
        ),
        (lambda f: {"scenario": 3}, "scenario: a int; expected a name, a forcing file, an xarray.Dataset"),
        (lambda f: {"members": 0}, "no members asked for"),
        (lambda f: {"members": [1, 1]}, r"members \[1, 1\]; expected every number once"),
        (lambda f: {"variables": ["tas", "huss"]}, "variables huss; expected some of tas, pr, which it was trained on"),
    ],
)
def test_what_cannot_be_drawn_is_refused(emulator, forcings, change, message):
    arguments = {"scenario": forcings, "timescale": "year", "members": 2, "sampling": FAST, **change(forcings)}
    with pytest.raises(DataContractError, match=message):
        emulator.sample(**arguments)


def test_members_keep_their_place_in_the_batch_whoever_is_drawn_beside_them(emulator, forcings):
    # on some processors the last bits of a product hang on the row: a list of the missing members alone gave other bits
    whole = emulator.sample(forcings, "year", 7, sampling=FAST)
    assert emulator.groups(forcings, "year", [6, 1, 3]) == [[6], [1, 3]]
    for some in ([2], [6, 1, 3], [4, 5]):
        xr.testing.assert_equal(emulator.sample(forcings, "year", some, sampling=FAST), whole.sel(member=some))


def test_an_interrupted_ensemble_goes_on_and_ends_with_the_same_file(emulator, forcings, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole.nc", tmp_path / "cut.nc"
    write_ensemble(emulator, forcings, "year", 3, (2015, 2044), FAST, whole, progress=False)
    original, calls = ensemble_module._save, []

    def save(path, arrays):
        if len(calls) == 2:
            raise OSError("power cut")
        calls.append(path)
        original(path, arrays)

    monkeypatch.setattr(ensemble_module, "_save", save)
    with pytest.raises(OSError, match="power cut"):
        write_ensemble(emulator, forcings, "year", 3, (2015, 2044), FAST, cut, progress=False)
    assert not cut.exists()
    monkeypatch.undo()
    write_ensemble(emulator, forcings, "year", 3, (2015, 2044), FAST, cut, progress=False)
    a, b = (xr.open_dataset(p, decode_times=False) for p in (whole, cut))
    xr.testing.assert_equal(a, b)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.nc", "whole.nc"]


def test_the_file_says_who_made_it_and_from_what(emulator, forcings, tmp_path):
    path = tmp_path / "x.nc"
    write_ensemble(emulator, forcings, "decade", 2, (2015, 2044), FAST, path, progress=False)
    ds = open_ensemble(path)
    assert ds.attrs["checkpoint_sha256"] == emulator.digest
    assert ds.attrs["seed"] == 5
    assert "CC0" in ds.attrs["license"]
    assert ds.attrs["experiment_id"] == "mid"


def test_the_cost_of_an_ensemble_is_predicted(emulator, forcings):
    few, many = (predict_minutes(emulator, forcings, "year", n, (2015, 2044), FAST) for n in (1, 1000))
    assert 0 < few < many


def test_a_checkpoint_is_described_in_words(checkpoint):
    text = describe(checkpoint)
    for fact in ("TINY: tas, pr; decade, year, month\n", "8 x 12", "CO2, SO2", "CC0", "sha256"):
        assert fact in text


def test_a_checkpoint_is_described_by_the_timescales_that_it_has(checkpoint, tmp_path):
    content = load(checkpoint)
    content["config"]["pyramid"] |= {"pooling": [2, 1], "sigma_end": [0.5, 0.0]}
    assert "TINY: tas, pr; decade, year\n" in describe(save(tmp_path / "two.pt", content))


@pytest.mark.parametrize(
    ("halo", "said"),
    [
        ({}, "Members are trajectories: windows see the steps of their neighbours."),
        (
            {"decade": 0},
            "Windows see the steps of their neighbours where a step is a year or month; where it is a decade, they are drawn "
            "independently of each other given their parents.",
        ),
        ({"decade": 0, "year": 0, "month": 0}, "Windows are drawn independently of each other given their parents."),
        ({"lustrum": 0, "quarter": 0}, "Members are trajectories: windows see the steps of their neighbours."),
    ],
)
def test_files_say_at_which_timescales_windows_see_their_neighbours(emulator, monkeypatch, halo, said):
    monkeypatch.setattr(emulator.backbone, "spec", PyramidSpec(halo=PyramidSpec().halo | halo))
    assert emulator.how_members_hang_together == said


def test_forcings_beyond_those_of_training_are_said_to_be(emulator, forcings, caplog):
    with caplog.at_level("WARNING", logger="spf"):
        emulator.sample(forcings, "decade", 1, sampling=FAST)
        assert not caplog.records
        annual = forcings.assign(CO2=("time", 40 + 0 * forcings.CO2.values))
        emulator.sample(annual, "decade", 1, sampling=FAST)
    assert "CO2 runs from 40 to 40 Gt, trained on" in caplog.text


def test_an_emulator_introduces_itself_in_one_line(emulator):
    assert repr(emulator) == "Emulator of TINY tas, pr, trained on {'low': 1}, 32-true"


@pytest.mark.parametrize("timescale", ["year", "month"])
def test_widths_measured_on_some_members_bring_others_to_the_power_of_training(emulator, forcings, timescale):
    scenarios = {e: tiny.scenario(e, members=1) for e in ("low", "high")}
    found = widths(emulator, scenarios, timescale)
    assert found.shape == (2, forcings.sizes["lat"], forcings.sizes["lon"] // 2 + 1)
    apart = []
    for each in (replace(emulator, widths={timescale: found}), emulator):
        drawn = torch.stack([wave_power(x) for x in drawn_departures(each, scenarios, timescale, seed=3)]).mean(0)
        real = torch.stack([wave_power(x) for x in training_departures(emulator, scenarios, timescale)]).mean(0)
        apart.append(float((drawn.sum((1, 2)) / real.sum((1, 2))).log().abs().mean()))
    assert apart[0] < 0.1 and apart[0] < apart[1]


def test_widths_belong_to_the_steps_that_they_were_measured_with(emulator, forcings, caplog):
    wide = replace(
        emulator, widths={"year": torch.full((2, forcings.sizes["lat"], forcings.sizes["lon"] // 2 + 1), 2.0)}
    )
    own, other = emulator.sampling, replace(emulator.sampling, n_steps=3)
    spread = [
        x.sample(forcings, "year", 4, seed=1, sampling=s).tas.std("member").mean()
        for x in (wide, emulator)
        for s in (own, other)
    ]
    assert float(spread[0] / spread[2]) == pytest.approx(2.0, rel=0.02)
    assert float(spread[1]) == float(spread[3])
    assert "other steps than its experiment's" in caplog.text


@pytest.mark.parametrize("width", [8, 9])
def test_powers_of_zonal_waves_sum_to_the_mean_square_and_take_factors(width):
    z = torch.randn(2, 5, 4, width, generator=torch.Generator().manual_seed(0))
    power = wave_power(z)
    torch.testing.assert_close(power.sum(-1), z.square().mean((1, 3)))
    factors = torch.rand(2, 4, width // 2 + 1, generator=torch.Generator().manual_seed(1)) + 0.5
    torch.testing.assert_close(wave_power(widened(z, factors)), factors.square() * power)
    assert widened(z, None) is z
