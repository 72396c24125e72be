"""The cascade on anonymous tensors: noise -> flow -> jump -> flow ... for any velocity, exact or learned."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spf.interfaces import Condition, Noise, Velocity
from spf.pyramid.jump import jump
from spf.pyramid.spec import Stage
from spf.sampling.solvers import solver_named, time_grid


@dataclass(frozen=True)
class Steps:
    """How each stage's ODE is solved: solver name, steps a stage, time shift."""

    solver: str = "midpoint"
    n_steps: int = 4
    shift: float = 1.5


def flow(x: Tensor, stage: Stage, velocity: Velocity, condition: Condition | None, steps: Steps) -> Tensor:
    """Carry states from flow time 0 to 1 of a stage; x (batch, var, time, lat, lon)."""

    def field(state: Tensor, t: Tensor) -> Tensor:
        return velocity(state, t.to(state).expand(state.shape[0]), stage, condition)

    return solver_named(steps.solver)(field, x, time_grid(steps.n_steps, steps.shift))


def enter(x: Tensor, stage: Stage, noise: Noise, keys: Sequence[tuple[int, int]]) -> Tensor:
    """Jump a batch of parents (batch, var, time, lat, lon) into ``stage``; one (member, window start) key a window."""
    rt, rh, rw = stage.factors
    shape = (x.shape[1], x.shape[2] * rt, x.shape[3] * rh, x.shape[4] * rw)
    return jump(x, stage, noise(shape, stage, keys).to(x))


@dataclass(frozen=True)
class Windows:
    """The windows of one member at one stage.

    Attributes:
        starts: First year of each window.
        length: Steps in a window.
        frames: For stages that refine time: which frame of which parent window each window comes from, (parent, frame).
    """

    starts: tuple[int, ...]
    length: int
    frames: tuple[tuple[int, int], ...] = ()


def cascade(
    stages: Sequence[Stage],
    plan: Sequence[Windows],
    velocity: Velocity,
    noise: Noise,
    condition: Callable[[Stage, Windows], Condition] | None,
    members: Sequence[int],
    shape: tuple[int, int, int],
    steps: Sequence[Steps],
    batch: int = 64,
    device: torch.device | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Sample some members through all stages.

    Args:
        stages: The path, coarse to fine.
        plan: The windows of each stage.
        velocity: Exact or learned.
        noise: Source of every random number.
        condition: Conditions of a stage's windows (one row a window), or None.
        members: Which members; they are independent and each depends on its own number only.
        shape: (var, lat, lon) on the full grid.
        steps: One entry a stage.
        batch: Most windows in one network call.
        device: Where the states live; default the processor.
        on_step: Told how many windows a finished call held (progress).

    Returns:
        (member, window, var, step, lat, lon) of the last stage, normalised.
    """
    x: Tensor = torch.empty(0)
    for stage, windows, how in zip(stages, plan, steps, strict=True):
        known = condition(stage, windows) if condition is not None else None
        n = len(windows.starts)
        if stage.index == 0:
            coarse = (shape[0], windows.length, shape[1] // stage.pooling, shape[2] // stage.pooling)
            keys = [(m, s) for m in members for s in windows.starts]
            x = noise(coarse, stage, keys).to(device)
        elif windows.frames:
            x = x.reshape(len(members), -1, *x.shape[1:])
            x = torch.stack([x[:, p, :, f] for p, f in windows.frames], 1).flatten(0, 1).unsqueeze(2)
        out = []
        for rows in _slices(len(members) * n, batch):
            part = x[rows]
            if stage.index > 0:
                keys = [(members[i // n], windows.starts[i % n]) for i in range(rows.start, rows.stop)]
                part = enter(part, stage, noise, keys)
            wanted = None
            if known is not None:
                index = torch.arange(rows.start, rows.stop, device=device) % n
                wanted = Condition(known.forcings[index], known.calendar[index])
            out.append(flow(part, stage, velocity, wanted, how))
            if on_step is not None:
                on_step(rows.stop - rows.start)
        x = torch.cat(out)
    return x.reshape(len(members), -1, *x.shape[1:])


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(total, start + size))
