"""ODE solvers: (velocity, x, times) -> x at times[-1]; registered by the word used in YAML."""

from collections.abc import Callable

import torch
from torch import Tensor

from spf.interfaces import Solver

Field = Callable[[Tensor, Tensor], Tensor]


def time_grid(n_steps: int, shift: float = 1.0) -> Tensor:
    """``n_steps + 1`` flow times from 0 to 1; shift > 1 puts more of them near 0 (t = u / (shift + (1 - shift) u))."""
    u = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64)
    return u / (shift + (1 - shift) * u)


def euler(velocity: Field, x: Tensor, times: Tensor) -> Tensor:
    """First order, one call a step."""
    for t, h in _steps(times):
        x = x + h * velocity(x, t)
    return x


def midpoint(velocity: Field, x: Tensor, times: Tensor) -> Tensor:
    """Second order, two calls a step; never evaluates at the end of the interval."""
    for t, h in _steps(times):
        x = x + h * velocity(x + (h / 2) * velocity(x, t), t + h / 2)
    return x


def heun(velocity: Field, x: Tensor, times: Tensor) -> Tensor:
    """Second order, two calls a step (explicit trapezoid)."""
    for t, h in _steps(times):
        first = velocity(x, t)
        x = x + (h / 2) * (first + velocity(x + h * first, t + h))
    return x


def adams_bashforth(velocity: Field, x: Tensor, times: Tensor) -> Tensor:
    """Second-order multistep, one call a step; its history lives inside one call, so it is cleared at every jump."""
    previous, last_h = None, 0.0
    for t, h in _steps(times):
        now = velocity(x, t)
        r = h / (2 * last_h) if previous is not None else 0.0
        x = x + h * (now if previous is None else (1 + r) * now - r * previous)
        previous, last_h = now, h
    return x


def runge_kutta(velocity: Field, x: Tensor, times: Tensor) -> Tensor:
    """Classical fourth order, four calls a step; the reference of the closed-form tests."""
    for t, h in _steps(times):
        a = velocity(x, t)
        b = velocity(x + (h / 2) * a, t + h / 2)
        c = velocity(x + (h / 2) * b, t + h / 2)
        d = velocity(x + h * c, t + h)
        x = x + (h / 6) * (a + 2 * b + 2 * c + d)
    return x


SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "midpoint": midpoint,
    "heun": heun,
    "adams_bashforth": adams_bashforth,
    "runge_kutta": runge_kutta,
}
CALLS_PER_STEP = {"euler": 1, "midpoint": 2, "heun": 2, "adams_bashforth": 1, "runge_kutta": 4}


def solver_named(name: str) -> Solver:
    """The solver of that name.

    Raises:
        ValueError: Listing the known names.
    """
    if name not in SOLVERS:
        raise ValueError(f"solver {name!r} is unknown; expected one of {', '.join(SOLVERS)}")
    return SOLVERS[name]


def _steps(times: Tensor) -> list[tuple[Tensor, float]]:
    return [(times[i], float(times[i + 1] - times[i])) for i in range(len(times) - 1)]
