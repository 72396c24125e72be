"""The ClimaX-like baseline: tokens of single variables, what its attention sees, what it learns, what the command leaves."""

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
from spf.commands.unet import CLIMAX, UNET, climax, deterministic
from spf.learning.regression import Pairs, Regression, fit_regression, predict
from spf.network.climax import ClimaX
from worlds.small import CONTENT

LAT = [-78.75 + 22.5 * i for i in range(8)]
LON = [15.0 + 30 * i for i in range(12)]
HOW = Regression(minutes=60.0, max_steps=200, batch=8, learning_rate=6e-3, warmup_steps=20)


def network(seed=0, trained=False, lat=LAT, lon=LON, **size):
    """A small network; ``trained`` gives its head the weights that it gets only by learning."""
    torch.manual_seed(seed)
    made = ClimaX(3, 2, lat, lon, **{"width": 32, "depth": 2, "heads": 2, "patch": 4, **size})
    if trained:
        torch.nn.init.normal_(made.head[-1].weight)
    return made.eval()


def linear_world(pairs=32):
    """Fields that answer a level, constant in space, with a fixed pattern of the place: no noise."""
    lat = torch.linspace(-1, 1, 8)[:, None].expand(8, 12)
    lon = torch.cos(torch.arange(12) * 2 * torch.pi / 12).expand(8, 12)
    level = torch.linspace(-1.5, 1.5, pairs)[:, None, None]
    inputs = torch.stack([level.expand(-1, 8, 12), lat.expand(pairs, -1, -1), lon.expand(pairs, -1, -1)], 1)
    return Pairs(inputs, torch.stack([level * (1 + lat), level * (lon - 0.5)], 1), torch.ones(pairs))


@pytest.mark.parametrize(("grid", "patch"), [((8, 12), 4), ((8, 12), 2), ((48, 72), 6)], ids=str)
def test_a_map_comes_out_on_the_grid_that_went_in(grid, patch):
    lat, lon = np.linspace(-88, 88, grid[0]).tolist(), np.linspace(0, 350, grid[1]).tolist()
    made = network(trained=True, lat=lat, lon=lon, patch=patch)
    assert made(torch.randn(2, 3, *grid)).shape == (2, 2, *grid)


def test_an_untrained_network_answers_climatology():
    assert torch.equal(network()(torch.randn(2, 3, 8, 12)), torch.zeros(2, 2, 8, 12))


def test_variables_share_no_projection_and_one_token_a_patch_is_left_whatever_their_number():
    embed, x = network().embed, torch.randn(1, 3, 8, 12)
    with torch.no_grad():
        assert embed(x).shape == (1, 6, 32)
        assert not torch.allclose(embed(x), embed(x[:, [1, 0, 2]]), atol=1e-3)
        embed.weight[1], embed.name[1] = embed.weight[0], embed.name[0]
        torch.testing.assert_close(embed(x), embed(x[:, [1, 0, 2]]))


def test_tokens_hold_their_own_patch_and_the_transformer_carries_it_to_all_others():
    model, x = network(trained=True), torch.randn(1, 3, 8, 12)
    changed = x.clone()
    changed[0, 1, 5, 9] += 1.0  # the last patch
    with torch.no_grad():
        token = (model.embed(changed) - model.embed(x)).abs().amax((0, 2))
        answer = (model(changed) - model(x)).abs().amax((0, 1))
    assert (token > 1e-4).tolist() == [False] * 5 + [True]
    assert answer.min() > 1e-6


def test_without_its_transformer_each_patch_is_drawn_where_it_was_cut():
    model, x = network(trained=True), torch.randn(1, 3, 8, 12)
    model.blocks = torch.nn.Sequential()
    changed = x.clone()
    changed[0, 1, 1, 9] += 1.0  # first row of patches, last column
    with torch.no_grad():
        moved = (model(changed) - model(x)).abs().amax((0, 1)) > 1e-6
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[:4, 8:] = True
    assert torch.equal(moved, expected)


def test_it_learns_a_world_without_noise():
    world, model = linear_world(), network()
    fit_regression(model, world, torch.ones(8), HOW)
    error = (predict(model, world.inputs) - world.targets).square().mean()
    assert error < 0.02 * world.targets.square().mean()


def test_a_seed_and_a_number_of_steps_give_one_result():
    def outcome(seed):
        model = network()
        fit_regression(model, linear_world(), torch.ones(8), replace(HOW, max_steps=8, seed=seed))
        return predict(model, linear_world().inputs)

    first = outcome(0)
    assert torch.equal(first, outcome(0))
    assert not torch.equal(first, outcome(1))


@pytest.mark.parametrize("patch", [3, 8])
def test_a_grid_that_patches_do_not_tile_is_refused(patch):
    with pytest.raises(
        ValueError, match=rf"ClimaX: grid 8x12 is not divisible by patch {patch}; choose another data.grid"
    ):
        network(patch=patch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The small world on a coarser grid, predicted by the command."""
    base = tmp_path_factory.mktemp("climax")
    experiment = base / "small.yaml"
    experiment.write_text(yaml.safe_dump({**CONTENT, "data": {**CONTENT["data"], "grid": [12, 16]}}))
    assert main(["climax", str(experiment), "--out", str(base / "run"), "--steps", "60", "--seed", "3"]) == 0
    return experiment, base / "run"


def test_the_command_writes_years_and_the_decades_they_make(made):
    years, decades = (open_ensemble(made[1] / f"climax_{name}.nc").load() for name in ("yearly", "decadal"))
    assert years.tas.sizes == {"member": 1, "time": 30, "lat": 12, "lon": 16}
    assert years.year.values.tolist() == list(range(2015, 2045)) and decades.year.values.tolist() == [2015, 2025, 2035]
    by_hand = [
        np.average(years.tas[0, i : i + 10].astype(float), axis=0, weights=years.days[i : i + 10]) for i in (0, 10, 20)
    ]
    np.testing.assert_allclose(decades.tas[0], by_hand, rtol=1e-6)
    assert float(years.pr.min()) >= 0


def test_the_file_says_what_it_is(made):
    with xr.open_dataset(made[1] / "climax_yearly.nc", decode_times=False) as file:
        about = file.attrs
    assert about["model"] == "ClimaX-like (deterministic)" and about["experiment_id"] == "ssp370" and about["seed"] == 3
    assert about["references"] == "https://arxiv.org/abs/2301.10343" and "not pretrained" in about["source"]
    assert json.loads(about["settings"])["network"] == CLIMAX.size
    training = json.loads(about["training"])
    assert training["held_out_to_stop"] == {"ssp126": ["r2i1p1f1"], "ssp585": ["r2i1p1f1"]}
    assert training["final"]["steps"] == training["search"]["kept_step"] <= training["search"]["steps"] == 60
    assert about["params"] > 100_000 and about["runtime_s"] > 0 and about["license"]


def test_it_is_scored_as_one_member_and_beats_the_training_mean(made):
    open_year = lambda e: open_run(made[1] / "store.zarr", "SYNTHETIC-A", e, "year").load()  # noqa: E731
    prediction, truth = open_ensemble(made[1] / "climax_yearly.nc").load(), open_year("ssp370")[["tas", "pr"]]
    training = xr.concat([open_year(e)[["tas"]] for e in ("ssp126", "ssp585")], "time").mean(("member", "time"))
    constant = prediction.assign(tas=(prediction.tas * 0 + training.tas).assign_attrs(prediction.tas.attrs))
    rows = score_datasets(
        [Prediction("climax", prediction), Prediction("constant", constant)], truth, variables=["tas"], bootstrap=0
    )
    found = {r["model"]: r for r in rows if r["period"] == "full"}
    assert found["climax"]["M"] == 1 and found["climax"]["crps_kind"] == "mae"
    assert found["climax"]["rmse"] < 0.97 * found["constant"]["rmse"]


def test_a_second_run_does_nothing_and_other_settings_or_sizes_are_refused(made):
    experiment, folder = made
    before = (folder / "climax_yearly.nc").stat().st_mtime_ns
    assert climax(experiment, folder, seed=3, max_steps=60)[0].stat().st_mtime_ns == before
    wider = replace(CLIMAX, size={**CLIMAX.size, "width": 256})
    for changed in (lambda: climax(experiment, folder, seed=4, max_steps=60),
                    lambda: deterministic(wider, experiment, folder, seed=3, max_steps=60)):  # fmt: skip
        with pytest.raises(
            DataContractError, match=r"climax_yearly.nc: made with other settings.*choose another folder"
        ):
            changed()


def test_both_networks_leave_files_of_their_own_in_one_folder(made):
    names = {path.name for a in (UNET, CLIMAX) for path in a.files(made[1]).values()}
    assert names == {"unet_yearly.nc", "unet_decadal.nc", "climax_yearly.nc", "climax_decadal.nc"}


def test_a_grid_that_does_not_fit_is_refused_before_training(made, tmp_path):
    experiment = tmp_path / "odd.yaml"
    archive = {"archive": str(made[1] / "archive/CMIP6"), "forcing_files": str(made[1] / "archive/forcings")}
    data = {**CONTENT["data"], **archive, "grid": [10, 16], "years": [2015, 2024]}
    sampling = {**CONTENT["sampling"], "month_years": [2023, 2024]}
    experiment.write_text(yaml.safe_dump({**CONTENT, "data": data, "sampling": sampling}))
    with pytest.raises(ValueError, match=r"ClimaX: grid 10x16 is not divisible by patch 4"):
        climax(experiment, tmp_path / "run")
