"""Solvers have their order; plans cover every year once; members belong to themselves."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spf.pyramid.spec import PyramidSpec
from spf.pyramid.windows import january, tiles
from spf.sampling.plan import plan_windows
from spf.sampling.solvers import CALLS_PER_STEP, SOLVERS, solver_named, time_grid

ORDER = {"euler": 1, "midpoint": 2, "heun": 2, "adams_bashforth": 2, "runge_kutta": 4}


def error(name, n):
    """Error at time 1 of a nonlinear equation."""
    fine = solver_named("runge_kutta")(field, torch.tensor([1.0], dtype=torch.float64), time_grid(4000))
    return abs(float(solver_named(name)(field, torch.tensor([1.0], dtype=torch.float64), time_grid(n)) - fine))


def field(x, t):
    return torch.cos(3 * t) - x * x


@pytest.mark.parametrize("name", SOLVERS)
def test_each_solver_has_its_order(name):
    order = math.log2(error(name, 40) / error(name, 80))
    assert order == pytest.approx(ORDER[name], abs=0.15)


@pytest.mark.parametrize("name", SOLVERS)
def test_each_solver_makes_the_calls_it_says(name):
    calls = []
    solver_named(name)(lambda x, t: calls.append(float(t)) or x, torch.ones(1), time_grid(5))
    assert len(calls) == 5 * CALLS_PER_STEP[name]
    if name == "midpoint":
        assert max(calls) < 1


def test_an_unknown_solver_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match="'rk45' is unknown; expected one of euler, midpoint"):
        solver_named("rk45")


def test_a_shifted_grid_starts_at_0_ends_at_1_and_has_more_points_early():
    grid = time_grid(8, 1.5)
    assert grid[0] == 0 and grid[-1] == 1
    assert torch.all(grid.diff() > 0)
    assert grid[4] < 0.5


CALLS = [8, 8, 8]


@given(first=st.integers(1850, 2030), length=st.integers(10, 260), start=st.integers(1850, 2060))
@settings(max_examples=80, deadline=None)
def test_every_year_of_any_record_is_drawn_once_inside_whole_decades(first, length, start):
    record = (first, first + length - 1)
    try:
        plan = plan_windows(PyramidSpec(), "year", record, record, start, CALLS)
    except ValueError as error:
        assert "no whole decade" in str(error)
        return
    assert plan.labels == list(range(record[0], record[1] + 1))
    last = plan.segments[-1]
    assert [last.start // 12 + k for k in plan.keep] == plan.labels
    for segment in plan.segments:
        assert (segment.start // 12 - start) % 10 == 0 and (segment.stop // 12 - start) % 10 == 0
        assert segment.start > (first - 10) * 12 and segment.stop < (record[1] + 11) * 12


def test_cesm2_is_one_trajectory_of_nine_decades():
    plan = plan_windows(PyramidSpec(), "month", (2015, 2099), (2015, 2099), 2015, CALLS)
    assert [s.steps for s in plan.segments] == [9, 90, 1080]
    assert plan.keep == list(range(85))
    decades = plan_windows(PyramidSpec(), "decade", (2015, 2099), (2015, 2099), 2015, CALLS)
    assert decades.labels == list(range(2015, 2095, 10))


def test_fewer_years_are_drawn_with_all_that_can_influence_them():
    spec = PyramidSpec()
    some = plan_windows(spec, "month", (2015, 2099), (2060, 2069), 2015, [8, 8, 4])
    assert some.segments[-1].start == january(2056) and some.segments[-1].stop == january(2074)
    assert some.labels == list(range(2060, 2070)) and some.keep == list(range(4, 14))
    alone = PyramidSpec(halo=dict.fromkeys(spec.halo, 0))
    few = plan_windows(alone, "month", (2015, 2099), (2060, 2069), 2015, CALLS)
    assert few.segments[-1].steps == 120 and few.segments[1].steps == 20


def test_windows_of_a_segment_see_their_neighbours_but_not_beyond_its_ends():
    assert tiles(25, 10, 3) == [(0, 0, 10, 13), (7, 10, 20, 23), (17, 20, 25, 25)]


def test_a_plan_without_a_whole_decade_is_refused():
    with pytest.raises(ValueError, match="no whole decade"):
        plan_windows(PyramidSpec(), "decade", (2015, 2099), (2016, 2024), 2015, CALLS)
