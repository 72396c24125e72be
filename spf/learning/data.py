"""Training windows: from a store's runs to normalised tensors, the same for the same (seed, step) wherever they are made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import IterableDataset

from spf.codec import FieldCodec
from spf.network.backbone import drop_sources
from spf.pyramid.marginals import Marginal
from spf.pyramid.operators import pool_space, pool_time, upsample
from spf.pyramid.path import path_point
from spf.pyramid.spec import MONTHS_IN, PyramidSpec, Stage
from spf.pyramid.windows import ForcingSeries, calendar_ids, january

LARGEST_BATCH = {"decade": 8, "lustrum": 8, "year": 16, "quarter": 16, "month": 16}
"""Windows in a batch at most. Independent decades are few: larger batches made the network memorise them (a held-out training
member's loss at stage 0 rose after four minutes on CESM2)."""
SHARING = 4
"""Windows of a batch that have one flow time."""
AT_AN_END = 0.2
"""Share of batches whose windows lie at an end of their trajectory and see neighbours on one side only."""
LOADED_BYTES = 4 * 2**30
"""Monthly fields up to this size are read into memory once; larger stores are read window by window."""


@dataclass(frozen=True)
class TrainingRun:
    """One member of one training scenario as departures from the forced response, in scale units.

    Attributes:
        scenario: experiment_id.
        member: Label of the member.
        months: Gives departures of whole years of months: (first year, years) -> (var, month, lat, lon).
        years: Yearly departures (var, year, lat, lon).
        forcing: Encoded forcings; its first year is the run's.
        month_days: Length of each month in days (month,).
        levels: How far the climate has moved, each year (year,), see `FieldCodec.level`.
        source: Index of the Earth system model, 0 where it is the only one.
    """

    scenario: str
    member: str
    months: Callable[[int, int], Tensor]
    years: Tensor
    forcing: ForcingSeries
    month_days: Tensor
    levels: Tensor
    source: int = 0

    @property
    def first_year(self) -> int:
        """Label of the first year."""
        return self.forcing.first_year

    def fields(self, timescale: str, start: int, steps: int) -> Tensor:
        """Full-grid departures (var, step, lat, lon) of ``steps`` steps from the month at place ``start``."""
        length, begin = MONTHS_IN[timescale], start - january(self.first_year)
        if length >= 12:
            years = slice(begin // 12, (begin + steps * length) // 12)
            return pool_time(self.years[:, years], length // 12, self.forcing.days[years])
        first, last = start // 12, (start + steps * length - 1) // 12
        months = self.months(first, last - first + 1)[:, start % 12 :][:, : steps * length]
        return pool_time(months, length, self.month_days[begin : begin + steps * length])

    def step_days(self, timescale: str, start: int, steps: int) -> Tensor:
        """Length in days of each of ``steps`` steps from the month at place ``start``."""
        length, begin = MONTHS_IN[timescale], start - january(self.first_year)
        return self.month_days[begin : begin + steps * length].unflatten(0, (steps, length)).sum(1)

    def step_levels(self, timescale: str, start: int, steps: int) -> Tensor:
        """Level of each of ``steps`` steps from the month at place ``start``."""
        length, begin = MONTHS_IN[timescale], start - january(self.first_year)
        return self.levels.repeat_interleave(12)[begin : begin + steps * length].unflatten(0, (steps, length)).mean(1)


class Window(NamedTuple):
    """Clean fields of one window, its repeated parent and its conditions.

    Attributes:
        fields: Normalised (var, step, lat, lon).
        parent: The stage before, normalised by its own gain, repeated to the same shape; zeros at stage 0.
        forcings: (forcing, step, lat, lon).
        calendar: Ids (step,).
        source: Number of the Earth system model (), 0 where there is only one.
    """

    fields: Tensor
    parent: Tensor
    forcings: Tensor
    calendar: Tensor
    source: Tensor


class Batch(NamedTuple):
    """Windows of one stage with noise applied; x_t and target (batch, var, time, lat, lon), t and source (batch,); a tenth of
    the sources hidden."""

    stage: str
    x_t: Tensor
    t: Tensor
    target: Tensor
    forcings: Tensor
    calendar: Tensor
    source: Tensor
    phase: int


def open_training_runs(
    scenarios: Mapping[str, xr.Dataset], codec: FieldCodec, source: int = 0
) -> tuple[TrainingRun, ...]:
    """Every member of every scenario as a training run.

    Args:
        scenarios: Canonical monthly Dataset with members and forcings, by scenario.
        codec: Fitted on these scenarios.
        source: Index of the Earth system model.
    """
    small = sum(ds[v].nbytes for ds in scenarios.values() for v in codec.variables) <= LOADED_BYTES
    runs = []
    for scenario, ds in scenarios.items():
        forcing, predictor = codec.encode_forcings(ds), codec.predictor(ds)
        month_days, levels = torch.from_numpy(ds.days.values.astype(np.float32)), codec.level(predictor)
        weights = month_days.unflatten(0, (-1, 12))
        weights = (weights / weights.sum(1, keepdim=True))[None, :, :, None, None]
        for member in ds.member.values:
            months = Departures(ds[list(codec.variables)].sel(member=member), predictor, codec)
            held = months(forcing.first_year, len(forcing.years))
            years = (held.unflatten(1, (-1, 12)) * weights).sum(2)
            access = Held(held, forcing.first_year) if small else months
            runs.append(TrainingRun(scenario, str(member), access, years, forcing, month_days, levels, source))
    return tuple(runs)


@dataclass(frozen=True)
class Departures:
    """Monthly departures of one member, read and encoded when asked for.

    Attributes:
        fields: Canonical monthly Dataset (time, lat, lon), whole years.
        predictor: Annual predictor of the forced response.
        codec: Knows the forced response and the scales.
    """

    fields: xr.Dataset
    predictor: xr.DataArray
    codec: FieldCodec

    def __call__(self, first_year: int, years: int) -> Tensor:
        """(var, month, lat, lon) of ``years`` years."""
        begin = 12 * (first_year - int(self.fields.year.values[0]))
        window = self.fields.isel(time=slice(begin, begin + 12 * years))
        forced = self.codec.forced_in_training(self.predictor, "month", list(range(first_year, first_year + years)))
        return self.codec.encode(window, forced)


@dataclass(frozen=True)
class Held:
    """The same from memory."""

    departures: Tensor
    begins: int

    def __call__(self, first_year: int, years: int) -> Tensor:
        """(var, month, lat, lon) of ``years`` years."""
        begin = 12 * (first_year - self.begins)
        return self.departures[:, begin : begin + 12 * years]


@dataclass(frozen=True)
class Windows:
    """Builds any window of any stage.

    Attributes:
        spec: The pyramid.
        row_weights: Area weight of each full-grid row (lat,).
        marginals: Scale and shape of each stage's departures by stage key.
    """

    spec: PyramidSpec
    row_weights: Tensor
    marginals: Mapping[str, Marginal]

    def build(self, run: TrainingRun, stage: Stage, start: int, steps: int, anchor: int) -> Window:
        """The window of ``steps`` steps from the month at place ``start``; parents' blocks begin at ``anchor``."""
        fields, parent = self.fields(run, stage, start, steps, anchor)
        forcings = run.forcing.window(stage.timescale, start, steps)
        ids = calendar_ids(stage.timescale, start, steps, anchor)
        return Window(fields, parent, forcings, ids, torch.tensor(run.source))

    def fields(self, run: TrainingRun, stage: Stage, start: int, steps: int, anchor: int) -> tuple[Tensor, Tensor]:
        """Normalised fields and their repeated parents, (var, step, lat, lon) each."""
        ratio = stage.factors[0]
        block = ratio * stage.months
        first = anchor + (start - anchor) // block * block
        blocks = -((first - start - steps * stage.months) // block)
        full = run.fields(stage.timescale, first, blocks * ratio)
        own = slice((start - first) // stage.months, (start - first) // stage.months + steps)
        pooled = pool_space(full[:, own], stage.pooling, self.row_weights)
        level = run.step_levels(stage.timescale, start, steps)
        fields = self.marginals[stage.key].normal(pooled, start // stage.months, level)
        if stage.index == 0:
            return fields, torch.zeros_like(fields)
        days = run.step_days(stage.timescale, first, blocks * ratio)
        before = pool_space(pool_time(full, ratio, days), self.spec.pooling[stage.index - 1], self.row_weights)
        key = f"{stage.index - 1}-{stage.parent_timescale}"
        level = run.step_levels(stage.parent_timescale, first, blocks)
        parent = self.marginals[key].normal(before, first // MONTHS_IN[stage.parent_timescale], level)
        return fields, upsample(parent, stage.factors)[:, own]


@dataclass(frozen=True)
class Shape:
    """Steps of a window: halo before, core, halo after."""

    before: int
    core: int
    after: int

    @property
    def steps(self) -> int:
        """All of them."""
        return self.before + self.core + self.after


def draw_shape(stage: Stage, n_years: int, spec: PyramidSpec, rng: np.random.Generator) -> Shape:
    """A window's shape: whole cores (of decades half of the time, otherwise fewer), now and then without one halo.

    Shapes that the record is too short for lose their halos, then part of their core.
    """
    core, halo = spec.core[stage.timescale], spec.halo[stage.timescale]
    if stage.months >= 60 and rng.random() < 0.5:
        core = int(rng.integers(1, core + 1))
    side = rng.random()
    before, after = (0 if side < AT_AN_END / 2 else halo), (0 if side > 1 - AT_AN_END / 2 else halo)
    block = MONTHS_IN[stage.parent_timescale] // stage.months
    available = n_years * 12 // stage.months
    if span_of(Shape(before, core, after), block) > available:
        before = after = 0
    return Shape(before, min(core, available), after)


def span_of(shape: Shape, block: int) -> int:
    """Steps that must be on record: the window's, and all of the blocks of parents that its halos reach into."""
    return sum(-(-n // block) * block for n in (shape.before, shape.core, shape.after))


def noised(
    stage: Stage, built: Sequence[Window], rng: np.random.Generator, clean: int = 0, phase: int = 0, times: str = "uniform"
) -> Batch:  # fmt: skip
    """Windows of one stage as a batch at drawn flow times; the first ``clean`` steps stay clean and are no target."""
    fields, parent, forcings, calendar, source = (torch.stack(part) for part in zip(*built, strict=True))
    generator = torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
    noise = torch.randn(fields[:, :, clean:].shape, generator=generator)
    t = draw_times(len(built), times, generator)
    source = drop_sources(source, generator)
    point = path_point(fields[:, :, clean:], parent[:, :, clean:], noise, t, stage)
    x = torch.cat([fields[:, :, :clean], point.x_t], 2)
    return Batch(stage.key, x, t, point.target, forcings, calendar, source, phase)


def draw_times(n: int, how: str, generator: torch.Generator) -> Tensor:
    """Flow times (n,), ``uniform`` or from the ``middle``: the logistic function of standard normal numbers.

    Neighbours share one, as the prior's matrices are made for each; uniform ones are spread evenly over a batch.
    """
    groups = -(-n // SHARING)
    if how == "middle":
        times = torch.randn(groups, generator=generator).sigmoid()
    else:
        times = (torch.randperm(groups, generator=generator) + torch.rand(groups, generator=generator)) / groups
    return times.repeat_interleave(SHARING)[:n]


class WindowStream(IterableDataset[Batch]):
    """An endless stream of batches; batch i depends on (seed, rank, i) alone, so a resumed stream is the same stream.

    Paths are uniform, and so are stages unless ``shares`` says otherwise; the batch size keeps the number of field tokens about
    constant.

    Args:
        runs: Training runs.
        windows: Builds windows.
        patches: Cells along an edge of a token of each stage.
        tokens_per_step: Field tokens in a batch, about.
        seed: Of everything drawn.
        start_step: First batch.
        rank: Of this process.
        shares: How often each stage is drawn, relative to one another; equally often by default.
        times: How flow times are drawn, see `draw_times`.

    Raises:
        ValueError: If there is not one share a stage.
    """

    def __init__(
        self,
        runs: Sequence[TrainingRun],
        windows: Windows,
        patches: Sequence[int],
        tokens_per_step: int,
        seed: int,
        start_step: int = 0,
        rank: int = 0,
        shares: Sequence[float] = (),
        times: str = "uniform",
    ) -> None:
        super().__init__()
        self.times = times
        n_stages = len(windows.spec.pooling)
        if shares and len(shares) != n_stages:
            raise ValueError(
                f"training.stages {list(shares)}: {len(shares)} shares for {n_stages} stages; give one a stage"
            )
        weights = np.asarray(shares or [1.0] * n_stages)
        self.shares = weights / weights.sum()
        self.runs, self.windows, self.patches = tuple(runs), windows, tuple(patches)
        self.tokens_per_step, self.seed, self.start_step, self.rank = tokens_per_step, seed, start_step, rank

    def __iter__(self) -> Iterator[Batch]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> Batch:
        """Batch number ``step``."""
        rng = np.random.default_rng([self.seed, self.rank, step])
        return self.batch_of(self.draw_stage(rng), rng)

    def draw_stage(self, rng: np.random.Generator) -> Stage:
        """A stage of a path; all paths are equally likely."""
        spec = self.windows.spec
        path = spec.path(spec.timescales[rng.integers(len(spec.timescales))])
        return path[rng.choice(len(path), p=self.shares)]

    def batch_of(self, stage: Stage, rng: np.random.Generator) -> Batch:
        """A batch of one stage."""
        n_years = min(run.years.shape[1] for run in self.runs)
        shape = draw_shape(stage, n_years, self.windows.spec, rng)
        block = MONTHS_IN[stage.parent_timescale] // stage.months
        lead = -(-shape.before // block) * block
        span = -(-span_of(shape, block) * stage.months // 12)
        built = []
        for _ in range(self._batch_size(stage, shape.steps)):
            run = self.runs[rng.integers(len(self.runs))]
            offset = int(rng.integers(run.years.shape[1] - span + 1))  # decades may begin in any year
            core = january(run.first_year + offset) + lead * stage.months
            start = core - shape.before * stage.months
            built.append(self.windows.build(run, stage, start, shape.steps, core))
        return noised(stage, built, rng, phase=(lead - shape.before) % block, times=self.times)

    def _batch_size(self, stage: Stage, length: int) -> int:
        lat, lon = self.runs[0].years.shape[-2:]
        edge = stage.pooling * self.patches[stage.index]
        tokens = length * (lat // edge) * (lon // edge)
        return max(1, min(LARGEST_BATCH[stage.timescale], self.tokens_per_step // tokens))
