"""Training windows: from a store's runs to normalised tensors, the same for the same (seed, step) wherever they are made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import IterableDataset

from spf.codec import FieldCodec
from spf.pyramid.operators import pool_space, pool_time, upsample
from spf.pyramid.path import path_point
from spf.pyramid.spec import STEPS_PER_PARENT, TIMESCALES, PyramidSpec, Stage
from spf.pyramid.windows import YEARS_PER_DECADE, ForcingSeries, calendar_ids

LARGEST_BATCH = {"decade": 8, "year": 16, "month": 16}
"""Windows in a batch at most. Independent decades are few: larger batches made the network memorise them (a held-out training
member's loss at stage 0 rose after four minutes on CESM2)."""
LOADED_BYTES = 4 * 2**30
"""Monthly fields up to this size are read into memory once; larger stores are read window by window."""


@dataclass(frozen=True)
class TrainingRun:
    """One member of one training scenario as departures from the forced response, in scale units.

    Attributes:
        scenario: experiment_id.
        member: Label of the member.
        months: Canonical monthly Dataset (time, lat, lon) of the member, whole years.
        predictor: Annual predictor of the forced response (year).
        years: Yearly departures (var, year, lat, lon).
        forcing: Encoded forcings; its first year is the run's.
        codec: Turns months into departures on demand.
    """

    scenario: str
    member: str
    months: xr.Dataset
    predictor: xr.DataArray
    years: Tensor
    forcing: ForcingSeries
    codec: FieldCodec

    @property
    def first_year(self) -> int:
        """Label of the first year."""
        return self.forcing.first_year

    def fields(self, timescale: str, start: int, length: int) -> Tensor:
        """Full-grid departures (var, step, lat, lon) of ``length`` steps from year label ``start``."""
        i = start - self.first_year
        if timescale == "month":
            window = self.months.isel(time=slice(12 * i, 12 * (i + 1)))
            return self.codec.encode(window, self.codec.forced(self.predictor, "month", [start]))
        if timescale == "year":
            return self.years[:, i : i + length]
        stop = i + YEARS_PER_DECADE * length
        return pool_time(self.years[:, i:stop], YEARS_PER_DECADE, self.forcing.days[i:stop])

    def step_weights(self, timescale: str, start: int) -> Tensor:
        """Lengths in days of the steps that one parent step of this window holds: months of a year, years of a decade."""
        i = start - self.first_year
        if timescale == "month":
            return torch.tensor(self.months.days.values[12 * i : 12 * (i + 1)], dtype=torch.float32)
        return self.forcing.days[i : i + YEARS_PER_DECADE]


class Window(NamedTuple):
    """Clean tensors of one window: fields and repeated parent (var, time, lat, lon), forcings, calendar ids (time,)."""

    fields: Tensor
    parent: Tensor
    forcings: Tensor
    calendar: Tensor


class Batch(NamedTuple):
    """Windows of one stage with noise applied; x_t and target (batch, var, time, lat, lon), t (batch,)."""

    stage: str
    x_t: Tensor
    t: Tensor
    target: Tensor
    forcings: Tensor
    calendar: Tensor


def open_training_runs(scenarios: Mapping[str, xr.Dataset], codec: FieldCodec) -> tuple[TrainingRun, ...]:
    """Every member of every scenario as a training run.

    Args:
        scenarios: Canonical monthly Dataset with members and forcings, by scenario.
        codec: Fitted on these scenarios.
    """
    small = sum(ds[v].nbytes for ds in scenarios.values() for v in codec.variables) <= LOADED_BYTES
    runs = []
    for scenario, ds in scenarios.items():
        forcing, predictor = codec.encode_forcings(ds), codec.predictor(ds)
        days = ds.days.values.reshape(-1, 12).astype(np.float32)
        weights = torch.from_numpy(days / days.sum(1, keepdims=True))[None, :, :, None, None]
        for member in ds.member.values:
            months = ds[list(codec.variables)].sel(member=member).assign_coords(days=ds.days)
            months = months.load() if small else months
            encoded = codec.encode(months, codec.forced(predictor, "month", predictor.year.values.tolist()))
            years = (encoded.unflatten(1, (-1, 12)) * weights).sum(2)
            runs.append(TrainingRun(scenario, str(member), months, predictor, years, forcing, codec))
    return tuple(runs)


@dataclass(frozen=True)
class Windows:
    """Builds any window of any stage.

    Attributes:
        spec: The pyramid.
        row_weights: Area weight of each full-grid row (lat,).
        gains: Standard deviation of each stage's departures by stage key: (var, 1 or 12, lat, lon).
    """

    spec: PyramidSpec
    row_weights: Tensor
    gains: Mapping[str, Tensor]

    def build(self, run: TrainingRun, stage: Stage, start: int, length: int) -> Window:
        """The window of ``length`` steps (decades at stage 0 and on the decade path) from year ``start``."""
        full = run.fields(stage.timescale, start, length)
        fields = pool_space(full, stage.pooling, self.row_weights) / self.gains[stage.key]
        parent = torch.zeros_like(fields)
        if stage.index > 0:
            before = full
            if stage.parent_timescale != stage.timescale:
                ratio = STEPS_PER_PARENT[stage.parent_timescale, stage.timescale]
                before = pool_time(full, ratio, run.step_weights(stage.timescale, start))
            before = pool_space(before, self.spec.pooling[stage.index - 1], self.row_weights)
            key = f"{stage.index - 1}-{stage.parent_timescale}"
            parent = upsample(before / self.gains[key], stage.factors)
        forcings = run.forcing.window(stage.timescale, start, length)
        return Window(fields, parent, forcings, calendar_ids(stage.timescale, full.shape[1]))


def draw_length(stage: Stage, n_years: int, spec: PyramidSpec, rng: np.random.Generator) -> int:
    """Steps of a window: 12 months, 10 years, or some decades; half of the time as many decades as fit."""
    if stage.timescale != "decade":
        return {"month": 12, "year": YEARS_PER_DECADE}[stage.timescale]
    longest = min(spec.decades, n_years // YEARS_PER_DECADE)
    return longest if rng.random() < 0.5 else int(rng.integers(1, longest + 1))


def years_spanned(timescale: str, length: int) -> int:
    """Years under a window of ``length`` steps."""
    return {"month": 1, "year": length, "decade": YEARS_PER_DECADE * length}[timescale]


class WindowStream(IterableDataset[Batch]):
    """An endless stream of batches; batch i depends on (seed, rank, i) alone, so a resumed stream is the same stream.

    Stage and path are uniform; the batch size keeps the number of field tokens about constant.

    Args:
        runs: Training runs.
        windows: Builds windows.
        patch: Cells along an edge of a token.
        tokens_per_step: Field tokens in a batch, about.
        seed: Of everything drawn.
        start_step: First batch.
        rank: Of this process.
    """

    def __init__(
        self,
        runs: Sequence[TrainingRun],
        windows: Windows,
        patch: int,
        tokens_per_step: int,
        seed: int,
        start_step: int = 0,
        rank: int = 0,
    ) -> None:
        super().__init__()
        self.runs, self.windows, self.patch = tuple(runs), windows, patch
        self.tokens_per_step, self.seed, self.start_step, self.rank = tokens_per_step, seed, start_step, rank

    def __iter__(self) -> Iterator[Batch]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> Batch:
        """Batch number ``step``."""
        rng = np.random.default_rng([self.seed, self.rank, step])
        path = self.windows.spec.path(TIMESCALES[rng.integers(len(TIMESCALES))])
        stage = path[rng.integers(len(path))]
        n_years = min(run.years.shape[1] for run in self.runs)
        length = draw_length(stage, n_years, self.windows.spec, rng)
        span = years_spanned(stage.timescale, length)
        built = []
        for _ in range(self._batch_size(stage, length)):
            run = self.runs[rng.integers(len(self.runs))]
            offset = int(rng.integers(run.years.shape[1] - span + 1))  # decades may begin in any year
            built.append(self.windows.build(run, stage, run.first_year + offset, length))
        fields, parent, forcings, calendar = (torch.stack(part) for part in zip(*built, strict=True))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
        noise = torch.randn(fields.shape, generator=generator)
        t = torch.rand(len(built), generator=generator)
        point = path_point(fields, parent, noise, t, stage)
        return Batch(stage.key, point.x_t, t, point.target, forcings, calendar)

    def _batch_size(self, stage: Stage, length: int) -> int:
        lat, lon = self.runs[0].years.shape[-2:]
        tokens = length * (lat // stage.pooling // self.patch) * (lon // stage.pooling // self.patch)
        return max(1, min(LARGEST_BATCH[stage.timescale], self.tokens_per_step // tokens))
