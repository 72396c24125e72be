"""The pyramid: which stages a path walks through, by which factors they refine, at which noise levels they start and end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

MONTHS_IN = {"decade": 120, "lustrum": 60, "year": 12, "quarter": 3, "month": 1}
"""Length in months of every timescale that a stage may have, coarsest first."""
CORE = {"decade": 6, "lustrum": 6, "year": 10, "quarter": 12, "month": 12}
HALO = {"decade": 1, "lustrum": 2, "year": 3, "quarter": 3, "month": 2}
LADDER = ("decade", "year", "month")
"""What is sampled, and how the paper's paths refine time."""


def start_level(sigma_end: float, n: int) -> float:
    """Noise level at the start of a finer stage entered through blocks of n cells from level ``sigma_end``.

    sigma' = sigma sqrt(n) / (sigma sqrt(n) + 1 - sigma): derived in ARCHITECTURE.md, "The jump".

    >>> start_level(2 / 3, 4)
    0.8
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
    def cells(self) -> int:
        """Of them, those of one step: cells in a spatial block."""
        return self.factors[1] * self.factors[2]

    @property
    def months(self) -> int:
        """Length of a step in months."""
        return MONTHS_IN[self.timescale]

    @property
    def key(self) -> str:
        """Name under which marginals and couplings of this stage are kept, e.g. ``2-month``."""
        return f"{self.index}-{self.timescale}"


def default_paths(n_stages: int) -> dict[str, tuple[str, ...]]:
    """Time refines by one rung of the ladder a stage, as early as it can; a timescale that needs more stages is left out."""
    reachable = LADDER[: max(1, n_stages)]
    return {scale: tuple(LADDER[min(k, level)] for k in range(n_stages)) for level, scale in enumerate(reachable)}


@dataclass(frozen=True)
class PyramidSpec:
    """Factors, noise levels, paths and windows of all stages; the only owner of them.

    Attributes:
        pooling: Factor between each stage's grid and the full grid, coarsest first, ending in 1.
        sigma_end: Noise coefficient at each stage's end, ending in 0.
        paths: Timescale of each stage by the timescale that is sampled; the paper's decade-decade-decade, decade-year-year and
            decade-year-month where empty.
        core: Steps of a window that are its own, by timescale; `CORE` where not given.
        halo: Steps that a window sees of its neighbours on either side, by timescale, `HALO` where not given; 0 makes windows
            independent given their parents, as in the paper.

    Raises:
        ValueError: If factors do not refine, levels do not fall to 0, a path does not fit, or windows are no windows.
    """

    pooling: tuple[int, ...] = (4, 2, 1)
    sigma_end: tuple[float, ...] = (2 / 3, 1 / 3, 0.0)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    core: Mapping[str, int] = field(default_factory=dict)
    halo: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, default, least in (("core", CORE, 1), ("halo", HALO, 0)):
            given = getattr(self, name)
            unknown = sorted(set(given) - set(default))
            if unknown:
                raise ValueError(f"pyramid.{name}: {unknown[0]!r} is unknown; expected some of {', '.join(default)}")
            small = [f"{k} {n}" for k, n in given.items() if n < least]
            if small:
                raise ValueError(f"pyramid.{name}: {small[0]}; give {least} or more steps")
            object.__setattr__(self, name, {**default, **given})
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
        for scale, path in self.paths.items():
            _check_path(scale, tuple(path), len(self.pooling))
        self.stages()

    @property
    def timescales(self) -> tuple[str, ...]:
        """What can be sampled, coarsest first."""
        return tuple(s for s in LADDER if s in self._paths())

    def path(self, timescale: str) -> tuple[Stage, ...]:
        """The stages that lead to ``timescale``.

        >>> [stage.key for stage in PyramidSpec().path("month")]
        ['0-decade', '1-year', '2-month']

        Raises:
            ValueError: If the pyramid has no path to it.
        """
        if timescale not in LADDER:
            raise ValueError(f"timescale {timescale!r} is unknown; expected one of {', '.join(LADDER)}")
        if timescale not in self._paths():
            raise ValueError(
                f"timescale {timescale!r}: this pyramid of {len(self.pooling)} stages has paths to "
                f"{', '.join(self._paths())} only"
            )
        scales = self._paths()[timescale]
        stages = [Stage(0, scales[0], scales[0], (1, 1, 1), self.pooling[0], 1.0, self.sigma_end[0], 1.0)]
        for k in range(1, len(scales)):
            ratio = self.pooling[k - 1] // self.pooling[k]
            factors = (MONTHS_IN[scales[k - 1]] // MONTHS_IN[scales[k]], ratio, ratio)
            start = start_level(self.sigma_end[k - 1], math.prod(factors))
            levels = (start, self.sigma_end[k], self.sigma_end[k - 1])
            stages.append(Stage(k, scales[k], scales[k - 1], factors, self.pooling[k], *levels))
        return tuple(stages)

    def stages(self) -> dict[str, Stage]:
        """Every distinct stage of all paths, by key.

        Raises:
            ValueError: If two paths enter a stage of one key from different timescales.
        """
        found: dict[str, Stage] = {}
        for scale in self._paths():
            for stage in self.path(scale):
                if found.setdefault(stage.key, stage) != stage:
                    raise ValueError(
                        f"pyramid.paths enter stage {stage.key} from {stage.parent_timescale} and from "
                        f"{found[stage.key].parent_timescale}; one stage has one parent"
                    )
        return found

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

    def _paths(self) -> Mapping[str, tuple[str, ...]]:
        return self.paths or default_paths(len(self.pooling))


def _check_path(scale: str, path: tuple[str, ...], n_stages: int) -> None:
    unknown = [s for s in (scale, *path) if s not in MONTHS_IN]
    if unknown:
        raise ValueError(f"pyramid.paths: timescale {unknown[0]!r} is unknown; expected one of {', '.join(MONTHS_IN)}")
    if scale not in LADDER:
        raise ValueError(f"pyramid.paths: {scale} cannot be sampled; a path leads to one of {', '.join(LADDER)}")
    if len(path) != n_stages or path[-1] != scale:
        raise ValueError(
            f"pyramid.paths: the path to {scale} is {list(path)}; it names one timescale for each of {n_stages} stages "
            f"and ends in {scale}"
        )
    lengths = [MONTHS_IN[s] for s in path]
    if any(a < b for a, b in zip(lengths, lengths[1:], strict=False)):
        raise ValueError(f"pyramid.paths: the path to {scale} is {list(path)}; time never coarsens along a path")
