"""Held-out members, several stages in a step, fine-tuning, logs and curves, on a tiny world."""

import csv
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import default_convert

from spf import checkpoint
from spf.config import RunConfig, TrainingConfig
from spf.learning import held_out, train
from spf.learning.curves import learning_curves, smooth
from spf.learning.data import Batch, Windows, WindowStream
from spf.learning.initial import load_initial
from spf.learning.learn import learn
from spf.learning.logs import Records
from spf.learning.measure import measure_couplings, measure_marginals
from spf.learning.module import FlowModule, mean_over_samples
from spf.learning.packing import PackedStream
from spf.network.backbone import Backbone
from spf.plain import from_dict, to_dict
from worlds import tiny

KNOWN = {"source_id": "TINY", "training_members": {"low": ["r1i1p1f1", "r2i1p1f1"], "high": ["r1i1p1f1", "r2i1p1f1"]}}
KEYS = ("0-decade", "1-decade", "1-year", "2-decade", "2-year", "2-month")


@pytest.fixture(scope="module")
def world():
    return tiny.learned()


@pytest.fixture(scope="module")
def made(world):
    """Windows and couplings of the world."""
    codec, runs = world
    spec, rows = tiny.config().pyramid, codec.grid.row_weights()
    windows = Windows(spec, rows, measure_marginals(runs, spec, rows))
    return windows, measure_couplings(runs, windows)


def stream(world, made, **changes):
    return WindowStream(world[1], made[0], (1, 1, 1), **{"tokens_per_step": 512, "seed": 3, **changes})


def module(world, made, config=None, **training):
    config = config or tiny.config(**training)
    torch.manual_seed(0)
    grid = world[0].grid
    return FlowModule(
        Backbone(config.network, config.pyramid, made[1], grid.lat, grid.lon, 2, 2), grid.row_weights(), config.training
    )


def trained(world, folder, config=None, **training):
    return learn(config or tiny.config(**training), *world, KNOWN, folder, progress=False)


def table(path):
    return list(csv.DictReader(path.open()))


# several stages in one step


def test_a_packed_step_holds_the_streams_batches_in_turn_each_with_its_share_of_the_tokens(world, made):
    packed, single = PackedStream(stream(world, made), 4), stream(world, made, tokens_per_step=128)
    for step in (0, 5):
        parts = packed.batch(step)
        assert len(parts) == 4
        for j, part in enumerate(parts):
            assert part.stage == single.batch(4 * step + j).stage
            torch.testing.assert_close(part.x_t, single.batch(4 * step + j).x_t, rtol=0, atol=0)
    assert len({part.stage for step in range(8) for part in packed.batch(step)}) == 6


def test_a_packed_stream_begun_later_goes_on_and_follows_its_rank(world, made):
    late = PackedStream(stream(world, made), 2)
    late.start_step, late.rank = 3, 1
    torch.testing.assert_close(next(iter(late))[1].x_t, stream(world, made, tokens_per_step=256, rank=1).batch(7).x_t)


def test_the_loss_of_a_packed_step_is_the_mean_over_its_windows(world, made):
    learner = module(world, made)
    for layer in learner.backbone.head.values():
        torch.nn.init.normal_(layer.weight, std=0.1)
    parts = default_convert(PackedStream(stream(world, made), 3).batch(1))  # as the loader hands them over
    each = [float(learner.training_step(part, 0).detach()) for part in parts]
    sizes = [len(part.t) for part in parts]
    assert len(set(sizes)) > 1
    whole = float(learner.training_step(parts, 0).detach())
    assert whole == pytest.approx(np.average(each, weights=sizes), rel=1e-6)
    assert learner.last == [(part.stage, pytest.approx(loss, rel=1e-6)) for part, loss in zip(parts, each, strict=True)]


def test_the_network_is_asked_once_for_all_parts_of_a_step(world, made, monkeypatch):
    learner, calls = module(world, made), []
    packed = Backbone.packed
    monkeypatch.setattr(Backbone, "packed", lambda self, parts: calls.append(len(parts)) or packed(self, parts))
    learner.training_step(PackedStream(stream(world, made), 3).batch(0), 0)
    learner.training_step(stream(world, made).batch(0), 0)
    assert calls == [3, 1]


def test_tokens_are_those_of_the_fields(world, made):
    learner = module(world, made)
    batch = stream(world, made).batch(0)
    learner.training_step(batch, 0)
    n, _, steps, lat, lon = batch.x_t.shape
    assert learner.tokens == n * steps * lat * lon  # a patch is one cell here


# held-out members


def test_the_last_members_of_each_scenario_are_set_aside(world):
    kept, aside = held_out.set_aside(world[1], 1)
    assert [(r.scenario, r.member) for r in kept] == [("low", "r1i1p1f1"), ("high", "r1i1p1f1")]
    assert [(r.scenario, r.member) for r in aside] == [("low", "r2i1p1f1"), ("high", "r2i1p1f1")]
    assert held_out.set_aside(world[1], 0) == (world[1], ())
    with pytest.raises(ValueError, match="held_out 2 leaves no member of low to learn from"):
        held_out.set_aside(world[1], 2)


def test_an_untrained_network_explains_nothing_and_every_stage_is_looked_at(world, made):
    learner = module(world, made)
    found = held_out.HeldOut.draw(stream(world, made), learner)
    assert sorted(batch.stage for batch in found.batches) == sorted(held_out.BATCHES_PER_STAGE * KEYS)
    again = held_out.losses(found.batches, learner, dict(learner.backbone.named_parameters()))
    assert again == found.prior
    for batch in found.batches:
        prior = learner.backbone.priors[batch.stage](batch.x_t, batch.t, batch.phase)
        rows = learner.weights[learner.stages[batch.stage].pooling]
        by_hand = ((prior - batch.target).square().mean((0, 1, 2, 4)) * rows / rows.sum()).sum()
        assert float(learner.loss(batch, prior)) == pytest.approx(float(by_hand), rel=1e-5)


def test_losses_are_taken_under_other_weights_which_are_not_kept(world, made):
    learner = module(world, made)
    batches = (stream(world, made).batch(0),)
    other = {n: p.detach() + 0.1 for n, p in learner.backbone.named_parameters()}
    before = {n: p.detach().clone() for n, p in learner.backbone.named_parameters()}
    there = held_out.losses(batches, learner, other)
    for name, p in learner.backbone.named_parameters():
        torch.testing.assert_close(p.detach(), before[name], rtol=0, atol=0)
    learner.backbone.load_state_dict(other, strict=False)
    here = learner.loss(batches[0], learner.backbone(*learner.arguments(batches[0])))
    assert there == {batches[0].stage: pytest.approx(float(here.detach()), rel=1e-6)}


def spoilt_after(step):
    """Checks whose losses get worse after a step, by a stand-in for the losses."""

    def losses(batches, learner, weights):
        return dict.fromkeys(KEYS, 1.0 - 0.01 * learner.global_step + 0.05 * max(0, learner.global_step - step))

    return losses


def test_the_best_weights_are_kept_and_training_stops_when_none_better_come(world, tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, "CHECKS", 20)
    monkeypatch.setattr(held_out, "losses", spoilt_after(8))
    monkeypatch.setattr(held_out.HeldOut, "draw", classmethod(lambda cls, *a: cls((), dict.fromkeys(KEYS, 1.0))))
    long = {"max_steps": 40, "minutes": 600.0}
    content = checkpoint.load(trained(world, tmp_path / "stopped", held_out=1, **long))
    how = content["provenance"]["training"]
    assert how["kept_step"] == 8
    assert how["explained"] == dict.fromkeys(KEYS, pytest.approx(0.08))
    assert how["steps"] == 8 + 40 * held_out.PATIENCE + 2  # the first check beyond patience; one every two steps
    assert how["held_out"] == ["low r2i1p1f1", "high r2i1p1f1"]
    assert [int(row["step"]) for row in table(tmp_path / "stopped" / "validation.csv")][::6] == [1, *range(2, 23, 2)]
    monkeypatch.setattr(held_out, "PATIENCE", 0.0)
    monkeypatch.setattr(held_out, "losses", spoilt_after(8))
    shorter = checkpoint.load(
        trained(world, tmp_path / "shorter", held_out=1, **long)
    )  # stops two steps after the best
    assert shorter["provenance"]["training"]["steps"] == 10
    for name, weight in shorter["weights"].items():
        torch.testing.assert_close(weight, content["weights"][name], rtol=1e-5, atol=1e-7)


def test_held_out_losses_are_logged_beside_the_priors(world, tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, "CHECKS", 10)
    monkeypatch.setattr(held_out, "PATIENCE", 1.0)
    how = checkpoint.load(trained(world, tmp_path, held_out=1, max_steps=30, minutes=600.0))["provenance"]["training"]
    log = table(tmp_path / "validation.csv")
    assert len(log) == 6 * (held_out.CHECKS + 1)
    for row in log:
        assert float(row["explained"]) == pytest.approx(1 - float(row["loss"]) / float(row["prior_loss"]), abs=2e-5)
    kept = [row for row in log if int(row["step"]) == how["kept_step"]]
    assert {row["stage"]: float(row["explained"]) for row in kept} == how["explained"]
    means = {row["step"]: np.mean([float(r["loss"]) for r in log if r["step"] == row["step"]]) for row in log}
    assert str(how["kept_step"]) == min(means, key=means.get)


def test_without_held_out_members_all_learn_and_no_check_is_made(world, tmp_path):
    how = checkpoint.load(trained(world, tmp_path, max_steps=2))["provenance"]["training"]
    assert how["held_out"] == [] and "kept_step" not in how
    assert not (tmp_path / "validation.csv").exists()


# fine-tuning


def test_fine_tuning_starts_from_the_checkpoints_weights(world, made, tmp_path):
    first = trained(world, tmp_path / "first", max_steps=5)
    weights = checkpoint.load(first)["weights"]
    config = tiny.config(initial=str(first), max_steps=1, learning_rate=1e-12, weight_decay=0.0)
    content = checkpoint.load(trained(world, tmp_path / "second", config))
    assert any(weights[n].abs().sum() > 0 for n in weights if n.startswith("head"))
    for name, weight in content["weights"].items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-8)
    ancestor = content["provenance"]["initial"]
    assert ancestor["sha256"] == checkpoint.sha256(first) and ancestor["fresh"] == []


@pytest.fixture(scope="module")
def ancestor(world, tmp_path_factory):
    return trained(world, tmp_path_factory.mktemp("ancestor"), max_steps=1)


def test_layers_of_another_patch_start_anew(world, made, ancestor):
    config = tiny.config()
    config = replace(config, network=replace(config.network, forcing_patch=2, patch=1))
    grid = world[0].grid
    wide = Backbone(config.network, config.pyramid, made[1], list(grid.lat) * 2, list(grid.lon) * 2, 2, 2)
    fresh = load_initial(wide, ancestor, config)["fresh"]
    assert fresh == ["embed_forcing.weight"]
    given = checkpoint.load(ancestor)["weights"]["blocks.0.field.qkv.weight"]
    torch.testing.assert_close(
        dict(wide.named_parameters())["blocks.0.field.qkv.weight"].detach(), given, rtol=0, atol=0
    )


@pytest.mark.parametrize(("size", "value"), [("width", 64), ("depth", 2), ("heads", 1), ("mlp_ratio", 2)])
def test_another_architecture_is_refused(world, made, ancestor, size, value):
    config = tiny.config()
    config = replace(config, network=replace(config.network, **{size: value}))
    with pytest.raises(ValueError, match=f"its network has {size} .*, this one {value}; set network.{size}"):
        load_initial(module(world, made, config).backbone, ancestor, config)


def test_a_checkpoint_that_has_seen_the_test_is_refused_also_as_a_grandparent(world, made, ancestor, tmp_path):
    content = checkpoint.load(ancestor)
    provenance = content["provenance"]
    seen = {"source_id": "TINY", "training_members": {"mid": ["r1i1p1f1"]}, "sha256": "0"}
    backbone = module(world, made).backbone
    for changed in ({**provenance, **seen}, {**provenance, "initial": seen}):
        path = checkpoint.save(tmp_path / "x.pt", {**content, "provenance": changed})
        with pytest.raises(ValueError, match="has learned from mid of TINY, which is tested here"):
            load_initial(backbone, path, tiny.config())
    elsewhere = {**provenance, **seen, "source_id": "OTHER"}
    load_initial(backbone, checkpoint.save(tmp_path / "y.pt", {**content, "provenance": elsewhere}), tiny.config())


def test_weights_of_another_version_are_refused(world, made, ancestor, tmp_path):
    content = checkpoint.load(ancestor)
    renamed = {n.replace("blocks", "layers"): w for n, w in content["weights"].items()}
    path = checkpoint.save(tmp_path / "x.pt", {**content, "weights": renamed})
    with pytest.raises(ValueError, match="none of its blocks fits this network"):
        load_initial(module(world, made).backbone, path, tiny.config())


# how it runs


def test_a_compiled_network_trains_under_the_same_names(world, made, tmp_path, monkeypatch):
    compiled = []

    def compile_(function, **options):
        def call(*args):
            compiled.append(options)
            return function(*args)

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    assert module(world, made, compile=True).state_dict().keys() == module(world, made).state_dict().keys()
    plain, fast = (checkpoint.load(trained(world, tmp_path / str(c), compile=c, max_steps=3)) for c in (False, True))
    assert compiled == [{"dynamic": True}] * 3  # one block, three steps
    for name, weight in plain["weights"].items():
        torch.testing.assert_close(fast["weights"][name], weight, rtol=1e-5, atol=1e-7)


def test_the_provenance_tells_throughput_and_memory(world, tmp_path):
    how = checkpoint.load(trained(world, tmp_path, max_steps=4))["provenance"]["training"]
    assert how["processes"] == 1
    assert 10 < how["tokens_per_second"] < 1e9
    assert 0.05 < how["peak_rss_gib"] < 64


LAUNCHED = {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8", "TORCHELASTIC_RUN_ID": "x"}
SLURM = {"SLURM_NTASKS": "6", "SLURM_NTASKS_PER_NODE": "3", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("environment", "asked", "expected"),
    [({}, 0, (1, 1)), ({}, 2, (2, 1)), (LAUNCHED, 0, (4, 2)), (SLURM, 0, (3, 2)), (SLURM, 3, (3, 2))],
)
def test_processes_are_those_asked_for_or_launched(monkeypatch, environment, asked, expected):
    for name in {*LAUNCHED, *SLURM}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train.processes(asked) == expected


# logs


def test_tensorboard_gets_losses_rates_and_what_is_explained(world, tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append(("begun", folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append(("closed", 0, 0))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setattr("spf.learning.logs.importlib.util.find_spec", lambda name: fake)
    trained(world, tmp_path, tensorboard=True, held_out=1, max_steps=3, minutes=600.0)
    assert written[0] == ("begun", str(tmp_path / "tensorboard"), 1) and written[-1][0] == "closed"
    log = table(tmp_path / "training.csv")
    assert [(f"loss/{r['stage']}", int(r["step"])) for r in log] == [
        (n, s) for n, _, s in written if n.startswith("loss/")
    ]
    assert {n for n, _, _ in written} >= {"learning_rate", *(f"explained/{key}" for key in KEYS)}


def test_tensorboard_that_is_not_installed_is_refused_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr("spf.learning.logs.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match="tensorboard is not installed; install it, or set training.tensorboard"
    ):
        Records(tmp_path, tensorboard=True)


def test_curves_show_each_stage_smoothed_the_held_out_losses_and_the_learning_rate(world, tmp_path):
    trained(world, tmp_path, held_out=1, max_steps=30, minutes=600.0)
    assert (tmp_path / "learning.png").read_bytes()[:4] == b"\x89PNG"
    axes = learning_curves(tmp_path)
    log, checks = table(tmp_path / "training.csv"), table(tmp_path / "validation.csv")
    drawn = {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
    assert set(drawn) == {row["stage"] for row in log}
    for key, line in drawn.items():
        losses = [float(row["loss"]) for row in log if row["stage"] == key]
        np.testing.assert_allclose(line.get_ydata(), smooth(losses, 0.05 * len(losses)))
    dashed = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    expected = [float(row["loss"]) for row in checks if row["stage"] == min(drawn)]
    np.testing.assert_allclose(dashed[0].get_ydata(), expected)
    rates = next(other for other in axes.figure.axes if other is not axes)
    assert sum(len(line.get_xdata()) for line in rates.get_lines()) == len(log)


def test_smoothing_is_a_fading_mean_of_the_logarithm():
    np.testing.assert_allclose(smooth([2.0, 2.0, 2.0], 3.0), 2.0)
    keep = np.exp(-0.5)
    np.testing.assert_allclose(smooth([1.0, np.e], 2.0)[1], np.exp(1 / (1 + keep)))


@pytest.mark.parametrize(("key", "value"), [("parts", 0), ("held_out", -1), ("devices", -1)])
def test_numbers_that_make_no_sense_are_refused(key, value):
    with pytest.raises(ValueError, match=f"training.{key} {value} must be at least"):
        TrainingConfig(**{key: value})


def test_settings_of_before_still_read_and_new_ones_are_off():
    old = to_dict(tiny.config())
    for key in ("parts", "held_out", "initial", "devices", "compile", "tensorboard"):
        del old["training"][key]
    assert from_dict(RunConfig, old).training == tiny.config().training
    assert (TrainingConfig().held_out, TrainingConfig().parts, TrainingConfig().devices) == (0, 1, 0)


def test_a_mean_over_samples_weighs_by_windows():
    sizes = [Batch("", torch.zeros(0), torch.zeros(n), *[torch.zeros(0)] * 4, 0) for n in (1, 3)]
    assert float(mean_over_samples([torch.tensor(1.0), torch.tensor(5.0)], sizes)) == 4.0
