"""What a trajectory costs to draw: tokens of a window and floating-point operations of the network; counted, not measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spf.config import NetworkConfig
from spf.pyramid.spec import PyramidSpec, Stage

MONTHS_PER_STEP = {"decade": 120, "year": 12, "month": 1}


@dataclass(frozen=True)
class Cost:
    """Cost of one trajectory of one member.

    Attributes:
        name: What draws it.
        tflop: 10^12 floating-point operations of all network calls.
        serial_calls: Network calls that wait for one another: what latency hangs on.
    """

    name: str
    tflop: float
    serial_calls: int


def call_flops(tokens: int, network: NetworkConfig) -> float:
    """Operations of one call on one attention window: depth x [(8 + 4 r) width^2 N + 4 width N^2], r = mlp_ratio.

    A multiplication and an addition count as two. Four projections are 8 width^2 a token, the two matrices of the MLP
    4 r width^2, scores and their sum over values 4 width N. Embedding, modulation and head are left out: they are below a
    percent at the paper's size.
    """
    width = network.width
    return network.depth * ((8 + 4 * network.mlp_ratio) * width**2 * tokens + 4 * width * tokens**2)


@dataclass(frozen=True)
class CostModel:
    """Counts for one pyramid, network and full grid.

    Attributes:
        spec: Stages and their factors.
        network: Size of the network.
        grid: Rows and columns of the full grid.
        forcing_tokens: Whether forcing tokens are attended jointly, as the backbone does; without them the fields' tokens alone.
        own: Steps of a window that are its own, by timescale; the paper's by default.
        halo: Steps that a window also sees of its neighbours on either side, by timescale; none where absent.

    Raises:
        ValueError: If the grid cannot be pooled, or a patch does not tile the coarsest grid.
    """

    spec: PyramidSpec
    network: NetworkConfig
    grid: tuple[int, int]
    forcing_tokens: bool = True
    own: Mapping[str, int] = field(default_factory=lambda: {"decade": 10, "year": 10, "month": 12})
    halo: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spec.check_grid(*self.grid)
        patches = self.network.patches(len(self.spec.pooling))
        for name, patch in (("patch", patches[0]), ("forcing_patch", self.network.forcing_patch)):
            lat, lon = (n // self.spec.pooling[0] for n in self.grid)
            if lat % patch or lon % patch:
                raise ValueError(
                    f"network.{name} {patch} does not tile the coarsest grid {lat}x{lon}; choose a divisor"
                )

    def frame_tokens(self, pooling: int) -> int:
        """Field tokens of one step on a grid pooled by ``pooling``."""
        return self._tiles(pooling, self.network.patches(len(self.spec.pooling))[self.spec.pooling.index(pooling)])

    def window_tokens(self, stage: Stage) -> int:
        """Field tokens that one window of a stage attends over, its halo counted."""
        return self.frame_tokens(stage.pooling) * self._window_steps(stage.timescale)

    def spf(self, timescale: str, years: int = 10, calls: Sequence[int] = (20, 20, 20)) -> Cost:
        """The pyramid: all windows of a stage are drawn side by side, stages one after the other.

        Args:
            timescale: Of the trajectory.
            years: Length of the trajectory.
            calls: Network calls of each stage.

        Raises:
            ValueError: If there is not one number of calls a stage.
        """
        path = self.spec.path(timescale)
        parts = [n * self._stage_flops(stage, years) for n, stage in zip(_one_each(calls, path), path, strict=True)]
        return Cost(f"pyramid, {timescale}", sum(parts) / 1e12, sum(calls))

    def one_stage(self, timescale: str, years: int = 10, calls: int = 60) -> Cost:
        """One flow on the full grid, in the windows of the pyramid's last stage."""
        flops = self._stage_flops(self.spec.path(timescale)[-1], years)
        return Cost(f"one stage in windows, {timescale}", calls * flops / 1e12, calls)

    def one_shot(self, timescale: str, years: int = 10, calls: int = 60) -> Cost:
        """One flow on the full grid, the whole trajectory in one window."""
        steps = _steps(timescale, years)
        flops = self._flops(steps * self.frame_tokens(1), steps)
        return Cost(f"one stage at once, {timescale}", calls * flops / 1e12, calls)

    def autoregressive(self, timescale: str, years: int = 10, calls: Sequence[int] = (20, 20, 20)) -> Cost:
        """A pyramid in space alone that draws step after step and attends over all steps before (Pyramid Flow), nothing cached.

        At stage s the step before is seen at stage s, the one before that at stage s - 1, and so on, the rest at stage 0. The
        forcings are those of the step that is drawn.

        Raises:
            ValueError: If there is not one number of calls a stage.
        """
        frame = [self.frame_tokens(pooling) for pooling in self.spec.pooling]
        steps, total = _steps(timescale, years), 0.0
        for s, n in enumerate(_one_each(calls, frame)):
            tokens = frame[s]
            for age in range(steps):
                total += n * self._flops(tokens, 1)
                tokens += frame[max(0, s - age)]
        return Cost(f"autoregressive pyramid, {timescale}", total / 1e12, steps * sum(calls))

    def _stage_flops(self, stage: Stage, years: int) -> float:
        """One call on every window of a stage; a window that the trajectory fills in part is counted whole."""
        windows = math.ceil(_steps(stage.timescale, years) / self.own[stage.timescale])
        return windows * self._flops(self.window_tokens(stage), self._window_steps(stage.timescale))

    def _flops(self, tokens: int, forcing_steps: int) -> float:
        """One call on one window of field tokens and the forcing tokens of some steps."""
        forcing = self._tiles(self.spec.pooling[0], self.network.forcing_patch) if self.forcing_tokens else 0
        return call_flops(tokens + forcing_steps * forcing, self.network)

    def _window_steps(self, timescale: str) -> int:
        return self.own[timescale] + 2 * self.halo.get(timescale, 0)

    def _tiles(self, pooling: int, patch: int) -> int:
        return math.prod(n // (pooling * patch) for n in self.grid)


def _steps(timescale: str, years: int) -> int:
    return math.ceil(12 * years / MONTHS_PER_STEP[timescale])


def _one_each(calls: Sequence[int], stages: Sequence[object]) -> Sequence[int]:
    if len(calls) != len(stages):
        raise ValueError(f"calls {list(calls)}: give one number for each of {len(stages)} stages")
    return calls
