"""What is measured on the training runs before learning: per-cell gains and the couplings between stages."""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from spf.learning.data import TrainingRun, Windows
from spf.pyramid.coupling import Coupling, Series, measure_coupling
from spf.pyramid.operators import pool_space, upsample
from spf.pyramid.spec import MONTHS_IN, PyramidSpec, Stage
from spf.pyramid.windows import YEARS_PER_DECADE, january

PATTERNS = 48
SERIES_YEARS = 40
"""Longest stretch of a run that is held at once when months are measured; longer runs are measured in several."""
TAPER = {"decade": 1.5, "lustrum": 3.0, "year": 16.0, "quarter": 24.0, "month": 24.0}
"""Steps over which measured autocovariances fade: a record holds few independent decades."""


def measure_gains(
    runs: Sequence[TrainingRun], spec: PyramidSpec, row_weights: Tensor, progress: bool = False
) -> dict[str, Tensor]:
    """Standard deviation of every stage's departures by stage key, per variable, cell and season.

    There are few decades, so away from the coarsest grid a decade's deviation is the year's times a ratio measured over the
    coarsest cells.

    Returns:
        (var, season, lat, lon): 12 seasons for months, 4 for quarters, otherwise 1.
    """
    gains = {}
    for key, stage in tqdm(spec.stages().items(), desc="measuring variances", disable=not progress):
        if stage.months < 12:
            gains[key] = _season_deviation(runs, stage, row_weights)
            continue
        years = [pool_space(run.years, stage.pooling, row_weights) for run in runs]
        yearly = _deviation(torch.cat(years, 1))
        if stage.months == 12:
            gains[key] = yearly
            continue
        means = torch.cat([_running_means(y, stage.months // 12) for y in years], 1)
        coarse = spec.pooling[0] // stage.pooling
        rows = torch.ones(yearly.shape[-2])
        ratio = (
            pool_space(_deviation(means).square(), coarse, rows) / pool_space(yearly.square(), coarse, rows)
        ).sqrt()
        gains[key] = yearly * upsample(ratio, (1, coarse, coarse))
    return gains


def _running_means(years: Tensor, length: int) -> Tensor:
    """Running means of (var, year, lat, lon) over ``length`` years: decades of every phase."""
    total = torch.cat([torch.zeros_like(years[:, :1]), years.double().cumsum(1).to(years)], 1)
    return (total[:, length:] - total[:, :-length]) / length


def _deviation(x: Tensor) -> Tensor:
    """Root mean square over steps of (var, step, lat, lon), never zero: (var, 1, lat, lon)."""
    return x.square().mean(1, keepdim=True).sqrt().clamp_min(1e-4)


def _season_deviation(runs: Sequence[TrainingRun], stage: Stage, row_weights: Tensor) -> Tensor:
    total, count, seasons = torch.zeros(()), 0, 12 // stage.months
    for run in runs:
        for year in range(run.first_year, run.first_year + run.years.shape[1]):
            fields = run.fields(stage.timescale, january(year), seasons)
            total = total + pool_space(fields, stage.pooling, row_weights).square()
            count += 1
    return (total / count).sqrt().clamp_min(1e-4)


def measure_couplings(runs: Sequence[TrainingRun], windows: Windows, progress: bool = False) -> dict[str, Coupling]:
    """How each stage hangs on its parent, which patterns it has and how they persist, from the whole runs."""
    couplings, spec = {}, windows.spec
    n_years = sum(run.years.shape[1] for run in runs)
    for key, stage in tqdm(spec.stages().items(), desc="measuring patterns", disable=not progress):
        series = [s for run in runs for s in _series(run, windows, stage)]
        block = MONTHS_IN[stage.parent_timescale] // stage.months
        lags = spec.core[stage.timescale] + 2 * spec.halo[stage.timescale] + 2 * block
        independent = n_years // max(1, stage.months // 12)
        taper = TAPER[stage.timescale]
        couplings[key] = measure_coupling(series, stage, min(PATTERNS, independent // 4), lags, taper)
    return couplings


def _series(run: TrainingRun, windows: Windows, stage: Stage) -> list[Series]:
    """The run at a stage: for decades of every second phase, otherwise stretch by stretch."""
    n_years, first = run.years.shape[1], run.first_year
    if stage.months >= 120:
        starts = [(first + phase, (n_years - phase) // YEARS_PER_DECADE) for phase in range(0, YEARS_PER_DECADE, 2)]
        stretches = [(january(y), n * YEARS_PER_DECADE) for y, n in starts if n > 0]
    else:
        whole = n_years // YEARS_PER_DECADE * YEARS_PER_DECADE
        step = whole if stage.months >= 12 else min(whole, SERIES_YEARS)
        stretches = [(january(first + i), min(step, whole - i)) for i in range(0, whole, step)]
    out = []
    for start, years in stretches:
        steps = 12 * years // stage.months
        fields, parent = windows.fields(run, stage, start, steps, start)
        block = MONTHS_IN[stage.parent_timescale] // stage.months
        out.append(Series(fields, parent, torch.arange(steps) % block))
    return out
