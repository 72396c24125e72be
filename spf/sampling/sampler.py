"""The cascade on anonymous tensors: noise -> flow -> jump -> flow ... for any velocity, exact or learned.

A stage's state is a whole trajectory. All its windows go through flow time together: each call of the velocity sees a window
and its halo, the neighbours' steps at the same flow time, and answers for the window's own steps.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spf.config import StageSteps
from spf.interfaces import Condition, Noise, Velocity
from spf.pyramid.jump import jump
from spf.pyramid.spec import MONTHS_IN, PyramidSpec, Stage
from spf.pyramid.windows import Segment, Tile, tiles
from spf.sampling.plan import unit_steps
from spf.sampling.solvers import solver_named, time_grid

Conditioner = Callable[[Stage, Segment, Sequence[Tile]], Condition]
"""Conditions of windows of equal shape, one row a window."""


@dataclass(frozen=True)
class TiledVelocity:
    """The velocity of a trajectory (member, var, step, lat, lon), put together from its windows.

    Attributes:
        velocity: Of windows.
        stage: The stage.
        groups: Windows of equal shape with their conditions.
        batch: Most windows in one call.
        on_step: Told how many windows a finished call held.
    """

    velocity: Velocity
    stage: Stage
    groups: tuple[tuple[tuple[Tile, ...], Condition | None], ...]
    batch: int
    on_step: Callable[[float], None] | None = None

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at flow time t (a scalar)."""
        out = torch.empty_like(x)
        seen, written = x.movedim(1, 2), out.movedim(1, 2)  # (member, step, var, lat, lon)
        for found, condition in self.groups:
            begins = torch.tensor([[tile.begin, tile.core_begin] for tile in found], device=x.device)
            first = found[0]
            frames = torch.arange(first.end - first.begin, device=x.device)
            lead, core = first.core_begin - first.begin, first.core_end - first.core_begin
            for rows in _slices(x.shape[0] * len(found), self.batch):
                row = torch.arange(rows.start, rows.stop, device=x.device)
                member, window = row // len(found), row % len(found)
                part = seen[member[:, None], begins[window, :1] + frames].movedim(2, 1)
                known = condition.chosen(window) if condition is not None else None
                answer = self.velocity(part, t.to(x).expand(len(row)), self.stage, known)
                own = answer[:, :, lead : lead + core].movedim(1, 2).to(out)
                written[member[:, None], begins[window, 1:] + frames[:core]] = own
                if self.on_step is not None:
                    self.on_step(len(row))
        return out


def groups_of(spec: PyramidSpec, stage: Stage, segment: Segment) -> list[tuple[Tile, ...]]:
    """The windows of a segment by shape and place in their parents' blocks: each group can be one batch."""
    found: dict[tuple[int, ...], list[Tile]] = {}
    for tile in tiles(segment.steps, spec.core[stage.timescale], spec.halo[stage.timescale]):
        shape = (
            tile.end - tile.begin,
            tile.core_begin - tile.begin,
            tile.core_end - tile.begin,
            phase_of(stage, segment, tile),
        )
        found.setdefault(shape, []).append(tile)
    return [tuple(group) for group in found.values()]


def phase_of(stage: Stage, segment: Segment, tile: Tile) -> int:
    """Place of a window's first step in its parent's block."""
    place = segment.start + tile.begin * segment.months - segment.anchor
    return place % MONTHS_IN[stage.parent_timescale] // segment.months


def cascade(
    spec: PyramidSpec,
    timescale: str,
    segments: Sequence[Segment],
    velocity: Velocity,
    noise: Noise,
    condition: Conditioner | None,
    members: Sequence[int],
    shape: tuple[int, int, int],
    steps: Sequence[StageSteps],
    batch: int = 64,
    device: torch.device | None = None,
    on_step: Callable[[float], None] | None = None,
) -> Tensor:
    """Sample some members through all stages.

    Args:
        spec: The pyramid.
        timescale: Which path.
        segments: The steps of each stage.
        velocity: Exact or learned.
        noise: Source of every random number.
        condition: Conditions of windows, or None.
        members: Which members; they are independent and each depends on its own number only.
        shape: (var, lat, lon) on the full grid.
        steps: One entry a stage.
        batch: Most windows in one network call.
        device: Where the states live; default the processor.
        on_step: Told how many windows a finished call held (progress).

    Returns:
        (member, var, step, lat, lon) of the last segment, normalised.
    """
    x: Tensor = torch.empty(0)
    before: Segment | None = None
    for stage, segment, how in zip(spec.path(timescale), segments, steps, strict=True):
        fresh = draw_noise(noise, stage, segment, members, shape).to(device)
        x = fresh if before is None else jump(_part_of(x, before, segment), stage, fresh.to(x))
        found = groups_of(spec, stage, segment)
        groups = tuple((g, condition(stage, segment, g) if condition is not None else None) for g in found)
        field = TiledVelocity(velocity, stage, groups, batch, on_step)
        x = solver_named(how.solver)(field, x, time_grid(how.n_steps, how.shift))
        before = segment
    return x


def draw_noise(
    noise: Noise, stage: Stage, segment: Segment, members: Sequence[int], shape: tuple[int, int, int]
) -> Tensor:
    """Noise of a segment (member, var, step, lat, lon), unit by unit."""
    unit = unit_steps(stage)
    starts = range(segment.start, segment.stop, unit * segment.months)
    cells = (shape[0], unit, shape[1] // stage.pooling, shape[2] // stage.pooling)
    drawn = noise(cells, stage, [(m, s // 12) for m in members for s in starts])
    return drawn.unflatten(0, (len(members), len(starts))).movedim(1, 2).flatten(2, 3)[:, :, : segment.steps]


def _part_of(x: Tensor, before: Segment, segment: Segment) -> Tensor:
    """The steps of the stage before that lie under a segment (the funnel)."""
    begin = (segment.start - before.start) // before.months
    return x[:, :, begin : begin + -(-(segment.stop - segment.start) // before.months)]


def windows_in(spec: PyramidSpec, timescale: str, segments: Sequence[Segment]) -> list[int]:
    """Windows of each stage's segment."""
    return [
        len(tiles(segment.steps, spec.core[stage.timescale], spec.halo[stage.timescale]))
        for stage, segment in zip(spec.path(timescale), segments, strict=True)
    ]


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(total, start + size))
