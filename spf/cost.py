"""What a trajectory costs to draw: tokens of a window and floating-point operations of the network; counted, not measured."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spf.config import NetworkConfig
from spf.pyramid.spec import MONTHS_IN, PyramidSpec, Stage


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


def cross_flops(fields: int, forcings: int, network: NetworkConfig) -> float:
    """Operations of one call where field tokens attend to one another, then to forcing tokens, which stay as they are.

    Beside `call_flops` of the fields, a block makes queries and outputs of the fields and keys and values of the forcings, at
    4 width^2 a token, and spends 4 width on every pair.
    """
    width = network.width
    across = 4 * width**2 * (fields + forcings) + 4 * width * fields * forcings
    return call_flops(fields, network) + network.depth * across


@dataclass(frozen=True)
class CostModel:
    """Counts for one pyramid, network and full grid.

    Attributes:
        spec: Stages, their factors, and windows: core and halo.
        network: Size of the network.
        grid: Rows and columns of the full grid.
        forcing_tokens: Whether forcing tokens are counted; without them the fields' tokens alone.
        forcing_pooling: Factor between the forcings' grid and the full grid.

    Raises:
        ValueError: If the grid cannot be pooled, or a patch does not tile its grid.
    """

    spec: PyramidSpec
    network: NetworkConfig
    grid: tuple[int, int]
    forcing_tokens: bool = True
    forcing_pooling: int = 4

    def __post_init__(self) -> None:
        self.spec.check_grid(*self.grid)
        pooling = self.spec.pooling
        tiled = [("patch", p, factor) for p, factor in zip(self.network.patches(len(pooling)), pooling, strict=True)]
        for name, patch, factor in [*tiled, ("forcing_patch", self.network.forcing_patch, self.forcing_pooling)]:
            lat, lon = (n // factor for n in self.grid)
            if lat % patch or lon % patch:
                raise ValueError(f"network.{name} {patch} does not tile the grid {lat}x{lon}; choose a divisor")

    def frame_tokens(self, pooling: int) -> int:
        """Field tokens of one step on a grid pooled by ``pooling``."""
        return self._tiles(pooling, self.network.patches(len(self.spec.pooling))[self.spec.pooling.index(pooling)])

    def window_tokens(self, stage: Stage) -> int:
        """Field tokens that one window of a stage attends over, its halo counted."""
        return self.frame_tokens(stage.pooling) * self._window_steps(stage.timescale)

    def drawn(self, windows: Iterable[tuple[Stage, int, Sequence[int]]]) -> float:
        """10^12 operations of the windows that an emulator draws (`spf.sampling.emulator.Emulator.calls`).

        Args:
            windows: Stage, how many pass through the network, and the shape of one (var, step, lat, lon).
        """
        return sum(n * self._flops(shape[1] * self.frame_tokens(s.pooling), shape[1]) for s, n, shape in windows) / 1e12

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
        windows = math.ceil(_steps(stage.timescale, years) / self.spec.core[stage.timescale])
        return windows * self._flops(self.window_tokens(stage), self._window_steps(stage.timescale))

    def _flops(self, tokens: int, forcing_steps: int) -> float:
        """One call on one window of field tokens and the forcing tokens of some steps."""
        if not self.forcing_tokens:
            return call_flops(tokens, self.network)
        forcing = forcing_steps * self._tiles(self.forcing_pooling, self.network.forcing_patch)
        if self.network.attention == "cross":
            return cross_flops(tokens, forcing, self.network)
        return call_flops(tokens + forcing, self.network)

    def _window_steps(self, timescale: str) -> int:
        return self.spec.core[timescale] + 2 * self.spec.halo[timescale]

    def _tiles(self, pooling: int, patch: int) -> int:
        return math.prod(n // (pooling * patch) for n in self.grid)


def _steps(timescale: str, years: int) -> int:
    return math.ceil(12 * years / MONTHS_IN[timescale])


def _one_each(calls: Sequence[int], stages: Sequence[object]) -> Sequence[int]:
    if len(calls) != len(stages):
        raise ValueError(f"calls {list(calls)}: give one number for each of {len(stages)} stages")
    return calls
