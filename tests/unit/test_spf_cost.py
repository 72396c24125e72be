"""What trajectories cost (T19): tokens, operations and ratios of the method's specification, to a percent."""

from dataclasses import replace

import pytest

from spf.config import NetworkConfig
from spf.cost import CostModel, call_flops, cross_flops
from spf.pyramid.spec import PyramidSpec

PAPER_WINDOWS = {"core": {"decade": 10, "year": 10, "month": 12}, "halo": {"decade": 0, "year": 0, "month": 0}}
SPEC = PyramidSpec(**PAPER_WINDOWS)
PAPER = NetworkConfig(width=768, depth=12, heads=12, patch=8, forcing_patch=4)


def costs(forcing_tokens, spec=SPEC, network=PAPER):
    return CostModel(spec, network, (192, 288), forcing_tokens)


def test_windows_have_the_specified_numbers_of_tokens():
    model = costs(False)
    assert {k: model.window_tokens(s) for k, s in SPEC.stages().items()} == {
        "0-decade": 540, "1-decade": 2160, "2-decade": 8640, "1-year": 2160, "2-year": 8640, "2-month": 10368,
    }  # fmt: skip


def test_operations_are_those_of_projections_and_attention():
    d, n = 768, 10368
    assert call_flops(n, PAPER) == 12 * (24 * d**2 * n + 4 * d * n**2)
    assert 1e-12 * 10 * call_flops(n, PAPER) == pytest.approx(57.2, rel=0.01)


SPECIFIED_COSTS = [
    (False, "month", 1158, 21.4, 2.97, 0.99, 8.74),
    (False, "year", 97.2, None, 2.60, 0.868, 1.35),
    (True, "month", None, 22.4, 2.93, 0.975, 6.3),
    (True, "year", None, None, 2.22, 0.74, 0.98),
]


@pytest.mark.parametrize(
    ("forcing", "timescale", "total", "at_once", "sixty", "twenty", "autoregressive"), SPECIFIED_COSTS
)
def test_costs_of_ten_years_are_in_the_specified_ratios(
    forcing, timescale, total, at_once, sixty, twenty, autoregressive
):
    model = costs(forcing)
    ours = model.spf(timescale)
    assert ours.serial_calls == 60
    assert total is None or ours.tflop == pytest.approx(total, rel=0.01)
    others = {
        model.one_shot(timescale): at_once,
        model.one_stage(timescale, calls=60): sixty,
        model.one_stage(timescale, calls=20): twenty,
        model.autoregressive(timescale): autoregressive,
    }
    for cost, ratio in others.items():
        assert ratio is None or cost.tflop / ours.tflop == pytest.approx(ratio, rel=0.01), cost
    assert model.autoregressive(timescale).serial_calls == {"month": 7200, "year": 600}[timescale]


def test_nearly_all_operations_of_months_are_in_the_last_stage():
    model = costs(False)
    last = model.spf("month", calls=(0, 0, 20))
    assert last.tflop / model.spf("month").tflop == pytest.approx(0.99, abs=0.005)


def test_a_longer_trajectory_costs_its_windows_and_a_halo_is_paid_for():
    model = costs(True)
    for years, windows in ((10, 1), (30, 3), (85, 9)):
        stage = model.spf("year", years, (0, 0, 1)).tflop
        assert stage == pytest.approx(windows * model.spf("year", 10, (0, 0, 1)).tflop)
    with_halo = costs(True, PyramidSpec(core=SPEC.core, halo={**SPEC.halo, "month": 2}))
    assert with_halo.window_tokens(SPEC.stages()["2-month"]) == 16 * 864
    assert with_halo.spf("month").tflop > 1.3 * model.spf("month").tflop
    assert with_halo.spf("year") == model.spf("year")


def test_windows_that_are_drawn_are_counted_one_by_one():
    model, month = costs(True), SPEC.stages()["2-month"]
    ten_years = [
        (stage, 20 * n, (2, steps, 0, 0))
        for stage, n, steps in zip(SPEC.path("month"), (1, 1, 10), (10, 10, 12), strict=True)
    ]
    assert model.drawn(ten_years) == pytest.approx(model.spf("month").tflop)
    assert model.drawn([(month, 3, (2, 1, 0, 0))]) == pytest.approx(3e-12 * call_flops(864 + 216, PAPER))
    fine = CostModel(SPEC, replace(PAPER, forcing_patch=16), (192, 288), forcing_pooling=1)
    assert fine.drawn(ten_years) == pytest.approx(model.drawn(ten_years))


def test_forcings_beside_the_attention_cost_their_own_projections_only():
    d, fields, forcings = 768, 8640, 2160
    cross = costs(True, network=replace(PAPER, attention="cross")).drawn([(SPEC.stages()["2-year"], 1, (2, 10, 0, 0))])
    extra = 12 * (4 * d**2 * (fields + forcings) + 4 * d * fields * forcings)
    assert cross_flops(fields, forcings, PAPER) == call_flops(fields, PAPER) + extra
    assert cross == pytest.approx(1e-12 * cross_flops(fields, forcings, PAPER))
    assert cross < costs(True).drawn([(SPEC.stages()["2-year"], 1, (2, 10, 0, 0))])


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match=r"calls \[20, 20\]: give one number for each of 3 stages"):
        costs(False).spf("month", calls=(20, 20))
    with pytest.raises(ValueError, match="network.patch 5 does not tile the grid 48x72"):
        CostModel(SPEC, NetworkConfig(patch=5), (192, 288))
    with pytest.raises(ValueError, match="cannot be pooled by 4"):
        CostModel(SPEC, PAPER, (193, 288))
