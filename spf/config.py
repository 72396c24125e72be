"""Experiments as frozen dataclasses: read from YAML, checked when made, written back as plain dicts. No torch here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from spf.network.sizes import SIZES
from spf.plain import from_dict
from spf.pyramid.spec import PyramidSpec

ENVIRONMENT_DEFAULTS = {"CLIMATE_DATA": "../shared/data"}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class DataConfig:
    """What is built and split.

    Args:
        archive: Folder of CMIP files, or ``synthetic`` to write the embedded archive first.
        forcing_files: Folder of forcing files ``inputs_<experiment_id>.nc``; unused for ``synthetic``.
        source_id: Earth system model.
        variables: CMIP variable names.
        forcings: Names of the forcings the emulator sees.
        train: Members of each training scenario.
        test: Members of each test scenario; never read before scoring.
        years: First and last year.
        decade_start: First year of the first decade that is scored.
        grid: Rows and columns to regrid to; empty keeps the source's grid (24 x 36 for ``synthetic``).
        response: Forced response that members depart from: ``energy-balance``, ``co2``, or ``auto`` (the energy balance where the
            source has a calibration, the training scenarios are in AR6's forcing table and tas is emulated).
        patterns: NetCDF of other models' mean warming patterns, added to the energy balance's response; empty for none.
        growth: Whether the variance of cells changes with warming, as measured on the training runs.
        forcing_pooling: Forcings are seen as means of square blocks of so many cells along an edge, whatever the stages.
        also: Other Earth system models that are learned from beside ``source_id``: members of each scenario, by source_id. They
            may have the test scenario: it is held out of ``source_id`` only.
    """

    archive: str
    source_id: str
    train: Mapping[str, tuple[str, ...]]
    test: Mapping[str, tuple[str, ...]]
    forcing_files: str = ""
    variables: tuple[str, ...] = ("tas", "pr")
    forcings: tuple[str, ...] = ("CO2", "CH4", "SO2", "BC")
    years: tuple[int, int] = (2015, 2099)
    decade_start: int = 2015
    grid: tuple[int, ...] = ()
    response: str = "auto"
    patterns: str = ""
    growth: bool = True
    forcing_pooling: int = 4
    also: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shared = sorted(set(self.train) & set(self.test))
        _require(not shared, f"data.test {shared} is also trained on; a scenario is either trained on or tested")
        _require(bool(self.train), "data.train is empty; name at least one scenario and its members")
        _require(len(self.test) == 1, f"data.test names {len(self.test)} scenarios; name exactly one")
        _require(len(self.grid) in (0, 2), f"data.grid {list(self.grid)}: give rows and columns, or leave it out")
        known = ("auto", "energy-balance", "co2")
        _require(
            self.response in known, f"data.response {self.response!r} is unknown; expected one of {', '.join(known)}"
        )
        _require(
            self.response != "co2" or not self.patterns, "data.patterns has no use with data.response co2; drop one"
        )
        _require(self.forcing_pooling >= 1, f"data.forcing_pooling {self.forcing_pooling} must be at least 1")
        _require(self.years[1] - self.years[0] >= 9, f"data.years {list(self.years)} holds no whole decade")
        for scenario, members in {**self.train, **self.test}.items():
            _require(bool(members), f"data: scenario {scenario!r} has no members; name at least one, e.g. r1i1p1f1")
        _require(
            self.source_id not in self.also, f"data.also names {self.source_id}, which is data.source_id; drop it there"
        )
        for source_id, scenarios in self.also.items():
            told = bool(scenarios) and all(scenarios.values())
            _require(told, f"data.also.{source_id}: name at least one scenario, and members of each")

    def sources(self) -> dict[str, Mapping[str, tuple[str, ...]]]:
        """Members of each training scenario of all Earth system models that are learned from, ``source_id`` first."""
        return {self.source_id: self.train, **self.also}


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the backbone.

    An experiment gives numbers, or the name of a size, which is written back as the numbers it stands for:
    ``network: {size: 200M, patch: 8}``.

    Args:
        width: Width of a token.
        depth: Number of joint blocks.
        heads: Attention heads.
        patch: Cells along an edge of a field token, one number or one for each stage, coarse to fine; must tile the stage's grid.
        forcing_patch: Pooled forcing cells along an edge of a forcing token.
        mlp_ratio: Hidden width of the MLPs over width.
        attention: ``joint`` (field and forcing tokens in one attention) or ``cross`` (field tokens attend to one another, then to
            the forcing tokens, which stay as they are).
        checkpointing: Whether training computes the inside of blocks anew for the gradient: less memory, more time.
        size: Name of a width, depth and number of heads (`spf.network.sizes`), which then are not given.
    """

    width: int = 192
    depth: int = 6
    heads: int = 3
    patch: int | tuple[int, ...] = 6
    forcing_patch: int = 6
    mlp_ratio: int = 4
    attention: str = "joint"
    checkpointing: bool = False
    size: str = ""

    def __post_init__(self) -> None:
        if self.size:
            self._take_size()
        _require(
            self.attention in ("joint", "cross"),
            f"network.attention {self.attention!r} is unknown; expected joint or cross",
        )
        if not isinstance(self.patch, int):
            object.__setattr__(self, "patch", tuple(self.patch))
        for name in ("width", "depth", "heads", "patch", "forcing_patch", "mlp_ratio"):
            values = getattr(self, name)
            least = min(values if isinstance(values, tuple) else (values,), default=0)
            _require(least >= 1, f"network.{name} {values} must be at least 1")
        _require(
            self.heads > 0 and self.width % (2 * self.heads) == 0,
            f"network.heads {self.heads} does not divide width {self.width} into even parts; choose another",
        )

    def patches(self, n_stages: int) -> tuple[int, ...]:
        """Patch of each stage.

        Raises:
            ValueError: If ``patch`` lists another number of stages.
        """
        if isinstance(self.patch, int):
            return (self.patch,) * n_stages
        _require(
            len(self.patch) == n_stages,
            f"network.patch {list(self.patch)}: {len(self.patch)} values for {n_stages} stages; give one number, or one for each",
        )
        return tuple(self.patch)

    def _take_size(self) -> None:
        _require(self.size in SIZES, f"network.size {self.size!r} is unknown; expected one of {', '.join(SIZES)}")
        for name, value in SIZES[self.size]._asdict().items():
            _require(
                getattr(self, name) == getattr(NetworkConfig, name),
                f"network.{name} {getattr(self, name)} beside network.size {self.size}; give one or the other",
            )
            object.__setattr__(self, name, value)
        object.__setattr__(self, "size", "")


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to learn.

    Args:
        minutes: Wall time of training, over all resumes.
        max_steps: Stop after so many steps even if time is left.
        tokens_per_step: Field tokens in a batch; sets the batch size of each stage.
        learning_rate: Peak of the schedule (warm-up, then cosine over the budget).
        warmup_steps: Steps of the warm-up.
        weight_decay: AdamW's.
        precision: ``32-true``, ``bf16-mixed`` or ``auto`` (bf16 where the machine computes it natively).
        seed: Of weights, batches and training noise.
        stages: How often batches of each stage are drawn, coarse to fine, relative to one another; empty for equally often.
        times: How flow times are drawn: ``uniform``, or ``middle`` (logit-normal), which weighs noise levels halfway more.
        parts: Batches of different stages in one optimiser step; each gets an equal share of the tokens.
        held_out: Members of each training scenario, the last ones, that are not learned from but decide which weights are kept
            and when to stop; 0 trains on all.
        initial: Checkpoint whose weights training starts from; empty starts anew.
        devices: Accelerators (or CPU processes) on each node, each with its own batches; 0 takes every accelerator there is.
        compile: Whether training compiles the network's blocks: a slow start, faster steps.
        tensorboard: Whether the log is also written for TensorBoard, which must be installed.
    """

    minutes: float = 30.0
    max_steps: int = 1_000_000
    tokens_per_step: int = 4608
    learning_rate: float = 6e-4
    warmup_steps: int = 50
    weight_decay: float = 0.1
    precision: str = "auto"
    seed: int = 0
    stages: tuple[float, ...] = ()
    times: str = "uniform"
    parts: int = 1
    held_out: int = 0
    initial: str = ""
    devices: int = 0
    compile: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _require(self.minutes > 0, f"training.minutes {self.minutes} must be positive")
        _require(
            all(share >= 0 for share in self.stages) and (not self.stages or sum(self.stages) > 0),
            f"training.stages {list(self.stages)}: shares are not negative and not all zero",
        )
        _require(
            self.times in ("uniform", "middle"),
            f"training.times {self.times!r} is unknown; expected uniform or middle",
        )
        whole = (
            ("parts", 1),
            ("held_out", 0),
            ("devices", 0),
            ("max_steps", 1),
            ("tokens_per_step", 1),
            ("warmup_steps", 0),
        )
        for name, least in whole:
            _require(getattr(self, name) >= least, f"training.{name} {getattr(self, name)} must be at least {least}")
        _require(self.learning_rate > 0, f"training.learning_rate {self.learning_rate} must be positive")
        _require(
            self.precision in ("auto", "32-true", "bf16-mixed"),
            f"training.precision {self.precision!r} is unknown; expected one of auto, 32-true, bf16-mixed",
        )


class StageSteps(NamedTuple):
    """How one stage's ODE is solved: solver name, number of steps, time shift."""

    solver: str
    n_steps: int
    shift: float


@dataclass(frozen=True)
class SamplingConfig:
    """How ensembles are drawn.

    Args:
        members: Ensemble size by timescale.
        month_years: First and last year of the monthly ensemble; data.years if left as it is, as decades and years.
        solver: ODE solver.
        n_steps: Steps a stage: one number, or one for each stage, coarse to fine.
        shift: Time shift of the solver grid: one number, or one for each stage, coarse to fine.
        batch: Most windows in one network call.
        seed: Of every member's noise.
    """

    members: Mapping[str, int] = field(default_factory=lambda: {"decade": 20, "year": 20, "month": 8})
    month_years: tuple[int, int] = (2015, 2099)
    solver: str = "midpoint"
    n_steps: int | tuple[int, ...] = 4
    shift: float | tuple[float, ...] = 1.5
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.members) - {"decade", "year", "month"})
        _require(not unknown, f"sampling.members: {unknown} unknown; expected decade, year, month")
        _require(
            self.month_years[0] <= self.month_years[1],
            f"sampling.month_years {list(self.month_years)}: the first year comes first",
        )
        _require(all(n >= 2 for n in self.members.values()), "sampling.members: an ensemble needs at least 2 members")
        known = ("euler", "midpoint", "heun", "adams_bashforth", "runge_kutta")
        _require(
            self.solver in known, f"sampling.solver {self.solver!r} is unknown; expected one of {', '.join(known)}"
        )
        _require(self.batch >= 1, f"sampling.batch {self.batch} must be at least 1")
        n_steps = self._one_or_more("n_steps", int, "a whole number above 0, or a list of them")
        shift = self._one_or_more("shift", float, "a number above 0, or a list of them")
        object.__setattr__(self, "n_steps", n_steps)
        object.__setattr__(self, "shift", shift)

    def steps(self, n_stages: int) -> tuple[StageSteps, ...]:
        """How each of so many stages is solved, coarse to fine.

        Raises:
            ValueError: If ``n_steps`` or ``shift`` lists another number of stages.
        """
        n_steps, shift = (self._each(name, n_stages) for name in ("n_steps", "shift"))
        return tuple(StageSteps(self.solver, n, s) for n, s in zip(n_steps, shift, strict=True))

    def _one_or_more(self, name: str, kind: type, expected: str) -> Any:
        """The setting with lists as tuples and whole numbers as ``kind``, checked."""
        value = getattr(self, name)
        items = tuple(value) if isinstance(value, list | tuple) else (value,)
        allowed = (int,) if kind is int else (int, float)
        fine = all(isinstance(v, allowed) and not isinstance(v, bool) and 0 < v < float("inf") for v in items)
        _require(bool(items) and fine, f"sampling.{name}: expected {expected}, found {value!r}")
        checked = tuple(kind(v) for v in items)
        return checked if isinstance(value, list | tuple) else checked[0]

    def _each(self, name: str, n_stages: int) -> tuple[Any, ...]:
        value = getattr(self, name)
        if not isinstance(value, tuple):
            return (value,) * n_stages
        _require(
            len(value) == n_stages,
            f"sampling.{name} {list(value)}: {len(value)} values for {n_stages} stages; give one number, or one for each stage",
        )
        return value


@dataclass(frozen=True)
class RunConfig:
    """One experiment, from archive to report.

    Args:
        name: Names the run's folder.
        data: Archive, split, forcings.
        pyramid: Stages.
        network: Size.
        training: Budget.
        sampling: Ensembles.
        gate: Whether the run fails (exit 1) unless it passes the quality gate; needs the synthetic archive's known truth.
    """

    name: str
    data: DataConfig
    pyramid: PyramidSpec = PyramidSpec()
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()
    gate: bool = False

    def __post_init__(self) -> None:
        _require(
            not self.gate or self.data.archive == "synthetic",
            "gate: true needs data.archive: synthetic, whose truth is known",
        )
        n_stages, known = len(self.pyramid.pooling), self.pyramid.timescales
        self.sampling.steps(n_stages)
        self.network.patches(n_stages)
        _require(
            len(self.training.stages) in (0, n_stages),
            f"training.stages {list(self.training.stages)}: {len(self.training.stages)} shares for {n_stages} stages; "
            "give one a stage, or none",
        )
        unknown = [t for t in self.sampling.members if t not in known]
        _require(
            not unknown,
            f"sampling.members: {', '.join(unknown)} is no timescale of this pyramid; name some of {', '.join(known)}",
        )
        (first, last), (begin, end) = self.data.years, self.sampling.month_years
        _require(
            self.sampling.month_years == SamplingConfig.month_years or first <= begin <= end <= last,
            f"sampling.month_years {[begin, end]} are not all in data.years {[first, last]}",
        )


def load_config(path: str | Path) -> RunConfig:
    """Read and check an experiment file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: On a key that is unknown (naming the nearest valid one), missing, or of the wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such experiment file; see experiments/ for examples")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML ({error})") from error
    try:
        return from_dict(RunConfig, content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def expand(path: str) -> Path:
    """A path from a config with ``${NAME}`` replaced from the environment (CLIMATE_DATA defaults to ../shared/data)."""
    for name, default in ENVIRONMENT_DEFAULTS.items():
        path = path.replace("${" + name + "}", os.environ.get(name, default))
    return Path(os.path.expandvars(path)).expanduser()
