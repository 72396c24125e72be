"""Solvers have their order; plans cover every year once; members belong to themselves."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spf.pyramid.spec import PyramidSpec
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


@given(
    first=st.integers(1850, 2030),
    length=st.integers(10, 260),
    start=st.integers(1850, 2060),
    longest=st.integers(1, 10),
)
@settings(max_examples=80, deadline=None)
def test_every_year_of_any_record_is_drawn_once(first, length, start, longest):
    record = (first, first + length - 1)
    try:
        plan = plan_windows(PyramidSpec(decades=longest), "year", record, record, start)
    except ValueError as error:
        assert "no whole decade" in str(error)
        return
    assert plan.labels == list(range(record[0], record[1] + 1))
    for (window, step), label in zip((divmod(k, 10) for k in plan.keep), plan.labels, strict=True):
        assert plan.stages[-1].starts[window] + step == label
    for start_0 in plan.stages[0].starts:
        assert record[0] <= start_0 and start_0 + 10 * plan.stages[0].length - 1 <= record[1]
    for (parent, frame), begin in zip(plan.stages[1].frames, plan.stages[1].starts, strict=True):
        assert plan.stages[0].starts[parent] + 10 * frame == begin
    assert len(set(plan.stages[0].starts)) == len(plan.stages[0].starts)


def test_cesm2_years_are_eight_decades_and_a_tail_that_ends_with_the_record():
    plan = plan_windows(PyramidSpec(), "month", (2015, 2099), (2015, 2099), 2015)
    assert plan.stages[0].starts == (2015, 2020)
    assert plan.stages[1].starts[-2:] == (2085, 2090)
    assert plan.stages[2].starts[-5:] == (2095, 2096, 2097, 2098, 2099)
    assert plan.stages[2].frames[-1] == (8, 9)
    decades = plan_windows(PyramidSpec(), "decade", (2015, 2099), (2015, 2099), 2015)
    assert decades.labels == list(range(2015, 2095, 10))


def test_asking_for_fewer_years_does_not_move_their_windows():
    some = plan_windows(PyramidSpec(), "month", (2015, 2099), (2080, 2099), 2015)
    every = plan_windows(PyramidSpec(), "month", (2015, 2099), (2015, 2099), 2015)
    for part, whole in zip(some.stages, every.stages, strict=True):
        assert set(part.starts) <= set(whole.starts)
    assert some.labels == list(range(2080, 2100))
    assert len(some.stages[1].starts) == 3


def test_a_plan_without_a_whole_decade_is_refused():
    with pytest.raises(ValueError, match="no whole decade"):
        plan_windows(PyramidSpec(), "decade", (2015, 2099), (2016, 2024), 2015)


def test_decades_of_a_long_record_come_from_windows_of_one_length():
    plan = plan_windows(PyramidSpec(decades=8), "decade", (1850, 2099), (1850, 2099), 1850)
    assert plan.stages[0].length == 8
    assert plan.labels == list(range(1850, 2100, 10))
    starts = np.repeat(plan.stages[0].starts, 8) + 10 * np.tile(np.arange(8), len(plan.stages[0].starts))
    assert [int(starts[k]) for k in plan.keep] == plan.labels
