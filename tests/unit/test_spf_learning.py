"""Windows, gains, training and checkpoints on a tiny world."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spf import checkpoint
from spf.codec import FieldCodec
from spf.learning.data import Held, Windows, WindowStream, draw_shape, open_training_runs
from spf.learning.ema import MovingAverage
from spf.learning.learn import learn
from spf.learning.measure import measure_couplings, measure_marginals, regions
from spf.learning.module import schedule
from spf.learning.train import SNAPSHOT
from spf.plain import from_dict, to_dict
from spf.pyramid.operators import pool_space, upsample
from spf.pyramid.spec import PyramidSpec
from spf.pyramid.windows import january
from spf.sampling.emulator import Emulator
from worlds import tiny

KNOWN = {
    "source_id": "TINY", "license": "CC0", "training_members": {"low": ["r1i1p1f1"]}, "training_years": [2015, 2044],
    "version": "0", "torch": "2", "hardware": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def world():
    config = tiny.config()
    scenarios = {e: tiny.scenario(e) for e in ("low", "high")}
    codec = FieldCodec.fit(scenarios, config.data.variables, config.data.forcings, 4)
    runs = open_training_runs(scenarios, codec)
    spec, rows = PyramidSpec(), codec.grid.row_weights()
    windows = Windows(spec, rows, measure_marginals(runs, spec, rows))
    return config, scenarios, codec, runs, windows


def test_decoding_undoes_encoding(world):
    _, scenarios, codec, runs, _ = world
    month = scenarios["low"].isel(member=0)
    forced = codec.forced(codec.predictor(scenarios["low"]), "month", list(range(2015, 2045)))
    back = codec.decode(codec.encode(month, forced), forced)
    for name in codec.variables:
        np.testing.assert_allclose(back[name], month[name].values, rtol=2e-5)


def test_rain_is_never_negative(world):
    _, scenarios, codec, _, _ = world
    forced = codec.forced(codec.predictor(scenarios["low"]), "year", [2015])
    assert codec.decode(torch.full_like(forced, -50.0), forced)["pr"].min() == 0.0


def test_yearly_departures_are_the_day_weighted_means_of_monthly_ones(world):
    _, scenarios, codec, runs, _ = world
    run, predictor = runs[1], codec.predictor(scenarios["low"])
    days = run.month_days[:12].reshape(12, 1, 1)
    months = run.fields("month", january(2020), 12)
    torch.testing.assert_close((months * days / 365).sum(1), run.years[:, 5], atol=1e-4, rtol=1e-4)
    forced_year, forced_months = (codec.forced(predictor, t, [2020]) for t in ("year", "month"))
    torch.testing.assert_close((forced_months * days / 365).sum(1), forced_year[:, 0], rtol=1e-5, atol=0)


def test_any_steps_are_day_weighted_means_of_months(world):
    run = world[3][0]
    months, days = run.fields("month", january(2020) + 3, 6), run.month_days[63:69]
    quarters = run.fields("quarter", january(2020) + 3, 2)
    weights = days[:3].reshape(3, 1, 1) / days[:3].sum()
    torch.testing.assert_close(quarters[:, 0], (months[:, :3] * weights).sum(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        run.fields("lustrum", january(2020), 1)[:, 0], run.years[:, 5:10].mean(1), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("key", list(PyramidSpec().stages()))
def test_every_stage_sees_unit_variance_in_every_cell(world, key):
    _, _, _, runs, windows = world
    stage = windows.spec.stages()[key]
    if stage.timescale == "decade":
        starts, length, bound = range(21), 1, 0.75
    else:
        starts, length, bound = (
            range(30 if stage.timescale == "month" else 21),
            12 if stage.timescale == "month" else 10,
            0.3,
        )
    places = [january(2015 + s) for s in starts]
    fields = torch.stack([windows.build(r, stage, p, length, p).fields for r in runs for p in places])
    axes = (0, 2) if stage.timescale != "month" else (0,)
    deviation = fields.square().mean(axes).sqrt()
    assert abs(deviation.mean() - 1) < 0.1
    assert (deviation - 1).abs().max() < bound


def test_skewed_departures_are_seen_without_their_skewness(world):
    _, _, _, runs, windows = world
    generator = torch.Generator().manual_seed(0)
    many = [
        replace(
            run,
            months=Held(torch.exp(0.5 * torch.randn(run.months(2015, 30).shape, generator=generator)) - 1.133, 2015),
        )
        for run in (*runs, *runs, *runs)
    ]
    found = measure_marginals(many, windows.spec, windows.row_weights)["2-month"]
    x = torch.stack([run.months(2015, 30) for run in many])
    z = found.normal(x, 2015 * 12)
    assert float((x / x.std()).pow(3).mean()) > 1.5
    assert abs(float((z / z.std()).pow(3).mean())) < 0.2
    there = (found.departure(z, 2015 * 12) - x).abs() < 1e-3
    assert float(there.float().mean()) > 0.998  # the rest lies beyond the end of its cell's lognormal


def test_a_window_and_its_parent_are_the_same_data_seen_at_two_stages(world):
    """Also in the halo, whose parents are those of the neighbours."""
    _, _, _, runs, windows = world
    stage = windows.spec.path("month")[2]
    built = windows.build(runs[0], stage, january(2031) - 2, 16, january(2031))
    levels = runs[0].levels[15:18]
    years = windows.marginals["1-year"].normal(pool_space(runs[0].years[:, 15:18], 2, windows.row_weights), 0, levels)
    expected = upsample(years, (12, 2, 2))[:, 10:26]
    torch.testing.assert_close(built.parent, expected, atol=2e-4, rtol=1e-3)
    assert built.calendar.tolist() == [11, 12, *range(1, 13), 1, 2]
    assert built.forcings.shape == (2, 16, 2, 3)
    alone = windows.build(runs[0], stage, january(2031), 12, january(2031))
    torch.testing.assert_close(built.fields[:, 2:14], alone.fields)


def test_a_years_place_in_its_decade_is_counted_from_the_windows_core(world):
    _, _, _, runs, windows = world
    stage = windows.spec.path("year")[1]
    built = windows.build(runs[0], stage, january(2027), 13, january(2030))
    assert built.calendar.tolist() == [20, 21, 22, *range(13, 23)]
    assert not torch.equal(built.parent[:, 2], built.parent[:, 3])
    torch.testing.assert_close(built.parent[:, 3], built.parent[:, 12])


def test_shapes_lose_a_halo_now_and_then_and_all_of_it_in_short_records():
    spec, rng = PyramidSpec(), np.random.default_rng(0)
    stage = spec.path("year")[1]
    drawn = [draw_shape(stage, 85, spec, rng) for _ in range(400)]
    assert {(s.before, s.core, s.after) for s in drawn} == {(3, 10, 3), (0, 10, 3), (3, 10, 0)}
    assert 0.1 < sum(s.before == 0 or s.after == 0 for s in drawn) / 400 < 0.3
    assert all((s.before, s.after) == (0, 0) for s in (draw_shape(stage, 19, spec, rng) for _ in range(20)))


def stream(world, **changes):
    config, _, _, runs, windows = world
    return WindowStream(runs, windows, (1, 1, 1), config.training.tokens_per_step, **{"seed": 3, **changes})


def test_a_stream_begun_later_goes_on_as_if_it_had_never_stopped(world):
    whole, late = iter(stream(world)), iter(stream(world, start_step=4))
    for _ in range(4):
        next(whole)
    for _ in range(3):
        a, b = next(whole), next(late)
        assert a.stage == b.stage
        torch.testing.assert_close(a.x_t, b.x_t, rtol=0, atol=0)


def test_ranks_and_seeds_see_different_windows(world):
    first = stream(world).batch(0)
    for other in (stream(world, seed=4).batch(0), stream(world, rank=1).batch(0)):
        assert first.stage != other.stage or first.x_t.shape != other.x_t.shape or not torch.equal(first.x_t, other.x_t)


def test_flow_times_are_uniform_or_from_the_middle(world):
    """The logistic function of a normal number: half of them between 0.34 and 0.66."""
    for how, share in (("uniform", 0.325), ("middle", 0.5)):
        t = torch.cat([stream(world, times=how).batch(i).t for i in range(150)])
        inside = float(((t > 0.3375) & (t < 0.6625)).double().mean())
        assert inside == pytest.approx(share, abs=4 * (0.25 / len(t)) ** 0.5)
        assert 0 < float(t.min()) and float(t.max()) < 1


def test_stages_and_paths_are_drawn_uniformly(world):
    """30,000 draws: each path a third, stage 1 a year in two of three."""
    drawn, rng = stream(world), np.random.default_rng(0)
    stages = [drawn.draw_stage(rng).key for _ in range(30_000)]
    share = {k: stages.count(k) / 30_000 for k in windows_keys(world)}
    expected = {
        "0-decade": 3 / 9,
        "1-decade": 1 / 9,
        "1-year": 2 / 9,
        "2-decade": 1 / 9,
        "2-year": 1 / 9,
        "2-month": 1 / 9,
    }
    for key, probability in expected.items():
        assert share[key] == pytest.approx(probability, abs=0.01)


def windows_keys(world):
    return world[4].spec.stages()


def test_every_stage_is_measured_and_hangs_on_its_parent_but_the_first(world):
    for key, coupling in measure_couplings(world[3], world[4]).items():
        parts = [coupling.mean] if key == "0-decade" else [coupling.mean, coupling.detail]
        assert all((part.covariance[:, 0] > 0).all() and (part.rest > 0).all() for part in parts), key
        assert (coupling.mean.rest_slope == 0).all() == (key == "0-decade")


def test_the_schedule_warms_up_and_falls_to_its_floor():
    assert schedule(0.0, 0, 10) == pytest.approx(0.1)
    assert schedule(0.0, 100, 10) == pytest.approx(1.0)
    assert schedule(1.0, 100, 10) == pytest.approx(0.02)


def test_the_average_starts_at_the_weights_and_follows_them():
    model = torch.nn.Linear(2, 2, bias=False)
    average = MovingAverage(model)
    with torch.no_grad():
        model.weight.zero_()
    before = average.weights["weight"].clone()
    average.update(model)
    torch.testing.assert_close(average.weights["weight"], 0.1 * before)


def train(world, folder, **training):
    config = tiny.config(**training)
    return learn(config, world[2], world[3], KNOWN, folder, progress=False)


def test_an_interrupted_training_ends_with_the_same_weights(world, tmp_path, monkeypatch):
    whole = checkpoint.load(train(world, tmp_path / "whole", max_steps=12))
    monkeypatch.setattr("spf.learning.train.SNAPSHOT_SECONDS", 0.0)
    halfway = stop_after(6)
    with pytest.raises(OSError, match="power cut"):
        train(world, tmp_path / "cut", max_steps=12)
    halfway.undo()
    assert (tmp_path / "cut" / SNAPSHOT).exists()
    resumed = checkpoint.load(train(world, tmp_path / "cut", max_steps=12))
    assert not (tmp_path / "cut" / SNAPSHOT).exists()
    for name, weight in whole["weights"].items():
        torch.testing.assert_close(resumed["weights"][name], weight, rtol=1e-4, atol=1e-6)
    logs = [(tmp_path / d / "training.csv").read_text().splitlines() for d in ("whole", "cut")]
    assert [row.split(",")[0] for row in logs[0]] == [row.split(",")[0] for row in logs[1]]


def stop_after(step):
    """Make the stream fail like a kill after some steps."""
    original = WindowStream.batch

    def batch(self, number):
        if number >= step:
            raise OSError("power cut")
        return original(self, number)

    patch = pytest.MonkeyPatch()
    patch.setattr(WindowStream, "batch", batch)
    return patch


def test_a_checkpoint_is_plain_data_and_makes_the_same_emulator(world, tmp_path):
    path = train(world, tmp_path)
    content = torch.load(path, weights_only=True)
    assert content["provenance"]["license"] == "CC0"
    assert to_dict(from_dict(type(world[0]), content["config"])) == content["config"]
    emulator, again = Emulator.load(path), Emulator.load(path)
    forcings = tiny.scenario("mid")
    first = emulator.sample(forcings, "year", 2, (2020, 2029), seed=1)
    np.testing.assert_array_equal(first.tas.values, again.sample(forcings, "year", 2, (2020, 2029), seed=1).tas.values)


@pytest.mark.parametrize(
    ("content", "message"), [({"schema": 1}, "not a checkpoint"), ([1], "not a checkpoint"), (None, "not readable")]
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content, message):
    path = tmp_path / "x.pt"
    if content is None:
        path.write_bytes(b"half a file")
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(path)


def test_a_checkpoint_of_a_newer_schema_asks_for_an_update(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"schema": 99, **dict.fromkeys(checkpoint.KEYS, 0)}, path)
    with pytest.raises(ValueError, match="schema 99, this code reads up to"):
        checkpoint.load(path)


def test_a_missing_checkpoint_says_how_to_make_one():
    with pytest.raises(FileNotFoundError, match="train one with"):
        checkpoint.load(Path("nowhere.pt"))


def test_an_incomplete_checkpoint_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="missing; a checkpoint holds"):
        checkpoint.save(tmp_path / "x.pt", {"config": {}})
    assert not list(tmp_path.iterdir())


def test_stages_can_be_drawn_unequally(world):
    some, rng = stream(world, shares=(0.0, 1.0, 3.0)), np.random.default_rng(0)
    index = [some.draw_stage(rng).index for _ in range(4000)]
    assert index.count(0) == 0 and index.count(2) / 4000 == pytest.approx(0.75, abs=0.03)
    with pytest.raises(ValueError, match="2 shares for 3 stages"):
        stream(world, shares=(1.0, 1.0))


def test_regions_are_the_globe_and_the_tropical_pacific_by_area():
    lat = [(-90.0, -30.0), (-30.0, 0.0), (0.0, 30.0), (30.0, 90.0)]
    lon = [(-30.0, 60.0), (60.0, 150.0), (150.0, 240.0), (240.0, 330.0)]
    globe, pacific = regions(lat, lon)
    torch.testing.assert_close(globe, torch.full((4, 4), 1 / 16))
    expected = torch.zeros(4, 4)
    expected[1:3, 2] = 0.5
    torch.testing.assert_close(pacific, expected)
