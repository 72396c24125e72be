"""The pyramid: which stages a path walks through, by which factors they refine, at which noise levels they start and end."""

import math
from dataclasses import dataclass

TIMESCALES = ("decade", "year", "month")
STEPS_PER_PARENT = {
    ("decade", "decade"): 1,
    ("decade", "year"): 10,
    ("year", "year"): 1,
    ("year", "month"): 12,
    ("month", "month"): 1,
}


def start_level(sigma_end: float, n: int) -> float:
    """Noise level at the start of a finer stage entered through blocks of n cells from level ``sigma_end``.

    sigma' = sigma sqrt(n) / (sigma sqrt(n) + 1 - sigma): derived in ARCHITECTURE.md, "The jump".
    """
    root = sigma_end * math.sqrt(n)
    return root / (root + 1.0 - sigma_end)


@dataclass(frozen=True)
class Stage:
    """One stage of one path.

    Attributes:
        index: 0 is the coarsest.
        timescale: What a step of it is.
        parent_timescale: What a step of the stage before was (itself at stage 0).
        factors: Refinement of (time, lat, lon) against the stage before; (1, 1, 1) at stage 0.
        pooling: Factor between this stage's grid and the full grid.
        sigma_start: Noise coefficient at flow time 0; signal is 1 - sigma.
        sigma_end: Noise coefficient at flow time 1.
        sigma_parent: Noise coefficient at the end of the stage before (1 at stage 0).
    """

    index: int
    timescale: str
    parent_timescale: str
    factors: tuple[int, int, int]
    pooling: int
    sigma_start: float
    sigma_end: float
    sigma_parent: float

    @property
    def block_size(self) -> int:
        """Fine cells under one coarse cell, n."""
        return math.prod(self.factors)

    @property
    def key(self) -> str:
        """Name under which gains and couplings of this stage are kept, e.g. ``2-month``."""
        return f"{self.index}-{self.timescale}"


@dataclass(frozen=True)
class PyramidSpec:
    """Factors and noise levels of all stages; the only owner of them.

    Attributes:
        pooling: Factor between each stage's grid and the full grid, coarsest first, ending in 1.
        sigma_end: Noise coefficient at each stage's end, ending in 0.
        decades: Longest stage-0 window, in decades.

    Raises:
        ValueError: If factors do not refine, or levels do not fall to 0.
    """

    pooling: tuple[int, ...] = (4, 2, 1)
    sigma_end: tuple[float, ...] = (2 / 3, 1 / 3, 0.0)
    decades: int = 8

    def __post_init__(self) -> None:
        if len(self.pooling) != len(self.sigma_end) or not self.pooling:
            raise ValueError(
                f"pyramid: {len(self.pooling)} factors but {len(self.sigma_end)} noise levels; give one level a stage"
            )
        pairs = list(zip(self.pooling, self.pooling[1:], strict=False))
        if self.pooling[-1] != 1 or any(a % b or a < b for a, b in pairs):
            raise ValueError(
                f"pyramid.pooling {list(self.pooling)}: each factor must divide the one before and the last be 1"
            )
        falling = all(a > b for a, b in zip(self.sigma_end, self.sigma_end[1:], strict=False))
        if self.sigma_end[-1] != 0.0 or not falling or not self.sigma_end[0] < 1:
            raise ValueError(f"pyramid.sigma_end {list(self.sigma_end)}: levels must fall from below 1 to exactly 0")

    def path(self, timescale: str) -> tuple[Stage, ...]:
        """The stages that lead to ``timescale``: time refines by one level a stage, as early as it can.

        With three stages these are decade-decade-decade, decade-year-year and decade-year-month.

        Raises:
            ValueError: If the timescale is unknown or there are too few stages to reach it.
        """
        if timescale not in TIMESCALES:
            raise ValueError(f"timescale {timescale!r} is unknown; expected one of {', '.join(TIMESCALES)}")
        level = TIMESCALES.index(timescale)
        if level >= len(self.pooling) and level > 0:
            raise ValueError(f"timescale {timescale!r} needs {level + 1} stages; the pyramid has {len(self.pooling)}")
        scales = [TIMESCALES[min(k, level)] for k in range(len(self.pooling))]
        stages = [Stage(0, scales[0], scales[0], (1, 1, 1), self.pooling[0], 1.0, self.sigma_end[0], 1.0)]
        for k in range(1, len(scales)):
            ratio = self.pooling[k - 1] // self.pooling[k]
            factors = (STEPS_PER_PARENT[scales[k - 1], scales[k]], ratio, ratio)
            start = start_level(self.sigma_end[k - 1], math.prod(factors))
            stages.append(
                Stage(
                    k,
                    scales[k],
                    scales[k - 1],
                    factors,
                    self.pooling[k],
                    start,
                    self.sigma_end[k],
                    self.sigma_end[k - 1],
                )
            )
        return tuple(stages)

    def stages(self) -> dict[str, Stage]:
        """Every distinct stage of the three paths, by key. The parent's timescale is unique for three stages or fewer."""
        reachable = TIMESCALES[: max(1, len(self.pooling))]
        return {stage.key: stage for scale in reachable for stage in self.path(scale)}

    def check_grid(self, n_lat: int, n_lon: int) -> None:
        """Refuse a grid that cannot be pooled.

        Raises:
            ValueError: Naming the grid, the factor and what to do.
        """
        factor = self.pooling[0]
        for name, size in (("lat", n_lat), ("lon", n_lon)):
            if size % factor:
                raise ValueError(
                    f"grid {n_lat}x{n_lon} cannot be pooled by {factor}: {size} ({name}) is not a multiple of it; "
                    "build the store on another grid or choose other pyramid.pooling"
                )
