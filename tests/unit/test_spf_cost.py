"""What trajectories cost (T19): tokens, operations and ratios of the method's specification, to a percent."""

import pytest

from spf.config import NetworkConfig
from spf.cost import CostModel, call_flops
from spf.pyramid.spec import PyramidSpec

SPEC = PyramidSpec()
PAPER = NetworkConfig(width=768, depth=12, heads=12, patch=8, forcing_patch=4)


def costs(forcing_tokens, **windows):
    return CostModel(SPEC, PAPER, (192, 288), forcing_tokens, **windows)


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
    with_halo = costs(True, halo={"month": 2})
    assert with_halo.window_tokens(SPEC.stages()["2-month"]) == 16 * 864
    assert with_halo.spf("month").tflop > 1.3 * model.spf("month").tflop
    assert with_halo.spf("year") == model.spf("year")


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match=r"calls \[20, 20\]: give one number for each of 3 stages"):
        costs(False).spf("month", calls=(20, 20))
    with pytest.raises(ValueError, match="network.patch 5 does not tile the coarsest grid 48x72"):
        CostModel(SPEC, NetworkConfig(patch=5), (192, 288))
    with pytest.raises(ValueError, match="cannot be pooled by 4"):
        CostModel(SPEC, PAPER, (193, 288))
