"""The deterministic baseline: what the UNet keeps, what least squares finds, what the command leaves."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from climatesuite.errors import DataContractError
from climatesuite.evaluate.scoring import Prediction, score_datasets
from climatesuite.export import open_ensemble
from climatesuite.store.open import open_run
from spf.__main__ import main
from spf.commands.unet import YearCodec, hold_out, unet
from spf.learning.regression import Pairs, Regression, fit_regression, predict, weighted_mse
from spf.network.unet import UNet
from worlds.small import CONTENT

LAT, LON = 8, 12
ROWS = torch.ones(LAT)
HOW = Regression(minutes=60.0, max_steps=30, batch=8, learning_rate=5e-3, warmup_steps=5)


def network(width=8, seed=0, trained=False, n_inputs=3, **options):
    """A small network; ``trained`` gives its head the weights that it gets only by learning."""
    torch.manual_seed(seed)
    made = UNet(n_inputs, 2, width, **options)
    if trained:
        torch.nn.init.normal_(made.head.weight)
    return made.eval()


def linear_world(pairs=32, sign=1.0):
    """Fields that answer a level, constant in space, with a fixed pattern of the place: no noise."""
    lat = torch.linspace(-1, 1, LAT)[:, None].expand(LAT, LON)
    lon = torch.cos(torch.arange(LON) * 2 * torch.pi / LON).expand(LAT, LON)
    level = torch.linspace(-1.5, 1.5, pairs)[:, None, None]
    inputs = torch.stack([level.expand(-1, LAT, LON), lat.expand(pairs, -1, -1), lon.expand(pairs, -1, -1)], 1)
    targets = torch.stack([level * (1 + lat), level * (lon - 0.5)], 1)
    return Pairs(inputs, sign * targets, torch.ones(pairs))


@pytest.mark.parametrize("grid", [(24, 36), (48, 72), (4, 8)], ids=str)
def test_a_map_comes_out_on_the_grid_that_went_in(grid):
    assert network(trained=True)(torch.randn(2, 3, *grid)).shape == (2, 2, *grid)


def test_an_untrained_network_answers_climatology():
    assert torch.equal(network()(torch.randn(2, 3, LAT, LON)), torch.zeros(2, 2, LAT, LON))


@pytest.mark.parametrize("cells", [4, 8, -4])
def test_turning_the_globe_turns_the_answer(cells):
    model, x = network(trained=True).double(), torch.randn(2, 3, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(model(x.roll(cells, -1)), model(x).roll(cells, -1), rtol=1e-10, atol=1e-10)


def test_the_level_of_a_constant_map_passes_the_norms():
    model, ones = network(trained=True), torch.ones(1, 3, LAT, LON)
    with torch.no_grad():
        answers = torch.stack([model(level * ones).mean() for level in (1e3, 2e3, 3e3)])
    first, second = answers.diff().tolist()
    assert abs(first) > 10 and second == pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize(("grid", "levels"), [((45, 72), 3), ((48, 70), 3), ((24, 36), 4)], ids=str)
def test_a_grid_that_cannot_be_halved_is_refused(grid, levels):
    factor = 2 ** (levels - 1)
    with pytest.raises(ValueError, match=rf"grid {grid[0]}x{grid[1]} is not divisible by {factor}; choose another"):
        network(levels=levels)(torch.zeros(1, 3, *grid))


def test_it_learns_a_world_without_noise():
    world, model = linear_world(), network()
    fit_regression(model, world, ROWS, replace(HOW, max_steps=60))
    error = (predict(model, world.inputs) - world.targets).square().mean()
    assert error < 0.02 * world.targets.square().mean()


def test_a_seed_and_a_number_of_steps_give_one_result():
    def outcome(seed):
        model = network()
        facts = fit_regression(model, linear_world(), ROWS, replace(HOW, max_steps=10, seed=seed))
        assert facts["steps"] == facts["kept_step"] == 10
        return predict(model, linear_world().inputs)

    first = outcome(0)
    assert torch.equal(first, outcome(0))
    assert not torch.equal(first, outcome(1))


def test_the_weights_that_err_least_on_held_out_pairs_are_kept():
    held_out = linear_world(sign=-1.0)  # learning can only make it worse
    model = network()
    facts = fit_regression(model, linear_world(), ROWS, HOW, held_out)
    steps, losses = zip(*facts["looks"], strict=True)
    assert steps[-1] == HOW.max_steps and facts["kept_step"] == steps[0] and losses[0] == min(losses)
    again = network()
    facts = fit_regression(again, linear_world(), ROWS, replace(HOW, stop_step=steps[0]))
    assert facts["steps"] == steps[0]
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_members_of_a_pair_count_like_samples_of_their_own():
    truth, guess = torch.randn(3, 2, LAT, LON), torch.randn(2, 2, LAT, LON, requires_grad=True)
    weights = torch.rand(LAT, 1)
    targets = torch.stack([truth[:2].mean(0), truth[2]])  # two members, one member
    merged = weighted_mse(guess, targets, torch.tensor([2.0, 1.0]), weights)
    apart = ((guess[[0, 0, 1]] - truth).square() * weights).mean()
    slopes = [torch.autograd.grad(loss, guess)[0] for loss in (merged, apart)]
    torch.testing.assert_close(*slopes)


def test_a_loss_that_is_not_finite_stops_training():
    world = linear_world()
    with pytest.raises(ValueError, match=r"regression step 0: the loss is not finite; lower the learning rate"):
        fit_regression(network(), replace(world, targets=world.targets / 0.0), ROWS, HOW)


@pytest.mark.parametrize("wrong", [{"minutes": 0.0}, {"max_steps": 0}], ids=str)
def test_a_budget_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="both must be positive"):
        Regression(**wrong)


def test_the_last_member_of_the_largest_scenario_is_held_out_where_another_remains():
    kept, held = hold_out({"ssp370": ["r4", "r10"], "ssp585": ["r4", "r10", "r11"]})
    assert (kept, held) == ({"ssp370": ["r4", "r10"], "ssp585": ["r4", "r10"]}, {"ssp585": ["r11"]})
    kept, held = hold_out({"ssp126": ["r1", "r2"], "ssp585": ["r2"]})
    assert (kept, held) == ({"ssp126": ["r1"], "ssp585": ["r2"]}, {"ssp126": ["r2"]})
    assert hold_out({"ssp126": ["r1"], "ssp585": ["r1"]})[1] == {}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The small world on a coarser grid, predicted by the command."""
    base = tmp_path_factory.mktemp("unet")
    experiment = base / "small.yaml"
    data = {**CONTENT["data"], "grid": [12, 16]}
    sampling = {**CONTENT["sampling"], "month_years": [2023, 2024]}
    experiment.write_text(yaml.safe_dump({**CONTENT, "data": data, "sampling": sampling}))
    assert main(["unet", str(experiment), "--out", str(base / "run"), "--steps", "40", "--seed", "3"]) == 0
    return experiment, base / "run"


def yearly(folder, scenario):
    return open_run(folder / "store.zarr", "SYNTHETIC-A", scenario, "year").load()


def test_the_command_writes_years_and_the_decades_they_make(made):
    years, decades = (open_ensemble(made[1] / f"unet_{name}.nc").load() for name in ("yearly", "decadal"))
    assert years.tas.sizes == {"member": 1, "time": 30, "lat": 12, "lon": 16}
    assert years.year.values.tolist() == list(range(2015, 2045)) and decades.year.values.tolist() == [2015, 2025, 2035]
    for name in ("tas", "pr"):
        by_hand = [
            np.average(years[name][0, i : i + 10].astype(float), axis=0, weights=years.days[i : i + 10])
            for i in (0, 10, 20)
        ]
        np.testing.assert_allclose(decades[name][0], by_hand, rtol=1e-6)
    assert float(years.pr.min()) >= 0


def test_the_file_says_what_it_is(made):
    with xr.open_dataset(made[1] / "unet_yearly.nc", decode_times=False) as file:
        about = file.attrs
    assert about["model"] == "UNet (deterministic)" and about["experiment_id"] == "ssp370" and about["seed"] == 3
    training = json.loads(about["training"])
    assert training["held_out_to_stop"] == {"ssp126": ["r2i1p1f1"], "ssp585": ["r2i1p1f1"]}
    assert training["final"]["steps"] == training["search"]["kept_step"] <= training["search"]["steps"] == 40
    assert about["params"] > 10_000 and about["runtime_s"] > 0 and about["license"]


def test_it_is_scored_as_one_member_and_beats_the_training_mean(made):
    prediction, truth = open_ensemble(made[1] / "unet_yearly.nc").load(), yearly(made[1], "ssp370")[["tas", "pr"]]
    training = xr.concat([yearly(made[1], e)[["tas"]] for e in ("ssp126", "ssp585")], "time").mean(("member", "time"))
    constant = prediction.assign(tas=(prediction.tas * 0 + training.tas).assign_attrs(prediction.tas.attrs))
    rows = score_datasets(
        [Prediction("unet", prediction), Prediction("constant", constant)], truth, variables=["tas"], bootstrap=0
    )
    found = {r["model"]: r for r in rows if r["period"] == "full"}
    assert found["unet"]["M"] == 1 and found["unet"]["crps_kind"] == "mae"
    assert found["unet"]["rmse"] < 0.97 * found["constant"]["rmse"]


def test_scales_are_measured_on_training_scenarios(made):
    scenarios = {e: yearly(made[1], e) for e in ("ssp126", "ssp585")}
    codec = YearCodec.fit(scenarios, ("tas", "pr"), ("CO2", "SO2"))
    by_hand = np.mean([ds.tas.values.astype(float) for ds in scenarios.values()], (0, 1, 2))
    np.testing.assert_allclose(codec.climatology[0], by_hand, rtol=1e-7)
    members = {e: list(ds.member.values) for e, ds in scenarios.items()}
    pairs, weights = codec.pairs(scenarios, members), codec.grid.row_weights().reshape(-1, 1)
    assert pairs.inputs.shape[1] == codec.n_inputs and pairs.members.tolist() == [2.0] * 60
    apart = torch.cat([codec.pairs(scenarios, {e: [m] for e in scenarios}).targets for m in members["ssp126"]])
    torch.testing.assert_close((apart.square() * weights).mean((0, 2, 3)), torch.ones(2), rtol=1e-5, atol=0)
    torch.testing.assert_close((pairs.inputs[:, :2].square()).mean((0, 2, 3)), torch.ones(2), rtol=1e-5, atol=0)


def test_encoding_and_decoding_undo_each_other(made):
    scenarios = {e: yearly(made[1], e) for e in ("ssp126", "ssp585")}
    codec = YearCodec.fit(scenarios, ("tas", "pr"), ("CO2",))
    one = scenarios["ssp126"].isel(member=[0])
    back = codec.fields(codec.pairs({"ssp126": one}, {"ssp126": list(one.member.values)}).targets, one)
    np.testing.assert_allclose(back.tas, one.tas[0], rtol=1e-6)
    assert back.tas.attrs["units"] == "K" and float(codec.fields(torch.full((30, 2, 12, 16), -99.0), one).pr.max()) == 0


def test_a_second_run_does_nothing_and_other_settings_are_refused(made):
    experiment, folder = made
    before = (folder / "unet_yearly.nc").stat().st_mtime_ns
    assert unet(experiment, folder, seed=3, max_steps=40)[0].stat().st_mtime_ns == before
    with pytest.raises(DataContractError, match=r"unet_yearly.nc: made with other settings.*choose another folder"):
        unet(experiment, folder, seed=4, max_steps=40)


def test_a_grid_that_does_not_fit_is_refused_before_training(made, tmp_path):
    experiment = tmp_path / "odd.yaml"
    archive = {"archive": str(made[1] / "archive/CMIP6"), "forcing_files": str(made[1] / "archive/forcings")}
    data = {**CONTENT["data"], **archive, "grid": [10, 16], "years": [2015, 2024]}
    sampling = {**CONTENT["sampling"], "month_years": [2023, 2024]}
    experiment.write_text(yaml.safe_dump({**CONTENT, "data": data, "sampling": sampling}))
    with pytest.raises(ValueError, match=r"grid 10x16 is not divisible by 4"):
        unet(experiment, tmp_path / "run")


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "x"])
def test_minutes_are_a_number_above_zero(minutes, capsys):
    with pytest.raises(SystemExit):
        main(["unet", "x.yaml", "--minutes", minutes])
    assert "is not a number above 0" in capsys.readouterr().err
