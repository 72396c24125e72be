"""Autoregressive pyramidal flow: a pyramid in space alone draws step after step, each given the clean steps before it.

A window is ``pyramid.core`` steps long. All but the last are history: clean fields on the stage's grid, which the network sees as
tokens beside those of the state. At the start of a trajectory there is less history, or none. The paper's rival shows older steps
on coarser grids; here all are on the grid of the stage.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from spf.codec import FieldCodec
from spf.config import NetworkConfig, RunConfig, SamplingConfig, StageSteps
from spf.interfaces import Condition, Noise, Velocity
from spf.learning.data import AT_AN_END, Batch, TrainingRun, WindowStream, noised
from spf.learning.learn import learn
from spf.network.backbone import Backbone, Part
from spf.pyramid.coupling import Coupling
from spf.pyramid.jump import jump
from spf.pyramid.marginals import Marginal
from spf.pyramid.noise import SeededNoise
from spf.pyramid.operators import pool_space
from spf.pyramid.spec import PyramidSpec, Stage
from spf.pyramid.windows import ForcingSeries, Segment, Tile, january
from spf.rivals.history import HistoryPrior
from spf.sampling.conditions import Conditions, calls_of
from spf.sampling.emulator import Emulator
from spf.sampling.plan import Plan
from spf.sampling.sampler import Conditioner, draw_noise
from spf.sampling.solvers import solver_named, time_grid


class StepBackbone(Backbone):
    """The backbone over history and state, which answers for the last step of a window only.

    Raises:
        ValueError: If a stage refines time.
    """

    kind = "autoregressive"

    def __init__(
        self, config: NetworkConfig, spec: PyramidSpec, couplings: dict[str, Coupling], *args: Any, **kwargs: Any
    ) -> None:
        refining = [key for key, stage in spec.stages().items() if stage.factors[0] > 1]
        if refining:
            raise ValueError(
                f"autoregressive: stage {refining[0]} refines time; give pyramid.paths that name one timescale at all stages"
            )
        super().__init__(config, spec, couplings, *args, **kwargs)
        self.priors = nn.ModuleDict({key: HistoryPrior(s, couplings[key]) for key, s in spec.stages().items()})

    def _corrections(self, parts: Sequence[Part]) -> list[Tensor]:
        return [answer[:, :, -1:] for answer in super()._corrections(parts)]


class StepStream(WindowStream):
    """Batches of history and state: x_t (batch, var, time, lat, lon) is noisy in its last step, which is the only one in target."""

    def batch_of(self, stage: Stage, rng: np.random.Generator) -> Batch:
        """A batch of one stage; now and then with less history, as at the start of a trajectory."""
        most = self.windows.spec.core[stage.timescale] - 1
        before = int(rng.integers(most)) if most and rng.random() < AT_AN_END else most
        built, unit = [], min(stage.months, 12)
        for _ in range(self._batch_size(stage, before + 1)):
            run = self.runs[rng.integers(len(self.runs))]
            free = 12 * run.years.shape[1] - (before + 1) * stage.months
            start = january(run.first_year) + unit * int(rng.integers(free // unit + 1))
            built.append(self.windows.build(run, stage, start, before + 1, start))
        return noised(stage, built, rng, clean=before, times=self.times)


def train_autoregressive(
    config: RunConfig, codec: FieldCodec, runs: Sequence[TrainingRun], provenance: Mapping[str, Any], folder: Path,
    progress: bool = True, others: Mapping[str, FieldCodec] | None = None,
) -> Path:  # fmt: skip
    """Train it as `spf.learning.learn.learn` trains the pyramid; the same arguments, budget and files.

    Raises:
        ValueError: If variances are to change with warming, which its history of clean steps does not follow.
    """
    if config.data.growth:
        raise ValueError("data.growth: the autoregressive pyramid draws without it; set it to false")
    return learn(config, codec, runs, provenance, folder, progress, StepBackbone, StepStream, others)


@dataclass(frozen=True)
class Scales:
    """Between departures on the full grid and the normalised fields of a stage, for one step.

    Attributes:
        marginals: Of departures by stage key.
        rows: Area weight of each full-grid row (lat,).
    """

    marginals: Mapping[str, Marginal]
    rows: Tensor

    def departures(self, x: Tensor, stage: Stage, start: int) -> Tensor:
        """Departures (member, var, 1, lat, lon) of the last stage's normalised fields of the step at place ``start``."""
        return self.marginals[stage.key].departure(x, start // stage.months)

    def normalised(self, departures: Tensor, stage: Stage, start: int) -> Tensor:
        """Departures (member, var, 1, lat, lon) as the stage's normalised fields."""
        pooled = pool_space(departures, stage.pooling, self.rows)
        return self.marginals[stage.key].normal(pooled, start // stage.months)


def draw_autoregressive(
    spec: PyramidSpec,
    timescale: str,
    segment: Segment,
    velocity: Velocity,
    noise: Noise,
    condition: Conditioner | None,
    scales: Scales,
    members: Sequence[int],
    shape: tuple[int, int, int],
    steps: Sequence[StageSteps],
    device: torch.device | None = None,
    on_step: Callable[[float], None] | None = None,
) -> Tensor:
    """Draw the steps of a segment one after another, members side by side.

    Args:
        spec: A pyramid in space alone.
        timescale: Of the steps.
        segment: All of them; the first has no history.
        velocity: Of the last step of a window (`StepBackbone.velocity`).
        noise: Source of every random number.
        condition: Conditions of windows, or None.
        scales: From a drawn step to the history of each stage.
        members: Which members.
        shape: (var, lat, lon) on the full grid.
        steps: One entry a stage.
        device: Where the states live.
        on_step: Told how many windows a finished call held.

    Returns:
        (member, var, step, lat, lon), normalised.
    """
    path, most = spec.path(timescale), spec.core[timescale] - 1
    fresh = {stage.key: draw_noise(noise, stage, segment, members, shape) for stage in path}
    past: dict[str, list[Tensor]] = {stage.key: [] for stage in path}
    drawn: list[Tensor] = []
    rows = torch.zeros(len(members), dtype=torch.long, device=device)
    for i in range(segment.steps):
        start, before = segment.start + i * segment.months, min(i, most)
        window = Segment(start - before * segment.months, before + 1, segment.months, start - before * segment.months)
        x = torch.empty(0)
        for stage, how in zip(path, steps, strict=True):
            z = fresh[stage.key][:, :, i : i + 1].to(device)
            x = z if stage.index == 0 else jump(x, stage, z.to(x))
            known = (
                condition(stage, window, [Tile(0, before, before + 1, before + 1)]).chosen(rows) if condition else None
            )
            field = _given(velocity, stage, past[stage.key], known, on_step)
            x = solver_named(how.solver)(field, x, time_grid(how.n_steps, how.shift))
        drawn.append(x)
        clean = scales.departures(x, path[-1], start)
        for stage in path if most else ():
            past[stage.key] = [*past[stage.key], scales.normalised(clean, stage, start)][-most:]
    return torch.cat(drawn, 2)


def _given(
    velocity: Velocity, stage: Stage, past: Sequence[Tensor], condition: Condition | None,
    on_step: Callable[[float], None] | None,
) -> Callable[[Tensor, Tensor], Tensor]:  # fmt: skip
    """The velocity of a step's state, for the solver."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        answer = velocity(torch.cat([*past, x], 2), t.to(x).expand(len(x)), stage, condition)
        if on_step is not None:
            on_step(len(x))
        return answer.to(x)

    return field


@dataclass(frozen=True, repr=False)
class StepEmulator(Emulator):
    """Draws trajectories from the first decade on, step by step; otherwise used like any emulator."""

    backbone_type: ClassVar[type[Backbone]] = StepBackbone

    @property
    def how_members_hang_together(self) -> str:
        """For the files' comment."""
        return "Steps are drawn one after another, each given the clean steps before it."

    def members_together(self, timescale: str, plan: Plan, how: SamplingConfig) -> int:
        """As many as a batch holds: each has one window at a time."""
        return how.batch

    def rounds(self, plan: Plan) -> int:
        """Every step walks through all stages."""
        return _whole(plan).steps

    def trajectories(
        self, timescale: str, series: ForcingSeries, plan: Plan, members: Sequence[int], seed: int, how: SamplingConfig,
        on_step: Callable[[float], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Normalised fields (member, var, step, lat, lon) of the plan's last segment, up to the last step that is kept.

        What comes before the segment is drawn too.
        """
        whole = _whole(plan)
        x = draw_autoregressive(
            self.backbone.spec, timescale, whole, self.backbone.velocity, SeededNoise(seed),
            Conditions(series, self.device, self.source), Scales(self.marginals, self.codec.grid.row_weights()), members,
            self.shape, how.steps(len(plan.segments)), self.device, on_step,
        )  # fmt: skip
        return x[:, :, (plan.segments[-1].start - whole.start) // whole.months :]

    def windows(
        self, timescale: str, series: ForcingSeries, plan: Plan, how: SamplingConfig
    ) -> list[tuple[Stage, int, tuple[int, ...], Condition]]:
        """As `Emulator.windows`: one window a step and stage."""
        spec, whole, (n_var, n_lat, n_lon) = self.backbone.spec, _whole(plan), self.shape
        path, most, condition = (
            spec.path(timescale),
            spec.core[timescale] - 1,
            Conditions(series, self.device, self.source),
        )
        found: list[tuple[Stage, int, tuple[int, ...], Condition]] = []
        for stage, n_calls in zip(path, calls_of(how, len(path)), strict=True):
            for before in range(min(most, whole.steps - 1) + 1):
                n = whole.steps - most if before == most else 1
                shape = (n_var, before + 1, n_lat // stage.pooling, n_lon // stage.pooling)
                tile = Tile(0, before, before + 1, before + 1)
                found.append((stage, n * n_calls, shape, condition(stage, whole, [tile])))
        return found


def _whole(plan: Plan) -> Segment:
    """From where the trajectory begins to the last step that is kept."""
    last = plan.segments[-1]
    stop = last.start + (plan.keep[-1] + 1) * max(12, last.months)
    return Segment(last.anchor, (stop - last.anchor) // last.months, last.months, last.anchor)
