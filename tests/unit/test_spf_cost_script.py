"""What the cost table is made of: counted operations are the formula's, windows are the sampler's, nothing is counted twice."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spf.config import NetworkConfig
from spf.cost import call_flops

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module("cost")


def test_counted_operations_of_attention_are_those_of_its_products(script):
    """Two products forwards; backwards two for each of them, and the scores anew."""
    q, k, v = (torch.randn(2, 3, 50, 16, requires_grad=True) for _ in range(3))
    one = 2 * 2 * 3 * 50 * 50 * 16
    with script.counter() as counted:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert counted.get_total_flops() == 2 * one
    with script.counter() as counted:
        out.sum().backward()
    assert counted.get_total_flops() == 5 * one


@pytest.mark.parametrize("attention", ["joint", "cross"])
@pytest.mark.parametrize(("key", "steps"), [("2-month", 12), ("2-month", 16), ("2-year", 10)])
def test_counted_operations_of_a_window_are_those_of_the_formula(script, attention, key, steps):
    """To a few percent, which embedding, modulation, head and the known part of the velocity take."""
    network = NetworkConfig(width=96, depth=3, heads=3, patch=3, forcing_patch=3, attention=attention)
    setting = script.Setting((24, 36), network)
    net = setting.backbone().eval()
    found = script.time_window(net, setting, net.spec.stages()[key], steps)
    assert found["tokens"] == steps * 8 * 12
    assert found["forcing_tokens"] == steps * 2 * 3
    assert found["counted_over_formula"] == pytest.approx(1.0, abs=0.04)
    assert found["counted_over_formula"] > 1.0
    assert found["seconds"] > 0


def test_a_step_of_training_counts_three_calls(script):
    """Gradients cost two products for each of the forward pass, attention's half a one more."""
    small = replace(script.QUICK, grid=(24, 36))
    found = script.training(small, windows=2, steps=1, size=64)
    forward = 2e-9 * call_flops(16 * (96 + 6), small.network)
    assert 3.0 < found["gflop_a_step"] / forward < 3.5
    assert found["tokens_per_s"] / found["field_tokens_per_s"] == pytest.approx((96 + 6) / 96)
    assert found["field_tokens_per_s"] * found["seconds_a_step"] == pytest.approx(2 * 16 * 96)
    assert found["share_of_mm"] == pytest.approx(found["gflop_per_s"] / found["mm_gflop_per_s"])


def test_kinds_of_windows_are_those_that_the_sampler_draws(script):
    with_halo, papers = script.SPECS.values()
    kinds = lambda spec: [[(s.key, steps, n) for s, steps, n in stage] for stage in script.kinds_of(spec, "month")]  # noqa: E731
    assert kinds(with_halo)[:2] == [[("0-decade", 1, 1)], [("1-year", 10, 1)]]
    ends_and_middles = [(steps, n) for _, steps, n in kinds(with_halo)[2]]
    assert sorted(ends_and_middles) == [(14, 1), (14, 1), (16, 8)]
    assert kinds(papers)[2] == [("2-month", 12, 10)]


@pytest.mark.parametrize("timescale", ["year", "month"])
@pytest.mark.parametrize("place", [0, 1], ids=["with halo", "the paper's"])
def test_costs_are_those_of_the_cost_model(script, timescale, place):
    spec = list(script.SPECS.values())[place]
    setting = script.SETTINGS["48x72"]
    model, kinds = setting.model(spec), script.kinds_of(spec, timescale)
    call = lambda stage, steps: {"seconds": 1.0}  # noqa: E731
    windows = script.cost_of(model, kinds[-1:], 60, call)
    count = sum(n for _, _, n in kinds[-1])
    assert windows["seconds"] == 60 * count
    if place == 1:
        assert windows["tflop"] == pytest.approx(model.one_stage(timescale).tflop)
    steps = {"year": 10, "month": 120}[timescale]
    tokens = list(script.histories(model, steps))
    total = 20e-12 * sum(call_flops(n + setting.forcing_tokens(), setting.network) for n in tokens)
    assert len(tokens) == 3 * steps
    assert total == pytest.approx(model.autoregressive(timescale).tflop)


def test_seconds_between_measured_lengths_lie_on_a_line(script):
    assert [script.interpolate(x, [1, 3, 7], [10.0, 20.0, 60.0]) for x in (1, 2, 3, 4, 7)] == [10, 15, 20, 30, 60]


def test_the_quick_table_compares_every_method_and_writes_nothing(script, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "RESULT", tmp_path / "cost.json")
    script.main(["--quick"])
    shown = capsys.readouterr().out
    for timescale in ("year", "month"):
        for windows in script.SPECS:
            assert f"ten years, {timescale}, {windows}" in shown
    assert shown.count("7200 (120)") == 2  # serial calls of the autoregressive pyramid, monthly, and over the pyramid's
    assert "field_tokens_per_s" in shown
    assert "fields_per_s" in shown
    assert not (tmp_path / "cost.json").exists()
